//! The shapes of the resources, as the last pass found them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use s3rep_core::ResourceSchema;

type ByName = HashMap<Arc<str>, Arc<ResourceSchema>>;

/// Shared by the capture, which publishes, and the lanes, which read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schemas {
    known: Arc<RwLock<ByName>>,
}

impl Schemas {
    pub(crate) fn new(resources: Vec<Arc<ResourceSchema>>) -> Self {
        let schemas = Self::default();
        schemas.publish(resources);
        schemas
    }

    /// Takes the resources of a pass. A resource that is gone keeps its shape: its last deletes need it.
    pub(crate) fn publish(&self, resources: Vec<Arc<ResourceSchema>>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for schema in resources {
            // An unchanged shape keeps its place in memory, so that comparing it stays cheap.
            if known.get(&schema.name).is_none_or(|old| *old != schema) {
                known.insert(schema.name.clone(), schema);
            }
        }
    }

    /// The shape of a resource. One that nobody has seen (it was removed while the program was down) has no
    /// attributes: enough for the deletes that are left of it.
    pub(crate) fn of(&self, resource: &Arc<str>) -> Arc<ResourceSchema> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(resource).cloned().unwrap_or_else(|| {
            Arc::new(ResourceSchema { name: resource.clone(), version: "".into(), attributes: Vec::new() })
        })
    }
}
