//! The resources that are written to, as far as they are known.

use std::{collections::HashMap, sync::Arc};

use s3rep_core::{Attribute, AttributeType, Error, ResourceSchema, Result, Scope, Secret, Table, Timestamp};
use serde_json::{Map, Value, json};

use super::statement::Statement;
use crate::{
    database::Database,
    format::{Document, ResourceConfig, ResourceFormat},
    resource::Replica,
};

/// A table of a batch and the resource that it is written to.
#[derive(Debug)]
pub(super) struct Target {
    schema: Arc<ResourceSchema>,
    /// `None` while the destination has no such resource.
    pub(super) replica: Option<Replica>,
    /// Attributes of the schema that the resource lacks.
    pub(super) missing: Map<String, Value>,
    /// Encodes as the resource will when it has all attributes, with secrets open: what a row will be.
    pub(super) expected: Arc<ResourceFormat>,
}

/// Targets by table; forgotten when the destination's definitions change.
#[derive(Debug, Default)]
pub(super) struct Targets(HashMap<Arc<str>, Arc<Target>>);

impl Targets {
    pub(super) fn get(&self, table: &Table) -> Option<Arc<Target>> {
        let target = self.0.get(&table.name)?;
        let same = Arc::ptr_eq(&target.schema, &table.schema) || target.schema == table.schema;
        same.then(|| target.clone())
    }

    pub(super) fn put(&mut self, table: &Table, target: Arc<Target>) {
        self.0.insert(table.name.clone(), target);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Target {
    pub(super) fn new(database: Option<&Database>, table: &Table, passphrase: &Secret) -> Result<Self> {
        let about = |error: Error| error.with_scope(Scope::Table).with_context("table", &table.name);
        let document = database.map_or_else(|| Document::empty(Timestamp(0)), Database::document);
        let limit = database.map_or(2047, |database| database.store().metadata_limit());
        let open = opens_secrets(&table.schema);
        let format = |document: &Document, open| {
            let format = ResourceFormat::new(document, &table.name, passphrase).map_err(about)?;
            Ok::<_, Error>(format.with_metadata_limit(limit).with_auto_decrypt(open))
        };
        let replica = match database.filter(|_| document.resource(&table.name).is_some()) {
            Some(database) => {
                Some(Replica::new(database, format(&document, open)?, format(&document, false)?))
            }
            None => None,
        };
        let missing = match document.resource(&table.name).and_then(|entry| entry.attributes()) {
            Some(have) => missing(&table.schema, have),
            None => Map::new(),
        };
        let mut planned = document;
        let statement = match &replica {
            None => Statement::CreateResource(configuration(table)),
            Some(_) => {
                let resource = table.name.to_string();
                Statement::AddAttributes { resource, attributes: missing.clone() }
            }
        };
        match statement.run(&mut planned, Timestamp(0)) {
            Err(error) if replica.is_none() => return Err(error),
            _ => {}
        }
        Ok(Self {
            schema: table.schema.clone(),
            replica,
            missing,
            expected: Arc::new(format(&planned, false)?),
        })
    }
}

/// A source that does not open its secrets hands them over as they are stored.
fn opens_secrets(schema: &ResourceSchema) -> bool {
    let definition = schema.definition.as_ref();
    definition.and_then(|definition| definition.get("autoDecrypt")) != Some(&Value::Bool(false))
}

/// The attributes of a schema that a resource lacks, in a form that it takes.
pub(super) fn missing(schema: &ResourceSchema, have: &Map<String, Value>) -> Map<String, Value> {
    schema
        .attributes
        .iter()
        .filter(|attribute| attribute.name != "id" && !have.contains_key(&attribute.name))
        .map(|attribute| (attribute.name.clone(), notation(attribute)))
        .collect()
}

/// The configuration of a resource that is missing: the source's definition, or one of the attributes alone.
pub(super) fn configuration(table: &Table) -> Value {
    if let Some(definition) = table.schema.definition.as_ref().filter(|d| fits(&table.schema, d)) {
        let mut config = Map::clone(definition);
        config.insert("name".to_owned(), (*table.name).into());
        if is_taken(&config) {
            return Value::Object(config);
        }
    }
    let mut attributes = Map::new();
    for attribute in table.schema.attributes.iter().filter(|attribute| attribute.name != "id") {
        attributes.insert(attribute.name.clone(), attribute.definition.clone());
    }
    let mut config = Map::new();
    config.insert("name".to_owned(), (*table.name).into());
    config.insert("behavior".to_owned(), "body-overflow".into());
    config.insert("attributes".to_owned(), Value::Object(attributes));
    if !is_taken(&config) {
        let attributes = missing(&table.schema, &Map::new());
        config.insert("attributes".to_owned(), Value::Object(attributes));
    }
    Value::Object(config)
}

/// Whether a definition is still that of the attributes: a mapping may have changed these.
fn fits(schema: &ResourceSchema, definition: &Map<String, Value>) -> bool {
    let Some(attributes) = definition.get("attributes").and_then(Value::as_object) else { return false };
    let declared = attributes.iter().filter(|(name, _)| !name.starts_with("$$"));
    declared.eq(schema.attributes.iter().map(|attribute| (&attribute.name, &attribute.definition)))
}

fn is_taken(config: &Map<String, Value>) -> bool {
    let config = ResourceConfig::from_value(&Value::Object(config.clone()));
    config.is_ok_and(|config| Document::empty(Timestamp(0)).put_resource(&config, Timestamp(0)).is_ok())
}

/// The attribute as it was declared, or as s3db.js takes it: types that it does not know are carried as text.
fn notation(attribute: &Attribute) -> Value {
    let mut config = Map::new();
    config.insert("name".to_owned(), "r".into());
    config.insert("attributes".to_owned(), json!({ attribute.name.as_str(): attribute.definition }));
    if is_taken(&config) {
        return attribute.definition.clone();
    }
    let kind = match &attribute.kind {
        AttributeType::Boolean => "boolean",
        AttributeType::Array => "array",
        AttributeType::Object | AttributeType::Nested | AttributeType::Json => "json",
        AttributeType::Number => "number",
        _ => "string",
    };
    let presence = if attribute.required { "required" } else { "optional" };
    format!("{kind}|{presence}").into()
}

#[cfg(test)]
mod tests {
    use s3rep_core::RouteMode;

    use super::*;

    fn table(attributes: &Value) -> Table {
        let schema = ResourceSchema::parse("cars", "v1", attributes.as_object().unwrap()).unwrap();
        Table { name: "copies".into(), mode: RouteMode::Upsert, schema: Arc::new(schema) }
    }

    fn defined(attributes: &Value, definition: &Value) -> Table {
        let mut table = table(attributes);
        let schema = ResourceSchema::clone(&table.schema);
        table.schema = Arc::new(schema.with_definition(definition.as_object().unwrap().clone()));
        table
    }

    #[test]
    fn a_missing_resource_is_made_after_the_source() {
        let attributes = json!({"a": "string|required|maxlength:5", "b": {"c": "number"}});
        let definition = json!({
            "attributes": attributes, "behavior": "body-only", "timestamps": false, "idSize": 7,
            "partitions": {"byA": {"fields": {"a": "string"}}},
        });
        let config = configuration(&defined(&attributes, &definition));
        assert_eq!(config["behavior"], "body-only");
        assert_eq!(config["partitions"], definition["partitions"]);
        assert_eq!(config["name"], "copies");
        // A mapping took an attribute away: partitions may be of it.
        let config = configuration(&defined(&json!({"b": {"c": "number"}}), &definition));
        assert_eq!(config["behavior"], "body-overflow");
        assert_eq!(config["attributes"], json!({"b": {"c": "number"}}));
        assert!(config.get("partitions").is_none());
    }

    #[test]
    fn attributes_are_declared_as_they_were_unless_nobody_takes_that() {
        let attributes = json!({
            "a": "string|required|maxlength:5", "b": "bool", "c": "plugin-type|required",
            "d": {"type": "number", "min": 0}, "e": {"x": "plugin-type"}, "f": "embedding:3", "id": "string",
        });
        let config = configuration(&table(&attributes));
        let wanted = json!({
            "a": "string|required|maxlength:5", "b": "boolean|optional", "c": "string|required",
            "d": {"type": "number", "min": 0}, "e": "json|optional", "f": "embedding:3",
        });
        assert_eq!(config["attributes"], wanted);
    }
}
