//! Tables follow the resources, whatever they are called.

use std::sync::Arc;

use s3rep_core::{Error, ErrorKind, Operation, ResourceSchema, RouteMode, SchemaSync, Scope, Table};
use serde_json::{Map, Value, json};

use super::{
    Checked, Failure, ensure, ensure_eq,
    scene::{Harness, MARK, Scene, record},
    theme,
};
use crate::history;

theme! {
    "schema/a table is made from the attributes, and then fits" [SchemaSync] creates;
    "schema/planning looks and does nothing" [SchemaSync] plans;
    "schema/a plan that runs twice does no harm" [SchemaSync] twice;
    "schema/a new attribute is a column before the first change that needs it" [SchemaSync, Sight] grows;
    "schema/an attribute that is gone leaves its column" [SchemaSync, Sight] shrinks;
    "schema/a new required attribute on rows that lack it" [SchemaSync, Sight] new_required;
    "schema/a table that does not fit is refused and said to be" [SchemaSync, UnfitTable] unfit;
    "schema/every kind of attribute makes a table" [SchemaSync, Sight] kinds;
    "names/tables with hostile names work or are refused clearly" [Sight] table_names;
    "names/attributes with hostile names work or are refused clearly" [Sight] attribute_names;
    "names/tables with names that are alike do not mix" [Sight] alike_tables;
}

fn sync_of(scene: &Scene) -> Checked<&dyn SchemaSync> {
    let sync = scene.sink.schema_sync();
    sync.ok_or_else(|| Failure("the test says that the sink has schema synchronisation".to_owned()))
}

fn modes(harness: &Harness) -> impl Iterator<Item = RouteMode> {
    let capability = harness.capability;
    [RouteMode::Upsert, RouteMode::Append].into_iter().filter(move |mode| capability.supports(*mode))
}

fn table(name: &str, mode: RouteMode) -> Arc<Table> {
    Arc::new(Table { name: name.into(), mode, schema: history::schema(name) })
}

/// A schema of [`history::schema`]'s required attribute and these.
fn schema_with(name: &str, attributes: &[(&str, Value)]) -> Arc<ResourceSchema> {
    let mut declaration = Map::new();
    declaration.insert("name".to_owned(), "string|required".into());
    declaration.insert("note".to_owned(), "string|optional".into());
    declaration.extend(attributes.iter().map(|(name, definition)| ((*name).to_owned(), definition.clone())));
    Arc::new(ResourceSchema::parse(name, "v2", &declaration).expect("a valid definition"))
}

async fn creates(harness: Harness) -> Checked {
    for mode in modes(&harness) {
        let mut scene = harness.start().await;
        let table = table("t", mode);
        let sync = sync_of(&scene)?;
        ensure_eq!(sync.inspect(&scene.cx, &table).await?, None, "an absent table");
        let plan = sync.plan(&table, None)?;
        ensure!(plan.creates && !plan.statements.is_empty(), "the plan for an absent table does not make it");
        ensure!(!plan.destructive, "the plan for an absent table says that it loses data");
        sync.execute(&scene.cx, &plan).await?;
        for when in ["right after", "after a restart"] {
            let sync = sync_of(&scene)?;
            let Some(shape) = sync.inspect(&scene.cx, &table).await? else {
                return Err(format!("the table is not there {when}").into());
            };
            for attribute in &table.schema.attributes {
                let has = shape.columns.iter().any(|column| column.name == attribute.name);
                ensure!(has, "there is no column for {} {when}", attribute.name);
            }
            let again = sync.plan(&table, Some(&shape))?;
            ensure_eq!(again.statements, Vec::<String>::new(), "the plan for a table that fits {when}");
            ensure!(!again.creates && !again.destructive, "the plan for a table that fits {when}");
            scene.reopen().await;
        }
    }
    Ok(())
}

async fn plans(harness: Harness) -> Checked {
    for mode in modes(&harness) {
        let scene = harness.start().await;
        let table = table("t", mode);
        let sync = sync_of(&scene)?;
        let first = sync.plan(&table, None)?;
        ensure_eq!(sync.plan(&table, None)?, first, "the same question");
        ensure_eq!(sync.inspect(&scene.cx, &table).await?, None, "the table after planning");
    }
    Ok(())
}

async fn twice(harness: Harness) -> Checked {
    for mode in modes(&harness) {
        let visible = harness.visible_modes().contains(&mode);
        let mut scene = harness.start().await;
        let table = table("t", mode);
        let create = sync_of(&scene)?.plan(&table, None)?;
        for _ in 0..2 {
            sync_of(&scene)?.execute(&scene.cx, &create).await?;
        }
        scene.write(&table, scene.inserts("a", 3)).await?;
        sync_of(&scene)?.execute(&scene.cx, &create).await?;
        if visible {
            scene.verify(&table, "after the plan ran again over rows").await?;
        }
        let schema = schema_with("t", &[("extra", "string|optional".into()), ("more", "number".into())]);
        let grown = Table { schema, ..(*table).clone() };
        let have = sync_of(&scene)?.inspect(&scene.cx, &grown).await?;
        let grow = sync_of(&scene)?.plan(&grown, have.as_ref())?;
        ensure!(!grow.statements.is_empty(), "new attributes need no plan");
        for _ in 0..2 {
            // A process that died in the middle runs it again from its beginning.
            sync_of(&scene)?.execute(&scene.cx, &grow).await?;
            scene.reopen().await;
        }
        if visible {
            scene.verify(&table, "after columns were added twice").await?;
        }
    }
    Ok(())
}

async fn grows(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let old = scene.table("t", mode).await?;
        scene.write(&old, scene.inserts("old", 3)).await?;
        let mut attributes = Map::new();
        for attribute in &old.schema.attributes {
            attributes.insert(attribute.name.clone(), attribute.definition.clone());
        }
        attributes.insert("extra".to_owned(), "string|optional".into());
        attributes.insert("more".to_owned(), "number|optional".into());
        let schema = ResourceSchema::parse("t", "v2", &attributes)?;
        let new = scene.table_of("t", mode, Arc::new(schema)).await?;
        scene.verify(&new, "after the columns were added").await?;
        let content = record(json!({"extra": "e", "more": 1.5}));
        scene.write(&new, vec![scene.change("new", Operation::Insert, Some(content))]).await?;
        // What was captured under the older version arrives after it.
        scene.write(&old, vec![scene.update("old-00001", "2")]).await?;
        scene.verify(&new, "after changes of both versions").await?;
        scene.reopen().await;
        scene.sync(&new).await?;
        scene.verify(&new, "after a restart").await?;
    }
    Ok(())
}

async fn shrinks(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let old = scene.table("t", mode).await?;
        scene.write(&old, scene.inserts("old", 3)).await?;
        let new = Table { schema: schema_with("t", &[]), ..(*old).clone() };
        let sync = sync_of(&scene)?;
        let have = sync.inspect(&scene.cx, &new).await?;
        let plan = sync.plan(&new, have.as_ref())?;
        ensure!(!plan.destructive, "a plan loses data without being told to");
        sync.execute(&scene.cx, &plan).await?;
        scene.verify(&old, "after an attribute was taken away").await?;
        scene.write(&Arc::new(new), scene.inserts("new", 2)).await?;
        scene.verify(&old, "after rows that lack it").await?;
    }
    Ok(())
}

async fn new_required(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let old = scene.table_of("t", mode, schema_with("t", &[])).await?;
        scene.write(&old, scene.inserts("old", 3)).await?;
        let schema = schema_with("t", &[("owner", "string|required".into())]);
        let new = Arc::new(Table { schema, ..(*old).clone() });
        match scene.sync(&new).await {
            Err(error) => ensure_eq!(error.kind(), ErrorKind::SchemaMismatch, "the kind of the refusal"),
            Ok(()) => {
                let content = record(json!({"owner": "me"}));
                scene.write(&new, vec![scene.change("new", Operation::Insert, Some(content))]).await?;
            }
        }
        scene.verify(&old, "after a required attribute was added").await?;
    }
    Ok(())
}

async fn unfit(harness: Harness) -> Checked {
    for mode in modes(&harness) {
        let scene = harness.start().await;
        let table = table("unfit", mode);
        scene.make_unfit(&table).await;
        let error = match scene.sync(&table).await {
            Err(error) => error,
            // A strategy that only looks lets it pass, and the first batch tells.
            Ok(()) => match scene.apply(&scene.batch(&table, scene.inserts("a", 2))).await {
                Err(error) => error,
                Ok(_) => return Err("a table that does not fit takes a batch".to_owned().into()),
            },
        };
        ensure_eq!(error.kind(), ErrorKind::SchemaMismatch, "the kind of the refusal");
        ensure!(!error.is_temporary() && error.scope() == Scope::Table, "not about the table: {error:?}");
        ensure!(error.advice().is_some(), "the error does not say what to do: {error:?}");
        ensure!(error.report().contains("unfit"), "the error does not name the table: {error:?}");
        let fine = scene.table("fine", mode).await?;
        let outcome = scene.apply(&scene.batch(&fine, scene.inserts("a", 2))).await?;
        ensure!(outcome.rejected.is_empty(), "another table suffers");
    }
    Ok(())
}

/// A hash as bcrypt writes it.
const PASSWORD: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

async fn kinds(harness: Harness) -> Checked {
    let definitions = [
        ("string|maxlength:10", json!("ten signs!")),
        ("string|maxlength:20000", json!("text")),
        ("number", json!(1.25)),
        ("number|min:0|max:100", json!(99.5)),
        ("number|integer|min:0|max:100", json!(99)),
        ("boolean", json!(true)),
        ("bool", json!(false)),
        ("json", json!({"a": [1, "x", null]})),
        ("object", json!({"free": {"form": true}})),
        ("array|items:number", json!([1, 2, 3])),
        ("embedding:3", json!([0.25, -1.5, 3.0])),
        ("ip4", json!("192.0.2.1")),
        ("ip6", json!("2001:db8::1")),
        ("secret", json!("geheim")),
        ("password", json!(PASSWORD)),
        ("uuid", json!("123e4567-e89b-12d3-a456-426614174000")),
        ("date", json!("2026-01-31T10:20:30.456Z")),
        ("datetime", json!("2026-01-31T10:20:30.456Z")),
        ("dateonly", json!("2026-01-31")),
        ("timeonly", json!("10:20:30.456")),
        ("email", json!("a@example.com")),
        ("money", json!(12.34)),
        ("geo:lat", json!(-23.55052)),
        ("geo:point", json!({"latitude": 1.5, "longitude": -2.25})),
        ("buffer", json!("aGVsbG8=")),
        ("any", json!("anything")),
        ("somebodys-plugin-type", json!("carried as text")),
    ];
    let names: Vec<String> = (0..definitions.len()).map(|i| format!("a{i}")).collect();
    let attributes: Vec<(&str, Value)> =
        names.iter().zip(&definitions).map(|(name, (d, _))| (name.as_str(), Value::from(*d))).collect();
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let table = scene.table_of("t", mode, schema_with("t", &attributes)).await?;
        for (name, (definition, value)) in names.iter().zip(&definitions) {
            let change = scene.change(name, Operation::Insert, Some(record(json!({ name.as_str(): value }))));
            let written = scene.write(&table, vec![change]).await;
            written.map_err(|failure| Failure(format!("{definition}: {}", failure.0)))?;
        }
        scene.verify(&table, "after a value of each kind").await?;
        let empty = scene.change("empty", Operation::Insert, Some(record(json!({}))));
        scene.write(&table, vec![empty]).await?;
        scene.verify(&table, "after a record that has none of them").await?;
    }
    Ok(())
}

/// A refusal of a name: said for good, classified and without the record.
fn refused_clearly(error: &Error, what: &str) -> Checked {
    ensure!(!error.is_temporary(), "{what}: told to try again: {error:?}");
    ensure!(error.kind() != ErrorKind::Unexpected, "{what}: the refusal is not classified: {error:?}");
    ensure!(!error.report().contains(MARK), "{what}: the refusal shows a value");
    Ok(())
}

/// Writes through a table with a hostile name, or is refused. Says whether it worked.
async fn try_table(scene: &mut Scene, table: &Arc<Table>, what: &str, member: &str) -> Checked<bool> {
    if let Err(error) = scene.sync(table).await {
        refused_clearly(&error, what)?;
        return Ok(false);
    }
    for round in 0..2 {
        let content = |key: &str| {
            let content = record(json!({ member: format!("{key} {round}") }));
            scene.change(key, Operation::Update, Some(content))
        };
        let batch = scene.batch(table, vec![content("a"), content("b")]);
        match scene.apply(&batch).await {
            Ok(outcome) => match outcome.rejected.first() {
                None => scene.expect(&batch),
                Some(rejected) => {
                    refused_clearly(&rejected.error, what)?;
                    return Ok(false);
                }
            },
            Err(error) => {
                refused_clearly(&error, what)?;
                return Ok(false);
            }
        }
        let verified = scene.verify(table, what).await;
        verified.map_err(|failure| Failure(format!("{what}: {}", failure.0)))?;
        scene.reopen().await;
    }
    Ok(true)
}

const HOSTILE: &[&str] = &[
    "order",
    "select",
    "table",
    "with space",
    "quo\"te",
    "tick`",
    "a'b",
    "a.b",
    "a;drop table cars;--",
    "back\\slash",
    "[bracket]",
    "$dollar",
    "100%",
    "ünïcödé",
    "日本語",
    "UPPER",
    "camelCase",
    "with-dash",
    "9lives",
    "_",
    "%s%n",
    "new\nline",
];

async fn table_names(harness: Harness) -> Checked {
    let more = ["sqlite_master", "../escape", "/absolute", "..", "nul\u{0}", ""];
    let long = "long_".repeat(60);
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let calm = scene.table("calm", mode).await?;
        scene.write(&calm, scene.inserts("a", 3)).await?;
        let mut worked = 0;
        for name in HOSTILE.iter().copied().chain(more).chain([long.as_str()]) {
            let table = Arc::new(Table { name: name.into(), mode, schema: history::schema("t") });
            worked +=
                usize::from(try_table(&mut scene, &table, &format!("a table named {name:?}"), "note").await?);
            scene.verify(&calm, &format!("after a table named {name:?}")).await?;
        }
        ensure!(worked > 5, "only {worked} names work");
    }
    Ok(())
}

async fn attribute_names(harness: Harness) -> Checked {
    let more = ["_operation", "_change_id", "_changed_at", "rowid", "oid", "Note", "NAME", "ID", "nul\u{0}"];
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let mut worked = 0;
        for (i, name) in HOSTILE.iter().copied().chain(more).enumerate() {
            let schema = schema_with("t", &[(name, "string|optional".into())]);
            let table = Arc::new(Table { name: format!("t{i}").into(), mode, schema });
            worked += usize::from(
                try_table(&mut scene, &table, &format!("an attribute named {name:?}"), name).await?,
            );
        }
        ensure!(worked > 5, "only {worked} names work");
    }
    Ok(())
}

/// Names that a destination takes for one may be refused, in the life of one sink: both are configured there.
/// Rows of two resources in one table may not happen.
async fn alike_tables(harness: Harness) -> Checked {
    for mode in harness.visible_modes() {
        let mut scene = harness.start().await;
        let mut tables = Vec::new();
        for name in ["cars", "Cars", "cars ", "ca_rs", "ca rs", "ca-rs"] {
            let what = format!("a table named {name:?}");
            let table = Arc::new(Table { name: name.into(), mode, schema: history::schema("t") });
            if let Err(error) = scene.sync(&table).await {
                refused_clearly(&error, &what)?;
                continue;
            }
            let key = format!("only in {name:?}");
            let batch = scene.batch(&table, vec![scene.insert(&key, "1"), scene.insert("in all", name)]);
            match scene.apply(&batch).await {
                Err(error) => refused_clearly(&error, &what)?,
                Ok(outcome) => {
                    ensure!(outcome.rejected.is_empty(), "{what}: records are refused for it");
                    scene.expect(&batch);
                    tables.push(table);
                }
            }
        }
        for table in &tables {
            scene.verify(table, "beside tables with names that are alike").await?;
        }
    }
    Ok(())
}
