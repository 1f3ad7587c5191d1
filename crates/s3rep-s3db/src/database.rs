//! A database: `s3db.json` and the resources that it names.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use s3rep_core::{Context, Error, ErrorKind, Result, Secret, Timestamp};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::{
    context,
    events::{DatabaseEvent, Events, Observers},
    format::{Document, Repair, ResourceConfig, ResourceEntry, ResourceFormat, StoredObject},
    hooks::Hooks,
    lock::metadata_lock,
    outbox::Outbox,
    plugin::Plugin,
    resource::{IdGenerator, Resource},
    store::{ObjectStore, PutCondition},
    url::{StoreOptions, open_store_with},
};

/// The key of the metadata document.
const METADATA: &str = "s3db.json";
/// How often a document that somebody may be writing is read again, 20 ms apart.
const READ_ATTEMPTS: u32 = 6;
const READ_PAUSE: Duration = Duration::from_millis(20);
/// Writers of one record in this process are in line; so many lines are there.
const STRIPES: usize = 64;

/// A database in s3db.js's format. Cheap to clone; clones share what they know of `s3db.json`.
///
/// Opening and reading never write. What is wrong with `s3db.json` is healed in memory as s3db.js does
/// ([`Database::repairs`] says what), and an operation that writes it keeps a copy of a damaged text first,
/// under `s3db.json.corrupted.<time>.backup`.
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) context: Context,
    passphrase: Secret,
    known: RwLock<Arc<Known>>,
    /// One writer of `s3db.json` in this process.
    writing: AsyncMutex<()>,
    /// `s3db.json` is read, shown and known in one go: an older one never comes after a newer one.
    knowing: AsyncMutex<()>,
    stripes: Vec<Arc<AsyncMutex<()>>>,
    pub(crate) plugins: Mutex<Vec<Arc<dyn Plugin>>>,
    pub(crate) observers: Observers,
    hooks: Mutex<HashMap<String, Arc<Hooks>>>,
    generators: Mutex<HashMap<String, Arc<IdGenerator>>>,
    outbox: RwLock<Option<Arc<Outbox>>>,
}

/// `s3db.json` as it was read last.
struct Known {
    document: Document,
    repairs: Vec<Repair>,
    text: Bytes,
    /// The text is no JSON; `document` is what could be made of it.
    damaged: bool,
    /// The version token, when it is sure to change with the next write.
    version: Option<Vec<u8>>,
    formats: Mutex<HashMap<String, Arc<ResourceFormat>>>,
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// The passphrase of attributes of type `secret`. `secret` by default, as in s3db.js.
    pub passphrase: Secret,
    /// Makes an empty database when there is none. Off by default: a mistyped path is an error.
    pub create: bool,
    /// Clock and randomness; those of the system by default.
    pub context: Context,
    /// How a store of a connection string works; used by [`Database::connect_with`] only.
    pub store: StoreOptions,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            passphrase: Secret::from("secret"),
            create: false,
            context: context::system(),
            store: StoreOptions::default(),
        }
    }
}

impl Database {
    /// Opens the database of a connection string, for example `file:///data/shop`: see
    /// [`open_store`](crate::open_store) for the forms.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no database, and what the store says.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, DatabaseOptions::default()).await
    }

    /// As [`Database::connect`], with options.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub async fn connect_with(url: &str, options: DatabaseOptions) -> Result<Self> {
        let store = open_store_with(url, &options.store)?;
        Self::open(store, options).await
    }

    /// Opens the database in a store.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, and what the store says.
    pub async fn open(store: Arc<dyn ObjectStore>, options: DatabaseOptions) -> Result<Self> {
        let cx = options.context;
        let known = match read(&*store, &cx).await {
            Err(error) if error.kind() == ErrorKind::NotFound && options.create => {
                let empty = StoredObject::json(Document::empty(cx.now()).to_bytes().into());
                match store.put(&cx, METADATA, &empty, PutCondition::IfAbsent).await {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                    _ => read(&*store, &cx).await?,
                }
            }
            known => known?,
        };
        known.warn(&*store);
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                context: cx,
                passphrase: options.passphrase,
                known: RwLock::new(Arc::new(known)),
                writing: AsyncMutex::default(),
                knowing: AsyncMutex::default(),
                stripes: (0..STRIPES).map(|_| Arc::default()).collect(),
                plugins: Mutex::default(),
                observers: Observers::default(),
                hooks: Mutex::default(),
                generators: Mutex::default(),
                outbox: RwLock::default(),
            }),
        })
    }

    /// Where the database is; never with credentials.
    pub fn location(&self) -> String {
        self.inner.store.location()
    }

    /// The store under the database.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// Where the database takes clock and randomness from.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// The names of the resources, in the order of `s3db.json`.
    pub fn resources(&self) -> Vec<String> {
        self.known().document.resources().map(|(name, _)| name.to_owned()).collect()
    }

    /// `s3db.json` as it was read last.
    pub fn document(&self) -> Document {
        self.known().document.clone()
    }

    /// What was wrong with `s3db.json` and was healed in memory.
    pub fn repairs(&self) -> Vec<Repair> {
        self.known().repairs.clone()
    }

    /// A resource, with the definition that was read last.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] naming the resources that there are; an error naming the attribute when its
    /// definition cannot be read.
    pub fn resource(&self, name: &str) -> Result<Resource> {
        self.resource_in(&self.known(), name)
    }

    fn resource_in(&self, known: &Known, name: &str) -> Result<Resource> {
        if known.document.resource(name).is_none() {
            let names: Vec<_> = known.document.resources().map(|(name, _)| name).collect();
            return Err(Error::new(ErrorKind::NotFound, format!("there is no resource '{name}'"))
                .with_context("database", self.location())
                .with_advice(match names.as_slice() {
                    [] => "the database has no resources yet: create one first".to_owned(),
                    names => format!("use one of: {}", names.join(", ")),
                }));
        }
        let mut formats = known.formats.lock().unwrap_or_else(PoisonError::into_inner);
        let format = match formats.get(name) {
            Some(format) => format.clone(),
            None => {
                let format = Arc::new(
                    ResourceFormat::new(&known.document, name, &self.inner.passphrase)?
                        .with_metadata_limit(self.inner.store.metadata_limit()),
                );
                formats.insert(name.to_owned(), format.clone());
                format
            }
        };
        drop(formats);
        let created_by = known.document.resource(name).and_then(ResourceEntry::created_by);
        Ok(Resource::new(self.inner.clone(), format, created_by.map(Arc::from)))
    }

    /// Creates a resource, or a new version of it when the definition of an existing one changed.
    ///
    /// Nobody else's change of `s3db.json` is lost: it is read, changed and written with no other s3rep in
    /// between, and on S3 under the lock object that s3db.js uses too.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] naming every problem of the configuration; a temporary
    /// [`ErrorKind::Contention`] when others hold `s3db.json`; and what the store says.
    pub async fn create_resource(&self, config: &ResourceConfig) -> Result<Resource> {
        let generator = IdGenerator::of(config)?;
        self.change(&|document, now| document.put_resource(config, now).map(drop)).await?;
        if let Some(generator) = generator {
            lock(&self.inner.generators).insert(config.name.clone(), Arc::new(generator));
        }
        self.created(&config.name)
    }

    /// Gives a resource other attributes; everything else of its definition stays. Records are not rewritten:
    /// those of attributes that are gone stay in the objects, under keys that are not used again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such resource, and as [`Database::create_resource`].
    pub async fn update_attributes(&self, name: &str, attributes: &Map<String, Value>) -> Result<Resource> {
        self.resource(name)?;
        self.change(&|document, now| document.update_attributes(name, attributes, now).map(drop)).await?;
        self.created(name)
    }

    /// Tells watchers of a resource.
    fn created(&self, name: &str) -> Result<Resource> {
        let resource = self.resource(name)?;
        let schema = resource.schema();
        self.inner.observers.tell(|| DatabaseEvent::ResourceChanged {
            resource: schema.name.clone(),
            version: schema.version.clone(),
        });
        Ok(resource)
    }

    /// Changes `s3db.json`, if `change` does.
    pub(crate) async fn change(
        &self,
        change: &(dyn Fn(&mut Document, Timestamp) -> Result<()> + Send + Sync),
    ) -> Result<()> {
        not_while_shown()?;
        let (store, cx) = (&*self.inner.store, &self.inner.context);
        let _writing = self.inner.writing.lock().await;
        let lock = if store.has_lock_objects() { Some(metadata_lock(store, cx).await?) } else { None };
        let changed = self.change_locked(change).await;
        if let Some(lock) = lock
            && let Err(error) = lock.release(store, cx).await
        {
            // It expires by itself.
            tracing::warn!("the lock of s3db.json is not released: {}", error.report());
        }
        changed?;
        let _knowing = self.inner.knowing.lock().await;
        self.know(read(store, cx).await?).await
    }

    async fn change_locked(
        &self,
        change: &(dyn Fn(&mut Document, Timestamp) -> Result<()> + Send + Sync),
    ) -> Result<()> {
        let (store, cx) = (&*self.inner.store, &self.inner.context);
        let fresh = read(store, cx).await?;
        let now = cx.now();
        if fresh.damaged {
            let time = now.to_string().replace([':', '.'], "-");
            let copy = StoredObject::json(fresh.text.clone());
            let key = format!("{METADATA}.corrupted.{time}.backup");
            store.put(cx, &key, &copy, PutCondition::Always).await?;
        }
        let rewrite = |text: Option<Bytes>| {
            let text = text.ok_or_else(|| missing(store))?;
            if text != fresh.text && !is_json(&text) {
                return Err(Error::new(
                    ErrorKind::Contention,
                    "s3db.json is being written by another program",
                )
                .temporary());
            }
            let (mut document, repairs) = Document::parse(&text);
            let before = document.clone();
            change(&mut document, now)?;
            if document == before && repairs.is_empty() {
                return Ok(None);
            }
            document.touch(now);
            Ok(Some(document.to_bytes().into()))
        };
        store.modify(cx, METADATA, &rewrite).await
    }

    /// Captures every write through this database and its clones in an outbox, from now on: see
    /// [`Outbox`], which is returned. First the writes are resolved that an earlier process was cut off in.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is an outbox already.
    pub async fn capture(&self, outbox: Outbox) -> Result<Arc<Outbox>> {
        let already = || {
            Error::new(ErrorKind::AlreadyExists, "the database has an outbox already")
                .with_context("database", self.location())
                .with_advice("use one replicator with all destinations")
        };
        if self.outbox().is_some() {
            return Err(already());
        }
        for ((resource, id), error) in outbox.resolve_all(&self.inner.context, self).await {
            // They stay open, and the tail or the next write of the record looks again.
            tracing::warn!(%resource, %id, "a write that was cut off is not resolved yet: {}", error.report());
        }
        let mut place = self.inner.outbox.write().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return Err(already());
        }
        let outbox = Arc::new(outbox);
        *place = Some(outbox.clone());
        Ok(outbox)
    }

    /// Ends [`Database::capture`]. Before that, close the outbox, let its writes be [settled](Outbox::settled), and
    /// end whatever follows the database: the tail would tell of them a second time.
    pub fn end_capture(&self) {
        *self.inner.outbox.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn outbox(&self) -> Option<Arc<Outbox>> {
        self.inner.outbox()
    }

    /// What happens in the database from now on.
    pub fn events(&self) -> Events {
        self.inner.observers.watch(None)
    }

    /// Reads `s3db.json` again when it changed; true when it did. Resources that were handed out before keep
    /// their definition.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is gone; [`ErrorKind::Corrupt`] when it is damaged and healing would lose
    /// resources that were there: that is no proof that they are gone. What was known before stays known.
    pub async fn refresh(&self) -> Result<bool> {
        self.refresh_with(&self.inner.context).await
    }

    pub(crate) async fn refresh_with(&self, cx: &Context) -> Result<bool> {
        not_while_shown()?;
        let store = &*self.inner.store;
        let _knowing = self.inner.knowing.lock().await;
        let known = self.known();
        let there = store.head(cx, METADATA).await?;
        if there.is_some_and(|meta| known.version.as_deref() == Some(&meta.version)) {
            return Ok(false);
        }
        let fresh = read(store, cx).await?;
        let lost = |(name, _): &(&str, _)| fresh.document.resource(name).is_none();
        if !fresh.repairs.is_empty()
            && let Some((name, _)) = known.document.resources().find(lost)
        {
            return Err(damaged(store, &fresh).with_context("missing resource", name));
        }
        let changed = fresh.text != known.text;
        if changed {
            fresh.warn(store);
        } else {
            *fresh.formats.lock().unwrap_or_else(PoisonError::into_inner) =
                known.formats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        self.know(fresh).await?;
        Ok(changed)
    }

    /// Goes on with another `s3db.json`, after plugins have seen what is new in it: nobody writes to a resource
    /// that they have not seen.
    async fn know(&self, fresh: Known) -> Result<()> {
        let (fresh, known) = (Arc::new(fresh), self.known());
        for (name, entry) in fresh.document.resources() {
            if known.document.resource(name).is_some_and(|old| old.raw() == entry.raw()) {
                continue;
            }
            match self.resource_in(&fresh, name) {
                Ok(resource) => SHOWING.scope((), self.show(&resource)).await?,
                // Nobody can write to it either.
                Err(error) => tracing::warn!(resource = name, "left out: {}", error.report()),
            }
        }
        *self.inner.known.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The error of whoever cannot do with a healed `s3db.json`.
    pub(crate) fn damaged(&self) -> Error {
        damaged(&*self.inner.store, &self.known())
    }

    fn known(&self) -> Arc<Known> {
        self.inner.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

tokio::task_local! {
    /// This task shows a resource to a plugin, and holds what a change of resources needs.
    static SHOWING: ();
}

fn not_while_shown() -> Result<()> {
    if SHOWING.try_with(|()| ()).is_err() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ConfigInvalid, "a plugin cannot change resources while it is shown one")
        .with_advice("change them when the plugin starts, or in a task of its own"))
}

impl Inner {
    pub(crate) fn outbox(&self) -> Option<Arc<Outbox>> {
        self.outbox.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The hooks of a resource, shared by every handle to it.
    pub(crate) fn hooks(&self, resource: &str) -> Arc<Hooks> {
        lock(&self.hooks).entry(resource.to_owned()).or_default().clone()
    }

    /// How the ids of a resource are made, when this process was told.
    pub(crate) fn generator(&self, resource: &str) -> Option<Arc<IdGenerator>> {
        lock(&self.generators).get(resource).cloned()
    }

    pub(crate) fn generate_with(&self, resource: &str, generator: IdGenerator) {
        lock(&self.generators).insert(resource.to_owned(), Arc::new(generator));
    }

    /// Waits for the place of a key's writer.
    pub(crate) async fn in_line(&self, key: &str) -> OwnedMutexGuard<()> {
        let hash = key.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        self.stripes[hash % STRIPES].clone().lock_owned().await
    }
}

impl Known {
    fn warn(&self, store: &dyn ObjectStore) {
        for repair in &self.repairs {
            tracing::warn!(
                place = store.place(METADATA),
                "s3db.json is read as if mended: {}",
                repair.message
            );
        }
    }
}

/// Reads the document. One that is no JSON may be half written: it is read again for a while.
async fn read(store: &dyn ObjectStore, cx: &Context) -> Result<Known> {
    let mut attempt = 1;
    loop {
        let last = attempt == READ_ATTEMPTS;
        match read_once(store, cx).await {
            Ok(known) if !known.damaged || last => return Ok(known),
            Err(error) if !error.is_temporary() || last => return Err(error),
            _ => cx.sleep(READ_PAUSE).await,
        }
        attempt += 1;
    }
}

async fn read_once(store: &dyn ObjectStore, cx: &Context) -> Result<Known> {
    // The token is taken before the text, so that it is never newer than the text.
    let meta = store.head(cx, METADATA).await?;
    let Some(text) = store.get_body(cx, METADATA).await? else {
        return Err(missing(store));
    };
    let (document, repairs) = Document::parse(&text);
    Ok(Known {
        document,
        repairs,
        damaged: !is_json(&text),
        text,
        version: meta.filter(|meta| meta.settled).map(|meta| meta.version),
        formats: Mutex::default(),
    })
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

fn missing(store: &dyn ObjectStore) -> Error {
    Error::new(ErrorKind::NotFound, "no database here")
        .with_context("file", store.place(METADATA))
        .with_advice("check the URL; `s3rep db create-resource` makes a database")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged(store: &dyn ObjectStore, known: &Known) -> Error {
    let error = Error::new(
        ErrorKind::Corrupt,
        "s3db.json is damaged or half written: what it misses is not gone",
    )
    .with_context("file", store.place(METADATA))
    .with_advice(
        "restore it from a backup (s3db.json.corrupted.*.backup, if there is one) or let the application \
             that owns the database write it again",
    );
    match known.repairs.first() {
        Some(repair) => error.with_context("problem", &repair.message),
        None => error,
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("location", &self.location()).finish_non_exhaustive()
    }
}
