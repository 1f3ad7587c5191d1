//! Resources after the source's, and keeping them so.

use async_trait::async_trait;
use s3rep_core::{
    Attribute, AttributeType, ColumnShape, Context, Error, ErrorKind, OnMismatch, Result, SchemaPlan,
    SchemaStrategy, SchemaSync, SchemaSyncOptions, Scope, Table, TableShape,
};
use serde_json::{Map, Value};

use super::{
    sink::{Need, S3dbSink},
    statement::Statement,
    target::{configuration, missing},
};
use crate::format::Document;

/// The error of a resource that is missing and may not be made.
pub(super) fn missing_table(table: &Table, options: &SchemaSyncOptions) -> Error {
    let reason = if options.auto_create_table {
        "schemaSync.strategy is validate-only"
    } else {
        "schemaSync.autoCreateTable is false"
    };
    Error::new(ErrorKind::SchemaMismatch, "there is no such resource")
        .with_scope(Scope::Table)
        .with_context("table", &table.name)
        .with_context("because", reason)
        .with_advice("create the resource or let schema synchronisation do it")
}

/// What kind of values an attribute holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Text,
    Number,
    Boolean,
    List,
    Object,
    Hash,
    Anything,
}

fn holds(kind: &AttributeType) -> Holds {
    use AttributeType as A;
    match kind {
        A::Number | A::Decimal(_) => Holds::Number,
        A::Boolean => Holds::Boolean,
        A::Array | A::Embedding => Holds::List,
        A::Object | A::Nested | A::GeoPoint => Holds::Object,
        A::Password => Holds::Hash,
        A::Json | A::Any => Holds::Anything,
        A::Unknown(name) if name == "bool" => Holds::Boolean,
        _ => Holds::Text,
    }
}

/// Whether a column's attribute can hold what another one has. The format refuses single values beyond that.
fn carries(column: &ColumnShape, attribute: &Attribute) -> bool {
    let definition = definition_of(&column.type_name);
    let Ok(have) = Attribute::parse(&column.name, &definition) else { return true };
    let (have, wanted) = (holds(&have.kind), holds(&attribute.kind));
    have == Holds::Anything || have == wanted || (have == Holds::Text && wanted == Holds::Hash)
}

/// Objects are printed as JSON; no text of the notation is one.
fn definition_of(type_name: &str) -> Value {
    let object = serde_json::from_str::<Map<String, Value>>(type_name);
    object.map_or_else(|_| type_name.into(), Value::Object)
}

fn shape_of(attributes: &Map<String, Value>) -> TableShape {
    let key = ColumnShape {
        name: "id".to_owned(),
        type_name: "string|required".to_owned(),
        nullable: false,
        primary_key: true,
    };
    let declared = attributes.iter().filter(|(name, _)| *name != "id" && !name.starts_with("$$"));
    let columns = declared.map(|(name, definition)| ColumnShape {
        name: name.clone(),
        type_name: definition.as_str().map_or_else(|| definition.to_string(), str::to_owned),
        nullable: true,
        primary_key: false,
    });
    TableShape { columns: std::iter::once(key).chain(columns).collect() }
}

fn plan(table: &Table, have: Option<&TableShape>, options: &SchemaSyncOptions) -> Result<SchemaPlan> {
    let create = Statement::CreateResource(configuration(table));
    // Names that no key can have are found here.
    create.run(&mut Document::empty(s3rep_core::Timestamp(0)), s3rep_core::Timestamp(0))?;
    let Some(have) = have else {
        if options.strategy == SchemaStrategy::ValidateOnly || !options.auto_create_table {
            return Err(missing_table(table, options));
        }
        return Ok(SchemaPlan { statements: vec![create.text()?], creates: true, ..SchemaPlan::default() });
    };
    let columns: Map<String, Value> =
        have.columns.iter().map(|column| (column.name.clone(), definition_of(&column.type_name))).collect();
    let missing = missing(&table.schema, &columns);
    let mut differences: Vec<String> = unfit(table, have);
    let resource = table.name.to_string();
    if options.strategy == SchemaStrategy::DropCreate && !(missing.is_empty() && differences.is_empty()) {
        let statements = vec![Statement::DropResource { resource }.text()?, create.text()?];
        return Ok(SchemaPlan { statements, creates: true, destructive: true, ..SchemaPlan::default() });
    }
    let may_alter = options.strategy == SchemaStrategy::Alter;
    let mut plan = SchemaPlan::default();
    if !missing.is_empty() && may_alter && options.auto_create_columns {
        let add = Statement::AddAttributes { resource: resource.clone(), attributes: missing };
        plan.statements.push(add.text()?);
    } else {
        differences.extend(missing.keys().map(|name| format!("it has no attribute '{name}'")));
    }
    let extra: Vec<String> = have.columns.iter().filter(|column| is_extra(table, column)).map(name).collect();
    if !extra.is_empty() && may_alter && options.drop_missing_columns {
        plan.statements.push(Statement::RemoveAttributes { resource, attributes: extra }.text()?);
        plan.destructive = true;
    }
    plan.warnings = tolerate(table, differences, options.on_mismatch)?;
    Ok(plan)
}

fn name(column: &ColumnShape) -> String {
    column.name.clone()
}

fn is_extra(table: &Table, column: &ColumnShape) -> bool {
    !column.primary_key && table.schema.attribute(&column.name).is_none()
}

/// Attributes of the resource that cannot hold what the source has.
fn unfit(table: &Table, have: &TableShape) -> Vec<String> {
    let columns = have.columns.iter().filter(|column| !column.primary_key);
    let unfit = columns.filter_map(|column| {
        let attribute = table.schema.attribute(&column.name)?;
        let (name, have) = (&column.name, &column.type_name);
        let wanted =
            attribute.definition.as_str().map_or_else(|| attribute.definition.to_string(), str::to_owned);
        (!carries(column, attribute)).then(|| format!("its attribute '{name}' is {have} instead of {wanted}"))
    });
    unfit.collect()
}

/// What is left to say of differences that nothing will mend. None is fatal: a record that meets one is refused.
fn tolerate(table: &Table, differences: Vec<String>, on_mismatch: OnMismatch) -> Result<Vec<String>> {
    match on_mismatch {
        OnMismatch::Error if !differences.is_empty() => {
            let message = format!("the resource does not fit: {}", differences.join("; "));
            Err(Error::new(ErrorKind::SchemaMismatch, message)
                .with_scope(Scope::Table)
                .with_context("table", &table.name)
                .with_advice(
                    "enable schemaSync with autoCreateColumns, change the resource, name another one in the \
                     mapping, or set schemaSync.onMismatch to warn",
                ))
        }
        OnMismatch::Warn => Ok(differences),
        _ => Ok(Vec::new()),
    }
}

#[async_trait]
impl SchemaSync for S3dbSink {
    async fn inspect(&self, cx: &Context, table: &Table) -> Result<Option<TableShape>> {
        let Some(database) = self.look(cx, Need::Existing).await? else { return Ok(None) };
        let document = database.document();
        Ok(document.resource(&table.name).and_then(|entry| entry.attributes()).map(shape_of))
    }

    fn plan(&self, table: &Table, have: Option<&TableShape>) -> Result<SchemaPlan> {
        plan(table, have, &self.options)
    }

    async fn execute(&self, cx: &Context, plan: &SchemaPlan) -> Result<()> {
        for statement in &plan.statements {
            self.run(cx, &Statement::parse(statement)?).await?;
        }
        Ok(())
    }
}
