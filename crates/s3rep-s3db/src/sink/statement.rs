//! What is done to `s3db.json`, as text that a plan can hold.

use s3rep_core::{Error, ErrorKind, Result, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::format::{Document, ResourceConfig};

/// One step; made again it changes nothing more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Statement {
    /// Makes a resource of a configuration as s3db.js takes it. One that is there gets the attributes that it
    /// lacks.
    CreateResource(Value),
    /// Adds those attributes that the resource lacks.
    AddAttributes { resource: String, attributes: Map<String, Value> },
    /// Removes attributes: their values can be read no more.
    RemoveAttributes { resource: String, attributes: Vec<String> },
    /// Removes the resource and every record of it.
    DropResource { resource: String },
}

impl Statement {
    pub(super) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a statement of the plan cannot be read").with_source(error)
        })
    }

    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a statement cannot be printed").with_source(error)
        })
    }

    /// The resource that it is about.
    pub(super) fn resource(&self) -> &str {
        match self {
            Self::CreateResource(config) => config.get("name").and_then(Value::as_str).unwrap_or_default(),
            Self::AddAttributes { resource, .. }
            | Self::RemoveAttributes { resource, .. }
            | Self::DropResource { resource } => resource,
        }
    }

    /// Does it to the document. True when that changed it.
    pub(super) fn run(&self, document: &mut Document, now: Timestamp) -> Result<bool> {
        let about = |error: Error| error.with_scope(Scope::Table).with_context("table", self.resource());
        match self {
            Self::CreateResource(config) => match document.resource(self.resource()) {
                None => document.put_resource(&ResourceConfig::from_value(config).map_err(about)?, now),
                Some(_) => {
                    let attributes = config.get("attributes").and_then(Value::as_object);
                    add(document, self.resource(), attributes.unwrap_or(&Map::new()), now)
                }
            },
            Self::AddAttributes { resource, attributes } => add(document, resource, attributes, now),
            Self::RemoveAttributes { resource, attributes } => remove(document, resource, attributes, now),
            Self::DropResource { resource } => Ok(document.remove_resource(resource)),
        }
        .map_err(about)
    }
}

/// Adds what is missing to a resource. What it has stays as it is.
fn add(
    document: &mut Document,
    resource: &str,
    attributes: &Map<String, Value>,
    now: Timestamp,
) -> Result<bool> {
    let mut config = config_of(document, resource)?;
    let missing: Vec<_> =
        attributes.iter().filter(|(name, _)| !config.attributes.contains_key(*name)).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    config.attributes.extend(missing.into_iter().map(|(name, rule)| (name.clone(), rule.clone())));
    document.put_resource(&config, now)
}

fn remove(document: &mut Document, resource: &str, attributes: &[String], now: Timestamp) -> Result<bool> {
    let mut config = config_of(document, resource)?;
    let before = config.attributes.len();
    config.attributes.retain(|name, _| !attributes.contains(name));
    if config.attributes.len() == before { Ok(false) } else { document.put_resource(&config, now) }
}

/// The configuration that a resource of the document was made of.
fn config_of(document: &Document, resource: &str) -> Result<ResourceConfig> {
    let entry = document.resource(resource).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the destination has no such resource any more")
            .with_advice("it was removed meanwhile; it is made anew with the next record")
    })?;
    let mut config = entry.definition();
    config.insert("name".to_owned(), resource.into());
    ResourceConfig::from_value(&Value::Object(config))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statements_survive_text_and_change_nothing_twice() {
        let config = json!({
            "name": "cars", "attributes": {"a": "string"}, "behavior": "body-only", "timestamps": true,
            "partitions": {"byA": {"fields": {"a": "string"}}}, "paranoid": false, "idSize": 10,
        });
        let more = json!({"b": "number|optional", "a": "number"}).as_object().unwrap().clone();
        let mut document = Document::empty(Timestamp(0));
        for statement in [
            Statement::CreateResource(config),
            Statement::AddAttributes { resource: "cars".into(), attributes: more },
        ] {
            let statement = Statement::parse(&statement.text().unwrap()).unwrap();
            assert!(statement.run(&mut document, Timestamp(1)).unwrap());
            assert!(!statement.run(&mut document, Timestamp(2)).unwrap());
        }
        let entry = document.resource("cars").unwrap();
        let current = entry.current().unwrap();
        assert_eq!(entry.version(), "v2");
        assert_eq!(current["attributes"]["a"], "string");
        assert_eq!(current["attributes"]["b"], "number|optional");
        for (member, value) in
            [("behavior", json!("body-only")), ("paranoid", json!(false)), ("idSize", json!(10))]
        {
            assert_eq!(current[member], value);
        }
        assert_eq!(current["partitions"].as_object().unwrap().len(), 3);
        let drop = Statement::DropResource { resource: "cars".into() };
        assert!(drop.run(&mut document, Timestamp(3)).unwrap());
        assert!(!drop.run(&mut document, Timestamp(3)).unwrap());
    }
}
