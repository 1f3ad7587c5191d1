//! Snapshots that a single replicator asked for: every current record, through the same log.
//!
//! A request is a key in the log's state, so that it survives a restart; its progress moves in the transaction
//! of the rows.

use std::{collections::BTreeMap, sync::Arc};

use s3rep_core::{ChangeLog, Context, Error, ErrorKind, Result, StateWrite};
use serde_json::{Map, Value, json};

const SPACE: &str = "snapshot";

/// How far the snapshot of one replicator is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// For each resource begun: the last id handed over, or `None` when it is complete.
    resources: BTreeMap<String, Option<String>>,
}

/// What is left to do for a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Rows after this id, or all of them.
    After(Option<String>),
    /// Nothing.
    Nothing,
}

impl Request {
    pub(crate) fn left(&self, resource: &str) -> Left {
        match self.resources.get(resource) {
            None => Left::After(None),
            Some(Some(id)) => Left::After(Some(id.clone())),
            Some(None) => Left::Nothing,
        }
    }

    /// The write that remembers that rows up to `last` were handed over, `None` for all.
    pub(crate) fn after(&self, replicator: &str, resource: &str, last: Option<&str>) -> StateWrite {
        let mut next = self.clone();
        next.resources.insert(resource.to_owned(), last.map(str::to_owned));
        next.write(replicator)
    }

    fn write(&self, replicator: &str) -> StateWrite {
        let value: Map<_, _> =
            self.resources.iter().map(|(name, last)| (name.clone(), json!(last))).collect();
        StateWrite {
            space: SPACE.to_owned(),
            key: replicator.to_owned(),
            value: Some(Value::Object(value).to_string().into_bytes()),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let Value::Object(members) = serde_json::from_slice(bytes).ok()? else { return None };
        let resources =
            members.into_iter().map(|(name, last)| (name, last.as_str().map(str::to_owned))).collect();
        Some(Self { resources })
    }
}

/// Asks for a snapshot, from its beginning.
pub(crate) async fn request(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<()> {
    log.append(cx, &[], &[Request::default().write(replicator)]).await.map(drop)
}

/// Every open request.
pub(crate) async fn requests(cx: &Context, log: &dyn ChangeLog) -> Result<Vec<(Arc<str>, Request)>> {
    const MAX: usize = 10_000;
    let entries = log.scan(cx, SPACE, None, MAX).await?;
    entries
        .into_iter()
        .map(|(replicator, value)| {
            let request = Request::parse(&value).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "the progress of a snapshot cannot be read")
                    .with_context("replicator", &replicator)
                    .with_advice("run `s3rep sync` for this replicator")
            })?;
            Ok((Arc::from(replicator), request))
        })
        .collect()
}

/// One request as it is now.
pub(crate) async fn progress(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<Option<Request>> {
    Ok(log.get(cx, SPACE, replicator).await?.and_then(|value| Request::parse(&value)))
}

/// Forgets a request that is complete.
pub(crate) async fn complete(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<()> {
    let write = StateWrite { space: SPACE.to_owned(), key: replicator.to_owned(), value: None };
    log.append(cx, &[], &[write]).await.map(drop)
}
