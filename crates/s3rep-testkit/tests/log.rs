//! The memory log passes the suite that it is the reference of.

use std::sync::Arc;

use s3rep_testkit::log::{MemoryLogs, suite};

fn main() {
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), suite("memory", Arc::new(MemoryLogs))).exit();
}
