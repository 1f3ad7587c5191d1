//! Operations on the records of one resource.

mod cursor;
mod filter;
mod ids;
mod query;
mod read;
mod replica;
mod write;

use std::{fmt, sync::Arc};

use futures::FutureExt;
pub(crate) use ids::IdGenerator;
pub use query::{Page, Query};
pub use read::Records;
pub(crate) use read::{BATCH_BYTES, Decoded, Failed};
pub(crate) use replica::{Replica, There, with_id};
use s3rep_core::{Context, Error, ErrorKind, Record, ResourceSchema, Result, Scope};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    database::{Database, Inner},
    events::Events,
    format::{ResourceFormat, StoredObject, record_key},
    hooks::{Action, Call, Hooks, When},
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
    hooks: Arc<Hooks>,
    /// `user`, or the plugin that created it.
    created_by: Option<Arc<str>>,
    /// Encoding and decoding derive keys from passwords: too slow for a thread of the runtime.
    slow: bool,
}

impl Resource {
    pub(crate) fn new(
        database: Arc<Inner>,
        format: Arc<ResourceFormat>,
        created_by: Option<Arc<str>>,
    ) -> Self {
        let slow = format.schema().attributes.iter().any(|attribute| {
            let definition = attribute.definition.to_string();
            definition.contains("secret") || definition.contains("password")
        });
        let hooks = database.hooks(format.name());
        Self { database, format, hooks, created_by, slow }
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

    /// Runs a hook before every `action` on this resource, through any handle of this process. It may change
    /// what is to be written, which is checked afterwards, or refuse with an error. Hooks run in the order in
    /// which they were added.
    ///
    /// It runs before the record's place in line is taken, so that it may use the database freely.
    ///
    /// ```
    /// # use s3rep_s3db::{Action, Database, DatabaseOptions, ResourceConfig};
    /// # use serde_json::json;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> s3rep_core::Result<()> {
    /// # let options = DatabaseOptions { create: true, ..DatabaseOptions::default() };
    /// # let database = Database::connect_with("memory://", options).await?;
    /// # let config = json!({"name": "users", "attributes": {"email": "email"}});
    /// # let users = database.create_resource(&ResourceConfig::from_value(&config)?).await?;
    /// users.before(Action::Insert, |mut call| async move {
    ///     let email = call.record["email"].as_str().unwrap_or_default().to_lowercase();
    ///     call.record.insert("email".into(), email.into());
    ///     Ok(call)
    /// });
    /// let user = users.insert(json!({"email": "Ana@Example.com"})).await?;
    /// assert_eq!(user["email"], "ana@example.com");
    /// # Ok(())
    /// # }
    /// ```
    pub fn before<F>(&self, action: Action, hook: impl Fn(Call) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Call>> + Send + 'static,
    {
        self.hooks.add(When::Before, action, Arc::new(move |call| hook(call).boxed()));
    }

    /// Runs a hook after every `action` on this resource that succeeded: after a write the record is stored and
    /// captured. What the hook changes is what the caller gets; an error of it is what the caller gets too, and
    /// undoes nothing.
    pub fn after<F>(&self, action: Action, hook: impl Fn(Call) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Call>> + Send + 'static,
    {
        self.hooks.add(When::After, action, Arc::new(move |call| hook(call).boxed()));
    }

    /// What happens to this resource's records from now on.
    pub fn events(&self) -> Events {
        self.database.observers.watch(Some(self.schema().name.clone()))
    }

    /// Gives the resource other attributes: see [`Database::update_attributes`](crate::Database::update_attributes). This handle keeps
    /// its definition, the one returned has the new one.
    ///
    /// # Errors
    /// As [`Database::update_attributes`](crate::Database::update_attributes).
    pub async fn update_attributes(&self, attributes: &serde_json::Map<String, Value>) -> Result<Self> {
        Database { inner: self.database.clone() }.update_attributes(self.name(), attributes).await
    }

    pub(crate) fn call(
        &self,
        action: Action,
        id: Option<Arc<str>>,
        record: Record,
        before: Option<Arc<Record>>,
    ) -> Call {
        Call { action, resource: self.schema().name.clone(), id, record, before }
    }

    /// Runs hooks and returns the record that they leave.
    pub(crate) async fn hooked(&self, when: When, call: Call) -> Result<Record> {
        self.hooks.run(when, call).await.map(|call| call.record)
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
        self.hooked(When::Before, self.call(Action::Get, Some(id.into()), Record::new(), None)).await?;
        let Some((record, _)) = self.load(id).await? else { return Ok(None) };
        let call = self.call(Action::Get, Some(id.into()), record, None);
        let record = self.hooked(When::After, call).await?;
        self.typed(id, record).map(Some)
    }

    /// Whether there is a record of that id, without reading it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn exists(&self, id: &str) -> Result<bool> {
        self.hooked(When::Before, self.call(Action::Exists, Some(id.into()), Record::new(), None)).await?;
        self.exists_unhooked(id).await
    }

    async fn exists_unhooked(&self, id: &str) -> Result<bool> {
        Ok(self.database.store.head(self.cx(), &record_key(self.name(), id)?).await?.is_some())
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
