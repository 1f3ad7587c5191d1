//! Golden tests of tables and plans.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use s3rep_core::{
    ColumnShape, ErrorKind, OnMismatch, ResourceSchema, RouteMode, SchemaStrategy, SchemaSyncOptions, Scope,
    Table, TableShape,
};
use s3rep_sql::{Dialect, Layout, Role};
use serde_json::{Value, json};

const SQLITE: Dialect = Dialect::Sqlite;

fn table(name: &str, mode: RouteMode, attributes: Value) -> Table {
    let schema = ResourceSchema::parse("r", "v1", attributes.as_object().unwrap()).unwrap();
    Table { name: name.into(), mode, schema: Arc::new(schema) }
}

fn cars() -> Table {
    table(
        "cars",
        RouteMode::Upsert,
        json!({"name": "string|required", "price": "number", "doors": "number|integer", "sold": "boolean",
               "tags": "array|items:string"}),
    )
}

/// `name TYPE`, with `!` for not null and `*` for the primary key.
fn shape(columns: &[&str]) -> TableShape {
    let column = |text: &&str| {
        let (name, type_name) = text.split_once(' ').unwrap();
        let bare = type_name.trim_end_matches(['!', '*']);
        ColumnShape {
            name: name.into(),
            type_name: bare.into(),
            nullable: !type_name.contains('!'),
            primary_key: type_name.contains('*'),
        }
    };
    TableShape { columns: columns.iter().map(column).collect() }
}

fn options(change: impl FnOnce(&mut SchemaSyncOptions)) -> SchemaSyncOptions {
    let mut options = SchemaSyncOptions { enabled: true, ..SchemaSyncOptions::default() };
    change(&mut options);
    options
}

const FITTING: [&str; 6] =
    ["id TEXT!*", "name TEXT!", "price REAL", "doors INTEGER", "sold INTEGER", "tags TEXT"];

#[test]
fn an_upsert_table() {
    insta::assert_snapshot!(SQLITE.create_table(&cars()).unwrap(), @r#"
    CREATE TABLE IF NOT EXISTS "cars" (
      "id" TEXT NOT NULL PRIMARY KEY,
      "name" TEXT NOT NULL,
      "price" REAL NULL,
      "doors" INTEGER NULL,
      "sold" INTEGER NULL,
      "tags" TEXT NULL
    )
    "#);
}

#[test]
fn an_append_table_with_hostile_names() {
    let table = table(
        "x\"; drop table y",
        RouteMode::Append,
        json!({"id": "string|required", "select": "string|required", "a\"b": "json", "日本": "number|min:0|max:9"}),
    );
    insta::assert_snapshot!(SQLITE.create_table(&table).unwrap(), @r#"
    CREATE TABLE IF NOT EXISTS "x""; drop table y" (
      "id" TEXT NOT NULL,
      "select" TEXT NULL,
      "a""b" TEXT NULL,
      "日本" INTEGER NULL,
      "_operation" TEXT NOT NULL,
      "_change_id" TEXT NOT NULL UNIQUE,
      "_changed_at" TEXT NOT NULL
    )
    "#);
}

#[test]
fn attributes_that_are_one_column_are_refused() {
    for (mode, attributes) in [
        (RouteMode::Upsert, json!({"name": "string", "Name": "string"})),
        (RouteMode::Upsert, json!({"ID": "string"})),
        (RouteMode::Append, json!({"_OPERATION": "string"})),
    ] {
        let error = SQLITE.create_table(&table("t", mode, attributes)).unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::SchemaMismatch, Scope::Table), "{error}");
        assert!(error.to_string().contains("columns: '"), "{error}");
    }
    // Other letters have case too, but SQLite only knows ASCII's.
    SQLITE.create_table(&table("t", RouteMode::Upsert, json!({"é": "string", "É": "string"}))).unwrap();
    for (name, attributes) in [("t", json!({"": "string"})), ("t", json!({"a\0": "string"})), ("", json!({}))]
    {
        let error = SQLITE.create_table(&table(name, RouteMode::Upsert, attributes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error}");
    }
}

#[test]
fn a_fitting_table_needs_nothing() {
    let plan = SQLITE.plan(&cars(), Some(&shape(&FITTING)), &options(|_| {})).unwrap();
    assert_eq!(plan, s3rep_core::SchemaPlan::default());
    // Wider or hand-made columns fit too, and foreign columns are left alone.
    let hand_made = shape(&[
        "extra TEXT",
        "ID VARCHAR(255)*",
        "Name TEXT",
        "price NUMERIC",
        "doors BIGINT",
        "sold BOOLEAN",
        "tags JSON",
    ]);
    assert_eq!(SQLITE.plan(&cars(), Some(&hand_made), &options(|_| {})).unwrap(), Default::default());
}

#[test]
fn missing_columns_are_added_as_nullable() {
    let plan = SQLITE.plan(&cars(), Some(&shape(&["id TEXT!*", "price REAL"])), &options(|_| {})).unwrap();
    assert_eq!((plan.creates, plan.destructive), (false, false));
    insta::assert_snapshot!(plan.statements.join("\n"), @r#"
    ALTER TABLE "cars" ADD COLUMN "name" TEXT NULL
    ALTER TABLE "cars" ADD COLUMN "doors" INTEGER NULL
    ALTER TABLE "cars" ADD COLUMN "sold" INTEGER NULL
    ALTER TABLE "cars" ADD COLUMN "tags" TEXT NULL
    "#);
}

#[test]
fn what_may_not_be_mended_follows_on_mismatch() {
    let have = shape(&["id TEXT!*", "name TEXT!", "price TEXT", "doors INTEGER!", "tags TEXT", "vin TEXT!"]);
    for strategy in [SchemaStrategy::ValidateOnly, SchemaStrategy::Alter] {
        let with = |on_mismatch| {
            let options = options(|o| {
                (o.strategy, o.on_mismatch, o.auto_create_columns) = (strategy, on_mismatch, false);
            });
            SQLITE.plan(&cars(), Some(&have), &options)
        };
        let error = with(OnMismatch::Error).unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::SchemaMismatch, Scope::Table));
        insta::allow_duplicates!(
            insta::assert_snapshot!(error, @"the table does not fit: the column 'price' of 'price' has TEXT instead of REAL; the column 'doors' accepts no null, and the attribute 'doors' may have none; there is no column for the attribute 'sold'; the column 'vin' has no attribute and accepts no null (table: cars)")
        );
        assert_eq!(with(OnMismatch::Warn).unwrap().warnings.len(), 4);
        assert_eq!(with(OnMismatch::Ignore).unwrap(), Default::default());
    }
}

#[test]
fn a_numeric_key_or_a_missing_service_column_is_never_tolerated() {
    let lenient = options(|o| o.on_mismatch = OnMismatch::Ignore);
    let upsert = table("t", RouteMode::Upsert, json!({}));
    for have in [shape(&["id INTEGER*"]), shape(&["name TEXT"])] {
        let error = SQLITE.plan(&upsert, Some(&have), &lenient).unwrap_err();
        assert!(error.to_string().contains("'id'"), "{error}");
    }
    let append = table("t", RouteMode::Append, json!({}));
    let error = SQLITE.plan(&append, Some(&shape(&["id TEXT"])), &lenient).unwrap_err();
    assert!(error.to_string().contains("'_change_id'"), "{error}");
}

#[test]
fn absent_tables_are_created_or_an_error() {
    let plan = SQLITE.plan(&cars(), None, &options(|_| {})).unwrap();
    assert!(plan.creates && !plan.destructive && plan.statements.len() == 1);
    for forbidden in [
        options(|o| o.auto_create_table = false),
        options(|o| o.strategy = SchemaStrategy::ValidateOnly),
        options(|o| (o.strategy, o.on_mismatch) = (SchemaStrategy::ValidateOnly, OnMismatch::Ignore)),
    ] {
        assert_eq!(SQLITE.plan(&cars(), None, &forbidden).unwrap_err().kind(), ErrorKind::SchemaMismatch);
    }
}

#[test]
fn destructive_plans_say_so() {
    let odd = shape(&["id TEXT!*", "price TEXT"]);
    let plan =
        SQLITE.plan(&cars(), Some(&odd), &options(|o| o.strategy = SchemaStrategy::DropCreate)).unwrap();
    assert!(plan.creates && plan.destructive);
    assert_eq!(plan.statements[0], r#"DROP TABLE IF EXISTS "cars""#);
    let fitting = shape(&FITTING);
    let plan =
        SQLITE.plan(&cars(), Some(&fitting), &options(|o| o.strategy = SchemaStrategy::DropCreate)).unwrap();
    assert_eq!(plan, Default::default(), "a table that fits is not dropped");

    let mut extra = shape(&FITTING);
    extra.columns.extend(shape(&["old\"one TEXT!"]).columns);
    let plan = SQLITE.plan(&cars(), Some(&extra), &options(|o| o.drop_missing_columns = true)).unwrap();
    assert!(plan.destructive);
    assert_eq!(plan.statements, [r#"ALTER TABLE "cars" DROP COLUMN "old""one""#]);
}

#[test]
fn rows_go_to_the_columns_there_are() {
    let table =
        table("t", RouteMode::Upsert, json!({"createdAt": "datetime", "created_at": "string", "x": "any"}));
    let have = shape(&["id TEXT*", "created_at TEXT", "createdat TEXT"]);
    let fit = SQLITE.fit(&table, &have, OnMismatch::Warn).unwrap();
    let columns: Vec<_> = fit.columns.iter().map(|column| (column.role, &*column.shape.name)).collect();
    assert_eq!(
        columns,
        [(Role::Key, "id"), (Role::Attribute(0), "createdat"), (Role::Attribute(1), "created_at")]
    );
    assert_eq!(fit.warnings, ["there is no column for the attribute 'x'"]);
    assert!(SQLITE.fit(&table, &have, OnMismatch::Error).unwrap_err().to_string().contains("'x'"));

    let fit =
        SQLITE.fit(&table, &shape(&["id TEXT*", "created_at TEXT", "x ANY"]), OnMismatch::Ignore).unwrap();
    assert_eq!(fit.columns[1].role, Role::Attribute(1), "an exact name goes before a similar one");
}

/// The tables that s3db.js 21.6.2 plans, but for: quotes, the two timestamps that nothing writes, `integer`
/// numbers, which become INTEGER, and required nested objects, which become NOT NULL.
#[test]
fn types_are_those_of_the_reference() {
    let mut columns = 0;
    for line in include_str!("fixtures/vectors-ddl.jsonl").lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let table = table("t", RouteMode::Upsert, vector["attributes"].clone());
        let reference = vector["sqlite"].as_str().unwrap();
        for column in Layout::of(SQLITE, &table).unwrap().columns {
            let Role::Attribute(index) = column.role else { continue };
            let attribute = &table.schema.attributes[index];
            let is_nested = attribute.kind == s3rep_core::AttributeType::Nested;
            let null = if column.nullable || is_nested { "NULL" } else { "NOT NULL" };
            let type_name = if attribute.integer { "REAL" } else { column.type_name };
            let line = format!("\n  {} {type_name} {null}", column.name);
            assert!(reference.contains(&line), "{line} is not in {reference}");
            columns += 1;
        }
    }
    assert!(columns > 60, "{columns}");
}
