//! A database: `s3db.json` and the resources that it names.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use s3rep_core::{Context, Error, ErrorKind, Result, Secret};
use serde::de::IgnoredAny;
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    context,
    format::{Document, Repair, ResourceConfig, ResourceFormat, StoredObject},
    resource::Resource,
    store::{FileOptions, ObjectStore, PutCondition},
    url::open_store_with,
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
    stripes: Vec<AsyncMutex<()>>,
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
    /// How a file store works; used by [`Database::connect_with`] only.
    pub files: FileOptions,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            passphrase: Secret::from("secret"),
            create: false,
            context: context::system(),
            files: FileOptions::default(),
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
        let store = open_store_with(url, options.files.clone())?;
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
                let document = Document::empty(cx.now());
                match write(&*store, &cx, &document, PutCondition::IfAbsent).await {
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
                stripes: (0..STRIPES).map(|_| AsyncMutex::default()).collect(),
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
        let known = self.known();
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
        Ok(Resource::new(self.inner.clone(), format))
    }

    /// Creates a resource, or a new version of it when the definition of an existing one changed. The
    /// document is read anew first, so that resources of other writers stay.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] naming every problem of the configuration, and what the store says.
    pub async fn create_resource(&self, config: &ResourceConfig) -> Result<Resource> {
        let (store, cx) = (&*self.inner.store, &self.inner.context);
        let writing = self.inner.writing.lock().await;
        let fresh = read(store, cx).await?;
        let mut document = fresh.document.clone();
        document.put_resource(config, cx.now())?;
        if document != fresh.document || !fresh.repairs.is_empty() {
            if fresh.damaged {
                let time = cx.now().to_string().replace([':', '.'], "-");
                let copy = StoredObject { body: fresh.text.clone(), ..json_object() };
                store
                    .put(cx, &format!("{METADATA}.corrupted.{time}.backup"), &copy, PutCondition::Always)
                    .await?;
            }
            document.touch(cx.now());
            write(store, cx, &document, PutCondition::Always).await?;
        }
        self.inner.know(read(store, cx).await?);
        drop(writing);
        self.resource(&config.name)
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
        let store = &*self.inner.store;
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
        self.inner.know(fresh);
        Ok(changed)
    }

    /// The error of whoever cannot do with a healed `s3db.json`.
    pub(crate) fn damaged(&self) -> Error {
        damaged(&*self.inner.store, &self.known())
    }

    fn known(&self) -> Arc<Known> {
        self.inner.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Inner {
    fn know(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    /// The line of writers that a key stands in.
    pub(crate) fn stripe(&self, key: &str) -> &AsyncMutex<()> {
        let hash = key.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        &self.stripes[hash % STRIPES]
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
        return Err(Error::new(ErrorKind::NotFound, "no database here")
            .with_context("file", store.place(METADATA))
            .with_advice("check the URL; `s3rep db create-resource` makes a database"));
    };
    let (document, repairs) = Document::parse(&text);
    Ok(Known {
        document,
        repairs,
        damaged: serde_json::from_slice::<IgnoredAny>(&text).is_err(),
        text,
        version: meta.filter(|meta| meta.settled).map(|meta| meta.version),
        formats: Mutex::default(),
    })
}

async fn write(
    store: &dyn ObjectStore,
    cx: &Context,
    document: &Document,
    condition: PutCondition,
) -> Result<()> {
    let object = StoredObject { body: document.to_bytes().into(), ..json_object() };
    store.put(cx, METADATA, &object, condition).await
}

fn json_object() -> StoredObject {
    StoredObject { content_type: Some("application/json".to_owned()), ..StoredObject::default() }
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
