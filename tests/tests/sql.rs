//! The real program against real SQL servers: `kill -9` of s3rep at every place between rows and cursor, `kill -9` of
//! the server, and a way there that breaks, while another process writes. At the end the rows are those of the
//! source, and an append table has each change once.
//!
//! `S3REP_KILLS` sets the number of kills, `S3REP_SEED` the seed, which is printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and prints")]

use std::{
    env,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Trial};
use mysql_async::prelude::Queryable;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use s3rep_testkit::{
    disk::SmallDisk,
    proxy::{Fault, Proxy},
    server::{Missing, SqlServer, mariadb, postgres, sqld},
};
use s3rep_tests::{
    Place,
    captured::{assert_once, ended, items, logged, stop_writer, writer},
};
use tokio::runtime::Runtime;

/// A kind of server, and how a test sees what is in it.
struct Kind {
    driver: &'static str,
    server: Arc<SqlServer>,
    /// Places in the driver between the rows and the end of the transaction.
    places: &'static [&'static str],
    /// The driver's options for a database, by the address of the server.
    options: fn(&SqlServer, address: &str, database: &str) -> String,
    create: fn(Arc<SqlServer>, String) -> BoxFuture<'static, ()>,
    /// The first column of a query's rows.
    query: fn(Arc<SqlServer>, String, &'static str) -> BoxFuture<'static, Vec<String>>,
}

fn postgres(server: Arc<SqlServer>) -> Kind {
    Kind {
        driver: "postgres",
        server,
        places: &["postgres.rows", "postgres.commit", "postgres.committed"],
        options: |server, address, database| {
            let url = server.url(database).replace(server.address(), address);
            format!("connectionString: '{url}', ssl: false")
        },
        create: |server, database| {
            Box::pin(async move {
                let client = client(&server.url("postgres")).await;
                client.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
            })
        },
        query: |server, database, sql| {
            Box::pin(async move {
                let rows = client(&server.url(&database)).await.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            })
        },
    }
}

async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn mariadb(server: Arc<SqlServer>) -> Kind {
    Kind {
        driver: "mariadb",
        server,
        places: &["mysql.rows", "mysql.commit", "mysql.committed"],
        options: |server, address, database| {
            let url = server.url(database).replace(server.address(), address);
            format!("connectionString: '{url}'")
        },
        create: |server, database| {
            Box::pin(async move {
                let mut client = mysql(&server.url("mysql")).await;
                client.query_drop(format!("CREATE DATABASE {database}")).await.unwrap();
            })
        },
        query: |server, database, sql| {
            Box::pin(async move { mysql(&server.url(&database)).await.query(sql).await.unwrap() })
        },
    }
}

async fn mysql(url: &str) -> mysql_async::Conn {
    mysql_async::Conn::new(mysql_async::Opts::from_url(url).unwrap()).await.unwrap()
}

/// It has one database, whatever the name: what the case before left there goes.
fn libsql(server: Arc<SqlServer>) -> Kind {
    Kind {
        driver: "libsql",
        server,
        places: &["libsql.rows", "libsql.commit", "libsql.committed"],
        options: |_, address, _| format!("url: 'http://{address}'"),
        create: |server, _| {
            Box::pin(async move {
                for table in ["items", "items_log", "_s3rep_cursor"] {
                    sqld::execute(server.address(), &format!("DROP TABLE IF EXISTS {table}")).await;
                }
            })
        },
        query: |server, _, sql| {
            Box::pin(async move {
                let rows = sqld::execute(server.address(), sql).await;
                rows.iter().map(|row| row[0]["value"].as_str().unwrap().to_owned()).collect()
            })
        },
    }
}

fn config(kind: &Kind, address: &str, database: &str) -> String {
    let options = (kind.options)(&kind.server, address, database);
    format!(
        "source: {{ url: 'file://./database', interval: 20ms }}
state: ./state
replicators:
  - driver: {}
    resources: {{ items: [items, {{ resource: items_log, mode: append }}] }}
    config: {{ {options}, schemaSync: {{ enabled: true }} }}
",
        kind.driver
    )
}

fn seed() -> u64 {
    let seed = env::var("S3REP_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("S3REP_SEED={seed}");
    seed
}

fn kills() -> usize {
    env::var("S3REP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// A database of its own for one case, with the writer that fills the source.
struct Scene {
    kind: Arc<Kind>,
    database: String,
    place: Place,
    proxy: Proxy,
    random: StdRng,
    writer: std::process::Child,
}

impl Scene {
    async fn new(kind: Arc<Kind>, case: &str) -> Self {
        let database = format!("s3rep_{case}_{}", std::process::id());
        (kind.create)(kind.server.clone(), database.clone()).await;
        let proxy = Proxy::start(kind.server.address()).await.unwrap();
        let place = items(&config(&kind, &proxy.address().to_string(), &database)).await;
        let seed = seed();
        let writer = writer(env!("CARGO_BIN_EXE_writer"), &place, seed);
        Self { kind, database, place, proxy, random: StdRng::seed_from_u64(seed), writer }
    }

    /// Everything has to be there, once.
    async fn check(self) {
        stop_writer(self.writer);
        self.place.run(&["run", "--once"]).expect(0);
        let ids =
            (self.kind.query)(self.kind.server.clone(), self.database, "SELECT _change_id FROM items_log");
        let (ids, logged) = (ids.await, logged(&self.place).await);
        assert_once("items_log", &ids, &logged);
        assert!(logged.len() > 10, "{} changes are too few to tell", logged.len());
        self.place.run(&["verify"]).expect(0);
        println!("{} changes captured, each once in the append table", logged.len());
    }
}

async fn kill_s3rep(kind: Arc<Kind>) {
    let mut scene = Scene::new(kind.clone(), "killed").await;
    for i in 0..kills() {
        let places = [kind.places, &["engine.applied"]].concat();
        let failpoint = format!("{}={}", places[i % places.len()], scene.random.random_range(1..6));
        let mut run = scene.place.start_with(&["run"], &[("S3REP_FAILPOINTS", &failpoint)]);
        let status = ended(&mut run).await;
        assert_eq!(status.code(), None, "{failpoint} ended in another way:\n{}", scene.place.log());
    }
    scene.check().await;
}

async fn kill_server(kind: Arc<Kind>) {
    let mut scene = Scene::new(kind.clone(), "server").await;
    let mut run = scene.place.start(&["run"]);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(scene.random.random_range(300..1_200))).await;
        kind.server.kill().unwrap();
        kind.server.restart().await.unwrap();
    }
    assert!(run.try_wait().unwrap().is_none(), "it ended by itself:\n{}", scene.place.log());
    run.kill().unwrap();
    run.wait().unwrap();
    scene.check().await;
}

async fn break_the_way(kind: Arc<Kind>) {
    let mut scene = Scene::new(kind, "cut").await;
    let mut run = scene.place.start(&["run"]);
    for round in 0..12 {
        tokio::time::sleep(Duration::from_millis(scene.random.random_range(50..300))).await;
        let after = scene.random.random_range(0..4_000);
        let fault = match round % 4 {
            0 => Fault::CutRequest(after),
            1 => Fault::CutAnswer(after),
            2 => Fault::Refuse,
            _ => Fault::Delay(Duration::from_millis(5)),
        };
        scene.proxy.fault_times(fault, 3);
    }
    scene.proxy.fault(Fault::None);
    assert!(run.try_wait().unwrap().is_none(), "it ended by itself:\n{}", scene.place.log());
    run.kill().unwrap();
    run.wait().unwrap();
    scene.check().await;
}

/// How long the changes of the writer may fit into what the server has set aside on its disk.
const NOTICED: Duration = Duration::from_secs(60);

/// How often s3rep said that something keeps it from going on.
fn troubles(place: &Place) -> usize {
    place.log().matches("plg:replicator:error").count()
}

/// The server's own disk is full for a while, and the operator has to start it again if it ended.
async fn fill_the_disk(kind: Arc<Kind>, disk: SmallDisk) {
    let mut scene = Scene::new(kind.clone(), "full").await;
    let mut run = scene.place.start(&["run"]);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(scene.random.random_range(300..900))).await;
        let before = troubles(&scene.place);
        disk.fill(0);
        let since = Instant::now();
        while troubles(&scene.place) == before {
            assert!(since.elapsed() < NOTICED, "nothing fails on a full disk:\n{}", scene.place.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        disk.free();
        kind.server.restart().await.unwrap();
    }
    assert!(run.try_wait().unwrap().is_none(), "it ended by itself:\n{}", scene.place.log());
    run.kill().unwrap();
    run.wait().unwrap();
    scene.check().await;
}

/// The configuration in `examples/` does what it says, with the real database.
async fn the_example_runs(kind: Arc<Kind>) {
    let database = format!("s3rep_example_{}", std::process::id());
    (kind.create)(kind.server.clone(), database.clone()).await;
    let place = Place::with_open_data();
    place.write("postgres.yaml", include_str!("../../examples/postgres.yaml"));
    let run = |command: &[&str]| {
        let command = [command, &["-c", "postgres.yaml"]].concat();
        let mut command = place.command(&command);
        command.env("SOURCE_URL", "file://./bucket/databases/open-data");
        let output = command.env("POSTGRES_URL", kind.server.url(&database)).output().unwrap();
        s3rep_tests::Ran::from(output).expect(0)
    };
    let plan = run(&["plan"]).stdout;
    assert!(plan.contains("CREATE TABLE IF NOT EXISTS \"cars\""), "{plan}");
    run(&["apply"]);
    run(&["check"]);
    run(&["run", "--once"]);
    run(&["verify"]);
    assert_eq!(run(&["plan"]).stdout.trim(), "", "the tables are as they should be");
    let count = "SELECT count(*)::text FROM cars UNION ALL SELECT count(*)::text FROM weather_history";
    let counts = (kind.query)(kind.server.clone(), database, count).await;
    assert_eq!(counts[0], "406", "{counts:?}");
}

type Case = fn(Arc<Kind>) -> BoxFuture<'static, ()>;

const CASES: [(&str, Case); 3] = [
    ("s3rep is killed between rows and cursor", |kind| Box::pin(kill_s3rep(kind))),
    ("the way to the server breaks", |kind| Box::pin(break_the_way(kind))),
    (KILL_SERVER, |kind| Box::pin(kill_server(kind))),
];
const KILL_SERVER: &str = "the server is killed and started again";

/// How to start a server in a directory, and what it is then.
type Start = fn(PathBuf) -> BoxFuture<'static, Result<Kind, Missing>>;

/// Enough for an empty database and its journal.
const DISK: u32 = 300;

fn trials(runtime: &Arc<Runtime>, name: &str, kind: Result<Kind, Missing>, start: Start) -> Vec<Trial> {
    let kind = match kind {
        Ok(kind) => Arc::new(kind),
        Err(missing) => return vec![missing.trial(name)],
    };
    let trial = |title: &str, case: Case| {
        let (kind, runtime) = (kind.clone(), runtime.clone());
        // Nobody may kill a server of the user's own.
        let is_ignored = title == KILL_SERVER && !kind.server.is_private();
        let run = move || {
            runtime.block_on(case(kind));
            Ok(())
        };
        Trial::test(format!("{name}/{title}"), run).with_ignored_flag(is_ignored)
    };
    let mut trials: Vec<_> = CASES.iter().map(|&(title, case)| trial(title, case)).collect();
    if name == "postgres" {
        trials.push(trial("the example runs", |kind| Box::pin(the_example_runs(kind))));
    }
    trials.push(full_disk(runtime, name, start));
    trials
}

fn full_disk(runtime: &Arc<Runtime>, name: &str, start: Start) -> Trial {
    let title = format!("{name}/the server's disk is full for a while");
    let disk = match SmallDisk::new(DISK) {
        Ok(disk) => disk,
        Err(missing) => return missing.trial(&title),
    };
    let runtime = runtime.clone();
    let run = move || {
        runtime.block_on(async {
            let kind = start(disk.path().to_owned()).await.map_err(|missing| missing.to_string())?;
            fill_the_disk(Arc::new(kind), disk).await;
            Ok(())
        })
    };
    Trial::test(title, run)
}

fn main() {
    let mut arguments = Arguments::from_args();
    // One after the other: one of them kills the server that the others use.
    arguments.test_threads = Some(1);
    let runtime = Arc::new(Runtime::new().unwrap());
    if arguments.list {
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    let (of_postgres, of_mariadb, of_sqld) = runtime
        .block_on(async { tokio::join!(postgres::start_durable(), mariadb::start_durable(), sqld::start()) });
    let all = [
        trials(&runtime, "postgres", of_postgres.map(Arc::new).map(postgres), |at| {
            Box::pin(async move { postgres::start_in(&at).await.map(Arc::new).map(postgres) })
        }),
        trials(&runtime, "mariadb", of_mariadb.map(Arc::new).map(mariadb), |at| {
            Box::pin(async move { mariadb::start_in(&at).await.map(Arc::new).map(mariadb) })
        }),
        trials(&runtime, "libsql", of_sqld.map(Arc::new).map(libsql), |at| {
            Box::pin(async move { sqld::start_in(&at).await.map(Arc::new).map(libsql) })
        }),
    ];
    let conclusion = libtest_mimic::run(&arguments, all.into_iter().flatten().collect());
    drop(runtime);
    conclusion.exit();
}
