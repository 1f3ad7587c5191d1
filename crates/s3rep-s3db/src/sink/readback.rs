//! Reading resources back, for `verify`.

use std::sync::Arc;

use async_trait::async_trait;
use s3rep_core::{Context, Error, Readback, Record, Result, Scope, SourceRow, Table, Timestamp};

use super::sink::{Need, S3dbSink, of_store};
use crate::{
    context::SecureEntropy,
    format::Stamps,
    resource::{Records, with_id},
};

/// Pages of one resource in progress: a listing is not begun anew for each.
pub(super) struct Reading {
    table: Arc<str>,
    after: String,
    records: Records,
}

impl S3dbSink {
    async fn begin(&self, cx: &Context, table: &Table, after: Option<&str>) -> Result<Option<Records>> {
        if self.look(cx, Need::Existing).await?.is_none() {
            return Ok(None);
        }
        let target = self.known_target(table)?;
        target.replica.as_ref().map(|replica| replica.resource().records(after)).transpose()
    }
}

/// A row that cannot be decoded is there, with nothing in it. One that cannot be read now ends the page.
fn row(row: SourceRow) -> Result<(String, Record)> {
    let SourceRow { id, record } = row;
    match record {
        Ok(record) => Ok((id.to_string(), with_id(&id, &record))),
        Err(error) if error.is_temporary() || error.scope() != Scope::Record => Err(of_store(error)),
        Err(_) => Ok((id.to_string(), with_id(&id, &Record::new()))),
    }
}

#[async_trait]
impl Readback for S3dbSink {
    fn expected(&self, table: &Table, key: &str, record: &Record) -> Result<Record> {
        let target = self.known_target(table)?;
        let format = &target.expected;
        let encoded =
            format.encode_whole(&with_id(key, record), Stamps::Given, &mut SecureEntropy, Timestamp(0));
        let at = |error: Error| error.with_context("table", &table.name).with_context("key", key);
        let encoded = encoded.map_err(at)?;
        format.partition_keys(key, &encoded.record).map_err(at)?;
        Ok(encoded.record)
    }

    async fn rows(
        &self,
        cx: &Context,
        table: &Table,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Record)>> {
        let mut reading = self.reading.lock().await;
        // No id is empty.
        let after = after.filter(|after| !after.is_empty());
        let goes_on = |reading: &Reading| reading.table == table.name && Some(&*reading.after) == after;
        let mut records = match reading.take().filter(goes_on) {
            Some(reading) => reading.records,
            None => match self.begin(cx, table, after).await? {
                Some(records) => records,
                None => return Ok(Vec::new()),
            },
        };
        let page: Vec<_> =
            records.page(max).await.map_err(of_store)?.into_iter().map(row).collect::<Result<_>>()?;
        if let Some((last, _)) = page.last() {
            *reading = Some(Reading { table: table.name.clone(), after: last.clone(), records });
        }
        Ok(page)
    }
}
