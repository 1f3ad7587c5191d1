//! Comparing source and destination, record by record.

use std::{cmp::Ordering, sync::Arc};

use s3rep_core::{
    Change, ChangeId, ChangeLog, Context, Error, ErrorKind, Operation, Readback, Record, ResourceSchema,
    Result, Route, Source, SourceRow, Table,
};

use crate::replicator::Replicator;

/// Records compared at once: memory holds one such page of each side.
const PAGE: usize = 1_000;

/// One record that is not in the destination as it is in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The replicator.
    pub replicator: Arc<str>,
    /// The resource.
    pub resource: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// The record's id.
    pub id: Arc<str>,
    /// How it differs.
    pub kind: DriftKind,
}

/// How a record differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriftKind {
    /// It is in the source only.
    Missing,
    /// It is in the destination only.
    Extra,
    /// It is in both, with these members different. Names only: values stay where they are.
    Different(Vec<String>),
}

impl DriftKind {
    /// `missing`, `extra` or `different`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different(_) => "different",
        }
    }
}

/// What a comparison of one route found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteReport {
    /// The resource.
    pub resource: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// Records compared.
    pub compared: u64,
    /// Records in the source only.
    pub missing: u64,
    /// Records in the destination only.
    pub extra: u64,
    /// Records that differ.
    pub different: u64,
    /// Records of the source that cannot be decoded, and so not compared.
    pub undecodable: u64,
}

impl RouteReport {
    /// Whether source and destination hold the same.
    pub fn is_equal(&self) -> bool {
        self.missing + self.extra + self.different == 0
    }
}

/// Compares every route of a replicator, in the order of the keys and with bounded memory.
///
/// What a route does not carry is no drift: without deletes, extra records are expected.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when the destination cannot be read back; when either side cannot be read.
pub async fn verify(
    cx: &Context,
    source: &dyn Source,
    replicator: &Replicator,
    on_drift: &mut (dyn FnMut(Drift) + Send),
    on_progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Vec<RouteReport>> {
    let Some(readback) = replicator.sink().readback() else {
        return Err(Error::new(ErrorKind::Unsupported, "this destination cannot be read back")
            .with_context("replicator", replicator.id()));
    };
    let schemas = source.resources(cx).await?;
    let mut reports = Vec::new();
    for route in replicator.mapping().all_routes() {
        let Some(schema) = schemas.iter().find(|schema| schema.name == route.resource) else { continue };
        let table = replicator.table(route, schema.clone());
        let mut comparison = Comparison::new(replicator, route, schema);
        comparison.run(cx, source, readback, &table, on_drift, on_progress).await?;
        reports.push(comparison.report);
    }
    Ok(reports)
}

struct Comparison<'a> {
    replicator: &'a Replicator,
    route: &'a Route,
    report: RouteReport,
}

impl<'a> Comparison<'a> {
    fn new(replicator: &'a Replicator, route: &'a Route, schema: &ResourceSchema) -> Self {
        let report = RouteReport {
            resource: schema.name.clone(),
            table: route.table.clone(),
            compared: 0,
            missing: 0,
            extra: 0,
            different: 0,
            undecodable: 0,
        };
        Self { replicator, route, report }
    }

    async fn run(
        &mut self,
        cx: &Context,
        source: &dyn Source,
        readback: &dyn Readback,
        table: &Table,
        on_drift: &mut (dyn FnMut(Drift) + Send),
        on_progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<()> {
        let mut wanted = Wanted { page: Vec::new().into_iter(), last: None, done: false };
        let mut found = Found { page: Vec::new().into_iter(), last: None, done: false };
        let mut want = wanted.next(cx, source, &self.route.resource).await?;
        let mut have = found.next(cx, readback, table).await?;
        loop {
            let order = match (&want, &have) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(want), Some((key, _))) => want.id.as_bytes().cmp(key.as_bytes()),
            };
            if order.is_le()
                && let Some(row) = want.take()
            {
                let other = if order.is_eq() { have.take() } else { None };
                if let Some(drift) = self.compare(readback, table, &row, other.map(|(_, record)| record)) {
                    on_drift(drift);
                }
                on_progress(1);
                want = wanted.next(cx, source, &self.route.resource).await?;
            }
            if order.is_ge() {
                if let Some((key, _)) = have.take()
                    && self.route.accepts(Operation::Delete)
                {
                    self.report.extra += 1;
                    on_drift(self.drift(key.into(), DriftKind::Extra));
                }
                have = found.next(cx, readback, table).await?;
            }
        }
    }

    fn compare(
        &mut self,
        readback: &dyn Readback,
        table: &Table,
        row: &SourceRow,
        found: Option<Record>,
    ) -> Option<Drift> {
        let Ok(record) = &row.record else {
            self.report.undecodable += 1;
            return None;
        };
        self.report.compared += 1;
        let kind = match found {
            None if !self.route.accepts(Operation::Insert) => return None,
            None => DriftKind::Missing,
            Some(found) => {
                let expected = readback.expected(table, &row.id, record).unwrap_or_default();
                let members = different_members(&expected, &found);
                if members.is_empty() || !self.route.accepts(Operation::Update) {
                    return None;
                }
                DriftKind::Different(members)
            }
        };
        match kind {
            DriftKind::Missing => self.report.missing += 1,
            _ => self.report.different += 1,
        }
        Some(self.drift(row.id.clone(), kind))
    }

    fn drift(&self, id: Arc<str>, kind: DriftKind) -> Drift {
        Drift {
            replicator: self.replicator.id().clone(),
            resource: self.route.resource.clone(),
            table: self.route.table.clone(),
            id,
            kind,
        }
    }
}

fn different_members(expected: &Record, found: &Record) -> Vec<String> {
    let names = expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)));
    names.filter(|name| expected.get(*name) != found.get(*name)).cloned().collect()
}

/// Pages of the source, one record at a time.
struct Wanted {
    page: std::vec::IntoIter<SourceRow>,
    last: Option<Arc<str>>,
    done: bool,
}

impl Wanted {
    async fn next(&mut self, cx: &Context, source: &dyn Source, resource: &str) -> Result<Option<SourceRow>> {
        if self.page.as_slice().is_empty() && !self.done {
            let page = source.records(cx, resource, self.last.as_deref(), PAGE).await?;
            self.done = page.is_empty();
            self.last = page.last().map(|row| row.id.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

/// Pages of the destination, one row at a time.
struct Found {
    page: std::vec::IntoIter<(String, Record)>,
    last: Option<String>,
    done: bool,
}

impl Found {
    async fn next(
        &mut self,
        cx: &Context,
        readback: &dyn Readback,
        table: &Table,
    ) -> Result<Option<(String, Record)>> {
        if self.page.as_slice().is_empty() && !self.done {
            let page = readback.rows(cx, table, self.last.as_deref(), PAGE).await?;
            self.done = page.is_empty();
            self.last = page.last().map(|(key, _)| key.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

/// Puts into the log what mends drifts, for the replicator alone: the current record, or a delete. The next
/// run writes it, in its place in the order of all changes.
///
/// # Errors
/// When the source cannot be read or the log not written.
pub async fn repair(cx: &Context, source: &dyn Source, log: &dyn ChangeLog, drifts: &[Drift]) -> Result<()> {
    let schemas = source.resources(cx).await?;
    for page in drifts.chunks(PAGE) {
        let mut changes = Vec::with_capacity(page.len());
        for drift in page {
            let Some(schema) = schemas.iter().find(|schema| schema.name == drift.resource) else { continue };
            changes.push(mend(cx, source, schema, drift).await?);
        }
        log.append(cx, &changes, &[]).await?;
    }
    Ok(())
}

async fn mend(cx: &Context, source: &dyn Source, schema: &ResourceSchema, drift: &Drift) -> Result<Change> {
    let record = source.record(cx, &drift.resource, &drift.id).await?;
    let operation = if record.is_some() { Operation::Read } else { Operation::Delete };
    // Each repair is a change of its own, whatever was there before.
    let version = [cx.now().0.to_le_bytes(), cx.random().to_le_bytes()].concat();
    Ok(Change {
        change_id: ChangeId::derive(&drift.resource, &drift.id, operation, &version, None),
        resource: schema.name.clone(),
        id: drift.id.clone(),
        operation,
        data: record,
        before: None,
        timestamp: cx.now(),
        schema_version: schema.version.clone(),
        target: Some(drift.replicator.clone()),
    })
}
