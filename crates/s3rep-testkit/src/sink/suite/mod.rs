//! The conformance suite for sinks: what DESIGN §4.3 to 4.5 ask of a destination, as cases.
//!
//! A driver implements [`SinkFactory`] and hands [`suite`] to `libtest-mimic`:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use s3rep_core::{Capability, Sink, Table};
//! # use s3rep_testkit::{oracle::StoredChange, sink::{FULL, MemoryPlace, MemorySink, suite::{Offers, SinkFactory, suite}}};
//! struct Memory;
//!
//! #[async_trait::async_trait]
//! impl SinkFactory for Memory {
//!     type Place = MemoryPlace;
//!     fn capability(&self) -> Capability {
//!         FULL
//!     }
//!     fn offers(&self) -> Offers {
//!         Offers { changes: true, ..Offers::NOTHING }
//!     }
//!     async fn fresh(&self) -> MemoryPlace {
//!         MemoryPlace::default()
//!     }
//!     async fn open(&self, place: &MemoryPlace) -> Arc<dyn Sink> {
//!         Arc::new(MemorySink::new().over(place.clone()))
//!     }
//!     async fn changes(&self, place: &MemoryPlace, table: &Table) -> Vec<StoredChange> {
//!         place.stored_changes(&table.name)
//!     }
//! }
//!
//! fn main() {
//!     let arguments = libtest_mimic::Arguments::from_args();
//!     libtest_mimic::run(&arguments, suite("memory", Memory)).exit();
//! }
//! ```

mod append;
mod batches;
mod check;
mod cursor;
mod factory;
mod fence;
mod interrupted;
mod random;
mod readback;
mod rows;
mod scene;
mod schema;
mod values;

use std::{fmt, sync::Arc};

use libtest_mimic::{Failed, Trial};
use s3rep_core::{BoxFuture, Capability};

pub use factory::{Offers, SinkFactory};

use factory::{Erased, Typed};
use scene::Harness;

/// The cases as trials of `libtest-mimic`, each named `NAME/theme/what it says`. A case that does not apply is
/// ignored and names the reason.
pub fn suite(name: &str, factory: impl SinkFactory) -> Vec<Trial> {
    let trial = |case: Case| {
        let name = format!("{name}/{case}");
        let applies = case.reason.is_none();
        Trial::test(name, move || case.run().map_err(Failed::from)).with_ignored_flag(!applies)
    };
    cases(factory).into_iter().map(trial).collect()
}

/// The cases, to be run one by one.
pub fn cases(factory: impl SinkFactory) -> Vec<Case> {
    let factory: Arc<dyn Erased> = Arc::new(Typed(factory));
    let (capability, offers) = (factory.capability(), factory.offers());
    let themes = [
        check::CASES,
        rows::CASES,
        append::CASES,
        batches::CASES,
        values::CASES,
        cursor::CASES,
        fence::CASES,
        interrupted::CASES,
        schema::CASES,
        readback::CASES,
        random::CASES,
    ];
    themes
        .into_iter()
        .flatten()
        .map(|def| Case {
            name: def.name,
            reason: def.needs.iter().find_map(|need| need.missing(&capability, &offers)),
            run: def.run,
            factory: factory.clone(),
        })
        .collect()
}

/// One case of the suite, for one sink.
pub struct Case {
    /// `theme/what it says`.
    pub name: &'static str,
    /// Why it does not apply, if so.
    pub reason: Option<&'static str>,
    run: Run,
    factory: Arc<dyn Erased>,
}

impl Case {
    /// Runs it in a runtime of its own.
    ///
    /// # Errors
    /// What the sink did that it must not do. A panic is an error too.
    pub fn run(&self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start a runtime: {error}"))?;
        let harness = Harness::new(self.factory.clone());
        // A task of its own, so that a panic is a result.
        let result = runtime.block_on(runtime.spawn((self.run)(harness.clone())));
        if let Some(problem) = harness.problem() {
            return Err(problem);
        }
        match result {
            Ok(result) => result.map_err(|failure| failure.0),
            Err(panic) => Err(match panic.try_into_panic().map(|p| p.downcast::<String>()) {
                Ok(Ok(message)) => format!("panicked: {message}"),
                _ => "panicked".to_owned(),
            }),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.reason {
            Some(reason) => write!(f, " (does not apply: {reason})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a sink did that it must not do.
struct Failure(String);

type Checked<T = ()> = Result<T, Failure>;

impl From<s3rep_core::Error> for Failure {
    fn from(error: s3rep_core::Error) -> Self {
        Self(format!("unexpected error: {error:?}"))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message)
    }
}

type Run = fn(Harness) -> BoxFuture<'static, Checked>;

struct CaseDef {
    name: &'static str,
    needs: &'static [Need],
    run: Run,
}

/// What a case needs to apply.
#[derive(Clone, Copy)]
enum Need {
    Upsert,
    Append,
    Deletes,
    PartialFailure,
    Cursor,
    NoCursor,
    Readback,
    /// Rows of append tables can be listed.
    Changes,
    /// The content of some kind of table can be seen.
    Sight,
    SchemaSync,
    InFlight,
    BadPlace,
    BrokenConnection,
    UnfitTable,
}

impl Need {
    fn missing(self, capability: &Capability, offers: &Offers) -> Option<&'static str> {
        let sight = (capability.upsert && capability.readback) || (capability.append && offers.changes);
        let (has, reason) = match self {
            Self::Upsert => (capability.upsert, "no upsert"),
            Self::Append => (capability.append, "no append"),
            Self::Deletes => (capability.deletes, "no deletes"),
            Self::PartialFailure => (capability.partial_failure, "no partial failure"),
            Self::Cursor => (capability.transactional_cursor, "no transactional cursor"),
            Self::NoCursor => (!capability.transactional_cursor, "it has a transactional cursor"),
            Self::Readback => (capability.readback, "no readback"),
            Self::Changes => (offers.changes, "the test cannot list an append table"),
            Self::Sight => (sight, "the test cannot see what was written"),
            Self::SchemaSync => (offers.schema_sync, "no schema"),
            Self::InFlight => (capability.limits.in_flight > 1, "one call at a time"),
            Self::BadPlace => (offers.bad_place, "the test has no bad place"),
            Self::BrokenConnection => (offers.broken_connection, "the test cannot break the connection"),
            Self::UnfitTable => (offers.unfit_table, "the test cannot make a table unfit"),
        };
        (!has).then_some(reason)
    }
}

/// Declares the cases of a theme.
macro_rules! theme {
    ($($name:literal [$($need:ident),*] $run:ident;)*) => {
        pub(super) const CASES: &[super::CaseDef] = &[$(super::CaseDef {
            name: $name,
            needs: &[$(super::Need::$need),*],
            run: |harness| Box::pin($run(harness)),
        }),*];
    };
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(super::Failure(format!($($message)+)));
        }
    };
}

/// Fails the case unless both are equal.
macro_rules! ensure_eq {
    ($actual:expr, $expected:expr, $($message:tt)+) => {
        match (&$actual, &$expected) {
            (actual, expected) => if actual != expected {
                let message = format!($($message)+);
                return Err(super::Failure(format!("{message}: got {actual:?} instead of {expected:?}")));
            }
        }
    };
}

use {ensure, ensure_eq, theme};
