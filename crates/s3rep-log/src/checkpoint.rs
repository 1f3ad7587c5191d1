//! Copies the write-ahead log into the log file beside the writer, so that no commit waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use s3rep_core::{Error, ErrorKind, Result};

use crate::{
    files::Files,
    sqlite::{Access, Db},
};

/// The write-ahead log is copied when about so many bytes were written to it. Small enough that its file is soon
/// written over instead of grown: a sync of a file that grows takes several times as long.
const DUE: usize = 32 << 20;
/// Copies what readers of older states do not need, and waits for nobody.
const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// A thread with a connection of its own that copies while the writer goes on.
///
/// SQLite before 3.51.3 may lose frames when a second connection begins to copy a write-ahead log that is copied
/// already and begun anew at that moment (sqlite.org/wal.html#walresetbug). Here the thread begins only when
/// something was committed since the last copy, and the writer copies nothing before the thread is done.
pub(crate) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    copied: Arc<AtomicBool>,
    is_copying: bool,
    /// Bytes written since the write-ahead log was begun anew.
    written: usize,
}

impl Checkpointer {
    pub(crate) fn start(files: &Arc<Files>) -> Result<Self> {
        let db = Db::open(files, &files.db(), Access::Write)?;
        let (wake, woken) = sync_channel(1);
        let copied = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&copied);
        let run = move || copy(db, &woken, &done);
        let thread =
            thread::Builder::new().name("s3rep-checkpoint".to_owned()).spawn(run).map_err(|cause| {
                Error::new(ErrorKind::Unavailable, "the log's thread cannot be started").with_source(cause)
            })?;
        Ok(Self { wake: Some(wake), thread: Some(thread), copied, is_copying: false, written: 0 })
    }

    /// To be called between two transactions of the writer; `bytes` is about what was committed since.
    pub(crate) fn after(&mut self, db: &mut Db, bytes: usize) {
        self.written += bytes;
        let has_thread = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if self.is_copying && has_thread && !self.copied.swap(false, Ordering::Acquire) {
            return;
        }
        if self.is_copying {
            // What came meanwhile is little. With nothing left to copy, the next commit begins at the start of
            // the write-ahead log.
            self.finish(db);
        } else if self.written >= DUE {
            self.is_copying = has_thread && self.wake.as_ref().is_some_and(|wake| wake.try_send(()).is_ok());
            if !self.is_copying {
                self.finish(db);
            }
        }
    }

    fn finish(&mut self, db: &mut Db) {
        checkpoint(db);
        (self.is_copying, self.written) = (false, 0);
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn copy(mut db: Db, woken: &Receiver<()>, done: &AtomicBool) {
    while woken.recv().is_ok() {
        checkpoint(&mut db);
        done.store(true, Ordering::Release);
    }
}

/// After a failure the write-ahead log grows until the next time; a disk that is full is the next commit's to
/// report.
fn checkpoint(db: &mut Db) {
    if let Err(error) = db.once(COPY) {
        tracing::debug!(error = %error.report(), "the write-ahead log cannot be copied now");
    }
}
