//! The embedded log passes the suite for logs.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use s3rep_core::{ChangeLog, Error, ErrorKind, Result};
use s3rep_log::{EmbeddedLog, LogOptions};
use s3rep_testkit::log::{LogFactory, LogPlace, suite};

struct Logs;

struct Place {
    dir: PathBuf,
    _keeps: Option<tempfile::TempDir>,
}

impl LogFactory for Logs {
    fn durable(&self) -> bool {
        true
    }

    fn place(&self) -> Box<dyn LogPlace> {
        let keeps = tempfile::tempdir().ok();
        let dir = keeps.as_ref().map(|dir| dir.path().join("state")).unwrap_or_default();
        Box::new(Place { dir, _keeps: keeps })
    }
}

#[async_trait]
impl LogPlace for Place {
    async fn open(&self, partitions: u16) -> Result<Arc<dyn ChangeLog>> {
        let (log, events) = EmbeddedLog::open(&self.dir, &LogOptions { partitions })?;
        match events.first() {
            None => Ok(Arc::new(log)),
            Some(event) => Err(Error::new(ErrorKind::Corrupt, format!("a sound log reports {event:?}"))),
        }
    }
}

fn main() {
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), suite("embedded", Arc::new(Logs))).exit();
}
