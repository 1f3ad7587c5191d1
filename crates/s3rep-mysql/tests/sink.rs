//! What the conformance suite cannot know: MySQL's tables, types, rights and errors.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Databases, Place, sink};
use libtest_mimic::{Arguments, Trial};
use mysql_async::prelude::Queryable;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use s3rep_core::{
    Batch, ChangeId, Context, CursorMove, Error, ErrorKind, Failpoints, Operation, Outcome, Partition,
    Progress, Record, ResourceSchema, RouteMode, RowChange, Scope, Seq, Sink, Table, Timestamp,
};
use s3rep_testkit::{
    context,
    proxy::Fault,
    server::{SqlServer, mariadb},
};
use serde_json::{Value, json};

struct Bench {
    place: Place,
    sink: Arc<dyn Sink>,
    cx: Context,
}

impl Bench {
    async fn new(databases: &Arc<Databases>, options: Value) -> Self {
        let place = databases.fresh().await;
        let sink = place.sink(options);
        Self { place, sink, cx: context::test() }
    }

    async fn synced(databases: &Arc<Databases>) -> Self {
        Self::new(databases, json!({})).await
    }

    async fn by_hand(databases: &Arc<Databases>, sql: &str) -> Self {
        let bench = Self::new(databases, json!({"schemaSync": {}})).await;
        bench.run(sql).await;
        bench
    }

    async fn run(&self, sql: &str) {
        self.place.run(sql).await;
    }

    async fn count(&self, table: &str) -> u64 {
        self.place.number(&format!("SELECT COUNT(*) FROM {table}")).await
    }

    async fn sync(&self, table: &Table) -> Result<(), Error> {
        let sync = self.sink.schema_sync().unwrap();
        let have = sync.inspect(&self.cx, table).await?;
        sync.execute(&self.cx, &sync.plan(table, have.as_ref())?).await
    }

    async fn apply(&self, table: &Arc<Table>, changes: Vec<RowChange>) -> Result<Outcome, Error> {
        self.sink.apply(&self.cx, &batch(table, changes)).await
    }

    /// A batch that has to be taken whole.
    async fn write(&self, table: &Arc<Table>, changes: Vec<RowChange>) {
        let rejected = self.apply(table, changes).await.unwrap().rejected;
        assert!(rejected.is_empty(), "{rejected:?}");
    }

    /// One record that has to be refused, its neighbours written when they come again.
    async fn refuses(&self, table: &Arc<Table>, seq: u64, bad: Value) -> Error {
        let key = |name: &str| format!("{name}-{seq:03}");
        let good = |seq, key: String| insert(seq, &key, json!({ "name": key }));
        let changes =
            vec![good(seq, key("before")), insert(seq + 1, &key("bad"), bad), good(seq + 2, key("past"))];
        let before = self.count(&format!("`{}`", table.name)).await;
        let mut rejected = self.apply(table, changes.clone()).await.unwrap().rejected;
        assert_eq!(rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), [1], "{rejected:?}");
        assert_eq!(self.count(&format!("`{}`", table.name)).await, before, "nothing of it is written");
        self.write(table, vec![changes[0].clone(), changes[2].clone()]).await;
        let error = rejected.swap_remove(0).error;
        assert_eq!((error.scope(), error.is_temporary()), (Scope::Record, false), "{error:?}");
        assert!(!format!("{error:?} {:?}", error.advice()).contains("s3cr3t"), "{error:?}");
        error
    }

    async fn rows(&self, table: &Table) -> Vec<(String, Record)> {
        self.sink.readback().unwrap().rows(&self.cx, table, None, 100_000).await.unwrap()
    }

    /// The same with another user.
    fn as_user(&self, user: &str) -> Arc<dyn Sink> {
        let mut options = self.place.options();
        options["user"] = user.into();
        options["password"] = "p@ss/w'rd".into();
        sink(options)
    }

    /// Makes a user of this database's own, and returns its name.
    async fn user(&self, grants: &str) -> String {
        let name = format!("u{}", &self.place.database[self.place.database.len() - 8..]);
        self.run(&format!("CREATE USER {name}@'%' IDENTIFIED BY 'p@ss/w\\'rd'")).await;
        if !grants.is_empty() {
            self.run(&format!("GRANT {grants} ON {}.* TO {name}@'%'", self.place.database)).await;
        }
        name
    }
}

fn table_named(name: &str, mode: RouteMode, attributes: Value) -> Arc<Table> {
    let schema = ResourceSchema::parse("cars", "v1", attributes.as_object().unwrap()).unwrap();
    Arc::new(Table { name: name.into(), mode, schema: Arc::new(schema) })
}

fn table(mode: RouteMode, attributes: Value) -> Arc<Table> {
    table_named("cars", mode, attributes)
}

fn cars() -> Arc<Table> {
    table(RouteMode::Upsert, json!({"name": "string|required", "price": "number", "doors": "number|integer"}))
}

fn names(mode: RouteMode) -> Arc<Table> {
    table(mode, json!({"name": "string"}))
}

fn change(seq: u64, key: &str, operation: Operation, record: Option<Value>) -> RowChange {
    RowChange {
        key: key.into(),
        operation,
        record: record.map(|record| Arc::new(record.as_object().unwrap().clone())),
        change_id: ChangeId::derive("cars", key, operation, &seq.to_le_bytes(), None),
        timestamp: Timestamp(1_700_000_000_000 + i64::try_from(seq).unwrap()),
        seq: Seq(seq),
        partition: Partition(0),
    }
}

fn insert(seq: u64, key: &str, record: Value) -> RowChange {
    change(seq, key, Operation::Insert, Some(record))
}

fn delete(seq: u64, key: &str) -> RowChange {
    change(seq, key, Operation::Delete, None)
}

fn batch(table: &Arc<Table>, changes: Vec<RowChange>) -> Batch {
    let last = changes.last().map_or(Seq(0), |change| change.seq);
    let cursors = vec![CursorMove { table: table.name.clone(), partition: Partition(0), seq: last }];
    Batch { table: table.clone(), changes, progress: progress(cursors) }
}

fn progress(cursors: Vec<CursorMove>) -> Progress {
    Progress { replicator: "r".into(), log: "log".into(), fence: 1, cursors }
}

fn object(value: Value) -> Record {
    value.as_object().unwrap().clone()
}

/// An error that tells an operator where it happened and what to do.
#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind, is_temporary: bool, scope: Scope) {
    assert_eq!((error.kind(), error.is_temporary(), error.scope()), (kind, is_temporary, scope), "{error:?}");
    assert!(error.advice().is_some(), "no advice: {error:?}");
}

async fn check_says_what_would_fail(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    bench.sink.check(&bench.cx).await.unwrap();
    assert!(bench.place.rows("SHOW TABLES").await.is_empty(), "check writes nothing");

    let with = |name: &str, value: Value| {
        let mut options = bench.place.options();
        options[name] = value;
        sink(options)
    };
    let unreachable = with("port", json!(1));
    let no_database = with("database", json!("no_such_database"));
    let no_user = with("user", json!("no such user"));
    let no_tls = with("ssl", json!(true));
    let no_host = with("host", json!("no-such-host.invalid"));
    bench.place.proxy.fault(Fault::BlackHole);
    let error = with("connectTimeout", json!(300)).check(&bench.cx).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, true, Scope::Sink);
    bench.place.proxy.fault(Fault::None);
    use ErrorKind::{ConfigInvalid, NotFound, Unauthenticated, Unavailable};
    for (sink, kind, is_temporary) in [
        (unreachable, Unavailable, true),
        (no_host, Unavailable, true),
        (no_database, NotFound, false),
        (no_user, Unauthenticated, false),
        (no_tls, ConfigInvalid, false),
    ] {
        let error = sink.check(&bench.cx).await.unwrap_err();
        assert_error(&error, kind, is_temporary, Scope::Sink);
        assert!(error.to_string().contains("server: 127.0.0.1:") || kind == Unavailable, "{error}");
        let applied = sink.apply(&bench.cx, &batch(&cars(), vec![])).await.unwrap_err();
        assert_eq!((applied.kind(), applied.scope()), (kind, Scope::Sink));
    }
}

async fn check_proves_rights_without_writing(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let user = bench.user("SELECT").await;
    let mut options = bench.place.options();
    options["user"] = user.as_str().into();
    options["password"] = "wrong hunter2".into();
    let error = sink(options).check(&bench.cx).await.unwrap_err();
    assert_error(&error, ErrorKind::Unauthenticated, false, Scope::Sink);
    assert!(!format!("{error:?}").contains("hunter2"));

    let error = bench.as_user(&user).check(&bench.cx).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, false, Scope::Sink);
    assert!(
        error.advice().unwrap().contains("GRANT") && error.to_string().contains("_s3rep_cursor"),
        "{error}"
    );
    assert!(bench.place.rows("SHOW TABLES").await.is_empty());
    // Somebody else makes the table: no right to make tables is needed then.
    bench.sink.advance(&bench.cx, &progress(vec![])).await.unwrap();
    let error = bench.as_user(&user).check(&bench.cx).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, false, Scope::Sink);
    bench.run(&format!("GRANT INSERT, UPDATE, DELETE ON {}.* TO {user}@'%'", bench.place.database)).await;
    bench.as_user(&user).check(&bench.cx).await.unwrap();
    bench.sync(&cars()).await.unwrap();
    let restricted = bench.as_user(&user);
    let changes = vec![insert(1, "a", json!({"name": "x"})), delete(2, "b")];
    assert!(restricted.apply(&bench.cx, &batch(&cars(), changes)).await.unwrap().rejected.is_empty());

    bench.run(&format!("REVOKE INSERT ON {}.* FROM {user}@'%'", bench.place.database)).await;
    // The server looks at rights to a database when a connection is made.
    restricted.close(&bench.cx).await.unwrap();
    let changes = vec![insert(3, "c", json!({"name": "s3cr3t"}))];
    let error = restricted.apply(&bench.cx, &batch(&cars(), changes)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::PermissionDenied, false), "{error:?}");
    assert!(error.scope() >= Scope::Table && error.advice().is_some() && !error.report().contains("s3cr3t"));
    assert_eq!(bench.count("cars").await, 1);
}

async fn refused_records_are_all_listed_and_nothing_is_written(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    bench.sync(&cars()).await.unwrap();
    bench.run("ALTER TABLE cars ADD UNIQUE one_name (name(100))").await;
    bench.write(&cars(), vec![insert(1, "z", json!({"name": "taken s3cr3t"}))]).await;
    let changes = vec![
        insert(2, "good", json!({"name": "s3cr3t-1"})),
        insert(3, "no name", json!({"price": 1})),
        insert(4, "big", json!({"name": "s3cr3t-2", "price": 9_007_199_254_740_993_i64})),
        insert(5, "bigger", json!({"name": "s3cr3t-3", "doors": u64::MAX})),
        insert(6, "same name", json!({"name": "taken s3cr3t"})),
        insert(7, "text", json!({"name": "s3cr3t-4", "price": "s3cr3t"})),
        change(8, "no record", Operation::Update, None),
        insert(9, "a", json!({"name": "s3cr3t-5", "doors": i64::MAX})),
        insert(10, &"k".repeat(256), json!({"name": "long key"})),
    ];
    let outcome = bench.apply(&cars(), changes.clone()).await.unwrap();
    let listed: Vec<_> = outcome.rejected.iter().map(|r| (r.index, r.error.kind())).collect();
    use ErrorKind::{Conflict, InvalidValue as Invalid};
    let expected =
        [(1, Invalid), (2, Invalid), (3, Invalid), (4, Conflict), (5, Invalid), (6, Invalid), (8, Invalid)];
    assert_eq!(listed, expected);
    for rejected in &outcome.rejected {
        assert_eq!(rejected.error.scope(), Scope::Record);
        let text = format!("{:?}", rejected.error);
        assert!(!text.contains("s3cr3t") && text.contains("table: cars") && text.contains("key: "), "{text}");
    }
    assert_eq!(bench.count("cars").await, 1);
    assert_eq!(bench.sink.cursors(&bench.cx, "r").await.unwrap().unwrap().cursors[0].seq, Seq(1));
    bench.write(&cars(), vec![changes[0].clone(), changes[7].clone()]).await;
    assert_eq!(bench.count("cars").await, 3);
    assert_eq!(bench.rows(&cars()).await[0].1["doors"], json!(i64::MAX));
}

async fn guilty_records_are_found_among_thousands(databases: Arc<Databases>) {
    let bench = Bench::by_hand(
        &databases,
        "CREATE TABLE cars (id VARCHAR(40) COLLATE utf8mb4_bin PRIMARY KEY, name VARCHAR(40) UNIQUE, \
         CONSTRAINT not_long CHECK (CHAR_LENGTH(name) < 30))",
    )
    .await;
    let table = names(RouteMode::Upsert);
    bench.write(&table, vec![insert(1, "owner", json!({"name": "taken"}))]).await;
    let guilty = [0, 1, 511, 512, 513, 1999, 2500];
    let record = |i: usize| match guilty.iter().position(|guilty| *guilty == i) {
        Some(place) if place % 2 == 0 => json!({"name": "taken"}),
        Some(_) => json!({"name": "x".repeat(35)}),
        None => json!({"name": format!("name {i}")}),
    };
    let changes: Vec<_> = (0..2501).map(|i| insert(i as u64 + 2, &format!("k{i:05}"), record(i))).collect();
    let rejected = bench.apply(&table, changes.clone()).await.unwrap().rejected;
    assert_eq!(rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), guilty);
    assert!(rejected.iter().all(|rejected| rejected.error.kind() == ErrorKind::Conflict));
    assert!(rejected[1].error.to_string().contains("constraint: "), "{:?}", rejected[1]);
    assert_eq!(bench.count("cars").await, 1);
    let rest: Vec<_> = changes
        .into_iter()
        .enumerate()
        .filter(|(i, _)| !guilty.contains(i))
        .map(|(_, change)| change)
        .collect();
    bench.write(&table, rest).await;
    let owner = bench.place.number("SELECT COUNT(*) FROM cars WHERE id = 'owner' AND name = 'taken'").await;
    assert_eq!((bench.count("cars").await, owner), (2501 - 7 + 1, 1));
}

async fn another_row_is_never_changed(databases: Arc<Databases>) {
    // Index first or last, the key as primary key or beside one.
    for sql in [
        "CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, name VARCHAR(40) UNIQUE)",
        "CREATE TABLE cars (serial INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) UNIQUE, id VARCHAR(40) NOT NULL UNIQUE)",
        "CREATE TABLE cars (name VARCHAR(40) PRIMARY KEY, id VARCHAR(40) NOT NULL UNIQUE)",
    ] {
        let bench = Bench::by_hand(&databases, sql).await;
        let table = table(RouteMode::Upsert, json!({"name": "string|required"}));
        let both = vec![insert(1, "a", json!({"name": "one"})), insert(2, "b", json!({"name": "two"}))];
        bench.write(&table, both).await;
        let rows = bench.rows(&table).await;
        let error = bench.refuses(&table, 3, json!({"name": "two"})).await;
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        let update = vec![change(9, "a", Operation::Update, Some(json!({"name": "two"})))];
        assert_eq!(bench.apply(&table, update).await.unwrap().rejected.len(), 1);
        let now = bench.rows(&table).await;
        assert_eq!(now.iter().filter(|row| rows.contains(row)).count(), 2, "{sql}: {now:?}");
        // A value that a delete of the same batch gives free can be taken.
        let moved = vec![delete(20, "b"), insert(21, "c", json!({"name": "two"}))];
        bench.write(&table, moved).await;
    }
}
async fn alike_keys_of_a_hand_made_table_are_refused(databases: Arc<Databases>) {
    let bench = Bench::by_hand(
        &databases,
        "CREATE TABLE cars (id VARCHAR(40) COLLATE utf8mb4_unicode_ci PRIMARY KEY, name VARCHAR(40))",
    )
    .await;
    let table = names(RouteMode::Upsert);
    bench.write(&table, vec![insert(1, "Ada", json!({"name": "first"}))]).await;
    for (seq, alike) in [(10, "ada"), (20, "ADA"), (30, "Ada "), (40, "Adá")] {
        let changes = vec![
            insert(seq, &format!("x{seq}"), json!({"name": "x"})),
            insert(seq + 1, alike, json!({"name": "s3cr3t"})),
        ];
        let rejected = bench.apply(&table, changes.clone()).await.unwrap().rejected;
        assert_eq!((rejected.len(), rejected[0].index), (1, 1), "{alike:?}");
        assert_eq!(
            (rejected[0].error.kind(), rejected[0].error.scope()),
            (ErrorKind::Conflict, Scope::Record)
        );
        bench.write(&table, vec![changes[0].clone()]).await;
        // A delete meets its own row only.
        bench.write(&table, vec![delete(seq + 2, alike)]).await;
    }
    let first = bench.place.number("SELECT COUNT(*) FROM cars WHERE id = 'Ada' AND name = 'first'").await;
    assert_eq!((bench.count("cars").await, first), (5, 1));
    let keys: Vec<_> = bench.rows(&table).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["Ada", "x10", "x20", "x30", "x40"]);
    bench.write(&table, vec![change(50, "Ada", Operation::Update, Some(json!({"name": "second"})))]).await;
    bench.write(&table, vec![delete(51, "Ada")]).await;
    assert_eq!(bench.count("cars").await, 4);
}

async fn alike_keys_of_its_own_tables_are_rows_of_their_own(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let table = names(RouteMode::Upsert);
    bench.sync(&table).await.unwrap();
    let keys = ["a", "A", "a ", "a  ", "á", "a\u{301}", "ß", "ss", "\u{10ffff}", "a\0", "a\t"];
    let changes = keys.iter().zip(1..).map(|(key, seq)| insert(seq, key, json!({"name": key}))).collect();
    bench.write(&table, changes).await;
    assert_eq!(bench.count("cars").await, keys.len() as u64);
    bench.write(&table, vec![delete(50, "a "), delete(51, "SS")]).await;
    let mut left: Vec<_> = keys.iter().copied().filter(|key| *key != "a ").collect();
    left.sort_unstable();
    assert_eq!(bench.rows(&table).await.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), left);
}

async fn tables_that_could_lose_rows_are_refused(databases: Arc<Databases>) {
    for (sql, said) in [
        ("CREATE TABLE cars (id VARCHAR(40) NOT NULL, name TEXT)", "no unique index"),
        ("CREATE TABLE cars (id VARCHAR(40) NOT NULL, name TEXT, KEY (id))", "no unique index"),
        (
            "CREATE TABLE cars (id VARCHAR(40) NOT NULL, name VARCHAR(40), PRIMARY KEY (id, name))",
            "no unique index",
        ),
        ("CREATE TABLE cars (id VARCHAR(40) NOT NULL, name TEXT, UNIQUE (id(10)))", "no unique index"),
        ("CREATE TABLE cars (id VARCHAR(40) UNIQUE, name TEXT)", "accepts null"),
        ("CREATE TABLE cars (id INT PRIMARY KEY, name TEXT)", "'id'"),
        ("CREATE TABLE cars (id VARCHAR(40) CHARACTER SET latin1 PRIMARY KEY, name TEXT)", "character set"),
        ("CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, name TEXT) ENGINE=MyISAM", "no transactions"),
        ("CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, name TEXT) ENGINE=MEMORY", "no transactions"),
        (
            "CREATE TABLE t (id VARCHAR(40) PRIMARY KEY, name TEXT); CREATE VIEW cars AS SELECT * FROM t",
            "a view",
        ),
        ("CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, name DOUBLE(10,2))", "double(10,2)"),
    ] {
        // MEMORY has no TEXT.
        let sql = if sql.contains("MEMORY") { sql.replace("TEXT", "VARCHAR(9)") } else { sql.to_owned() };
        let bench = Bench::by_hand(&databases, &sql).await;
        let table = table(RouteMode::Upsert, json!({"name": "string|required"}));
        let error = bench.apply(&table, vec![insert(1, "a", json!({"name": "x"}))]).await.unwrap_err();
        assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
        let text = error.to_string();
        assert!(text.contains(said) && text.contains("cars"), "{sql}: {text}");
        assert_eq!(bench.sink.cursors(&bench.cx, "r").await.unwrap(), None);
    }
    let sql = "CREATE TABLE cars (id VARCHAR(40), name TEXT, _operation VARCHAR(9), _change_id CHAR(32) UNIQUE, \
               _changed_at DATETIME(3))";
    let bench = Bench::by_hand(&databases, sql).await;
    let changes = vec![insert(1, "a", json!({"name": "x"}))];
    let error = bench.apply(&names(RouteMode::Append), changes).await.unwrap_err();
    assert!(
        error.to_string().contains("accepts null") && error.to_string().contains("_change_id"),
        "{error}"
    );
}

const HAND_MADE: &str = "CREATE TABLE cars (\
    serial INT AUTO_INCREMENT PRIMARY KEY, ID VARCHAR(40) NOT NULL UNIQUE, Name VARCHAR(20), \
    created_at DATETIME(3), price DECIMAL(10,2), data JSON, vip BOOLEAN, undeclared VARCHAR(9) NOT NULL DEFAULT 'mine', \
    twice DECIMAL(12,2) AS (price * 2), stored INT AS (1 + 1) STORED)";

async fn tables_made_by_hand_work_without_schema_sync(databases: Arc<Databases>) {
    let bench = Bench::new(&databases, json!({"schemaSync": {}})).await;
    assert!(bench.sink.schema_sync().is_none());
    let table = table(
        RouteMode::Upsert,
        json!({"name": "string", "createdAt": "datetime", "price": "number", "data": "json", "vip": "boolean"}),
    );
    let record = json!({"name": "x", "createdAt": "2026-01-31T10:20:30.456Z", "price": 5, "data": [1],
                        "vip": true, "unknown": "left out"});
    let error = bench.apply(&table, vec![insert(1, "a", record.clone())]).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, false, Scope::Table);
    assert!(error.advice().unwrap().contains("schemaSync"), "{error:?}");
    bench.run("CREATE TABLE Cars (id VARCHAR(40) PRIMARY KEY)").await;
    let error = bench.apply(&table, vec![insert(1, "a", record.clone())]).await.unwrap_err();
    assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
    assert!(error.to_string().contains("there is: Cars"), "{error}");

    bench.run(HAND_MADE).await;
    bench.write(&table, vec![insert(1, "007", record.clone())]).await;
    bench.write(&table, vec![change(2, "007", Operation::Update, Some(record.clone()))]).await;
    let rows = bench.rows(&table).await;
    let expected =
        json!({"Name": "x", "created_at": "2026-01-31T10:20:30.456Z", "price": "5", "data": "[1]", "vip": 1});
    assert_eq!(rows, [("007".to_owned(), object(expected))]);
    let said = bench.sink.readback().unwrap().expected(&table, "007", record.as_object().unwrap()).unwrap();
    assert_eq!(said, rows[0].1);
}

async fn values_that_would_change_are_refused_alone(databases: Arc<Databases>) {
    let bench = Bench::by_hand(
        &databases,
        "CREATE TABLE cars (id VARCHAR(40) COLLATE utf8mb4_bin PRIMARY KEY, name VARCHAR(40) DEFAULT 'x', \
         short VARCHAR(5), spaced CHAR(5), small TINYINT UNSIGNED, whole INT, big BIGINT, dbl DOUBLE, flt FLOAT, \
         dcm DECIMAL(5,2), at DATETIME, at3 DATETIME(3), stamp TIMESTAMP NULL, d DATE, t TIME, \
         color ENUM('red','it''s','10'), latin VARCHAR(20) CHARACTER SET latin1, bmp VARCHAR(20) CHARACTER SET utf8mb3, \
         txt TEXT, required VARCHAR(9) NOT NULL DEFAULT 'mine', filled TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, \
         data JSON, CONSTRAINT even CHECK (whole % 2 = 0))",
    )
    .await;
    let attributes = json!({
        "name": "string", "short": "string", "spaced": "string", "small": "number", "whole": "number", "big": "number",
        "dbl": "number", "flt": "number", "dcm": "number", "at": "string", "at3": "string", "stamp": "string",
        "d": "string", "t": "string", "color": "string", "latin": "string", "bmp": "string", "txt": "string",
        "data": "json",
    });
    // TINYINT and the like are not what the layout asks for, and are filled all the same.
    let bench = Bench { sink: bench.place.sink(json!({"schemaSync": {"onMismatch": "ignore"}})), ..bench };
    let table = table(RouteMode::Upsert, attributes);
    let mut seq = 1;
    let deep = (0..32).fold(json!(1), |value, _| json!([value]));
    for bad in [
        json!({"short": "s3cr3t"}),
        json!({"short": "abcde "}),
        json!({"spaced": "abc "}),
        json!({"small": 256}),
        json!({"small": -1}),
        json!({"small": 1.5}),
        json!({"small": "1"}),
        json!({"whole": 2_147_483_648_i64}),
        json!({"whole": 7}),
        json!({"big": u64::MAX}),
        json!({"dbl": 9_007_199_254_740_993_i64}),
        json!({"dbl": "s3cr3t"}),
        json!({"flt": 0.1}),
        json!({"dcm": 1.234}),
        json!({"dcm": 1000}),
        json!({"at": "2026-01-31T10:20:30.456Z"}),
        json!({"at": "s3cr3t"}),
        json!({"at": "2026-02-30T00:00:00Z"}),
        json!({"at": "10000-01-01T00:00:00Z"}),
        json!({"at3": "2026-01-31T10:20:30.456789Z"}),
        json!({"stamp": "2050-01-01T00:00:00Z"}),
        json!({"d": "2026-02-30"}),
        json!({"t": "25:00:00"}),
        json!({"color": "Red"}),
        json!({"color": "1"}),
        json!({"color": "s3cr3t"}),
        json!({"latin": "日本 s3cr3t"}),
        json!({"bmp": "😀 s3cr3t"}),
        json!({"txt": "s3cr3t".repeat(200_000)}),
        json!({"name": "s3cr3t".repeat(200_000)}),
        json!({"data": deep}),
    ] {
        let error = bench.refuses(&table, seq, bad.clone()).await;
        let kinds = [ErrorKind::InvalidValue, ErrorKind::Conflict];
        assert!(kinds.contains(&error.kind()), "{bad}: {error:?}");
        seq += 10;
    }
    let good = json!({
        "name": "a\0b 'quoted' \\ \u{1a}", "short": "ábcde", "spaced": " abc", "small": 255, "whole": -2_147_483_648_i64,
        "big": i64::MIN, "dbl": 1e-300, "flt": 0.5, "dcm": -999.99, "at": "2026-01-31T10:20:30.000Z",
        "at3": "0001-01-01T00:00:00.001Z", "stamp": "2038-01-19T03:14:07.000Z", "d": "9999-12-31", "t": "23:59:59.000",
        "color": "it's", "latin": "é", "bmp": "日本", "txt": "x".repeat(65_535), "data": {"a": [1.5, null]},
    });
    bench.write(&table, vec![insert(seq, "good", good.clone())]).await;
    let rows = bench.rows(&table).await;
    let row = &rows.iter().find(|(key, _)| key == "good").unwrap().1;
    let expected =
        bench.sink.readback().unwrap().expected(&table, "good", good.as_object().unwrap()).unwrap();
    assert_eq!(*row, expected);
    for (name, value) in good.as_object().unwrap() {
        let stored = match name.as_str() {
            "dcm" => json!("-999.99"),
            "data" => json!("{\"a\":[1.5,null]}"),
            _ => value.clone(),
        };
        assert_eq!(row[name], stored, "{name}");
    }
}

async fn columns_that_fill_themselves_take_no_null(databases: Arc<Databases>) {
    let bench = Bench::by_hand(
        &databases,
        "CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, name VARCHAR(40), number INT NOT NULL AUTO_INCREMENT UNIQUE, \
         at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), word VARCHAR(9) NOT NULL DEFAULT 'mine')",
    )
    .await;
    let table = table(
        RouteMode::Upsert,
        json!({"name": "string", "number": "number|integer", "at": "datetime", "word": "string"}),
    );
    let full = || object(json!({"name": "x", "number": 0, "at": "2026-01-31T10:20:30.456Z", "word": "w"}));
    for member in ["number", "at", "word"] {
        for value in [None, Some(Value::Null)] {
            let mut record = full();
            record.remove(member);
            record.extend(value.map(|value| (member.to_owned(), value)));
            let rejected = bench.apply(&table, vec![insert(1, "a", record.into())]).await.unwrap().rejected;
            assert_eq!(rejected.len(), 1, "{member}");
            assert!(rejected[0].error.to_string().contains("accepts no null"), "{:?}", rejected[0]);
        }
    }
    bench.write(&table, vec![insert(1, "a", full().into())]).await;
    // A zero is a zero, and not the next number.
    assert_eq!(bench.rows(&table).await[0].1, full());
}

async fn refusals_of_the_server_are_about_their_record(databases: Arc<Databases>) {
    let bench = Bench::by_hand(
        &databases,
        "CREATE TABLE makers (id VARCHAR(40) PRIMARY KEY); INSERT INTO makers VALUES ('vw'); \
         CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, name VARCHAR(40), maker VARCHAR(40), \
         CONSTRAINT made FOREIGN KEY (maker) REFERENCES makers (id)); \
         CREATE TABLE wheels (car VARCHAR(40), FOREIGN KEY (car) REFERENCES cars (id)); \
         CREATE TRIGGER bad BEFORE INSERT ON cars FOR EACH ROW BEGIN IF NEW.name = 'refuse' THEN \
         SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not s3cr3t'; END IF; END",
    )
    .await;
    let table = table(RouteMode::Upsert, json!({"name": "string", "maker": "string"}));
    let error = bench.refuses(&table, 1, json!({"name": "x", "maker": "s3cr3t"})).await;
    assert!(
        error.kind() == ErrorKind::Conflict && error.to_string().contains("constraint: made"),
        "{error:?}"
    );
    let error = bench.refuses(&table, 10, json!({"name": "refuse"})).await;
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("trigger"), "{error:?}");
    bench.write(&table, vec![insert(20, "used", json!({"name": "x", "maker": "vw"}))]).await;
    bench.run("INSERT INTO wheels VALUES ('used')").await;
    let changes = vec![delete(21, "before-001"), delete(22, "used"), delete(23, "past-001")];
    let rejected = bench.apply(&table, changes).await.unwrap().rejected;
    assert_eq!((rejected.len(), rejected[0].index), (1, 1));
    assert_eq!(rejected[0].error.kind(), ErrorKind::Conflict);
    bench.write(&table, vec![delete(21, "before-001"), delete(23, "past-001")]).await;
    assert_eq!(bench.count("cars").await, 3);
}

async fn attributes_without_column_follow_on_mismatch(databases: Arc<Databases>) {
    for (on_mismatch, works) in [("error", false), ("warn", true), ("ignore", true)] {
        let bench = Bench::new(&databases, json!({"schemaSync": {"onMismatch": on_mismatch}})).await;
        bench.run("CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, name TEXT)").await;
        let outcome = bench.apply(&cars(), vec![insert(1, "a", json!({"name": "x", "price": 2.5}))]).await;
        if works {
            assert!(outcome.unwrap().rejected.is_empty());
            assert_eq!(bench.rows(&cars()).await[0].1, object(json!({"name": "x"})));
            continue;
        }
        let error = outcome.unwrap_err();
        assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
        assert!(error.to_string().contains("'price'") && error.to_string().contains("'doors'"), "{error}");
        assert_eq!(bench.sink.cursors(&bench.cx, "r").await.unwrap(), None);
        // Mended by hand while it runs.
        bench.run("ALTER TABLE cars ADD price DOUBLE, ADD doors BIGINT").await;
        bench.write(&cars(), vec![insert(1, "a", json!({"name": "x", "price": 2.5}))]).await;
        assert_eq!(bench.rows(&cars()).await[0].1["price"], json!(2.5));
    }
}

async fn names_are_only_names(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let odd = [
        "select",
        "order",
        "key",
        "group",
        "with space",
        "tick`s",
        "``",
        "quo'te",
        "a\"b",
        "what?",
        "so :named",
        "a;drop",
        "-- comment",
        "/* c */",
        "#hash",
        "%s",
        "_",
        "ünïcödé",
        "back\\slash",
    ];
    let mut attributes = serde_json::Map::new();
    let long = "l".repeat(64);
    for name in odd.iter().chain([&long.as_str()]) {
        attributes.insert((*name).to_owned(), "string".into());
    }
    for name in odd.iter().copied().chain([long.as_str(), &"é".repeat(64)]) {
        for mode in [RouteMode::Upsert, RouteMode::Append] {
            let name = if mode == RouteMode::Append {
                name.chars().skip(1).chain(['+']).collect()
            } else {
                name.to_owned()
            };
            let table = table_named(&name, mode, attributes.clone().into());
            bench.sync(&table).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let record: Record =
                attributes.keys().map(|name| (name.clone(), format!("value of {name}").into())).collect();
            bench.write(&table, vec![insert(1, "it's ?", record.clone().into())]).await;
            assert_eq!(bench.rows(&table).await, [("it's ?".to_owned(), record)], "{name}");
        }
    }
    let too_long = table_named(&"l".repeat(65), RouteMode::Upsert, json!({"a": "string"}));
    assert_error(&bench.sync(&too_long).await.unwrap_err(), ErrorKind::ConfigInvalid, false, Scope::Table);
}

async fn a_table_of_another_database_is_written(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let other = databases.fresh().await;
    let name = format!("{}.cars", other.database);
    let table = table_named(&name, RouteMode::Upsert, json!({"name": "string"}));
    bench.sync(&table).await.unwrap();
    bench.write(&table, vec![insert(1, "a", json!({"name": "x"}))]).await;
    assert_eq!(other.number("SELECT COUNT(*) FROM cars").await, 1);
    assert_eq!(bench.rows(&table).await.len(), 1);
    assert_eq!(bench.place.rows("SHOW TABLES").await.len(), 1, "only the cursors are here");
    let nowhere = table_named("no_such_database.cars", RouteMode::Upsert, json!({"name": "string"}));
    let error = bench.apply(&nowhere, vec![insert(2, "a", json!({"name": "x"}))]).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, false, Scope::Table);
}

async fn a_table_that_changes_between_batches_is_noticed(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    bench.sync(&cars()).await.unwrap();
    let row = |seq: u64| vec![insert(seq, &format!("k{seq}"), json!({"name": "x", "price": 2.5}))];
    bench.write(&cars(), row(1)).await;

    bench.run("RENAME TABLE cars TO away").await;
    let error = bench.apply(&cars(), row(2)).await.unwrap_err();
    assert_error(&error, ErrorKind::NotFound, false, Scope::Table);
    bench.run("RENAME TABLE away TO cars").await;
    bench.write(&cars(), row(2)).await;

    // Without a look the server would round.
    bench.run("ALTER TABLE cars MODIFY price INT").await;
    let error = bench.apply(&cars(), row(3)).await;
    let is_noticed = match &error {
        Err(error) => error.kind() == ErrorKind::SchemaMismatch,
        Ok(outcome) => outcome.rejected.len() == 1,
    };
    assert!(is_noticed, "{error:?}");
    bench.run("ALTER TABLE cars MODIFY price DOUBLE").await;
    bench.write(&cars(), row(3)).await;

    bench.run("ALTER TABLE cars ADD owner VARCHAR(9) NOT NULL").await;
    let error = bench.apply(&cars(), row(4)).await.unwrap_err();
    assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
    bench.run("ALTER TABLE cars DROP owner, DROP PRIMARY KEY").await;
    let error = bench.apply(&cars(), row(4)).await.unwrap_err();
    assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
    bench.run("ALTER TABLE cars ADD PRIMARY KEY (id)").await;
    bench.write(&cars(), row(4)).await;
    assert_eq!(bench.count("cars").await, 4);
}

/// A server that took over and never heard of the last commits, or a backup that was restored.
async fn a_database_that_forgot_is_not_written_on(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let table = names(RouteMode::Append);
    bench.sync(&table).await.unwrap();
    let row = |seq| vec![insert(seq, &format!("k{seq}"), json!({"name": "x"}))];
    bench.write(&table, row(1)).await;
    bench.write(&table, row(2)).await;
    let whole = |seq| CursorMove { table: "".into(), partition: Partition(0), seq: Seq(seq) };
    for loss in [
        "DELETE FROM cars WHERE id = 'k2'; UPDATE _s3rep_cursor SET seq = 1",
        "DELETE FROM _s3rep_cursor",
        "DROP TABLE _s3rep_cursor",
    ] {
        bench.run(loss).await;
        for _ in 0..2 {
            if let Err(error) = bench.apply(&table, row(3)).await {
                // The first call learns that the table is gone.
                assert!(error.scope() == Scope::Sink && error.advice().is_some(), "{error:?}");
            }
            let error = bench.apply(&table, row(3)).await.unwrap_err();
            assert_error(&error, ErrorKind::Unavailable, true, Scope::Sink);
            let error = bench.sink.advance(&bench.cx, &progress(vec![whole(3)])).await.unwrap_err();
            assert_error(&error, ErrorKind::Unavailable, true, Scope::Sink);
        }
        assert_eq!(bench.place.number("SELECT COUNT(*) FROM cars WHERE id = 'k3'").await, 0, "{loss}");
        // Whoever asks where it stands goes on from there.
        bench.sink.cursors(&bench.cx, "r").await.unwrap();
        let from = if loss.starts_with("DELETE FROM cars") { 2 } else { 1 };
        bench.run("DELETE FROM cars").await;
        bench.write(&table, (from..=2).flat_map(row).collect()).await;
    }
    // Going back on purpose is another thing.
    let back = CursorMove { table: "cars".into(), ..whole(0) };
    bench.sink.advance(&bench.cx, &progress(vec![back])).await.unwrap();
    bench.run("DELETE FROM cars").await;
    bench.write(&table, [row(1), row(2), row(3)].concat()).await;
    assert_eq!(bench.count("cars").await, 3);
}

async fn schemas_evolve(databases: Arc<Databases>) {
    let bench = Bench::new(
        &databases,
        json!({"schemaSync": {
            "enabled": true, "dropMissingColumns": true, "renameColumns": {"cars": {"colour": "color"}},
        }}),
    )
    .await;
    let old = table(
        RouteMode::Upsert,
        json!({"name": "string|required|maxlength:20", "colour": "string", "gone": "string", "n": "number|integer|min:0|max:9"}),
    );
    bench.sync(&old).await.unwrap();
    bench.write(&old, vec![insert(1, "a", json!({"name": "x", "colour": "red", "gone": "y", "n": 1}))]).await;
    let new = table(
        RouteMode::Upsert,
        json!({"name": "string|maxlength:200", "color": "string", "n": "number|integer", "more": "json", "at": "datetime"}),
    );
    let sync = bench.sink.schema_sync().unwrap();
    let have = sync.inspect(&bench.cx, &new).await.unwrap();
    let plan = sync.plan(&new, have.as_ref()).unwrap();
    assert!(plan.destructive && !plan.creates, "{plan:?}");
    // A process that died in the middle runs it again, from wherever it was.
    for from in [0, 0, 1, 2] {
        let mut rest = plan.clone();
        rest.statements.drain(..from.min(plan.statements.len()));
        sync.execute(&bench.cx, &rest).await.unwrap();
    }
    let have = sync.inspect(&bench.cx, &new).await.unwrap();
    assert_eq!(sync.plan(&new, have.as_ref()).unwrap().statements, Vec::<String>::new());
    let record = json!({"color": "blue", "n": i64::MAX, "more": {"a": 1}, "at": "2026-01-31T10:20:30.456Z"});
    bench.write(&new, vec![insert(2, "b", record.clone())]).await;
    let rows = bench.rows(&new).await;
    assert_eq!((rows[0].1["color"].clone(), rows[0].1["n"].clone()), (json!("red"), json!(1)));
    let expected = bench.sink.readback().unwrap().expected(&new, "b", record.as_object().unwrap()).unwrap();
    assert_eq!(rows[1].1, expected);

    let fresh = bench.place.sink(json!({"schemaSync": {"enabled": true, "strategy": "drop-create"}}));
    let wrong = table(RouteMode::Upsert, json!({"name": "string", "color": "number"}));
    let sync = fresh.schema_sync().unwrap();
    let have = sync.inspect(&bench.cx, &wrong).await.unwrap();
    let plan = sync.plan(&wrong, have.as_ref()).unwrap();
    assert!(plan.destructive && plan.creates);
    sync.execute(&bench.cx, &plan).await.unwrap();
    assert_eq!(bench.count("cars").await, 0);
}

async fn a_change_of_the_table_that_the_server_refuses_is_about_the_table(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let wide: serde_json::Map<_, _> =
        (0..80).map(|i| (format!("a{i}"), Value::from("string|maxlength:255"))).collect();
    // More than the 65,535 bytes that a row may have.
    let error = bench.sync(&table(RouteMode::Upsert, wide.into())).await.unwrap_err();
    assert_error(&error, ErrorKind::SchemaMismatch, false, Scope::Table);
    let user = bench.user("SELECT, INSERT, UPDATE, DELETE").await;
    let mut options = bench.place.options();
    options["user"] = user.into();
    options["password"] = "p@ss/w'rd".into();
    options["schemaSync"] = json!({"enabled": true});
    let sync = sink(options);
    let sync = sync.schema_sync().unwrap();
    let plan = sync.plan(&cars(), None).unwrap();
    let error = sync.execute(&bench.cx, &plan).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, false, Scope::Table);
}

/// Fails at one place, once.
#[derive(Default)]
struct FailOnce(Mutex<Option<&'static str>>);

impl Failpoints for FailOnce {
    fn hit(&self, name: &'static str) -> Result<(), Error> {
        let mut armed = self.0.lock().unwrap();
        if *armed == Some(name) {
            *armed = None;
            return Err(Error::new(ErrorKind::Unavailable, "killed").temporary());
        }
        Ok(())
    }
}

async fn a_kill_at_any_place_leaves_rows_and_cursor_together(databases: Arc<Databases>) {
    let table = names(RouteMode::Append);
    for (place, is_committed) in [("mysql.rows", false), ("mysql.commit", false), ("mysql.committed", true)] {
        let mut bench = Bench::synced(&databases).await;
        bench.sync(&table).await.unwrap();
        let row = |seq| insert(seq, &format!("k{seq}"), json!({"name": "x"}));
        bench.apply(&table, vec![row(1)]).await.unwrap();
        let cx = bench.cx.clone().with_failpoints(Arc::new(FailOnce(Mutex::new(Some(place)))));
        let second = batch(&table, vec![row(2), row(3)]);
        bench.sink.apply(&cx, &second).await.unwrap_err();
        bench.sink = bench.place.sink(json!({}));
        let stored = bench.sink.cursors(&bench.cx, "r").await.unwrap().unwrap();
        let (rows, seq) = if is_committed { (3, 3) } else { (1, 1) };
        assert_eq!((bench.count("cars").await, stored.cursors[0].seq), (rows, Seq(seq)), "{place}");
        bench.sink.apply(&bench.cx, &second).await.unwrap();
        assert_eq!(bench.count("cars").await, 3, "{place}");
    }
}

/// The connection breaks after every so many bytes, of what is sent or of what is answered: whatever the server had
/// done by then, the same batch again leaves every change once.
async fn a_connection_that_breaks_anywhere_loses_and_doubles_nothing(databases: Arc<Databases>) {
    let table = names(RouteMode::Append);
    for is_answer in [false, true] {
        let bench = Bench::synced(&databases).await;
        bench.sync(&table).await.unwrap();
        let (mut seq, mut failed) = (0, 0);
        for after in (1..2_600).step_by(if is_answer { 53 } else { 71 }) {
            let changes: Vec<_> = (0..20)
                .map(|i| insert(seq + i + 1, &format!("k{}", i % 7), json!({"name": format!("row {i}")})))
                .collect();
            seq += 20;
            let batch = batch(&table, changes);
            // The proxy closes what is open: the fault meets a new connection from its first byte.
            bench
                .place
                .proxy
                .fault_times(if is_answer { Fault::CutAnswer(after) } else { Fault::CutRequest(after) }, 1);
            let first = bench.sink.apply(&bench.cx, &batch).await;
            if let Err(error) = &first {
                assert_eq!((error.is_temporary(), error.scope()), (true, Scope::Sink), "{error:?}");
                failed += 1;
            }
            bench.place.proxy.fault(Fault::None);
            let again = bench.sink.apply(&bench.cx, &batch).await;
            if again.is_err() {
                bench.sink.apply(&bench.cx, &batch).await.unwrap();
            }
            assert_eq!(bench.count("cars").await, seq, "cut after {after} bytes, answer: {is_answer}");
            let stored = bench.sink.cursors(&bench.cx, "r").await.unwrap().unwrap();
            assert_eq!(stored.cursors[0].seq, Seq(seq));
        }
        assert!(failed > 20, "only {failed} calls met the fault");
    }
}

/// An earlier attempt whose connection was lost, and that the server has not come to the end of.
async fn an_earlier_attempt_that_still_runs_is_waited_for(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let table = names(RouteMode::Append);
    bench.sync(&table).await.unwrap();
    let row = |seq| insert(seq, &format!("k{seq}"), json!({"name": "x"}));
    bench.write(&table, vec![row(1)]).await;
    let mut earlier = bench.place.client().await;
    for statement in [
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "START TRANSACTION",
        "INSERT INTO cars (id, name, _operation, _change_id, _changed_at) \
         VALUES ('k2', 'x', 'insert', REPEAT('f', 32), '2026-01-01')",
        "UPDATE _s3rep_cursor SET seq = 2 WHERE `partition` = 0",
    ] {
        earlier.query_drop(statement).await.unwrap();
    }
    let (sink, cx, second) = (bench.sink.clone(), bench.cx.clone(), batch(&table, vec![row(2)]));
    let waiting = tokio::spawn(async move { sink.apply(&cx, &second).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it does not wait for the cursor");
    // Other cursors are nobody's business.
    let mut other = batch(&table, vec![RowChange { partition: Partition(1), ..row(3) }]);
    other.progress.cursors[0].partition = Partition(1);
    let applied = tokio::time::timeout(Duration::from_secs(5), bench.sink.apply(&bench.cx, &other)).await;
    assert!(applied.expect("a cursor of another partition is waited for").unwrap().rejected.is_empty());
    earlier.query_drop("COMMIT").await.unwrap();
    assert!(waiting.await.unwrap().unwrap().rejected.is_empty());
    assert_eq!(bench.count("cars").await, 3, "k2 is there once");
}

async fn a_killed_session_and_a_lock_that_is_held_are_temporary(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    bench.sync(&cars()).await.unwrap();
    bench.write(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await;
    let database = &bench.place.database;
    let ids = format!(
        "SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE db = '{database}' AND id <> CONNECTION_ID()"
    );
    for row in bench.place.rows(&ids).await {
        let (id,): (String,) = mysql_async::from_row(row);
        bench.run(&format!("KILL {id}")).await;
    }
    let changes = || vec![insert(2, "b", json!({"name": "x"}))];
    if let Err(error) = bench.apply(&cars(), changes()).await {
        assert_eq!((error.is_temporary(), error.scope()), (true, Scope::Sink), "{error:?}");
        bench.write(&cars(), changes()).await;
    }
    let mut other = bench.place.client().await;
    other.query_drop("START TRANSACTION").await.unwrap();
    other.query_drop("SELECT * FROM cars FOR UPDATE").await.unwrap();
    let update = || vec![change(3, "a", Operation::Update, Some(json!({"name": "y"})))];
    let error = bench.apply(&cars(), update()).await.unwrap_err();
    assert_error(&error, ErrorKind::Contention, true, Scope::Sink);
    other.query_drop("ROLLBACK").await.unwrap();
    bench.write(&cars(), update()).await;
    assert_eq!(bench.rows(&cars()).await[0].1["name"], json!("y"));
}

async fn many_writers_at_once_do_not_disturb_each_other(databases: Arc<Databases>) {
    let bench = Bench::synced(&databases).await;
    let table = names(RouteMode::Append);
    bench.sync(&table).await.unwrap();
    let mut writers = Vec::new();
    for lane in 0..8_u16 {
        let (sink, cx, table) = (bench.sink.clone(), bench.cx.clone(), table.clone());
        writers.push(tokio::spawn(async move {
            for round in 0..20_u64 {
                let change = |i: u64| {
                    let seq = round * 1_000 + i * 8 + u64::from(lane) + 1;
                    RowChange {
                        partition: Partition(lane),
                        ..insert(seq, &format!("k{lane}-{i}"), json!({"name": "x"}))
                    }
                };
                let changes: Vec<_> = (0..50).map(change).collect();
                let mut batch = batch(&table, changes);
                batch.progress.cursors[0].partition = Partition(lane);
                // The engine tries again what is temporary.
                while let Err(error) = sink.apply(&cx, &batch).await {
                    assert!(error.is_temporary(), "{error:?}");
                }
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(bench.count("cars").await, 8 * 20 * 50);
    let changes = bench.place.number("SELECT COUNT(DISTINCT _change_id) FROM cars").await;
    assert_eq!(changes, 8 * 20 * 50);
}

async fn the_log_table_tells_what_was_written(databases: Arc<Databases>) {
    let bench = Bench::new(&databases, json!({"logTable": "replication log"})).await;
    bench.sink.check(&bench.cx).await.unwrap();
    bench.sync(&cars()).await.unwrap();
    let deep = (0..40).fold(json!(1), |value, _| json!([value]));
    let first = vec![
        insert(1, "b", json!({"name": "x", "price": 1.5, "more": "é'\0"})),
        insert(2, "a", json!({"name": "y", "deep": deep})),
        change(3, "c", Operation::Delete, Some(json!({"name": "z"}))),
        delete(4, "d"),
    ];
    bench.write(&cars(), first.clone()).await;
    // What is there already is not told twice, and what is refused is not told.
    bench
        .write(&cars(), [first, vec![change(5, "a", Operation::Read, Some(json!({"name": "w"})))]].concat())
        .await;
    assert_eq!(bench.apply(&cars(), vec![insert(6, "e", json!({}))]).await.unwrap().rejected.len(), 1);
    let sql = "SELECT resource_name, operation, record_id, data, CAST(timestamp AS CHAR), source FROM `replication log` ORDER BY id";
    let rows: Vec<(String, String, String, Option<String>, String, String)> =
        bench.place.rows(sql).await.into_iter().map(mysql_async::from_row).collect();
    let told: Vec<_> = rows.iter().map(|row| (row.1.as_str(), row.2.as_str(), row.3.is_some())).collect();
    let expected = [
        ("insert", "a", false),
        ("insert", "b", true),
        ("delete", "c", true),
        ("delete", "d", false),
        ("read", "a", true),
    ];
    assert_eq!(told, expected);
    assert_eq!(serde_json::from_str::<Value>(rows[1].3.as_ref().unwrap()).unwrap()["more"], json!("é'\0"));
    assert!(rows.iter().all(|row| row.0 == "cars" && row.5 == "s3rep"), "{rows:?}");
    assert_eq!(rows[1].4, "2023-11-14 22:13:20.001");

    // A table of s3db.js has no column for the source, and whole seconds.
    let other = Bench::new(&databases, json!({"logTable": "log"})).await;
    other
        .run(
            "CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, resource_name VARCHAR(255), operation VARCHAR(50), \
             record_id VARCHAR(255), data JSON, timestamp TIMESTAMP NULL)",
        )
        .await;
    other.sync(&cars()).await.unwrap();
    other.write(&cars(), vec![insert(1, "a", json!({"name": "x"}))]).await;
    assert_eq!(other.count("log").await, 1);
}

async fn what_others_wrote_is_read_back_without_harm(databases: Arc<Databases>) {
    let bench = Bench::by_hand(
        &databases,
        "CREATE TABLE cars (id VARCHAR(40) COLLATE utf8mb4_unicode_ci PRIMARY KEY, name VARCHAR(40), price DOUBLE, doors BIGINT); \
         INSERT INTO cars VALUES ('b', NULL, -0e0, -1), ('A', 'é', 1e300, 0), ('', 'the empty key', 1, 1), ('é', 'x', 0.1, 1), ('z ', 'x', 5e-324, 1)",
    )
    .await;
    let rows = bench.rows(&cars()).await;
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["A", "b", "z ", "é"], "in the order of the bytes, without the empty key");
    assert_eq!(rows[1].1, object(json!({"name": null, "price": 0, "doors": -1})));
    assert_eq!((rows[0].1["price"].clone(), rows[2].1["price"].clone()), (json!(1e300), json!(5e-324)));
    let mut paged = Vec::new();
    while let [row] = &bench
        .sink
        .readback()
        .unwrap()
        .rows(&bench.cx, &cars(), paged.last().map(|(key, _): &(String, Record)| key.as_str()), 1)
        .await
        .unwrap()[..]
    {
        paged.push(row.clone());
    }
    assert_eq!(paged, rows);
}

async fn an_append_table_is_folded_in_the_order_of_its_changes(databases: Arc<Databases>) {
    let table = names(RouteMode::Append);
    let at_once = |seq, key: &str, operation, name: &str| RowChange {
        timestamp: Timestamp(1_700_000_000_000),
        ..change(seq, key, operation, Some(json!({ "name": name })))
    };
    let changes = vec![
        at_once(1, "a", Operation::Insert, "1"),
        at_once(2, "a", Operation::Update, "2"),
        at_once(3, "b", Operation::Delete, "3"),
        at_once(4, "b", Operation::Insert, "4"),
        at_once(5, "c", Operation::Insert, "5"),
        at_once(6, "c", Operation::Delete, "6"),
    ];
    let by_hand = |counter: &str| {
        format!(
            "CREATE TABLE cars ({counter}id VARCHAR(40), name TEXT, _operation VARCHAR(9), \
             _change_id CHAR(32) NOT NULL UNIQUE, _changed_at DATETIME(3))"
        )
    };
    // Nobody knows which of two came last.
    let bench = Bench::by_hand(&databases, &by_hand("")).await;
    bench.write(&table, vec![changes[0].clone()]).await;
    assert_eq!(bench.rows(&table).await.len(), 1);
    bench.write(&table, changes[1..].to_vec()).await;
    let error = bench.sink.readback().unwrap().rows(&bench.cx, &table, None, 10).await.unwrap_err();
    assert_error(&error, ErrorKind::Unsupported, false, Scope::Table);

    let counting = by_hand("number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, ");
    let own = Bench::synced(&databases).await;
    own.sync(&table).await.unwrap();
    for bench in [own, Bench::by_hand(&databases, &counting).await] {
        bench.write(&table, changes.clone()).await;
        let rows: Vec<_> =
            bench.rows(&table).await.into_iter().map(|(key, row)| (key, row["name"].clone())).collect();
        assert_eq!(rows, [("a".to_owned(), json!("2")), ("b".to_owned(), json!("4"))]);
        let readback = bench.sink.readback().unwrap();
        let page = readback.rows(&bench.cx, &table, Some("a"), 1).await.unwrap();
        assert_eq!(page[0].0, "b");
        assert!(readback.rows(&bench.cx, &table, Some("b"), 1).await.unwrap().is_empty());
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1000_i32..1000).prop_map(|n| json!(f64::from(n))),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        "[0-9.eE+ -]{0,8}".prop_map(Value::from),
        "\\PC{0,12}|a\0b|red|Red".prop_map(Value::from),
        "(19|20|00)[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,7})?(Z|\\+01:00)".prop_map(Value::from),
        "20[0-9]{2}-0[1-9]-[0-3][0-9]".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("\\PC{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Whatever comes: the row is what was announced, or the record was refused and said to be.
async fn rows_are_what_is_expected(databases: Arc<Databases>) {
    let names = ["text", "real", "whole", "truth", "json", "any", "when", "list", "day", "word"];
    let kinds = [
        "string",
        "number",
        "number|integer",
        "boolean",
        "json",
        "any",
        "datetime",
        "array",
        "dateonly",
        "string",
    ];
    let attributes: serde_json::Map<_, _> =
        names.iter().zip(kinds).map(|(name, kind)| ((*name).to_owned(), kind.into())).collect();
    let table = table(RouteMode::Upsert, attributes.into());
    let mut runner = TestRunner::new(Config::default());
    let strategy = prop::collection::vec(any_value(), names.len());
    for by_hand in [false, true] {
        let bench =
            Bench::new(&databases, json!({"schemaSync": {"enabled": true, "onMismatch": "ignore"}})).await;
        if by_hand {
            bench
                .run(
                    "CREATE TABLE cars (id VARCHAR(40) PRIMARY KEY, text VARCHAR(9), real_ INT, `real` FLOAT, whole DECIMAL(12,3), \
                     truth BIGINT, json LONGTEXT, any TINYTEXT, `when` DATETIME(3), list JSON, day DATE, word ENUM('red','blue',''))",
                )
                .await;
        } else {
            bench.sync(&table).await.unwrap();
        }
        bench.rows(&table).await;
        let readback = bench.sink.readback().unwrap();
        let mut expected = Vec::new();
        for i in 0..400_u64 {
            let mut values = strategy.new_tree(&mut runner).unwrap().current();
            // One odd value a record, so that most records are told by it.
            let odd = (i as usize) % names.len();
            for (place, value) in values.iter_mut().enumerate() {
                if place != odd {
                    *value = Value::Null;
                }
            }
            let record: Record = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
            let key = format!("k{i:03}");
            let said = readback.expected(&table, &key, &record);
            let applied = bench.apply(&table, vec![insert(i + 1, &key, record.clone().into())]).await;
            let outcome =
                applied.unwrap_or_else(|error| panic!("{record:?} {error:?} {}", databases.server.output()));
            assert_eq!(outcome.rejected.is_empty(), said.is_ok(), "{record:?} {outcome:?} {said:?}");
            expected.extend(said.ok().map(|row| (key, row)));
        }
        assert!(expected.len() > 100, "only {} records could be held", expected.len());
        for (have, want) in bench.rows(&table).await.iter().zip(&expected) {
            assert_eq!(have, want);
        }
        assert_eq!(bench.count("cars").await, expected.len() as u64);
    }
}

async fn statements_are_no_larger_than_the_server_takes(databases: Arc<Databases>) {
    if !databases.server.is_private() {
        return;
    }
    let own = Arc::new(Databases::on(mariadb::start().await.unwrap()));
    let bench = Bench::synced(&own).await;
    bench.run("SET GLOBAL max_allowed_packet = 1048576").await;
    let table = names(RouteMode::Upsert);
    bench.sync(&table).await.unwrap();
    let text = |size: usize| json!({"name": "'".repeat(size)});
    // A connection learns the limit when it is made.
    bench.sink.close(&bench.cx).await.unwrap();
    let many = (0..40).map(|i| insert(i + 1, &format!("k{i:02}"), text(100_000))).collect();
    bench.write(&table, many).await;
    let changes = vec![
        insert(50, "fits", text(900_000)),
        insert(51, "large", text(1_048_576)),
        insert(52, "small", text(1)),
    ];
    let rejected = bench.apply(&table, changes.clone()).await.unwrap().rejected;
    assert_eq!((rejected.len(), rejected[0].index, rejected[0].error.kind()), (1, 1, ErrorKind::TooLarge));
    assert_error(&rejected[0].error, ErrorKind::TooLarge, false, Scope::Record);
    bench.write(&table, vec![changes[0].clone(), changes[2].clone()]).await;
    assert_eq!(bench.count("cars").await, 42);

    // Beyond the 16 MiB of one packet of the protocol.
    bench.run("SET GLOBAL max_allowed_packet = 67108864").await;
    bench.sink.close(&bench.cx).await.unwrap();
    let huge = json!({"name": "é".repeat(10 << 20)});
    let changes =
        vec![insert(60, "a", text(9 << 20)), insert(61, "b", huge.clone()), insert(62, "c", text(9 << 20))];
    bench.write(&table, changes).await;
    let rows = bench.sink.readback().unwrap().rows(&bench.cx, &table, Some("a"), 1).await.unwrap();
    assert!(rows[0].1 == *huge.as_object().unwrap(), "it reads back as something else");
}

/// What the server acknowledged outlives its death, and what it did not comes again.
async fn a_server_that_is_killed_loses_and_doubles_nothing(databases: Arc<Databases>) {
    if !databases.server.is_private() {
        return;
    }
    let server = Arc::new(mariadb::start_durable().await.unwrap());
    let own = Arc::new(Databases::shared(server.clone()));
    let bench = Bench::synced(&own).await;
    let table = names(RouteMode::Append);
    bench.sync(&table).await.unwrap();
    let mut seq = 0;
    for round in 0..4_u64 {
        kill_in(&server, Duration::from_millis(150 + 70 * round));
        let is_down = |error: &Error| error.is_temporary() && error.scope() == Scope::Sink;
        loop {
            let changes =
                (1..=200).map(|i| insert(seq + i, &format!("k{}", i % 9), json!({"name": "x"}))).collect();
            match bench.apply(&table, changes).await {
                Ok(outcome) => assert!(outcome.rejected.is_empty()),
                Err(error) => {
                    assert!(is_down(&error), "{error:?}");
                    break;
                }
            }
            seq += 200;
        }
        server.restart().await.unwrap();
        let changes: Vec<_> =
            (1..=200).map(|i| insert(seq + i, &format!("k{}", i % 9), json!({"name": "x"}))).collect();
        while let Err(error) = bench.apply(&table, changes.clone()).await {
            assert!(is_down(&error), "{error:?}");
        }
        seq += 200;
        assert_eq!(bench.count("cars").await, seq, "round {round}");
    }
    assert!(seq > 1_000, "only {seq} changes were written");
}

fn kill_in(server: &Arc<SqlServer>, delay: Duration) {
    let server = server.clone();
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        server.kill().unwrap();
    });
}

/// The cases by their names.
macro_rules! cases {
    ($databases:expr, $($case:ident)*) => {
        vec![$({
            let databases = $databases.clone();
            Trial::test(stringify!($case), move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                runtime.block_on($case(databases));
                Ok(())
            })
        }),*]
    };
}

fn main() {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Listing the tests needs no server.
    let databases = (!arguments.list).then(|| runtime.block_on(Databases::start()).map(Arc::new));
    let trials = match &databases {
        None => Vec::new(),
        Some(Ok(databases)) => cases!(
            databases,
            check_says_what_would_fail
            check_proves_rights_without_writing
            refused_records_are_all_listed_and_nothing_is_written
            guilty_records_are_found_among_thousands
            another_row_is_never_changed
            alike_keys_of_a_hand_made_table_are_refused
            alike_keys_of_its_own_tables_are_rows_of_their_own
            tables_that_could_lose_rows_are_refused
            tables_made_by_hand_work_without_schema_sync
            values_that_would_change_are_refused_alone
            columns_that_fill_themselves_take_no_null
            refusals_of_the_server_are_about_their_record
            attributes_without_column_follow_on_mismatch
            names_are_only_names
            a_table_of_another_database_is_written
            a_table_that_changes_between_batches_is_noticed
            a_database_that_forgot_is_not_written_on
            schemas_evolve
            a_change_of_the_table_that_the_server_refuses_is_about_the_table
            a_kill_at_any_place_leaves_rows_and_cursor_together
            a_connection_that_breaks_anywhere_loses_and_doubles_nothing
            an_earlier_attempt_that_still_runs_is_waited_for
            a_killed_session_and_a_lock_that_is_held_are_temporary
            many_writers_at_once_do_not_disturb_each_other
            the_log_table_tells_what_was_written
            what_others_wrote_is_read_back_without_harm
            an_append_table_is_folded_in_the_order_of_its_changes
            rows_are_what_is_expected
            statements_are_no_larger_than_the_server_takes
            a_server_that_is_killed_loses_and_doubles_nothing
        ),
        Some(Err(missing)) => vec![missing.trial("mariadb")],
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` runs no destructor: the server ends here.
    drop(databases);
    conclusion.exit();
}
