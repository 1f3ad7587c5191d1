//! Queries: several records of a resource at once.

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use s3rep_core::{Error, ErrorKind, Record, Result, SourceRow};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Resource, cursor,
    filter::Filter,
    read::{Keys, Records},
};
use crate::{
    format::{Partition, id_of_key, partition_prefix, record_key, record_prefix},
    hooks::{Action, When},
    suggest::did_you_mean,
};

/// Records that a stream reads ahead.
const READ_AHEAD: usize = 256;

/// Several records of a resource: all, those of a partition, those that a filter wants.
///
/// Begin with [`Resource::list`], [`Resource::query`] or [`Resource::by_partition`], add what else there is to
/// say, and end with [`records`](Self::records), [`ids`](Self::ids), [`count`](Self::count),
/// [`page`](Self::page) or [`stream`](Self::stream). A query can be used again.
///
/// ```
/// # use s3rep_s3db::{Database, DatabaseOptions, ResourceConfig};
/// # use s3rep_core::Record;
/// # use serde::Deserialize;
/// # use serde_json::json;
/// #[derive(Deserialize)]
/// struct Car {
///     id: String,
///     year: u32,
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> s3rep_core::Result<()> {
/// # let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
/// # let database = Database::connect_with("memory://", options).await?;
/// # let config = ResourceConfig::from_value(&json!({
/// #     "name": "cars", "attributes": {"year": "number", "origin": "string"},
/// #     "partitions": {"byOrigin": {"fields": {"origin": "string"}}}}))?;
/// # let cars = database.create_resource(&config).await?;
/// for (id, year, origin) in [("a", 1976, "Europe"), ("b", 1981, "Europe"), ("c", 1982, "Japan")] {
///     cars.insert(json!({"id": id, "year": year, "origin": origin})).await?;
/// }
/// let young = cars.query(json!({"year": {"$gte": 1980}}))?;
/// assert_eq!(young.count().await?, 2);
/// let european: Vec<Car> = young.clone().partition("byOrigin", json!({"origin": "Europe"}))?.records().await?;
/// assert_eq!((european[0].id.as_str(), european[0].year), ("b", 1981));
///
/// let mut page = young.page::<Car>(1, None).await?;
/// assert_eq!(page.items[0].id, "b");
/// page = young.page(1, page.next.as_deref()).await?;
/// assert_eq!(page.items[0].id, "c");
/// assert_eq!(page.next, None);
/// # Ok(())
/// # }
/// ```
///
/// # What is read
/// Every record of the resource, or of the partition that it is told: a filter costs a read of each of them,
/// and a partition is what makes a query cheap. It does not pick a partition by itself. References of a
/// partition that was added later, or of a writer that crashed, are missing, and records would be missing with
/// them (the planner of s3db.js has that fault).
///
/// Records come in the order of their ids' bytes, those of a partition by its fields before that. A record that
/// is written or deleted meanwhile is there or not.
///
/// # Filters
/// An object of members and what they have to be; all of it has to hold.
///
/// | | |
/// |---|---|
/// | `{"origin": "US"}`, `{"engine.hp": 40}` | equal as JSON: no conversion, numbers by value, objects and lists whole. Dotted names lead into objects |
/// | `{"year": {"$gte": 1980, "$lt": 1990}}` | `$eq`, `$ne`; `$gt`, `$gte`, `$lt`, `$lte` between numbers or between texts (by UTF-16 code units, as JavaScript compares); `$in`, `$nin` with a list |
/// | `{"name": {"$regex": "^a", "$options": "i"}}` | a pattern of the crate `regex` (no look-around, linear time) somewhere in a text; options `i`, `m`, `s` |
/// | `{"note": {"$exists": false}}` | whether the record has the member, `null` or not |
/// | `{"year": {"$not": {"$gt": 1980}}}` | the operators in it do not all hold |
/// | `{"$or": [{…}, {…}]}`, `$and`, `$not` | of whole filters |
///
/// `null` is a value: `{"note": null}` wants the member there and null. An absent member is equal to nothing, in
/// no order, and so fits `$ne`, `$nin` and `$not`.
///
/// # Errors
/// All ends give [`ErrorKind::Corrupt`] or [`ErrorKind::InvalidValue`] naming the record, when one that they have
/// to read cannot be decoded or is no `T`: none is left out in silence. [`Query::rows`] goes on past those.
#[derive(Clone, Debug)]
#[must_use = "a query reads nothing before one of its ends is called"]
pub struct Query {
    resource: Resource,
    filter: Filter,
    within: Option<Within>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The part of a partition that is read.
#[derive(Clone, Debug)]
struct Within {
    partition: Partition,
    values: Record,
    prefix: String,
}

impl Within {
    /// All fields have values: ids follow right after them.
    fn whole(&self) -> bool {
        self.values.len() == self.partition.fields().len()
    }
}

/// Some records, and where the next ones are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The records, as many as were asked for unless these are the last.
    pub items: Vec<T>,
    /// The cursor of the next page; none when there is none.
    pub next: Option<String>,
}

impl Resource {
    /// All records; narrow the [`Query`] down with its methods.
    pub fn list(&self) -> Query {
        Query { resource: self.clone(), filter: Filter::default(), within: None, after: None, limit: None }
    }

    /// The records that a filter wants: see [`Query`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] with every problem of the filter, each naming its path and operator.
    pub fn query(&self, filter: impl Serialize) -> Result<Query> {
        self.list().filter(filter)
    }

    /// The records of a partition: see [`Query::partition`].
    ///
    /// # Errors
    /// As [`Query::partition`].
    pub fn by_partition(&self, name: &str, values: impl Serialize) -> Result<Query> {
        self.list().partition(name, values)
    }

    /// How many records there are, without reading them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn count(&self) -> Result<u64> {
        self.list().count().await
    }

    /// Every id, in the order of their bytes, without reading the records.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list_ids(&self) -> Result<Vec<String>> {
        self.list().ids().await
    }
}

impl Query {
    /// Only records that this filter wants too.
    ///
    /// # Errors
    /// As [`Resource::query`].
    pub fn filter(mut self, filter: impl Serialize) -> Result<Self> {
        let filter = object(&filter, "a filter", "{\"origin\": \"Europe\"}")?;
        self.filter = self.filter.and(Filter::parse(&Value::Object(filter))?);
        Ok(self)
    }

    /// Only records of a partition, by the values of its fields: all of them, or those that come first in the
    /// order of the partition's fields (their names' order). Values are compared as the partition's rules write
    /// them, and whole: `US` does not find `USA`.
    ///
    /// A record that left the partition while its reference stayed (a crash, another program) is left out where
    /// records are read. [`count`](Self::count) and [`ids`](Self::ids) without a filter read no records: they go
    /// by the references.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such partition; [`ErrorKind::InvalidValue`] when a name is none of
    /// its fields, or a value is null or cannot stand in a key.
    pub fn partition(mut self, name: &str, values: impl Serialize) -> Result<Self> {
        let values = object(&values, "the values of a partition", "{\"origin\": \"Europe\"}")?;
        let (format, resource) = (self.resource.format(), self.resource.name());
        let partition = format.partition(name).ok_or_else(|| {
            let names: Vec<_> = format.partitions().iter().map(Partition::name).collect();
            Error::new(ErrorKind::NotFound, format!("there is no partition '{name}'"))
                .with_context("resource", resource)
                .with_advice(match names.as_slice() {
                    [] => "the resource has no partitions: filter instead".to_owned(),
                    names => did_you_mean(name, names),
                })
        })?;
        let mut given: Vec<(&str, &Value)> = Vec::with_capacity(values.len());
        for (field, _) in partition.fields() {
            given.extend(values.get(field).map(|value| (field, value)));
        }
        let leading = partition.fields().zip(&given).all(|((field, _), (given, _))| field == *given);
        if given.len() != values.len() || !leading {
            let fields: Vec<_> = partition.fields().map(|(field, _)| field).collect();
            return Err(Error::new(ErrorKind::InvalidValue, "these fields do not lead into the partition")
                .with_context("resource", resource)
                .with_context("partition", name)
                .with_advice(format!("give values for [{}], or for the first of them", fields.join(", "))));
        }
        let prefix = partition_prefix(resource, partition, &given)?;
        self.within = Some(Within { partition: partition.clone(), values, prefix });
        Ok(self)
    }

    /// Only records whose id comes after this one in the order of bytes.
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.after = Some(id.into());
        self
    }

    /// At most so many records. All by default: s3db.js stops at 100, or 1,000.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The records, as JSON ([`Record`]) or as a type of yours. All of them are in memory then: use
    /// [`stream`](Self::stream) or [`page`](Self::page) where they may be many.
    ///
    /// # Errors
    /// As [`Query`] says, and when the store cannot be read.
    pub async fn records<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.stream().try_collect().await
    }

    /// Their ids. Without a filter no record is read.
    ///
    /// # Errors
    /// As [`Query`] says, and when the store cannot be read.
    pub async fn ids(&self) -> Result<Vec<String>> {
        self.hooked(When::Before, Action::List).await?;
        let mut ids = Vec::new();
        self.each_id(|id| ids.push(id.to_owned())).await?;
        Ok(ids)
    }

    /// How many there are. Without a filter no record is read.
    ///
    /// # Errors
    /// As [`Query`] says, and when the store cannot be read.
    pub async fn count(&self) -> Result<u64> {
        self.hooked(When::Before, Action::Count).await?;
        let mut count = 0;
        self.each_id(|_| count += 1).await?;
        self.hooked(When::After, Action::Count).await?;
        Ok(count)
    }

    /// A page of `size` records, the first or the one that `cursor` (from [`Page::next`]) stands for. With a
    /// filter the size counts the records that it wants, however many have to be looked at for them.
    ///
    /// A cursor is a text as s3db.js makes it, and says where the page ended: records inserted or deleted before
    /// that place move nothing. A page costs the same wherever it stands; in a file store it reads the names of
    /// the directory anew, so that [`stream`](Self::stream) is the way to all records.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when the size is 0, the query has a [`limit`](Self::limit), or the cursor is no
    /// cursor or one of another resource, partition or size; as [`Query`] says; and when the store cannot be read.
    pub async fn page<T: DeserializeOwned>(&self, size: usize, cursor: Option<&str>) -> Result<Page<T>> {
        if size == 0 || self.limit.is_some() {
            return Err(Error::new(ErrorKind::InvalidValue, "a page has a size of 1 or more, and no limit")
                .with_context("resource", self.resource.name())
                .with_advice("pass the size, and leave the limit out"));
        }
        let prefix = self.prefix()?;
        let from = cursor.map(|cursor| cursor::read(cursor, &prefix, size)).transpose();
        let from = from.map_err(|error| error.with_context("resource", self.resource.name()))?;
        self.hooked(When::Before, Action::List).await?;
        let mut records = self.rows_after(from)?;
        records.look_ahead(size.saturating_add(1)).await?;
        let mut items = Vec::new();
        for row in records.page(size).await? {
            items.push(self.typed_row(row).await?);
        }
        let end = records.end().await?;
        Ok(Page { items, next: end.map(|key| cursor::after(&key, &prefix, size)) })
    }

    /// The records one by one, read ahead in batches. An error of the store ends the stream, one of a record is
    /// an item of it. Dropping it stops the reading.
    pub fn stream<T: DeserializeOwned>(&self) -> impl Stream<Item = Result<T>> + Send + Unpin + use<T> {
        let query = Arc::new(self.clone());
        let this = query.clone();
        let rows = stream::once(async move {
            this.hooked(When::Before, Action::List).await?;
            this.rows().map(|rows| rows.into_stream(READ_AHEAD))
        });
        let typed = move |row| {
            let query = query.clone();
            async move { query.typed_row(row?).await }
        };
        rows.try_flatten().then(typed).boxed()
    }

    /// The records with their ids, one that cannot be decoded as its error: for whoever has to go on past it.
    /// Hooks see nothing of it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when the id of [`after`](Self::after) cannot stand in a key.
    pub fn rows(&self) -> Result<Records> {
        self.rows_after(None)
    }

    fn rows_after(&self, key: Option<String>) -> Result<Records> {
        Ok(Records::new(self.clone(), self.keys(key)?))
    }

    /// The keys that lead to the records, from the one after `key`.
    fn keys(&self, key: Option<String>) -> Result<Keys> {
        let prefix = self.prefix()?;
        let after = self.after.as_deref().map(|id| record_key(self.resource.name(), id)).transpose()?;
        let after = match (&self.after, &self.within) {
            (Some(id), Some(within)) if within.whole() => Some(format!("{prefix}id={id}")),
            // in a part of a partition ids start anew with each value
            (_, Some(_)) => None,
            (_, None) => after,
        };
        let listing = self.resource.store().list(&prefix, key.max(after).as_deref())?;
        Ok(Keys { listing, query: self.clone() })
    }

    fn prefix(&self) -> Result<String> {
        match &self.within {
            Some(within) => Ok(within.prefix.clone()),
            None => record_prefix(self.resource.name()),
        }
    }

    async fn each_id(&self, mut each: impl FnMut(&str)) -> Result<()> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        if self.filter.is_empty() {
            let mut keys = self.keys(None)?;
            while left > 0 {
                let page = keys.page(left).await?;
                if page.is_empty() {
                    break;
                }
                left -= page.len();
                page.iter().filter_map(|meta| id_of_key(&meta.key)).for_each(&mut each);
            }
            return Ok(());
        }
        let mut rows = Box::pin(self.rows()?.into_stream(READ_AHEAD));
        while let Some(row) = rows.try_next().await? {
            row.record?;
            each(&row.id);
        }
        Ok(())
    }

    async fn typed_row<T: DeserializeOwned>(&self, row: SourceRow) -> Result<T> {
        let record = Arc::unwrap_or_clone(row.record?);
        let record = self.resource.read_hooked(Action::List, &row.id, record).await?;
        self.resource.typed(&row.id, record)
    }

    async fn hooked(&self, when: When, action: Action) -> Result<()> {
        let call = self.resource.call(action, None, Record::new(), None);
        self.resource.hooked(when, call).await.map(drop)
    }

    // What reading asks of the query.

    pub(super) fn resource(&self) -> &Resource {
        &self.resource
    }

    pub(super) fn most(&self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }

    pub(super) fn has_filter(&self) -> bool {
        !self.filter.is_empty()
    }

    /// Whether a key can lead to a record that is wanted, as far as the key itself tells.
    pub(super) fn wants_key(&self, key: &str) -> bool {
        let Some(id) = id_of_key(key) else { return false };
        // a value with a `/` in it makes keys under those of the value before that `/`
        let shaped = self.within.as_ref().is_none_or(|within| {
            !within.whole()
                || key.strip_prefix(&within.prefix).and_then(|rest| rest.strip_prefix("id=")) == Some(id)
        });
        shaped && self.after.as_deref().is_none_or(|after| id > after)
    }

    /// Whether a record that a key led to is wanted. A reference can be of a value that the record has no more.
    pub(super) fn wants(&self, key: &str, id: &str, record: &Record) -> bool {
        let format = self.resource.format();
        let belongs = self.within.as_ref().is_none_or(|within| {
            let keys = format.partition_keys(id, record).unwrap_or_default();
            keys.iter().any(|own| own == key)
                && within.partition.holds(record, format.version(), &within.values)
        });
        belongs && self.filter.matches(record)
    }
}

/// A caller's value as an object.
fn object(value: &impl Serialize, what: &str, example: &str) -> Result<Record> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(Error::new(ErrorKind::InvalidValue, format!("{what}: that is no object"))
            .with_advice(format!("pass a struct, a map with text keys or json!({example})"))),
    }
}
