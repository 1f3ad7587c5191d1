//! Another s3db database as a destination.
//!
//! | room | what |
//! |---|---|
//! | `config` | the options of a configuration |
//! | `sink` | batches |
//! | `schema` | resources after the source's, and keeping them so |
//! | `statement` | what is done to `s3db.json` |
//! | `target` | resources that are written to, as they are known |
//! | `readback` | reading back, for `verify` |

mod config;
mod readback;
mod schema;
#[expect(clippy::module_inception, reason = "the room of that name in every driver")]
mod sink;
mod statement;
mod target;

pub use config::S3dbConfig;
