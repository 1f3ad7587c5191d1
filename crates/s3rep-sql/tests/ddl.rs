//! Golden tests of tables and plans.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use s3rep_core::{
    ColumnShape, ErrorKind, OnMismatch, ResourceSchema, RouteMode, SchemaStrategy, SchemaSyncOptions, Scope,
    Table, TableShape,
};
use s3rep_sql::{Column, Dialect, Layout, Role, TypeClass};
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
        json!({"id": "string|required", "select": "string|required", "a\"b": "json", "日本": "number|integer|min:0|max:9"}),
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

/// The tables that s3db.js 21.6.2 plans, but for: quotes, which numbers are whole, required
/// nested objects, which become NOT NULL, in SQLite the two times that nothing writes, and in MySQL the types
/// that would cut values (TEXT and DATETIME).
#[test]
fn types_are_those_of_the_reference() {
    for (dialect, name) in [
        (SQLITE, "sqlite"),
        (Dialect::Postgres, "postgres"),
        (Dialect::Mysql, "mysql"),
        (Dialect::Mariadb, "mysql"),
    ] {
        let mut columns = 0;
        for line in include_str!("fixtures/vectors-ddl.jsonl").lines() {
            let vector: Value = serde_json::from_str(line).unwrap();
            let table = table("t", RouteMode::Upsert, vector["attributes"].clone());
            let reference = vector[name].as_str().unwrap();
            for column in Layout::of(dialect, &table).unwrap().columns {
                let expected = reference_line(dialect, &table, &column);
                assert!(reference.contains(&expected), "{name}: {expected} is not in {reference}");
                columns += 1;
            }
        }
        assert!(columns > 60, "{columns}");
    }
}

/// The column as the reference writes it.
fn reference_line(dialect: Dialect, table: &Table, column: &Column) -> String {
    let is_mysql = matches!(dialect, Dialect::Mysql | Dialect::Mariadb);
    let quoted = match dialect {
        Dialect::Sqlite => column.name.clone(),
        // The reference does not escape quotes.
        Dialect::Postgres => format!("\"{}\"", column.name),
        _ => format!("`{}`", column.name),
    };
    match column.role {
        Role::Key if dialect == SQLITE => "\n  id TEXT PRIMARY KEY".to_owned(),
        Role::Key => "\n  id VARCHAR(255) PRIMARY KEY".to_owned(),
        Role::Attribute(index) => {
            let attribute = &table.schema.attributes[index];
            let is_nested = attribute.kind == s3rep_core::AttributeType::Nested;
            let null = if column.nullable || is_nested { "NULL" } else { "NOT NULL" };
            let (double, small) =
                (dialect.type_name(TypeClass::Double), dialect.type_name(TypeClass::Integer));
            let has_small_range = attribute.min.is_some_and(|min| min >= 0.0)
                && attribute.max.is_some_and(|max| max <= 2_147_483_647.0);
            let type_name = match &*column.type_name {
                _ if attribute.kind == s3rep_core::AttributeType::Number && has_small_range => &*small,
                _ if attribute.integer => &double,
                "LONGTEXT" => "TEXT",
                "DATETIME(6)" => "DATETIME",
                other => other,
            };
            format!("\n  {quoted} {type_name} {null}")
        }
        Role::CreatedAt if is_mysql => "\n  created_at DATETIME DEFAULT CURRENT_TIMESTAMP".to_owned(),
        Role::UpdatedAt if is_mysql => {
            "\n  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP".to_owned()
        }
        Role::CreatedAt => "\n  created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()".to_owned(),
        Role::UpdatedAt => "\n  updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()".to_owned(),
        other => panic!("{other:?} in an upsert table"),
    }
}

const EVERY_TYPE: &str = r#"{"name": "string|required", "code": "string|maxlength:50", "price": "number",
    "doors": "number|integer|min:0|max:9", "size": "number|integer", "sold": "boolean", "tags": "array|items:string",
    "ip": "ip4", "uid": "uuid", "made": "datetime"}"#;

#[test]
fn a_table_of_postgres() {
    let attributes: Value = serde_json::from_str(EVERY_TYPE).unwrap();
    let upsert = table("sales.cars", RouteMode::Upsert, attributes.clone());
    insta::assert_snapshot!(Dialect::Postgres.create_table(&upsert).unwrap(), @r#"
    CREATE TABLE IF NOT EXISTS "sales"."cars" (
      "id" VARCHAR(255) NOT NULL PRIMARY KEY,
      "name" TEXT NOT NULL,
      "code" VARCHAR(50) NULL,
      "price" DOUBLE PRECISION NULL,
      "doors" INTEGER NULL,
      "size" BIGINT NULL,
      "sold" BOOLEAN NULL,
      "tags" JSONB NULL,
      "ip" INET NULL,
      "uid" UUID NULL,
      "made" TIMESTAMP WITH TIME ZONE NULL,
      "created_at" TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
      "updated_at" TIMESTAMP WITH TIME ZONE DEFAULT NOW()
    )
    "#);
    let append = table("cars_log", RouteMode::Append, json!({"name": "string|required"}));
    insta::assert_snapshot!(Dialect::Postgres.create_table(&append).unwrap(), @r#"
    CREATE TABLE IF NOT EXISTS "cars_log" (
      "id" VARCHAR(255) NOT NULL,
      "name" TEXT NULL,
      "_operation" TEXT NOT NULL,
      "_change_id" TEXT NOT NULL UNIQUE,
      "_changed_at" TIMESTAMP WITH TIME ZONE NOT NULL,
      "_row" BIGINT GENERATED ALWAYS AS IDENTITY
    )
    "#);
}

#[test]
fn a_table_of_mysql() {
    let attributes: Value = serde_json::from_str(EVERY_TYPE).unwrap();
    let upsert = table("cars", RouteMode::Upsert, attributes.clone());
    insta::assert_snapshot!(Dialect::Mysql.create_table(&upsert).unwrap(), @r#"
    CREATE TABLE IF NOT EXISTS `cars` (
      `id` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL PRIMARY KEY,
      `name` LONGTEXT NOT NULL,
      `code` VARCHAR(50) NULL,
      `price` DOUBLE NULL,
      `doors` INT NULL,
      `size` BIGINT NULL,
      `sold` TINYINT(1) NULL,
      `tags` JSON NULL,
      `ip` VARCHAR(15) NULL,
      `uid` CHAR(36) NULL,
      `made` DATETIME(6) NULL,
      `created_at` DATETIME DEFAULT CURRENT_TIMESTAMP,
      `updated_at` DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
    "#);
    let append = table("cars_log", RouteMode::Append, json!({"name": "string|required"}));
    insta::assert_snapshot!(Dialect::Mariadb.create_table(&append).unwrap(), @r#"
    CREATE TABLE IF NOT EXISTS `cars_log` (
      `id` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
      `name` LONGTEXT NULL,
      `_operation` VARCHAR(16) NOT NULL,
      `_change_id` CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
      `_changed_at` DATETIME(6) NOT NULL,
      `_row` BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
    "#);
}

#[test]
fn the_table_of_cursors() {
    insta::assert_snapshot!(Dialect::Postgres.create_cursor_table("_s3rep_cursor"), @r#"
    CREATE TABLE IF NOT EXISTS _s3rep_cursor (
      replicator TEXT NOT NULL,
      table_name TEXT NOT NULL,
      "partition" INTEGER NOT NULL,
      seq BIGINT NOT NULL,
      log TEXT NOT NULL,
      fence BIGINT NOT NULL,
      PRIMARY KEY (replicator, table_name, "partition")
    )
    "#);
    insta::assert_snapshot!(Dialect::Mysql.create_cursor_table("_s3rep_cursor"), @r#"
    CREATE TABLE IF NOT EXISTS _s3rep_cursor (
      replicator VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
      table_name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL,
      `partition` INTEGER NOT NULL,
      seq BIGINT NOT NULL,
      log VARCHAR(255) NOT NULL,
      fence BIGINT NOT NULL,
      PRIMARY KEY (replicator, table_name, `partition`)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
    "#);
}

#[test]
fn columns_are_made_wider_and_never_narrower() {
    let attributes = json!({"name": "string", "code": "string|maxlength:100", "size": "number|integer",
                            "made": "datetime", "note": "string|maxlength:20"});
    let wanted = table("t", RouteMode::Upsert, attributes);
    let have = shape(&[
        "id character varying(255)!*",
        "name character varying(50)!",
        "code character varying(50)",
        "size integer",
        "made timestamp(0) with time zone",
        "note text",
    ]);
    let plan = Dialect::Postgres.plan(&wanted, Some(&have), &options(|_| {})).unwrap();
    insta::assert_snapshot!(plan.statements.join("\n"), @r#"
    ALTER TABLE "t" ALTER COLUMN "name" TYPE TEXT
    ALTER TABLE "t" ALTER COLUMN "name" DROP NOT NULL
    ALTER TABLE "t" ALTER COLUMN "code" TYPE VARCHAR(100)
    ALTER TABLE "t" ALTER COLUMN "size" TYPE BIGINT
    ALTER TABLE "t" ALTER COLUMN "made" TYPE TIMESTAMP WITH TIME ZONE
    "#);
    assert!(!plan.destructive);
    insta::assert_snapshot!(plan.notes.join("\n"), @r#"the column 'note' has text, which is wider than VARCHAR(20): it stays as it is unless schemaSync.narrowColumns is true"#);

    let narrow = options(|o| o.narrow_columns = true);
    let plan = Dialect::Postgres.plan(&wanted, Some(&have), &narrow).unwrap();
    assert!(plan.destructive && plan.statements.last().unwrap().contains("VARCHAR(20)"), "{plan:?}");

    let validate = options(|o| o.strategy = SchemaStrategy::ValidateOnly);
    let error = Dialect::Postgres.plan(&wanted, Some(&have), &validate).unwrap_err();
    assert!(error.to_string().contains("which is narrower than"), "{error}");

    let have = shape(&[
        "id varchar(255)!*",
        "name varchar(50)!",
        "code varchar(50)",
        "size int(11)",
        "made datetime",
        "note longtext",
    ]);
    let plan = Dialect::Mysql.plan(&wanted, Some(&have), &options(|_| {})).unwrap();
    insta::assert_snapshot!(plan.statements.join("\n"), @r#"
    ALTER TABLE `t` MODIFY COLUMN `name` LONGTEXT NULL
    ALTER TABLE `t` MODIFY COLUMN `code` VARCHAR(100) NULL
    ALTER TABLE `t` MODIFY COLUMN `size` BIGINT NULL
    ALTER TABLE `t` MODIFY COLUMN `made` DATETIME(6) NULL
    "#);
}

#[test]
fn a_table_as_its_layout_needs_nothing() {
    // As the databases print the types.
    for (dialect, columns) in [
        (
            Dialect::Postgres,
            [
                "id character varying(255)!*",
                "name text!",
                "code character varying(50)",
                "price double precision",
                "doors integer",
                "size bigint",
                "sold boolean",
                "tags jsonb",
                "ip inet",
                "uid uuid",
                "made timestamp with time zone",
                "created_at timestamp with time zone",
            ],
        ),
        (
            Dialect::Mariadb,
            [
                "id varchar(255)!*",
                "name longtext!",
                "code varchar(50)",
                "price double",
                "doors int(11)",
                "size bigint(20)",
                "sold tinyint(1)",
                "tags longtext",
                "ip varchar(15)",
                "uid char(36)",
                "made datetime(6)",
                "updated_at datetime",
            ],
        ),
    ] {
        let attributes: Value = serde_json::from_str(EVERY_TYPE).unwrap();
        let table = table("cars", RouteMode::Upsert, attributes);
        let plan = dialect.plan(&table, Some(&shape(&columns)), &options(|_| {})).unwrap();
        assert_eq!(plan, Default::default(), "{dialect:?}");
    }
}

#[test]
fn renames_are_declared_or_only_noted() {
    let wanted = table("users", RouteMode::Upsert, json!({"phoneNumber": "string"}));
    let have = shape(&["id text!*", "phone text"]);
    let plan = Dialect::Postgres.plan(&wanted, Some(&have), &options(|_| {})).unwrap();
    assert_eq!(plan.statements, [r#"ALTER TABLE "users" ADD COLUMN IF NOT EXISTS "phoneNumber" TEXT NULL"#]);
    assert!(plan.notes[0].contains("renameColumns"), "{plan:?}");
    let declared: SchemaSyncOptions = serde_json::from_value(
        json!({"enabled": true, "renameColumns": {"users": {"phone": "phoneNumber", "gone": "phoneNumber"}}}),
    )
    .unwrap();
    let plan = Dialect::Postgres.plan(&wanted, Some(&have), &declared).unwrap();
    assert_eq!(plan.statements, [r#"ALTER TABLE "users" RENAME COLUMN "phone" TO "phoneNumber""#]);
    // Once it is done there is nothing left to do.
    let plan =
        Dialect::Postgres.plan(&wanted, Some(&shape(&["id text!*", "phoneNumber text"])), &declared).unwrap();
    assert_eq!(plan, Default::default());
}
