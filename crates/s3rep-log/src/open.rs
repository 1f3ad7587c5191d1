//! Opening a log: a new one, a sound one, or one that has to be set aside.

use std::{fs, fs::File, path::Path, sync::Arc};

use s3rep_core::{ErrorKind, Event, Result, Seq};

use crate::{
    LogOptions, durability,
    files::{Files, now_millis},
    replicators::{self, Found, Replicator},
    schema::{self, Counters, Meta},
    sqlite::{Access, Db},
    store::Store,
};

/// A log that is open for writing.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) lock: File,
    pub(crate) events: Vec<Event>,
}

/// Opens the log in `dir`, or makes one.
pub(crate) fn open(dir: &Path, options: &LogOptions) -> Result<Opened> {
    let files = Arc::new(Files::new(dir, true)?);
    let lock = files.lock()?;
    let mut events = Vec::new();
    let store = match (files.suspicion(), files.db().exists()) {
        (Some(why), _) => replace(&files, options, &why, &mut events)?,
        (None, false) if files.wal().exists() => replace(
            &files,
            options,
            "the file itself is gone, only its write-ahead log is left",
            &mut events,
        )?,
        (None, false) => create(&files, options, Vec::new(), 0)?,
        (None, true) => match existing(&files, options, &mut events) {
            Ok(store) => store,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                replace(&files, options, &error.report(), &mut events)?
            }
            Err(error) => return Err(error),
        },
    };
    Ok(Opened { store, lock, events })
}

/// Opens a log that is there. What is checked costs the same however long the log is; the entries are checked
/// when they are read.
fn existing(files: &Arc<Files>, options: &LogOptions, events: &mut Vec<Event>) -> Result<Store> {
    let mut db = Db::open(files, &files.db(), Access::Write)?;
    let (mut meta, counters) = schema::read(&mut db, files)?;
    prepare(&mut db)?;
    durability::begin(&mut db, &mut meta, options.durability)?;
    let newest =
        "SELECT max(ifnull((SELECT max(seq) FROM log), 0), ifnull((SELECT max(seq) FROM damaged), 0))";
    let newest = db.first(newest, Vec::new(), |row| row.number(0))?.unwrap_or(0);
    if newest.max(counters.trimmed.0) != counters.last.0 {
        // Going on would give offsets a second time.
        return Err(crate::error::corrupt(files, "the newest entries of the log are missing"));
    }
    let damaged = replicators::all(&mut db, meta.partitions)?.into_iter().filter_map(|found| match found {
        Found::Damaged(name) => Some(name),
        Found::Sound(_) => None,
    });
    let reason = "its cursors in the log were damaged";
    events.extend(
        damaged.map(|replicator| Event::NeedsResync {
            replicator: replicator.into(),
            reason: reason.to_owned(),
        }),
    );
    let mut store = Store::new(db, meta, counters, files);
    if !events.is_empty() {
        // Mends the rows.
        store.db.begin()?;
        let mended = store.replicators().and_then(|_| store.db.commit());
        store.db.rollback();
        mended?;
    }
    Ok(store)
}

/// Sets a damaged log aside and makes a new one, which knows the old one's replicators.
fn replace(files: &Arc<Files>, options: &LogOptions, why: &str, events: &mut Vec<Event>) -> Result<Store> {
    // Should this be cut short, the next start does it again.
    files.suspect(why);
    let (known, fence) = salvage(files);
    let aside = files.set_aside()?;
    let names: Vec<_> = known.iter().map(|replicator| replicator.name.clone()).collect();
    let store = create(files, options, known, fence)?;
    files.clear_suspicion();
    let follows = match names.len() {
        0 => "its replicators cannot be read, so each begins anew with a snapshot".to_owned(),
        _ => format!(
            "{} `s3rep sync`: {}",
            if names.len() == 1 { "1 replicator needs" } else { "these replicators need" },
            names.join(", ")
        ),
    };
    let detail = format!(
        "the log is damaged ({why}). It was moved to {}, with its dead letters, and a new log was begun; {follows}. \
         Have the disk checked; the moved file can be deleted when nothing in it is needed",
        aside.display()
    );
    events.push(Event::LogDamaged { detail });
    let reason = "the log was damaged and replaced".to_owned();
    events.extend(
        names.into_iter().map(|name| Event::NeedsResync { replicator: name.into(), reason: reason.clone() }),
    );
    Ok(store)
}

/// What can still be read of a damaged log: its replicators, and the newest fence.
fn salvage(files: &Files) -> (Vec<Replicator>, u64) {
    // Errors here are expected, and leave no mark.
    let files = Arc::new(Files { dir: files.dir.clone(), may_mark: false });
    let Ok(mut db) = Db::open(&files, &files.db(), Access::Read) else { return (Vec::new(), 0) };
    let fence = schema::read_counters(&mut db, &files).map_or(0, |counters| counters.fence);
    let mut known = Vec::new();
    // The number of partitions does not matter: the cursors are worthless now.
    let _ = replicators::each(&mut db, None, |found| {
        if let Found::Sound(replicator) = found {
            known.push(replicator);
        }
    });
    let fence = known.iter().map(|replicator| replicator.fence).fold(fence, u64::max);
    (known, fence)
}

/// Makes a log. It gets its name only when it is complete, so that an empty file is always a damaged one.
fn create(files: &Arc<Files>, options: &LogOptions, known: Vec<Replicator>, fence: u64) -> Result<Store> {
    let path = files.unfinished();
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
    // Destinations that store a fence refuse smaller ones. Counting from the time of creation makes the owners
    // of this log outrank those of a log that was lost before it.
    let now = u64::try_from(now_millis()).unwrap_or(0) / 1_000;
    let counters = Counters { fence: fence.max(now), last: Seq(0), ..Counters::default() };
    let mut meta = Meta { id: durability::new_id(), partitions: options.partitions.max(1) };
    let mut db = Db::open(files, &path, Access::Create)?;
    // Twice the default: half the frames in the write-ahead log, which costs a third less time in the kernel.
    db.once("PRAGMA page_size = 8192")?;
    db.once("PRAGMA synchronous = FULL")?;
    schema::create(&mut db, &meta, counters)?;
    for replicator in known {
        let why = "the log was damaged and replaced";
        Replicator::behind(replicator.name, replicator.fence, meta.partitions, Seq(0), why).write(&mut db)?;
    }
    db.once("PRAGMA journal_mode = WAL")?;
    drop(db);
    fs::rename(&path, files.db())
        .map_err(|cause| crate::error::from_io(cause, files, "the new log cannot get its name"))?;
    files.sync();
    let mut db = Db::open(files, &files.db(), Access::Write)?;
    prepare(&mut db)?;
    durability::begin(&mut db, &mut meta, options.durability)?;
    Ok(Store::new(db, meta, counters, files))
}

/// Settings of the writing connection.
fn prepare(db: &mut Db) -> Result<()> {
    for pragma in [
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        // The checkpointer says when.
        "PRAGMA wal_autocheckpoint = 0",
        // What a burst left beyond it is given back.
        "PRAGMA journal_size_limit = 67108864",
        "PRAGMA cache_size = -16384",
        "PRAGMA temp_store = MEMORY",
    ] {
        db.once(pragma)?;
    }
    Ok(())
}
