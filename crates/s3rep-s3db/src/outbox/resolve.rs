//! Finds out what became of writes that were cut off: what the store has and the log does not is told.

use std::sync::Arc;

use s3rep_core::{ChangeId, Context, Operation, Record, Result};
use sha2::{Digest, Sha256};

use super::{Intent, Key, Outbox, change_of};
use crate::{database::Database, format::record_key, resource::Resource, tail::remembered};

impl Outbox {
    /// Resolves every intent that is open and not being worked on. One that cannot be resolved now (the store
    /// is down, the record cannot be decoded) stays open; the others are resolved.
    ///
    /// # Errors
    /// The first that could not be resolved.
    pub(crate) async fn resolve_all(&self, cx: &Context, database: &Database) -> Result<()> {
        let mut problem = None;
        for key in self.claims.all_unresolved() {
            if let Err(error) = self.resolve_one(cx, database, &key).await {
                let (resource, id) = &key;
                problem.get_or_insert(error.with_context("resource", resource).with_context("id", id));
            }
        }
        problem.map_or(Ok(()), Err)
    }

    async fn resolve_one(&self, cx: &Context, database: &Database, key: &Key) -> Result<()> {
        let (resource, id) = key;
        let _in_line = database.inner.in_line(&record_key(resource, id)?).await;
        let resource = match database.resource(resource) {
            Ok(resource) => Some(resource),
            Err(_) if !database.resources().iter().any(|name| **name == **resource) => None,
            Err(error) => return Err(error),
        };
        self.resolve(cx, resource.as_ref(), key).await
    }

    /// Resolves the intent of one record, if there is one. The caller holds the record's place in line.
    ///
    /// # Errors
    /// When the record cannot be read or decoded, or the log not be written.
    pub(crate) async fn resolve(&self, cx: &Context, resource: Option<&Resource>, key: &Key) -> Result<()> {
        let Some(intent) = self.claims.unresolved(key) else { return Ok(()) };
        let told = remembered::record(cx, &*self.log, &key.0, &key.1).await?.map(Arc::new);
        let current = match resource {
            Some(resource) => match resource.load(&key.1).await {
                Ok(current) => current.map(|(record, _)| Arc::new(record)),
                // As it was found.
                Err(error) if intent.undecodable && !error.is_temporary() => {
                    return self.conclude(cx, key, None).await;
                }
                Err(error) => return Err(error),
            },
            // With the resource all its records are gone.
            None => None,
        };
        if let Some(resource) = resource {
            resource.mend_references(&key.1, intent.before.as_deref(), current.as_deref()).await?;
        }
        let version = resource.map_or_else(|| "".into(), |resource| resource.schema().version.clone());
        let change = difference(key, &intent, told, current.clone())
            .map(|intent| change_of(key, &intent, current, version));
        self.conclude(cx, key, change).await
    }
}

/// What is to be told: `told` is the record as the log has it, `current` as it is in the store.
fn difference(
    (resource, id): &Key,
    intent: &Intent,
    told: Option<Arc<Record>>,
    current: Option<Arc<Record>>,
) -> Option<Intent> {
    // Nobody has told of the record yet: it is older than the log, or of another program.
    let before = told.or_else(|| intent.before.clone());
    let operation = match (&before, &current) {
        _ if before == current && !intent.undecodable => return None,
        (_, None) => Operation::Delete,
        (None, Some(_)) => Operation::Insert,
        (Some(_), Some(_)) => Operation::Update,
    };
    let change = if operation == intent.operation {
        intent.change
    } else {
        let text = serde_json::to_vec(&current).unwrap_or_default();
        ChangeId::derive(resource, id, operation, &Sha256::digest(&text), Some(intent.change))
    };
    Some(Intent { change, operation, before, ..intent.clone() })
}
