//! Schema synchronisation of the memory sink.

use std::fmt;

use async_trait::async_trait;
use s3rep_core::{
    ColumnShape, Context, Error, ErrorKind, Result, RouteMode, SchemaPlan, SchemaStrategy, SchemaSync, Scope,
    Table, TableShape,
};
use serde::{Deserialize, Serialize};

use super::memory_place::MemoryPlace;

/// Adds what is missing and leaves the rest alone, or drops what does not fit and creates it anew. Its statements
/// are JSON.
#[derive(Clone)]
pub(super) struct MemorySchema {
    place: MemoryPlace,
    strategy: SchemaStrategy,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Statement {
    Drop { table: String },
    Create { table: String },
    Add { table: String, column: String },
}

/// The type of columns that take nothing.
const SEALED: &str = "sealed";

impl MemorySchema {
    pub(super) fn new(place: MemoryPlace, strategy: SchemaStrategy) -> Self {
        Self { place, strategy }
    }

    /// The same over another place.
    pub(super) fn over(&self, place: MemoryPlace) -> Self {
        Self::new(place, self.strategy)
    }
}

/// What the table has to have beside its key and does not have.
fn missing<'a>(table: &'a Table, have: Option<&TableShape>) -> Vec<&'a str> {
    let attributes = table.schema.attributes.iter().map(|attribute| &*attribute.name);
    let has = |name: &str| have.is_some_and(|have| have.columns.iter().any(|column| column.name == name));
    attributes.filter(|name| *name != "id" && !has(name)).collect()
}

#[async_trait]
impl SchemaSync for MemorySchema {
    async fn inspect(&self, _: &Context, table: &Table) -> Result<Option<TableShape>> {
        let state = self.place.lock();
        let Some(known) = state.tables.get(&*table.name) else { return Ok(None) };
        let type_name = if known.sealed { SEALED } else { "any" };
        Ok(known.columns.as_ref().map(|columns| TableShape {
            columns: columns
                .iter()
                .map(|name| ColumnShape {
                    name: name.clone(),
                    type_name: type_name.to_owned(),
                    nullable: name != "id",
                    primary_key: name == "id" && table.mode == RouteMode::Upsert,
                })
                .collect(),
        }))
    }

    fn plan(&self, table: &Table, have: Option<&TableShape>) -> Result<SchemaPlan> {
        if have.is_some_and(|have| have.columns.iter().any(|column| column.type_name == SEALED)) {
            return Err(Error::new(ErrorKind::SchemaMismatch, "nothing fits into this table")
                .with_scope(Scope::Table)
                .with_context("table", &table.name)
                .with_advice("write to another one"));
        }
        let recreates =
            self.strategy == SchemaStrategy::DropCreate && have.is_some() && !missing(table, have).is_empty();
        let have = have.filter(|_| !recreates);
        let mut plan =
            SchemaPlan { creates: have.is_none(), destructive: recreates, ..SchemaPlan::default() };
        let mut push = |statement: &Statement| -> Result<()> {
            let text = serde_json::to_string(statement)
                .map_err(|e| Error::new(ErrorKind::Unexpected, "cannot write a plan").with_source(e))?;
            plan.statements.push(text);
            Ok(())
        };
        if recreates {
            push(&Statement::Drop { table: table.name.to_string() })?;
        }
        if have.is_none() {
            push(&Statement::Create { table: table.name.to_string() })?;
        }
        for column in missing(table, have) {
            push(&Statement::Add { table: table.name.to_string(), column: column.to_owned() })?;
        }
        Ok(plan)
    }

    async fn execute(&self, _: &Context, plan: &SchemaPlan) -> Result<()> {
        for text in &plan.statements {
            let statement = serde_json::from_str(text)
                .map_err(|e| Error::new(ErrorKind::Unexpected, "this is not a plan").with_source(e))?;
            let mut state = self.place.lock();
            match statement {
                Statement::Drop { table } => drop(state.tables.remove(&table)),
                Statement::Create { table } => {
                    let table = state.tables.entry(table).or_default();
                    table.columns.get_or_insert_with(|| vec!["id".to_owned()]);
                }
                Statement::Add { table, column } => {
                    let columns = state.tables.get_mut(&table).and_then(|table| table.columns.as_mut());
                    let columns =
                        columns.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such table"))?;
                    if !columns.contains(&column) {
                        columns.push(column);
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for MemorySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemorySchema")
    }
}
