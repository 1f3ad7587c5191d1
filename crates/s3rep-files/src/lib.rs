//! Destinations in files: JSON Lines and CSV, one line a change, in a directory a table.
//!
//! ```text
//! lines/
//!   _s3rep.lock                 held by the one replicator that writes here
//!   _s3rep_cursor.json          what is committed: cursors, and the length of each unfinished file
//!   cars/
//!     cars-3f2a91c0-0000000000000001.jsonl        complete: take it away whenever you like
//!     cars-3f2a91c0-0000000000005213.jsonl.part   being written: leave it alone
//! ```
//!
//! A file is named after the table, the log (first eight characters of its id) and the sequence number of its
//! first change; numbers only grow, also when changes are replayed on purpose, so the order of names is the
//! order of writing. A file is complete when it has its final name.
//!
//! # Lines
//!
//! JSON Lines: `{"_operation":"insert","_change_id":"…","_changed_at":"…Z","id":"…", …members of the record}`,
//! undeclared members included. A record with a member of one of the first three names is refused.
//!
//! CSV (RFC 4180, lines end with `\n`): `_operation,_change_id,_changed_at,id,` and the attributes in the order
//! of the schema; members that the resource does not declare have no column and are left out. A field that is
//! empty without quotes is null or absent, `""` is the empty text; objects and arrays are JSON text. When the
//! attributes change, a new file begins.
//!
//! A delete carries the last known record, if there is one.
//!
//! # Exactly once
//!
//! What a batch wrote counts from the moment that `_s3rep_cursor.json` is replaced; it is synced to the disk
//! after the lines. On start an unfinished file is cut to its committed length, and an unfinished file that
//! the cursor does not know is set aside as `*.part.orphan`.

mod config;
mod csv;
mod directory;
mod error;
mod external_sort;
mod format;
mod ledger;
mod names;
mod readback;
mod recovery;
mod sink;
mod stage;

pub use config::{CsvConfig, FilesOptions, JsonlConfig};
