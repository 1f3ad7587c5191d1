//! What PostgreSQL does with bad input, trouble and hand-made tables.
#![allow(clippy::unwrap_used, reason = "a failure is a failure of the test")]

mod common;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Databases, Place};
use futures::{FutureExt, future::BoxFuture};
use libtest_mimic::{Arguments, Trial};
use s3rep_core::{
    Batch, ChangeId, Clock, Context, CursorMove, DriverConfig, Error, ErrorKind, Operation, Outcome,
    Partition, Progress, Random, Record, ResourceSchema, RouteMode, RowChange, Scope, Seq, Sink, Table,
    Timestamp,
};
use s3rep_postgres::PostgresConfig;
use s3rep_testkit::proxy::Fault;
use serde_json::{Value, json};

fn cx() -> Context {
    s3rep_engine::context::system()
}

fn table(name: &str, mode: RouteMode, attributes: Value) -> Arc<Table> {
    let schema = ResourceSchema::parse("r", "v1", attributes.as_object().unwrap()).unwrap();
    Arc::new(Table { name: name.into(), mode, schema: Arc::new(schema) })
}

fn row(seq: u64, key: &str, operation: Operation, record: Value) -> RowChange {
    RowChange {
        key: key.into(),
        operation,
        record: record.as_object().map(|record| Arc::new(Record::clone(record))),
        change_id: ChangeId::derive("r", key, operation, &seq.to_le_bytes(), None),
        timestamp: Timestamp(1_700_000_000_000 + seq as i64),
        seq: Seq(seq),
        partition: Partition(0),
    }
}

fn insert(seq: u64, key: &str, record: Value) -> RowChange {
    row(seq, key, Operation::Insert, record)
}

fn batch(table: &Arc<Table>, changes: Vec<RowChange>) -> Batch {
    let cursors = changes.last().map(|last| CursorMove {
        table: table.name.clone(),
        partition: last.partition,
        seq: last.seq,
    });
    let progress = Progress {
        replicator: "test".into(),
        log: "log".into(),
        fence: 1,
        cursors: cursors.into_iter().collect(),
    };
    Batch { table: table.clone(), changes, progress }
}

async fn sync(sink: &dyn Sink, table: &Table) -> Result<Vec<String>, Error> {
    let schema = sink.schema_sync().unwrap();
    let have = schema.inspect(&cx(), table).await?;
    let plan = schema.plan(table, have.as_ref())?;
    schema.execute(&cx(), &plan).await?;
    Ok(plan.statements)
}

async fn apply(sink: &dyn Sink, batch: &Batch) -> Result<Outcome, Error> {
    sink.apply(&cx(), batch).await
}

async fn texts(place: &Place, sql: &str) -> Vec<String> {
    place.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Hands in a batch until nothing of it is rejected, as the engine does; returns the keys that were parked.
async fn deliver(sink: &dyn Sink, batch: Batch) -> Vec<String> {
    deliver_at(&cx(), sink, batch).await
}

async fn deliver_at(cx: &Context, sink: &dyn Sink, mut batch: Batch) -> Vec<String> {
    let mut parked = Vec::new();
    loop {
        let outcome = sink.apply(cx, &batch).await.unwrap();
        if outcome.rejected.is_empty() {
            return parked;
        }
        for rejected in outcome.rejected.iter().rev() {
            let error = &rejected.error;
            assert_eq!(error.scope(), Scope::Record, "{error:?}");
            assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
            let change = batch.changes.remove(rejected.index);
            assert!(error.to_string().contains(&format!("key: {}", change.key)), "{error}");
            parked.insert(0, change.key.to_string());
        }
    }
}

/// Every kind of value that a column cannot hold, alone among good rows, in batches of every way.
async fn one_bad_record_among_neighbours(place: Place) {
    let sink = place.sink(json!({}));
    place
        .client()
        .await
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN positive AS integer CHECK (VALUE > 0); \
             CREATE TABLE t (id text PRIMARY KEY, name text, small smallint, big bigint, price double precision, \
             money numeric(5,2), mood mood, plus positive, uid uuid, ip inet, made timestamptz, day date, data jsonb, \
             code varchar(3), email text UNIQUE, CHECK (big <> 13))",
        )
        .await
        .unwrap();
    let table = table(
        "t",
        RouteMode::Upsert,
        json!({"name": "string", "small": "number", "big": "number", "price": "number", "money": "number",
               "mood": "string", "plus": "number", "uid": "uuid", "ip": "ip4", "made": "datetime", "day": "dateonly",
               "data": "json", "code": "string", "email": "string"}),
    );
    let bad = [
        json!({"name": "nul \0 s3cr3t"}),
        json!({"small": 40_000}),
        json!({"small": 1.5}),
        json!({"big": u64::MAX}),
        json!({"big": 13, "name": "s3cr3t"}),
        json!({"price": 9_007_199_254_740_993_i64}),
        json!({"money": 1.005}),
        json!({"money": 1000}),
        json!({"mood": "s3cr3t"}),
        json!({"plus": -1}),
        json!({"uid": "s3cr3t"}),
        json!({"ip": "s3cr3t"}),
        json!({"made": "s3cr3t"}),
        json!({"day": "2024-02-30"}),
        json!({"data": {"s3cr3t": "\0"}}),
        json!({"code": "s3cr3t"}),
        json!({"email": "taken"}),
        Value::Null,
    ];
    apply(&*sink, &batch(&table, vec![insert(1, "owner", json!({"email": "taken"}))])).await.unwrap();
    let mut seq = 1;
    // As arrays, then by COPY; the second time into a table that has the rows.
    for (round, neighbours) in [3, 300, 300].into_iter().enumerate() {
        let mut changes = Vec::new();
        for (i, record) in bad.iter().enumerate() {
            seq += 1;
            changes.push(insert(seq, &format!("bad-{i:02}"), record.clone()));
            for n in 0..neighbours / 3 {
                seq += 1;
                let good = json!({"name": "good", "big": 5, "mood": "bad", "plus": 7, "money": -19.99, "ip": "::1",
                                  "data": [1, {"a": null}], "made": "2024-01-02T03:04:05.678Z", "round": round});
                changes.push(insert(seq, &format!("good-{i:02}-{n:03}"), good));
            }
        }
        let good = changes.len() - bad.len();
        let parked = deliver(&*sink, batch(&table, changes)).await;
        assert_eq!(parked.len(), bad.len(), "{parked:?}");
        let rows = texts(&place, "SELECT id FROM t WHERE id LIKE 'good%'").await;
        assert_eq!(rows.len(), good);
    }
    assert_eq!(texts(&place, "SELECT id FROM t WHERE id LIKE 'bad%'").await, [""; 0]);
    assert_eq!(texts(&place, "SELECT id FROM t WHERE email = 'taken'").await, ["owner"]);
    let row = "SELECT concat_ws('|', big, mood, plus, money, ip, data, made AT TIME ZONE 'UTC') FROM t WHERE id = 'good-00-000'";
    assert_eq!(texts(&place, row).await, ["5|bad|7|-19.99|::1|[1, {\"a\": null}]|2024-01-02 03:04:05.678"]);
}

async fn a_large_value_and_awkward_names(place: Place) {
    let sink = place.sink(json!({}));
    let long = "é".repeat(31) + "x";
    let table = table(
        "Select \"All\"",
        RouteMode::Upsert,
        json!({"order": "string", "a\"b": "json", (long.clone()): "string"}),
    );
    sync(&*sink, &table).await.unwrap();
    let text = "x".repeat(1 << 20);
    let record = json!({"order": text, "a\"b": {"big": text}, (long): "ü😀"});
    apply(&*sink, &batch(&table, vec![insert(1, "k", record)])).await.unwrap();
    let found = texts(&place, "SELECT md5(\"order\") FROM \"Select \"\"All\"\"\"").await;
    assert_eq!(found, texts(&place, "SELECT md5(repeat('x', 1048576))").await);
}

async fn a_schema_of_its_own(place: Place) {
    place.client().await.batch_execute("CREATE SCHEMA sales").await.unwrap();
    let sink = place.sink(json!({}));
    let table = table("sales.cars", RouteMode::Upsert, json!({"name": "string"}));
    sync(&*sink, &table).await.unwrap();
    apply(&*sink, &batch(&table, vec![insert(1, "k", json!({"name": "n"}))])).await.unwrap();
    assert_eq!(texts(&place, "SELECT name FROM sales.cars").await, ["n"]);
    let absent = self::table("nowhere.cars", RouteMode::Upsert, json!({"name": "string"}));
    let error = sync(&*sink, &absent).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::NotFound, Scope::Table), "{error:?}");
}

async fn dropped_and_forbidden_tables_pause(place: Place) {
    let sink = place.sink(json!({"schemaSync": {"enabled": false}}));
    let admin = place.client().await;
    let table = table("t", RouteMode::Upsert, json!({"name": "string"}));
    let one = batch(&table, vec![insert(1, "k", json!({"name": "n"}))]);
    let error = apply(&*sink, &one).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.scope(), error.is_temporary()),
        (ErrorKind::NotFound, Scope::Table, false)
    );
    assert!(error.advice().unwrap().contains("create"), "{error:?}");

    admin.batch_execute("CREATE TABLE t (id text PRIMARY KEY, name text)").await.unwrap();
    apply(&*sink, &one).await.unwrap();
    admin.batch_execute("DROP TABLE t").await.unwrap();
    let two = batch(&table, vec![insert(2, "l", json!({"name": "n"}))]);
    let error = apply(&*sink, &two).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::NotFound, Scope::Table), "{error:?}");
    admin
        .batch_execute("CREATE TABLE t (id text PRIMARY KEY, name varchar(3), extra int DEFAULT 5 NOT NULL)")
        .await
        .unwrap();
    apply(&*sink, &two).await.unwrap();
    // The table is as the last look found it no longer: what it cannot hold is noticed.
    let three = batch(&table, vec![insert(3, "m", json!({"name": "four"}))]);
    assert_eq!(apply(&*sink, &three).await.unwrap().rejected.len(), 1);
    assert_eq!(texts(&place, "SELECT extra::text FROM t").await, ["5"]);

    let role = format!("plain_{}", std::process::id());
    admin
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM public"
        ))
        .await
        .unwrap();
    let plain = place.sink(json!({"user": role}));
    let error = plain.check(&cx()).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::PermissionDenied, Scope::Sink), "{error:?}");
    admin.batch_execute(&format!("GRANT SELECT ON _s3rep_cursor TO {role}")).await.unwrap();
    let error = plain.check(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "all are needed: {error:?}");
    admin
        .batch_execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON _s3rep_cursor TO {role}"))
        .await
        .unwrap();
    plain.check(&cx()).await.unwrap();
    let four = batch(&table, vec![insert(4, "n", json!({"name": "n"}))]);
    let error = apply(&*plain, &four).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::PermissionDenied, Scope::Table), "{error:?}");
    assert!(error.advice().unwrap().contains("grant"), "{error:?}");
}

async fn a_table_that_s3db_js_made(place: Place) {
    // Names without quotes are lower case there, and the key has no order of bytes.
    let client = place.client().await;
    client
        .batch_execute(
            "CREATE TABLE Users_Table (id VARCHAR(255) PRIMARY KEY, \"email\" VARCHAR(255) NOT NULL, \"age\" INTEGER NULL, \
             created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(), updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW())",
        )
        .await
        .unwrap();
    let sink = place.sink(json!({}));
    let attributes = json!({"email": "string|required|maxlength:255", "age": "number", "phoneNumber": "string|maxlength:20"});
    let twin = table("Users_Table", RouteMode::Upsert, attributes.clone());
    let error = sync(&*sink, &twin).await.unwrap_err();
    assert!(error.to_string().contains("there is: users_table"), "{error}");
    let table = table("users_table", RouteMode::Upsert, attributes);
    let done = sync(&*sink, &table).await.unwrap();
    assert_eq!(
        done,
        [
            "ALTER TABLE \"users_table\" ALTER COLUMN \"age\" TYPE DOUBLE PRECISION",
            "ALTER TABLE \"users_table\" ADD COLUMN IF NOT EXISTS \"phoneNumber\" VARCHAR(20) NULL",
        ]
    );
    assert!(sync(&*sink, &table).await.unwrap().is_empty());
    apply(&*sink, &batch(&table, vec![insert(1, "u", json!({"email": "a@b.c", "age": 36.5}))]))
        .await
        .unwrap();
    client
        .batch_execute("UPDATE users_table SET created_at = '2020-01-01', updated_at = '2020-01-01'")
        .await
        .unwrap();
    let update = row(2, "u", Operation::Update, json!({"email": "a@b.c", "age": 37, "phoneNumber": "1"}));
    apply(&*sink, &batch(&table, vec![update])).await.unwrap();
    let times = "SELECT concat_ws(' ', created_at < '2021-01-01', updated_at > now() - interval '1 minute', age) FROM users_table";
    assert_eq!(texts(&place, times).await, ["t t 37"]);
}

async fn an_audit_table_has_each_change_once(place: Place) {
    let sink = place.sink(json!({"logTable": "audit"}));
    let table = table("t", RouteMode::Upsert, json!({"name": "string"}));
    sync(&*sink, &table).await.unwrap();
    let all = batch(
        &table,
        vec![
            insert(1, "a", json!({"name": "1"})),
            insert(2, "b", json!({"name": "\0"})),
            insert(3, "c", json!({"name": "3"})),
        ],
    );
    assert_eq!(deliver(&*sink, all.clone()).await, ["b"]);
    let again = Batch { changes: vec![all.changes[0].clone(), all.changes[2].clone()], ..all };
    apply(&*sink, &again).await.unwrap();
    let delete = row(4, "a", Operation::Delete, Value::Null);
    apply(&*sink, &batch(&table, vec![delete])).await.unwrap();
    let rows =
        "SELECT concat_ws(' ', resource_name, operation, record_id, data, source) FROM audit ORDER BY id";
    assert_eq!(
        texts(&place, rows).await,
        ["r insert a {\"name\": \"1\"} s3rep", "r insert c {\"name\": \"3\"} s3rep", "r delete a s3rep"]
    );
}

/// A cut in every part of the conversation: whatever came of the batch, handing it in again makes it once.
async fn cuts_leave_each_change_once(place: Place) {
    let table = table("t", RouteMode::Append, json!({"name": "string"}));
    let mut seq = 0;
    let sink = place.sink(json!({"pool": {"connectionTimeoutMillis": 500}}));
    sync(&*sink, &table).await.unwrap();
    for round in 0..40_u64 {
        let changes: Vec<_> = (0..3 + round % 2 * 400)
            .map(|n| {
                seq += 1;
                insert(seq, &format!("k{n}"), json!({"name": format!("{round} {n}")}))
            })
            .collect();
        let fault =
            if round % 3 == 0 { Fault::CutAnswer(round * 37) } else { Fault::CutRequest(round * 131) };
        place.proxy.fault_times(fault, 1);
        let batch = batch(&table, changes);
        loop {
            match apply(&*sink, &batch).await {
                Ok(outcome) => break assert!(outcome.rejected.is_empty()),
                Err(error) => assert!(error.is_temporary(), "{error:?}"),
            }
        }
    }
    place.proxy.fault(Fault::None);
    let rows = texts(&place, "SELECT count(*)::text || ' ' || count(DISTINCT _change_id) FROM t").await;
    assert_eq!(rows, [format!("{seq} {seq}")]);
}

/// An earlier attempt whose connection was lost is still carried out by the server while the next one begins.
async fn a_late_transaction_is_waited_for(place: Place) {
    let sink = place.sink(json!({}));
    let table = table("t", RouteMode::Append, json!({"name": "string"}));
    sync(&*sink, &table).await.unwrap();
    apply(&*sink, &batch(&table, vec![insert(1, "a", json!({"name": "1"}))])).await.unwrap();
    let mut late = place.client().await;
    let transaction = late.transaction().await.unwrap();
    transaction.execute("UPDATE _s3rep_cursor SET seq = 2", &[]).await.unwrap();
    let second = batch(&table, vec![insert(2, "b", json!({"name": "2"}))]);
    let waiting = {
        let sink = sink.clone();
        tokio::spawn(async move { apply(&*sink, &second).await })
    };
    // It has to be seen waiting for the lock before the other one commits.
    let blocked = "SELECT pid::text FROM pg_locks WHERE NOT granted";
    while texts(&place, blocked).await.is_empty() {
        tokio::task::yield_now().await;
    }
    transaction.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(texts(&place, "SELECT id FROM t").await, ["a"], "the other one has written it");
}

async fn wrong_credentials_and_absent_databases_say_so(place: Place) {
    for (options, kind) in [
        (json!({"user": "nobody-of-that-name"}), ErrorKind::Unauthenticated),
        (json!({"database": "no_such_database"}), ErrorKind::NotFound),
        (json!({"ssl": true}), ErrorKind::Unauthenticated),
    ] {
        let error = place.sink(options.clone()).check(&cx()).await.unwrap_err();
        assert_eq!((error.kind(), error.scope()), (kind, Scope::Sink), "{options}: {error:?}");
        assert!(error.advice().is_some() && error.to_string().contains("server: "), "{error:?}");
    }
    // A dropped call leaves no transaction behind.
    let sink = place.sink(json!({}));
    let table = table("t", RouteMode::Upsert, json!({"name": "string"}));
    sync(&*sink, &table).await.unwrap();
    for seq in 1..200 {
        let batch = batch(&table, vec![insert(seq, "k", json!({"name": "n"}))]);
        let mut call = Box::pin(apply(&*sink, &batch));
        for _ in 0..seq % 40 {
            if (&mut call).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let last = batch(&table, vec![insert(500, "k", json!({"name": "last"}))]);
    apply(&*sink, &last).await.unwrap();
    assert_eq!(texts(&place, "SELECT name FROM t").await, ["last"]);
}

/// A key column that takes `a` for `A` would make one row of two records.
async fn keys_are_told_apart_exactly(place: Place) {
    let client = place.client().await;
    client
        .batch_execute(
            "CREATE EXTENSION citext; CREATE DOMAIN mail AS citext; \
             CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
             CREATE TABLE by_type (id citext PRIMARY KEY, name text); CREATE TABLE by_domain (id mail PRIMARY KEY, name text); \
             CREATE TABLE by_collation (id text COLLATE loose PRIMARY KEY, name text); \
             CREATE TABLE by_index (id text NOT NULL, name text); CREATE UNIQUE INDEX ON by_index (id COLLATE loose); \
             CREATE TABLE elsewhere (id text PRIMARY KEY, name citext, other text COLLATE loose)",
        )
        .await
        .unwrap();
    let sink = place.sink(json!({"schemaSync": {"enabled": false}}));
    for name in ["by_type", "by_domain", "by_collation", "by_index"] {
        let table = table(name, RouteMode::Upsert, json!({"name": "string"}));
        let error = apply(&*sink, &batch(&table, vec![insert(1, "a", json!({}))])).await.unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::SchemaMismatch, Scope::Table), "{error:?}");
        assert!(error.to_string().contains("`a` and `A`") && error.advice().is_some(), "{name}: {error:?}");
    }
    let table = table("elsewhere", RouteMode::Upsert, json!({"name": "string", "other": "string"}));
    apply(&*sink, &batch(&table, vec![insert(1, "a", json!({"name": "n"}))])).await.unwrap();
    client.batch_execute("ALTER TABLE elsewhere ALTER COLUMN id TYPE text COLLATE loose").await.unwrap();
    let error = apply(&*sink, &batch(&table, vec![insert(2, "A", json!({}))])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "noticed while it runs: {error:?}");
}

async fn deletes_find_keys_of_every_type(place: Place) {
    place
        .client()
        .await
        .batch_execute(
            "CREATE TYPE unit AS ENUM ('a', 'b', 'c', 'abc'); CREATE TABLE padded (id char(3) PRIMARY KEY, name text); \
             CREATE TABLE listed (id unit PRIMARY KEY, name text); CREATE TABLE limited (id varchar(3) PRIMARY KEY, name text)",
        )
        .await
        .unwrap();
    let sink = place.sink(json!({"schemaSync": {"enabled": false}}));
    for name in ["padded", "listed", "limited"] {
        let table = table(name, RouteMode::Upsert, json!({"name": "string"}));
        let rows = ["a", "b", "c", "abc"].iter().zip(1..).map(|(key, seq)| insert(seq, key, json!({})));
        apply(&*sink, &batch(&table, rows.collect())).await.unwrap();
        // The long way, and in one round trip.
        apply(&*place.sink(json!({})), &batch(&table, vec![row(5, "b", Operation::Delete, Value::Null)]))
            .await
            .unwrap();
        let keys = ["c", "a ", "a\0", "abcd"].iter().zip(6..);
        let deletes = keys.map(|(key, seq)| row(seq, key, Operation::Delete, Value::Null)).collect();
        assert!(apply(&*sink, &batch(&table, deletes)).await.unwrap().rejected.is_empty());
        let left = texts(&place, &format!("SELECT id::text FROM {name} ORDER BY 1")).await;
        assert_eq!(left, ["a", "abc"], "{name}");
    }
    let plan = "EXPLAIN DELETE FROM padded WHERE id = ANY ('{a}'::text[]::bpchar[])";
    let admin = place.client().await;
    admin.batch_execute("SET enable_seqscan TO off").await.unwrap();
    let lines = admin.query(plan, &[]).await.unwrap();
    assert!(lines.iter().any(|line| line.get::<_, String>(0).contains("padded_pkey")));
}

/// The next owner moves other cursors than the attempt of the one before it, which the server still carries out.
/// A server that took over and never heard of the last commits, or a backup that was restored: later changes would
/// hide that the ones before are gone.
async fn a_database_that_forgot_is_not_written_on(place: Place) {
    let sink = place.sink(json!({"schemaSync": {"enabled": true}}));
    let table = table("cars", RouteMode::Append, json!({"name": "string"}));
    sync(&*sink, &table).await.unwrap();
    let of = |seq: u64| batch(&table, vec![insert(seq, &format!("k{seq}"), json!({"name": "x"}))]);
    for seq in 1..=2 {
        apply(&*sink, &of(seq)).await.unwrap();
    }
    for loss in [
        "DELETE FROM cars WHERE id = 'k2'; UPDATE _s3rep_cursor SET seq = 1",
        "DELETE FROM cars; DELETE FROM _s3rep_cursor",
        "DELETE FROM cars; DROP TABLE _s3rep_cursor",
    ] {
        place.client().await.batch_execute(loss).await.unwrap();
        for _ in 0..2 {
            let error = apply(&*sink, &of(3)).await.unwrap_err();
            assert_eq!(error.scope(), Scope::Sink, "{loss}: {error:?}");
        }
        assert_eq!(
            texts(&place, "SELECT id FROM cars WHERE id = 'k3'").await,
            Vec::<String>::new(),
            "{loss}"
        );
        // Whoever asks where it stands goes on from there.
        sink.cursors(&cx(), "test").await.unwrap();
        for seq in 1..=2 {
            apply(&*sink, &of(seq)).await.unwrap();
        }
    }
    apply(&*sink, &of(3)).await.unwrap();
    assert_eq!(texts(&place, "SELECT id FROM cars ORDER BY id").await, ["k1", "k2", "k3"]);
}

async fn a_late_owner_is_waited_for_and_then_fenced_off(place: Place) {
    let old = place.sink(json!({}));
    let table = table("t", RouteMode::Upsert, json!({"name": "string"}));
    sync(&*old, &table).await.unwrap();
    apply(&*old, &batch(&table, vec![insert(1, "a", json!({"name": "1"}))])).await.unwrap();
    let mut late = place.client().await;
    let transaction = late.transaction().await.unwrap();
    transaction.execute("UPDATE _s3rep_cursor SET seq = 2 WHERE fence = 1", &[]).await.unwrap();
    let mut next = batch(&table, vec![RowChange { partition: Partition(1), ..insert(1, "b", json!({})) }]);
    next.progress.fence = 2;
    let new = place.sink(json!({}));
    let waiting = tokio::spawn(async move { apply(&*new, &next).await });
    let blocked = "SELECT pid::text FROM pg_locks WHERE NOT granted";
    while texts(&place, blocked).await.is_empty() {
        assert!(!waiting.is_finished(), "did not wait");
        tokio::task::yield_now().await;
    }
    transaction.commit().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().rejected.is_empty());
    let rows = "SELECT concat_ws(' ', \"partition\", seq, fence) FROM _s3rep_cursor ORDER BY 1";
    assert_eq!(texts(&place, rows).await, ["0 2 2", "1 1 2"]);
    let error = apply(&*old, &batch(&table, vec![insert(3, "a", json!({"name": "3"}))])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
    assert_eq!(texts(&place, "SELECT name FROM t WHERE id = 'a'").await, ["1"]);
}

async fn trouble_beside_the_rows_parks_no_record(place: Place) {
    let client = place.client().await;
    let sink = place.sink(json!({"logTable": "audit"}));
    let table = table("t", RouteMode::Upsert, json!({"name": "string"}));
    sync(&*sink, &table).await.unwrap();
    let one = batch(&table, vec![insert(1, "a", json!({"name": "s3cr3t"}))]);
    apply(&*sink, &one).await.unwrap();
    for (sql, scope, context) in [
        ("ALTER TABLE audit ADD CHECK (record_id = 'a')", Scope::Table, "logTable: audit"),
        ("DROP TABLE audit; CREATE TABLE audit AS SELECT 1 AS id", Scope::Table, "logTable: audit"),
        ("ALTER TABLE _s3rep_cursor ADD CHECK (seq <= 1)", Scope::Sink, "table: _s3rep_cursor"),
        ("ALTER TABLE _s3rep_cursor DROP COLUMN seq", Scope::Sink, "table: _s3rep_cursor"),
    ] {
        client.batch_execute(sql).await.unwrap();
        let logs = if scope == Scope::Table { json!({"logTable": "audit"}) } else { json!({}) };
        let two = batch(&table, vec![insert(2, "b", json!({"name": "s3cr3t"}))]);
        let error = apply(&*place.sink(logs), &two).await.unwrap_err();
        assert_eq!(error.scope(), scope, "{sql}: {error:?}");
        assert!(error.to_string().contains(context), "{error}");
        assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    }
    let address = format!("{}?options=-c%20work_mem%3Dnonsense", place.proxied);
    let error = place.sink(json!({"connectionString": address})).check(&cx()).await.unwrap_err();
    assert_eq!(error.scope(), Scope::Sink, "{error:?}");
}

/// A clock that goes on by so many seconds at every look.
struct Steps(u64, AtomicU64);

impl Steps {
    fn context(seconds: u64) -> Context {
        let steps = Arc::new(Self(seconds, AtomicU64::new(0)));
        Context::new(steps.clone(), steps)
    }
}

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.1.fetch_add(self.0, Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) -> s3rep_core::BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

impl Random for Steps {
    fn next_u64(&self) -> u64 {
        0
    }
}

async fn many_guilty_records_are_told_bit_by_bit(place: Place) {
    let sql = "CREATE TABLE t (id text PRIMARY KEY, big bigint CHECK (big <> 13))";
    place.client().await.batch_execute(sql).await.unwrap();
    let sink = place.sink(json!({}));
    let table = table("t", RouteMode::Upsert, json!({"big": "number"}));
    let record = |seq: u64| {
        insert(seq, &format!("k{seq:03}"), json!({"big": if seq.is_multiple_of(10) { 1 } else { 13 }}))
    };
    let mut rest = batch(&table, (1..=40).map(record).collect());
    let cx = Steps::context(1);
    let mut parts = Vec::new();
    loop {
        let rejected = sink.apply(&cx, &rest).await.unwrap().rejected;
        if rejected.is_empty() {
            break;
        }
        parts.push(rejected.len());
        rejected.iter().rev().for_each(|rejected| drop(rest.changes.remove(rejected.index)));
    }
    assert_eq!(parts.iter().sum::<usize>(), 36, "{parts:?}");
    assert!(parts.iter().all(|part| *part < 20), "{parts:?}");
    assert_eq!(texts(&place, "SELECT id FROM t ORDER BY 1").await, ["k010", "k020", "k030", "k040"]);
}

async fn unique_values_are_handed_on_within_a_batch(place: Place) {
    let sql = "CREATE TABLE t (id text PRIMARY KEY, place text UNIQUE)";
    place.client().await.batch_execute(sql).await.unwrap();
    // Not through the proxy, which would hold back small packets.
    let sink = place.sink(json!({"connectionString": place.direct}));
    let table = table("t", RouteMode::Upsert, json!({"place": "string"}));
    let key = |n: u64| format!("k{n:03}");
    let cx = Steps::context(0);
    // As arrays, then by COPY.
    for (round, count) in [(0, 20), (1, 260)] {
        let seq = |n: u64| round * 10_000 + n;
        let all = (1..=count).map(|n| insert(seq(n), &key(n), json!({"place": format!("{round} {n}")})));
        apply(&*sink, &batch(&table, all.collect())).await.unwrap();
        let moved = |n: u64, to: String| row(seq(1000 + n), &key(n), Operation::Update, json!({"place": to}));
        let mut up: Vec<_> = (1..=count).map(|n| moved(n, format!("{round} {}", n + 1))).collect();
        up.push(insert(seq(2000), "other", json!({"place": format!("{round} 5")})));
        assert_eq!(deliver_at(&cx, &*sink, batch(&table, up)).await, ["other"]);
        let down = (1..=count).map(|n| {
            row(seq(3000 + n), &key(n), Operation::Update, json!({"place": format!("{round} {n}")}))
        });
        assert_eq!(deliver_at(&cx, &*sink, batch(&table, down.collect())).await, [""; 0]);
    }
    let wrong = "SELECT id FROM t WHERE place <> '1 ' || ltrim(substr(id, 2), '0')";
    assert_eq!(texts(&place, wrong).await, [""; 0]);
}

/// However early the search for guilty records ends, a row is written or told.
async fn a_short_search_loses_no_row(place: Place) {
    let sink = place.sink(json!({}));
    for seconds in 0..=6 {
        let name = format!("t{seconds}");
        let sql = format!("CREATE TABLE {name} (id text PRIMARY KEY, place text UNIQUE)");
        place.client().await.batch_execute(&sql).await.unwrap();
        let table = table(&name, RouteMode::Upsert, json!({"place": "string"}));
        let change = |n: u64, seq: u64, to: u64| {
            row(seq, &format!("k{n:02}"), Operation::Update, json!({"place": to.to_string()}))
        };
        apply(&*sink, &batch(&table, (1..=20).map(|n| change(n, n, n)).collect())).await.unwrap();
        // Each second one hands its value to its neighbour.
        let handed_on = |n: u64| if n % 2 == 1 { n + 1 } else { n + 100 };
        let changes = (1..=20).map(|n| change(n, 100 + n, handed_on(n))).collect();
        let mut parked = deliver_at(&Steps::context(seconds), &*sink, batch(&table, changes)).await;
        parked.sort_unstable();
        assert!(seconds > 0 || parked.is_empty(), "{parked:?}");
        let old = format!("SELECT id FROM {name} WHERE place = ltrim(substr(id, 2), '0') ORDER BY 1");
        assert_eq!(texts(&place, &old).await, parked, "{seconds}");
    }
}

/// A server that is slow at changing tables: a large one is written anew.
async fn a_table_may_take_long_to_change(place: Place) {
    let sink = place.sink(json!({"statementTimeoutMillis": 200}));
    let narrow = table("t", RouteMode::Upsert, json!({"name": "string|maxlength:3"}));
    sync(&*sink, &narrow).await.unwrap();
    apply(&*sink, &batch(&narrow, vec![insert(1, "a", json!({"name": "n"}))])).await.unwrap();
    place
        .client()
        .await
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); END'; \
             CREATE EVENT TRIGGER slow ON ddl_command_start EXECUTE FUNCTION slow()",
        )
        .await
        .unwrap();
    let wide = table("t", RouteMode::Upsert, json!({"name": "string|maxlength:9"}));
    assert_eq!(sync(&*sink, &wide).await.unwrap().len(), 1);
}

async fn a_handshake_that_is_cut_off_is_tried_again(_: Place) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // What the server says after it was asked for TLS: nothing, or no TLS at all.
    tokio::spawn(async move {
        for answer in ["", "no handshake"] {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.read_exact(&mut [0; 8]).await.unwrap();
            connection.write_all(format!("S{answer}").as_bytes()).await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await;
        }
    });
    let options = json!({"host": "127.0.0.1", "port": port, "user": "me", "ssl": true});
    let sink = serde_json::from_value::<PostgresConfig>(options).unwrap().build().unwrap();
    for (kind, is_temporary) in [(ErrorKind::Unavailable, true), (ErrorKind::Unauthenticated, false)] {
        let error = sink.check(&cx()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_temporary(), error.scope()),
            (kind, is_temporary, Scope::Sink),
            "{error:?}"
        );
    }
}

/// What triggers say is never repeated, under whatever code they say it.
async fn triggers_cannot_tell_values(place: Place) {
    let sink = place.sink(json!({"schemaSync": {"enabled": false}}));
    let admin = place.client().await;
    let table = table("t", RouteMode::Upsert, json!({"name": "string"}));
    admin.batch_execute("CREATE TABLE t (id text PRIMARY KEY, name text)").await.unwrap();
    for says in [
        "RAISE '%', NEW.name",
        "RAISE '%', NEW.name USING ERRCODE = 'P0002'",
        "RAISE '%', NEW.name USING ERRCODE = '42501', TABLE = NEW.name",
        "RAISE '%', NEW.name USING ERRCODE = '57014'",
        "RAISE '%', NEW.name USING ERRCODE = 'ABCDE'",
        "ASSERT false, NEW.name",
        "EXECUTE 'SELECT no_function(' || quote_literal(NEW.name) || '::' || NEW.name || ')'",
        "EXECUTE 'bad ' || NEW.name",
    ] {
        admin
            .batch_execute(&format!(
                "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {says}; RETURN NEW; END$$; \
                 DROP TRIGGER IF EXISTS tell ON t; CREATE TRIGGER tell BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION tell()"
            ))
            .await
            .unwrap();
        let applied = apply(&*sink, &batch(&table, vec![insert(1, "a", json!({"name": "s3cr3t"}))])).await;
        let error = applied
            .map(|outcome| outcome.rejected.into_iter().next().unwrap().error)
            .unwrap_or_else(|error| error);
        assert!(!format!("{error:?}").contains("s3cr3t"), "{says}: {error:?}");
        assert!(error.to_string().contains("sqlstate: "), "{error:?}");
    }
}

async fn a_change_without_its_record_changes_nothing(place: Place) {
    let sink = place.sink(json!({}));
    let table = table("t", RouteMode::Upsert, json!({"name": "string"}));
    sync(&*sink, &table).await.unwrap();
    apply(&*sink, &batch(&table, vec![insert(1, "a", json!({"name": "n"}))])).await.unwrap();
    for (operation, seq) in [(Operation::Update, 2), (Operation::Insert, 3), (Operation::Read, 4)] {
        let parked = deliver(&*sink, batch(&table, vec![row(seq, "a", operation, Value::Null)])).await;
        assert_eq!(parked, ["a"], "{operation:?}");
    }
    assert_eq!(texts(&place, "SELECT name FROM t").await, ["n"]);
}

/// A default does not help a column that is written, with null where the record has nothing.
async fn a_default_excuses_only_what_is_not_written(place: Place) {
    let sql = "CREATE TABLE t (id text PRIMARY KEY DEFAULT 'x', active boolean NOT NULL DEFAULT true, \
               made timestamptz NOT NULL DEFAULT now())";
    place.client().await.batch_execute(sql).await.unwrap();
    let table = table("t", RouteMode::Upsert, json!({"active": "boolean"}));
    let one = batch(&table, vec![insert(1, "a", json!({}))]);
    let plain = json!({"schemaSync": {"enabled": false, "onMismatch": "error"}});
    let error = apply(&*place.sink(plain), &one).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::SchemaMismatch, Scope::Table), "{error:?}");
    assert!(error.to_string().contains("'active' accepts no null"), "{error}");
    let sink = place.sink(json!({}));
    let done = sync(&*sink, &table).await.unwrap();
    assert_eq!(done, ["ALTER TABLE \"t\" ALTER COLUMN \"active\" DROP NOT NULL"]);
    assert!(apply(&*sink, &one).await.unwrap().rejected.is_empty());
}

type Case = fn(Place) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        [$((stringify!($case), (|place| $case(place).boxed()) as Case)),*]
    };
}

fn main() {
    static DATABASES: OnceLock<Databases> = OnceLock::new();
    let arguments = Arguments::from_args();
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    if arguments.list {
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    let cases = cases![
        one_bad_record_among_neighbours,
        a_large_value_and_awkward_names,
        a_schema_of_its_own,
        dropped_and_forbidden_tables_pause,
        a_table_that_s3db_js_made,
        an_audit_table_has_each_change_once,
        cuts_leave_each_change_once,
        a_late_transaction_is_waited_for,
        wrong_credentials_and_absent_databases_say_so,
        keys_are_told_apart_exactly,
        deletes_find_keys_of_every_type,
        a_late_owner_is_waited_for_and_then_fenced_off,
        a_database_that_forgot_is_not_written_on,
        trouble_beside_the_rows_parks_no_record,
        many_guilty_records_are_told_bit_by_bit,
        unique_values_are_handed_on_within_a_batch,
        a_short_search_loses_no_row,
        a_table_may_take_long_to_change,
        a_handshake_that_is_cut_off_is_tried_again,
        triggers_cannot_tell_values,
        a_change_without_its_record_changes_nothing,
        a_default_excuses_only_what_is_not_written,
    ];
    let trials = match runtime.block_on(Databases::start()) {
        Err(missing) => vec![missing.trial("postgres")],
        Ok(databases) => {
            let databases = DATABASES.get_or_init(|| databases);
            let trial = |(name, case): (&'static str, Case)| {
                let runtime = runtime.clone();
                Trial::test(name, move || {
                    runtime.block_on(async { case(databases.fresh().await).await });
                    Ok(())
                })
            };
            cases.into_iter().map(trial).collect()
        }
    };
    // The server ends with this process.
    libtest_mimic::run(&arguments, trials).exit();
}
