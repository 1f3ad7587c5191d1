//! Snapshots that a single replicator asked for: every current record, through the same log.
//!
//! A request is a key in the log's state, so that it survives a restart; its progress moves in the transaction
//! of the rows. Beside it lies which routes a replicator had, so that a route that is added to the
//! configuration gets the records that were there before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use s3rep_core::{ChangeLog, Context, Error, ErrorKind, Mapping, Operation, Result, Seq, StateWrite};
use serde_json::{Value, json};

const REQUESTS: &str = "snapshot";
const ROUTES: &str = "routes";
const SKIPPED: &str = "skipped";

/// How far the snapshot of one replicator is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// The resources asked for, `None` for all.
    only: Option<BTreeSet<String>>,
    /// For each resource begun: the last id handed over, or `None` when it is complete.
    begun: BTreeMap<String, Option<String>>,
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
        if self.only.as_ref().is_some_and(|only| !only.contains(resource)) {
            return Left::Nothing;
        }
        match self.begun.get(resource) {
            None => Left::After(None),
            Some(Some(id)) => Left::After(Some(id.clone())),
            Some(None) => Left::Nothing,
        }
    }

    /// The write that remembers that rows up to `last` were handed over, `None` for all.
    pub(crate) fn after(&self, replicator: &str, resource: &str, last: Option<&str>) -> StateWrite {
        let mut next = self.clone();
        next.begun.insert(resource.to_owned(), last.map(str::to_owned));
        next.write(replicator)
    }

    /// This request and `resources`, those from their beginning.
    fn and(mut self, resources: BTreeSet<String>) -> Self {
        self.begun.retain(|begun, _| !resources.contains(begun));
        if let Some(only) = &mut self.only {
            only.extend(resources);
        }
        self
    }

    fn write(&self, replicator: &str) -> StateWrite {
        state(REQUESTS, replicator, &json!({"only": self.only, "begun": self.begun}))
    }

    fn parse(replicator: &str, bytes: &[u8]) -> Result<Self> {
        let parse = || {
            let mut value: Value = serde_json::from_slice(bytes).ok()?;
            let only = serde_json::from_value(value["only"].take()).ok()?;
            let begun = serde_json::from_value(value["begun"].take()).ok()?;
            Some(Self { only, begun })
        };
        parse().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the progress of a snapshot cannot be read")
                .with_context("replicator", replicator)
                .with_advice("run `s3rep sync` for this replicator")
        })
    }
}

fn state(space: &str, key: &str, value: &Value) -> StateWrite {
    let value = Some(value.to_string().into_bytes());
    StateWrite { space: space.to_owned(), key: key.to_owned(), value }
}

/// Asks for a snapshot of everything, from its beginning.
pub(crate) async fn request(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<()> {
    log.append(cx, &[], &[Request::default().write(replicator)]).await.map(drop)
}

/// Asks for a snapshot of everything in place of what the log holds up to `end`; the cursors are to follow.
pub(crate) async fn request_instead_of_log(
    cx: &Context,
    log: &dyn ChangeLog,
    replicator: &str,
    end: Seq,
) -> Result<()> {
    let writes = [Request::default().write(replicator), state(SKIPPED, replicator, &json!(end.0))];
    log.append(cx, &[], &writes).await.map(drop)
}

/// Up to where the log was skipped in favour of a snapshot, the last time.
pub(crate) async fn skipped(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<Option<Seq>> {
    let value = log.get(cx, SKIPPED, replicator).await?;
    Ok(value.and_then(|value| serde_json::from_slice(&value).ok()).map(Seq))
}

/// Forgets [`skipped`].
pub(crate) async fn forget_skipped(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<()> {
    let write = StateWrite { space: SKIPPED.to_owned(), key: replicator.to_owned(), value: None };
    log.append(cx, &[], &[write]).await.map(drop)
}

/// Remembers the routes of a replicator, and asks for the records of those that it did not have before.
/// A replicator without a memory has just begun: what it gets is everything.
pub(crate) async fn remember_routes(
    cx: &Context,
    log: &dyn ChangeLog,
    replicator: &str,
    mapping: &Mapping,
) -> Result<()> {
    // One entry for each operation, so that a route that takes more of them than before counts as added.
    const OPERATIONS: [Operation; 3] = [Operation::Insert, Operation::Update, Operation::Delete];
    let routes: BTreeSet<(String, String, Operation)> = mapping
        .all_routes()
        .iter()
        .flat_map(|route| OPERATIONS.map(|operation| (route, operation)))
        .filter(|(route, operation)| route.accepts(*operation))
        .map(|(route, operation)| (route.resource.to_string(), route.table.to_string(), operation))
        .collect();
    let before = log.get(cx, ROUTES, replicator).await?;
    let before: Option<BTreeSet<(String, String, Operation)>> =
        before.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if before.as_ref() == Some(&routes) {
        return Ok(());
    }
    let mut writes = vec![state(ROUTES, replicator, &json!(routes))];
    let added: BTreeSet<String> = before
        .iter()
        .flat_map(|before| routes.difference(before))
        .map(|(resource, ..)| resource.clone())
        .collect();
    if !added.is_empty() {
        tracing::warn!(
            replicator,
            ?added,
            "routes were added: their records follow; `s3rep verify --repair` finds rows that were deleted meanwhile"
        );
        writes.push(with_resources(cx, log, replicator, added).await?);
    }
    log.append(cx, &[], &writes).await.map(drop)
}

/// Asks for the records of one resource, from their beginning, beside what is asked for already.
pub(crate) async fn request_resource(
    cx: &Context,
    log: &dyn ChangeLog,
    replicator: &str,
    resource: &str,
) -> Result<()> {
    let write = with_resources(cx, log, replicator, BTreeSet::from([resource.to_owned()])).await?;
    log.append(cx, &[], &[write]).await.map(drop)
}

/// Whether the replicator has had this table before, whoever made it: made now, it lacks what was written.
pub(crate) async fn had_table(
    cx: &Context,
    log: &dyn ChangeLog,
    replicator: &str,
    table: &str,
) -> Result<bool> {
    Ok(log.get(cx, &tables(replicator), table).await?.is_some())
}

/// Remembers that the replicator has a table.
pub(crate) async fn remember_table(
    cx: &Context,
    log: &dyn ChangeLog,
    replicator: &str,
    table: &str,
) -> Result<()> {
    if had_table(cx, log, replicator, table).await? {
        return Ok(());
    }
    log.append(cx, &[], &[state(&tables(replicator), table, &Value::Bool(true))]).await.map(drop)
}

/// Forgets every table of a destination that begins anew.
pub(crate) async fn forget_tables(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<()> {
    const MAX: usize = 100_000;
    let space = tables(replicator);
    let known = log.scan(cx, &space, None, MAX).await?;
    let forget = |(key, _)| StateWrite { space: space.clone(), key, value: None };
    let writes: Vec<_> = known.into_iter().map(forget).collect();
    log.append(cx, &[], &writes).await.map(drop)
}

fn tables(replicator: &str) -> String {
    format!("tables:{replicator}")
}

async fn with_resources(
    cx: &Context,
    log: &dyn ChangeLog,
    replicator: &str,
    resources: BTreeSet<String>,
) -> Result<StateWrite> {
    let request = match progress(cx, log, replicator).await? {
        Some(open) => open.and(resources),
        None => Request { only: Some(resources), begun: BTreeMap::new() },
    };
    Ok(request.write(replicator))
}

/// Every open request.
pub(crate) async fn requests(cx: &Context, log: &dyn ChangeLog) -> Result<Vec<Arc<str>>> {
    const MAX: usize = 10_000;
    Ok(log
        .scan(cx, REQUESTS, None, MAX)
        .await?
        .into_iter()
        .map(|(replicator, _)| replicator.into())
        .collect())
}

/// One request as it is now.
pub(crate) async fn progress(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<Option<Request>> {
    let value = log.get(cx, REQUESTS, replicator).await?;
    value.map(|value| Request::parse(replicator, &value)).transpose()
}

/// Forgets a request that is complete.
pub(crate) async fn complete(cx: &Context, log: &dyn ChangeLog, replicator: &str) -> Result<()> {
    let write = StateWrite { space: REQUESTS.to_owned(), key: replicator.to_owned(), value: None };
    log.append(cx, &[], &[write]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_text_and_begins_added_resources_anew() {
        let request = Request {
            only: Some(BTreeSet::from(["a".to_owned()])),
            begun: BTreeMap::from([("a".to_owned(), Some("id".to_owned()))]),
        };
        let value = request.write("copy").value.unwrap();
        assert_eq!(Request::parse("copy", &value).unwrap(), request);
        assert_eq!(request.left("a"), Left::After(Some("id".to_owned())));
        assert_eq!(request.left("b"), Left::Nothing);
        let more = request.and(BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert_eq!((more.left("a"), more.left("b")), (Left::After(None), Left::After(None)));
        assert!(Request::parse("copy", b"nonsense").is_err());
    }
}
