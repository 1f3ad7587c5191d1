//! Operations on the records of one resource.

mod read;
mod write;

use std::{fmt, sync::Arc};

pub use read::Records;
pub(crate) use read::{BATCH_BYTES, Decoded, Failed};
use s3rep_core::{Context, Error, ErrorKind, Record, ResourceSchema, Result, Scope};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    database::Inner,
    format::{ResourceFormat, StoredObject, record_key},
    store::ObjectStore,
};

/// A collection of records: `resource=NAME/data/id=…` and its partition references. Cheap to clone.
///
/// Records are JSON objects with an `id`. Writers of one record in one process are in line; between processes
/// the last writer wins, as in s3db.js.
#[derive(Clone)]
pub struct Resource {
    database: Arc<Inner>,
    format: Arc<ResourceFormat>,
    /// Encoding and decoding derive keys from passwords: too slow for a thread of the runtime.
    slow: bool,
}

impl Resource {
    pub(crate) fn new(database: Arc<Inner>, format: Arc<ResourceFormat>) -> Self {
        let slow = format.schema().attributes.iter().any(|attribute| {
            let definition = attribute.definition.to_string();
            definition.contains("secret") || definition.contains("password")
        });
        Self { database, format, slow }
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        self.format.name()
    }

    /// The attributes of the current version.
    pub fn schema(&self) -> &Arc<ResourceSchema> {
        self.format.schema()
    }

    /// How records are stored, for whatever this type does not say.
    pub fn format(&self) -> &Arc<ResourceFormat> {
        &self.format
    }

    /// The record, as JSON ([`Record`]) or as a type of yours.
    ///
    /// ```
    /// # use s3rep_s3db::{Database, DatabaseOptions, ResourceConfig};
    /// # use serde::{Deserialize, Serialize};
    /// # use serde_json::json;
    /// #[derive(Serialize, Deserialize)]
    /// struct User {
    ///     id: String,
    ///     name: String,
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> s3rep_core::Result<()> {
    /// # let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    /// # let database = Database::connect_with("memory://", options).await?;
    /// # let config = ResourceConfig::from_value(&json!({"name": "users", "attributes": {"name": "string"}}))?;
    /// # let users = database.create_resource(&config).await?;
    /// users.insert(User { id: "u1".into(), name: "Ana".into() }).await?;
    /// assert_eq!(users.get::<User>("u1").await?.name, "Ana");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::Corrupt`] naming the attribute when it cannot be
    /// decoded; [`ErrorKind::InvalidValue`] when it is no `T`.
    pub async fn get<T: DeserializeOwned>(&self, id: &str) -> Result<T> {
        self.find(id).await?.ok_or_else(|| self.missing(id))
    }

    /// The record, `None` when there is none.
    ///
    /// # Errors
    /// As [`Resource::get`].
    pub async fn find<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>> {
        match self.load(id).await? {
            Some((record, _)) => self.typed(id, record).map(Some),
            None => Ok(None),
        }
    }

    /// Whether there is a record of that id, without reading it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn exists(&self, id: &str) -> Result<bool> {
        let key = record_key(self.name(), id)?;
        Ok(self.database.store.head(self.cx(), &key).await?.is_some())
    }

    /// Reads and decodes a record, with its object.
    pub(crate) async fn load(&self, id: &str) -> Result<Option<(Record, StoredObject)>> {
        let key = record_key(self.name(), id)?;
        match self.database.store.get(self.cx(), &key).await? {
            Some(object) => self.decode(id, object).await.map(Some),
            None => Ok(None),
        }
    }

    /// A record as a type of the caller's.
    pub(crate) fn typed<T: DeserializeOwned>(&self, id: &str, record: Record) -> Result<T> {
        T::deserialize(Value::Object(record)).map_err(|error| {
            // The text of the error may hold a value of the record.
            Error::new(ErrorKind::InvalidValue, "the record is not of the type that was asked for")
                .with_scope(Scope::Record)
                .with_context("resource", self.name())
                .with_context("id", id)
                .with_context("type", std::any::type_name::<T>())
                .with_context("problem", kind_of(&error))
                .with_advice("compare the type with the resource's attributes; optional ones need Option")
        })
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.database.store
    }

    fn cx(&self) -> &Context {
        &self.database.context
    }

    /// Decodes a record, and hands its object back.
    async fn decode(&self, id: &str, object: StoredObject) -> Result<(Record, StoredObject)> {
        let id = id.to_owned();
        self.run(move |format| Ok((format.decode(&id, &object)?, object))).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ResourceFormat) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.slow {
            let format = self.format.clone();
            crate::store::blocking(move || work(&format)).await
        } else {
            work(&self.format)
        }
    }

    fn missing(&self, id: &str) -> Error {
        Error::new(ErrorKind::NotFound, "there is no such record")
            .with_scope(Scope::Record)
            .with_context("resource", self.name())
            .with_context("id", id)
    }

    fn about(&self, error: Error, operation: &'static str, id: &str) -> Error {
        error.with_operation(operation).with_context("resource", self.name()).with_context("id", id)
    }

    fn about_reference(&self, error: Error, operation: &'static str, id: &str) -> Error {
        self.about(error, operation, id)
            .with_context("partition reference", "not in step, the record itself is stored")
    }
}

/// What serde found wrong, without the value that it quotes.
fn kind_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let field = text.starts_with("missing field") || text.starts_with("unknown field");
    if field { text } else { text.split(':').next().unwrap_or_default().to_owned() }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("name", &self.name()).finish_non_exhaustive()
    }
}
