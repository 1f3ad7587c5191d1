//! One pass over one resource: its listing and what is remembered, side by side in the order of the ids.

use std::sync::Arc;

use s3rep_core::{
    Change, ChangeId, Context, Error, ErrorKind, Operation, PassReport, Record, Result, Scope, SourceState,
    StateWrite, Timestamp,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Torn,
    page::Page,
    remembered::{Content, Remembered, space},
    state::{Progress, Scan},
};
use crate::{
    format::{record_key, record_prefix},
    resource::{BATCH_BYTES, Decoded, Failed, Resource},
    store::ObjectMeta,
};

/// Keys listed at once.
const LISTED: usize = 8_192;
/// How long a deleted record is remembered: longer than the resolution of any store's clock.
const GONE: i64 = 60_000;
/// Levels of arrays and objects in a member. JSON readers stop at 128; destinations wrap records in some more.
const DEPTH: usize = 100;

/// A resource being compared with what is remembered of it.
pub(super) struct Comparison<'a, 'p> {
    pub(super) cx: &'a Context,
    pub(super) state: &'a dyn SourceState,
    pub(super) resource: &'a Resource,
    pub(super) space: String,
    /// Records not seen before are rows of the first snapshot.
    pub(super) snapshot: bool,
    /// The definition changed: look at every record again.
    pub(super) reread: bool,
    /// Objects read at once.
    pub(super) batch: usize,
    pub(super) torn: &'a Torn,
    pub(super) page: &'a mut Page<'p>,
    pub(super) report: &'a mut PassReport,
}

/// A record that a pass has to do something about.
enum Todo {
    /// Listed, and not known to be unchanged.
    Read { meta: ObjectMeta, id: Arc<str>, known: Option<Vec<u8>> },
    /// Remembered, not listed.
    Gone { id: String, known: Vec<u8> },
}

impl Comparison<'_, '_> {
    /// Compares the whole resource.
    pub(super) async fn run(&mut self) -> Result<()> {
        let prefix = record_prefix(self.resource.name())?;
        let mut listing = self.resource.store().list(&prefix, None)?;
        let mut known = Scan::new(self.cx, self.state, self.space.clone(), None);
        let (mut todo, mut bytes) = (Vec::new(), 0);
        loop {
            let listed = listing.page(self.cx, LISTED).await?;
            if listed.is_empty() {
                break;
            }
            for meta in listed {
                let Some(id) = meta.key.strip_prefix(&prefix).filter(|id| !id.is_empty()) else { continue };
                self.report.seen += 1;
                let mut remembered = None;
                while let Some((key, value)) = known.next_until(id).await? {
                    if key == id {
                        remembered = Some(value);
                        break;
                    }
                    todo.push(Todo::Gone { id: key, known: value });
                    if todo.len() >= self.batch {
                        self.settle(std::mem::take(&mut todo)).await?;
                        bytes = 0;
                    }
                }
                if !self.reread
                    && let Some(value) = &remembered
                    && is_same(&Remembered::read(value)?, &meta)
                {
                    continue;
                }
                bytes += meta.size;
                todo.push(Todo::Read { id: id.into(), meta, known: remembered });
                if todo.len() >= self.batch || bytes >= BATCH_BYTES {
                    self.settle(std::mem::take(&mut todo)).await?;
                    bytes = 0;
                }
            }
        }
        while let Some((id, value)) = known.next().await? {
            todo.push(Todo::Gone { id, known: value });
            if todo.len() >= self.batch {
                self.settle(std::mem::take(&mut todo)).await?;
            }
        }
        self.settle(todo).await
    }

    /// Reads what has to be read and captures what is different.
    async fn settle(&mut self, todo: Vec<Todo>) -> Result<()> {
        let ids = todo.iter().filter_map(|todo| match todo {
            Todo::Read { id, .. } => Some(id.clone()),
            Todo::Gone { .. } => None,
        });
        let mut read = self.resource.read_many(ids.collect()).await?.into_iter();
        let mut gone = really_gone(self.cx, self.resource, &todo).await?.into_iter();
        for todo in todo {
            match todo {
                Todo::Read { meta, id, known } => {
                    // Deleted since it was listed: the next pass sees that.
                    let Some(Some(Decoded { record, .. })) = read.next() else { continue };
                    self.compare(&meta, &id, known.as_deref(), record).await?;
                }
                Todo::Gone { id, known } => {
                    if gone.next() == Some(true) {
                        let at = self.cx.now();
                        forget(self.page, self.resource.name(), self.resource.version(), &id, &known, at)?;
                    }
                }
            }
            self.page.turn().await?;
        }
        Ok(())
    }

    /// Compares one record with what is remembered of it; returns the record and the last change of it, unless
    /// it cannot be read.
    pub(super) async fn compare(
        &mut self,
        meta: &ObjectMeta,
        id: &Arc<str>,
        known: Option<&[u8]>,
        read: Result<Record, Failed>,
    ) -> Result<Option<(Arc<Record>, ChangeId)>> {
        let known = known.map(Remembered::read).transpose()?;
        let record = match read.and_then(bounded) {
            Ok(record) => record,
            Err(failed) => {
                self.failed(meta, id, known, failed).await?;
                return Ok(None);
            }
        };
        self.torn.forget(self.resource.name(), id);
        let text = serde_json::to_vec(&record).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a record cannot be printed").with_source(error)
        })?;
        let record = Arc::new(record);
        let before = match &known {
            Some(Remembered { content: Content::Record(before), .. }) if *before == text.as_slice() => None,
            Some(known) => known.record()?,
            None => None,
        };
        let unchanged = known.filter(|known| match (known.content, &before) {
            (Content::Gone(_), _) => false,
            (Content::Record(_), Some(before)) => *before == *record,
            (Content::Record(_), None) => true,
        });
        if let Some(known) = unchanged {
            if !is_same(&known, meta) && (known.token != meta.version || meta.settled) {
                self.remember(id, meta, known.change, &text);
            }
            return Ok(Some((record, known.change)));
        }
        let operation = match known {
            Some(Remembered { content: Content::Record(_), .. }) => Operation::Update,
            None if self.snapshot => Operation::Read,
            _ => Operation::Insert,
        };
        // A store's times may be whole seconds: what came back did so after it went.
        let timestamp = match known {
            Some(Remembered { content: Content::Gone(at), .. }) => meta.modified.max(Timestamp(at.0 + 1)),
            _ => meta.modified,
        };
        let version = version_of(&meta.version, &text);
        let change_id =
            ChangeId::derive(self.resource.name(), id, operation, &version, known.map(|known| known.change));
        let bytes = text.len() * if before.is_some() { 2 } else { 1 };
        self.page.change(
            Change {
                change_id,
                resource: self.resource.schema().name.clone(),
                id: id.clone(),
                operation,
                data: Some(record.clone()),
                before: before.map(Arc::new),
                timestamp,
                schema_version: self.resource.schema().version.clone(),
                target: None,
            },
            bytes,
        );
        self.remember(id, meta, change_id, &text);
        Ok(Some((record, change_id)))
    }

    /// A record that could not be had: left to the next pass, reported unless that is sure to help.
    async fn failed(
        &mut self,
        meta: &ObjectMeta,
        id: &Arc<str>,
        known: Option<Remembered<'_>>,
        failed: Failed,
    ) -> Result<()> {
        let error = match failed {
            Failed::Undecodable(error) => error,
            Failed::Unreadable(error) if error.kind() == ErrorKind::Contention => {
                if !self.torn.is_lasting(self.resource.name(), id, &meta.version) {
                    self.report.deferred += 1;
                    return Ok(());
                }
                error
            }
            // The store is in trouble, not the record.
            Failed::Unreadable(error) if error.is_temporary() => return Err(error),
            Failed::Unreadable(error) => error,
        };
        if let Some(known) = known.filter(|known| known.settled && known.token == meta.version) {
            // Looked at for another reason than its token: make sure that it is looked at again.
            let value = Remembered { settled: false, ..known }.write();
            self.page.write(StateWrite {
                space: self.space.clone(),
                key: id.to_string(),
                value: Some(value),
            });
        }
        self.report.undecodable += 1;
        let error = error.with_context("file", self.resource.store().place(&meta.key));
        self.page.capture().undecodable(self.resource.name(), id, error).await;
        Ok(())
    }

    fn remember(&mut self, id: &str, meta: &ObjectMeta, change: ChangeId, text: &[u8]) {
        let content = Content::Record(text);
        let value = Remembered { change, token: &meta.version, settled: meta.settled, content }.write();
        self.page.write(StateWrite { space: self.space.clone(), key: id.to_owned(), value: Some(value) });
    }
}

/// Refuses a record that is nested so deeply that a log or destination could not read its JSON back.
fn bounded(record: Record) -> Result<Record, Failed> {
    fn is_deeper(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(items) => levels == 0 || items.iter().any(|item| is_deeper(item, levels - 1)),
            Value::Object(members) => {
                levels == 0 || members.values().any(|member| is_deeper(member, levels - 1))
            }
            _ => false,
        }
    }
    if record.values().any(|value| is_deeper(value, DEPTH)) {
        let error =
            Error::new(ErrorKind::InvalidValue, format!("the record is nested deeper than {DEPTH} levels"))
                .with_scope(Scope::Record)
                .with_advice("flatten it, or store the deep part as text");
        return Err(Failed::Undecodable(error));
    }
    Ok(record)
}

/// Looks again at records that a listing did not show: one that is being replaced at this moment is left to
/// the next pass.
async fn really_gone(cx: &Context, resource: &Resource, todo: &[Todo]) -> Result<Vec<bool>> {
    let mut keys = Vec::new();
    for todo in todo {
        if let Todo::Gone { id, .. } = todo {
            keys.push(record_key(resource.name(), id)?);
        }
    }
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let found = resource.store().get_many(cx, &keys).await;
    Ok(found.into_iter().map(|found| matches!(found, Ok(None))).collect())
}

/// The object cannot have changed since it was remembered.
fn is_same(known: &Remembered<'_>, meta: &ObjectMeta) -> bool {
    known.settled && known.token == meta.version && matches!(known.content, Content::Record(_))
}

/// What tells one version of a record apart: the store's token and the content, because a token may be taken
/// before the content is read.
pub(super) fn version_of(token: &[u8], text: &[u8]) -> Vec<u8> {
    [token, &Sha256::digest(text)[..]].concat()
}

/// Captures the delete of a record that is remembered and is no more, and keeps a trace of it for a while.
pub(super) fn forget(
    page: &mut Page<'_>,
    resource: &str,
    version: &str,
    id: &str,
    known: &[u8],
    now: Timestamp,
) -> Result<()> {
    let known = Remembered::read(known)?;
    let value = match known.content {
        Content::Gone(at) if now.0.abs_diff(at.0) < GONE as u64 => return Ok(()),
        Content::Gone(_) => None,
        Content::Record(text) => {
            let change_id =
                ChangeId::derive(resource, id, Operation::Delete, known.token, Some(known.change));
            page.change(
                Change {
                    change_id,
                    resource: resource.into(),
                    id: id.into(),
                    operation: Operation::Delete,
                    data: known.record()?.map(Arc::new),
                    before: None,
                    timestamp: now,
                    schema_version: version.into(),
                    target: None,
                },
                text.len(),
            );
            let content = Content::Gone(now);
            Some(Remembered { change: change_id, token: &[], settled: true, content }.write())
        }
    };
    page.write(StateWrite { space: space(resource), key: id.to_owned(), value });
    Ok(())
}

/// Captures the delete of every remembered record of a resource that the database has no more.
pub(super) async fn drop_resource(
    cx: &Context,
    state: &dyn SourceState,
    page: &mut Page<'_>,
    resource: &str,
    progress: &Progress,
) -> Result<()> {
    let mut known = Scan::new(cx, state, space(resource), None);
    while let Some((id, value)) = known.next().await? {
        forget(page, resource, &progress.version, &id, &value, cx.now())?;
        page.turn().await?;
    }
    page.write(StateWrite {
        space: super::state::PROGRESS.to_owned(),
        key: resource.to_owned(),
        value: None,
    });
    page.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_nobody_could_read_back_are_refused() {
        let nested = |levels| (0..levels).fold(Value::Null, |value, _| Value::Array(vec![value]));
        let record = |levels| Record::from_iter([("deep".to_owned(), nested(levels))]);
        assert!(bounded(record(DEPTH)).is_ok());
        assert!(bounded(record(DEPTH + 1)).is_err());
    }
}
