//! The embedded log passes the suite for logs.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use s3rep_core::{ChangeLog, Error, ErrorKind, Result};
use s3rep_log::{Durability, EmbeddedLog, LogOptions};
use s3rep_testkit::log::{LogFactory, LogPlace, suite};

struct Logs(Durability);

struct Place {
    dir: PathBuf,
    durability: Durability,
    _keeps: Option<tempfile::TempDir>,
}

impl LogFactory for Logs {
    fn durable(&self) -> bool {
        true
    }

    fn place(&self) -> Box<dyn LogPlace> {
        let keeps = tempfile::tempdir().ok();
        let dir = keeps.as_ref().map(|dir| dir.path().join("state")).unwrap_or_default();
        Box::new(Place { dir, durability: self.0, _keeps: keeps })
    }
}

#[async_trait]
impl LogPlace for Place {
    async fn open(&self, partitions: u16) -> Result<Arc<dyn ChangeLog>> {
        let options = LogOptions { partitions, durability: self.durability };
        let (log, events) = EmbeddedLog::open(&self.dir, &options)?;
        match events.first() {
            None => Ok(Arc::new(log)),
            Some(event) => Err(Error::new(ErrorKind::Corrupt, format!("a sound log reports {event:?}"))),
        }
    }
}

fn main() {
    let mut trials = suite("embedded", Arc::new(Logs(Durability::Fsync)));
    trials.extend(suite("embedded, synced by the system", Arc::new(Logs(Durability::Os))));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit();
}
