//! Finds out what became of writes that were cut off: what the store has and the log does not is told.

use std::sync::Arc;

use futures::future::join_all;
use s3rep_core::{ChangeId, Context, Error, ErrorKind, Operation, Record, Result, Scope};
use sha2::{Digest, Sha256};

use super::{Found, Intent, Key, Outbox, change_of};
use crate::{database::Database, format::record_key, resource::Resource, tail::remembered};

/// Intents resolved at once.
const AT_ONCE: usize = 64;

impl Outbox {
    /// Resolves every intent that is open and not being worked on. Returns those that cannot be resolved now (the
    /// store is down, the record cannot be decoded): they stay open.
    pub(crate) async fn resolve_all(&self, cx: &Context, database: &Database) -> Vec<(Key, Error)> {
        let mut left = Vec::new();
        for keys in self.claims.all_unresolved().chunks(AT_ONCE) {
            let mut work = Vec::with_capacity(keys.len());
            for key in keys {
                work.push(self.resolve_one(cx, database, key));
            }
            for (key, outcome) in keys.iter().zip(join_all(work).await) {
                left.extend(outcome.err().map(|error| (key.clone(), error)));
            }
        }
        left
    }

    async fn resolve_one(&self, cx: &Context, database: &Database, key: &Key) -> Result<()> {
        let (resource, id) = key;
        let _in_line = database.inner.in_line(&record_key(resource, id)?).await;
        let resource = match database.resource(resource) {
            Ok(resource) => Some(resource),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            // What a damaged document misses is not gone.
            Err(_) if !database.repairs().is_empty() => return Err(database.damaged()),
            Err(_) => None,
        };
        self.resolve(cx, resource.as_ref(), key).await
    }

    /// Resolves the intent of one record, if there is one. The caller holds the record's place in line.
    ///
    /// # Errors
    /// When the record cannot be read or decoded, or the log not be written.
    pub(crate) async fn resolve(&self, cx: &Context, resource: Option<&Resource>, key: &Key) -> Result<()> {
        if !self.claims.is_unresolved(key) {
            return Ok(());
        }
        let Some(intent) = self.intent(cx, key).await? else {
            // Its settlement was made after all.
            self.claims.settle(key);
            return Ok(());
        };
        let (resource_name, id) = key;
        let told = remembered::record(cx, &*self.log, resource_name, id).await?.map(Arc::new);
        let current = match resource {
            Some(resource) => match resource.look_up(id).await? {
                Found::Record(current) => Some(current),
                Found::Absent => None,
                // As it was found.
                Found::Undecodable if intent.undecodable => return self.conclude(cx, key, None).await,
                Found::Undecodable => return Err(undecodable()),
            },
            // With the resource all its records are gone.
            None => None,
        };
        if let Some(resource) = resource {
            resource.mend_references(id, &intent, current.as_deref()).await?;
        }
        let version = resource.map_or_else(|| "".into(), |resource| resource.schema().version.clone());
        let change = difference(key, &intent, told, current.clone())
            .map(|intent| change_of(key, &intent, current, version));
        self.conclude(cx, key, change).await
    }
}

fn undecodable() -> Error {
    Error::new(ErrorKind::Corrupt, "a write was cut off and its record cannot be decoded")
        .with_scope(Scope::Record)
        .with_advice("replace or delete the record")
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
