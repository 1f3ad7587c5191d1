//! The shapes of the resources, as the last pass found them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use s3rep_core::{ChangeLog, Context, ResourceSchema, Result, StateWrite};
use serde_json::{Map, Value, json};

/// Where the shapes are remembered in the log's state.
const SPACE: &str = "schemas";

type ByName = HashMap<Arc<str>, Arc<ResourceSchema>>;

/// Shared by the capture, which publishes, and the lanes, which read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schemas {
    known: Arc<RwLock<ByName>>,
}

fn write(schema: &ResourceSchema) -> StateWrite {
    let attributes: Map<String, Value> = schema
        .attributes
        .iter()
        .map(|attribute| (attribute.name.clone(), attribute.definition.clone()))
        .collect();
    let mut value = json!({"version": schema.version, "attributes": attributes});
    if let Some(definition) = &schema.definition {
        value["definition"] = Value::Object(Map::clone(definition));
    }
    let value = value.to_string().into_bytes();
    StateWrite { space: SPACE.to_owned(), key: schema.name.to_string(), value: Some(value) }
}

/// What cannot be read is as good as forgotten.
fn parse(name: &str, value: &[u8]) -> Option<ResourceSchema> {
    let mut value: Value = serde_json::from_slice(value).ok()?;
    let schema =
        ResourceSchema::parse(name, value["version"].as_str()?, value["attributes"].as_object()?).ok()?;
    Some(match value["definition"].take() {
        Value::Object(definition) => schema.with_definition(definition),
        _ => schema,
    })
}

impl Schemas {
    /// Takes the resources of a pass, and returns those that are new or changed. A resource that is gone keeps
    /// its shape: its last deletes need it.
    pub(crate) fn publish(&self, resources: Vec<Arc<ResourceSchema>>) -> Vec<Arc<ResourceSchema>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Vec::new();
        for schema in resources {
            // An unchanged shape keeps its place in memory, so that comparing it stays cheap.
            if known.get(&schema.name).is_none_or(|old| *old != schema) {
                known.insert(schema.name.clone(), schema.clone());
                changed.push(schema);
            }
        }
        changed
    }

    /// Reads what earlier runs remembered, for resources that are gone by now.
    pub(crate) async fn recall(cx: &Context, log: &dyn ChangeLog) -> Result<Self> {
        const MAX: usize = 100_000;
        let remembered = log.scan(cx, SPACE, None, MAX).await?;
        let schemas = Self::default();
        schemas.publish(
            remembered.iter().filter_map(|(name, value)| parse(name, value)).map(Arc::new).collect(),
        );
        Ok(schemas)
    }

    /// Takes the resources of a pass and makes what is new of them durable.
    pub(crate) async fn remember(
        &self,
        cx: &Context,
        log: &dyn ChangeLog,
        resources: Vec<Arc<ResourceSchema>>,
    ) -> Result<()> {
        let changed = self.publish(resources);
        if changed.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = changed.iter().map(|schema| write(schema)).collect();
        log.append(cx, &[], &writes).await.map(drop)
    }

    /// Whether the shape of a resource is known in that version.
    pub(crate) fn knows(&self, resource: &Arc<str>, version: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(resource).is_some_and(|schema| *schema.version == *version)
    }

    /// The shape of a resource. One that nobody has seen (it was removed while the program was down) has no
    /// attributes: enough for the deletes that are left of it.
    pub(crate) fn of(&self, resource: &Arc<str>) -> Arc<ResourceSchema> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(resource).cloned().unwrap_or_else(|| {
            Arc::new(ResourceSchema {
                name: resource.clone(),
                version: "".into(),
                attributes: Vec::new(),
                definition: None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_remembered_whole() {
        let attributes = json!({"name": "string|required", "profile": {"bio": "string"}});
        let plain = ResourceSchema::parse("cars", "v2", attributes.as_object().unwrap()).unwrap();
        let definition = json!({"attributes": attributes, "behavior": "body-only", "partitions": {}});
        let defined = plain.clone().with_definition(definition.as_object().unwrap().clone());
        for schema in [plain, defined] {
            let written = write(&schema);
            assert_eq!(parse(&written.key, &written.value.unwrap()).unwrap(), schema);
        }
    }
}
