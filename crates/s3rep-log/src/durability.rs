//! What a commit survives.

use std::{fs, sync::Arc};

use s3rep_core::Result;

use crate::{
    schema::{self, Meta},
    sqlite::Db,
};

/// What "durable" means for a commit to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is on the device: it survives a power failure. Commits made at the same moment share one sync.
    #[default]
    Fsync,
    /// It is with the operating system: it survives the death of the process, and a power failure can take back
    /// the last commits, whole and in order. Faster where syncs are slow.
    Os,
}

/// Prepares an open log for commits of that durability.
///
/// When a power failure took entries back, their offsets are given a second time. Destinations that hold cursors
/// would skip what stands under them. So a log whose commits were not synced gets another identity as soon as
/// the machine has been started anew: cursors of the old one then mean nothing.
pub(crate) fn begin(db: &mut Db, meta: &mut Meta, durability: Durability) -> Result<()> {
    let now = boot();
    let relaxed_since = schema::boot(db)?;
    if relaxed_since.as_ref().is_some_and(|since| *since != now) {
        meta.id = new_id();
    }
    let relaxed = (durability == Durability::Os).then_some(now);
    if relaxed != relaxed_since {
        schema::write_identity(db, meta, relaxed.as_deref())?;
    }
    match durability {
        Durability::Fsync => Ok(()),
        Durability::Os => db.once("PRAGMA synchronous = NORMAL"),
    }
}

/// A new identity.
pub(crate) fn new_id() -> Arc<str> {
    format!("{:032x}", rand::random::<u128>()).into()
}

/// What is another after every start of the machine. Where that cannot be told it is another every time.
fn boot() -> String {
    match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(boot) => boot.trim().to_owned(),
        Err(_) => new_id().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use s3rep_core::ChangeLog;

    use super::*;
    use crate::{EmbeddedLog, LogOptions, files::Files, sqlite::Access};

    #[test]
    fn a_log_that_a_power_failure_may_have_cut_is_another_log() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let open = |durability| {
            let options = LogOptions { durability, ..LogOptions::default() };
            EmbeddedLog::open(&dir, &options).unwrap().0.id()
        };
        let first = open(Durability::Os);
        assert_eq!(open(Durability::Os), first, "the machine is still running");
        assert_eq!(open(Durability::Fsync), first);
        assert_eq!(open(Durability::Os), first);

        let files = Arc::new(Files::new(&dir, false).unwrap());
        let mut db = Db::open(&files, &files.db(), Access::Write).unwrap();
        let (meta, _) = schema::read(&mut db, &files).unwrap();
        schema::write_identity(&mut db, &meta, Some("an earlier start")).unwrap();
        drop(db);
        let second = open(Durability::Fsync);
        assert_ne!(second, first);
        assert_eq!(open(Durability::Os), second);
    }
}
