//! One error for the whole workspace: what went wrong, whether trying again can help, what is at stake,
//! and what the operator can do.

use std::{borrow::Cow, error, fmt, time::Duration};

/// Result of every fallible operation in the workspace.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn error::Error + Send + Sync>;

/// An error that says how to act on it.
///
/// It is one word wide, so that `Result<()>` stays cheap. Three answers drive the engine: [`Error::kind`],
/// [`Error::retry`] and [`Error::scope`]. An error that nobody classified is [`Retry::Permanent`] and
/// [`Scope::Batch`]: it stops the cursor and never drops a change.
///
/// Messages and context never hold a secret or the value of a record.
///
/// ```
/// use s3rep_core::{Error, ErrorKind, Scope};
/// let error = Error::new(ErrorKind::Conflict, "the row violates a unique index")
///     .with_scope(Scope::Record)
///     .with_operation("apply")
///     .with_context("table", "users")
///     .with_advice("remove the index or map the attribute to another column");
/// assert_eq!(error.to_string(), "apply: the row violates a unique index (table: users)");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    scope: Scope,
    operation: &'static str,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    advice: Option<Cow<'static, str>>,
    source: Option<Cause>,
}

/// What went wrong, as the caller would act on it. Coarse on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A configuration value is wrong; retrying cannot help.
    ConfigInvalid,
    /// The driver does not do this.
    Unsupported,
    /// Credentials were refused.
    Unauthenticated,
    /// Credentials are good but may not do this.
    PermissionDenied,
    /// The table, queue, bucket, resource or record is absent.
    NotFound,
    /// The record exists already.
    AlreadyExists,
    /// The destination's shape does not fit the change.
    SchemaMismatch,
    /// This value cannot be represented losslessly, or is not valid.
    InvalidValue,
    /// The record or batch exceeds a limit.
    TooLarge,
    /// A uniqueness, foreign key or check constraint refused the record.
    Conflict,
    /// Deadlock, serialization failure, lock timeout.
    Contention,
    /// The destination asked for fewer requests.
    RateLimited,
    /// Not reachable, resetting connections, 5xx.
    Unavailable,
    /// No answer in time: the write may or may not have happened.
    Timeout,
    /// No space left on a device, or a quota is used up.
    StorageFull,
    /// A newer owner holds the cursor; stop at once.
    Fenced,
    /// Stored bytes fail their checksum or do not parse.
    Corrupt,
    /// The caller asked to stop.
    Cancelled,
    /// A bug, or something no one has classified yet.
    Unexpected,
}

/// Whether trying again can help. Set where the cause is known: in the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never, unless something outside changes.
    Permanent,
    /// Yes, not before the delay when one is given (`Retry-After`).
    Temporary {
        /// Earliest useful delay, when the destination said so.
        after: Option<Duration>,
    },
}

/// How much is at stake: what the engine parks, pauses or stops. Ordered from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Exactly one record; its neighbours are fine.
    Record,
    /// The request; unknown which records it took.
    Batch,
    /// Every change of one table.
    Table,
    /// Everything this sink does.
    Sink,
    /// The process must stop.
    Process,
}

impl Error {
    /// A permanent, batch-scoped error: the safe reading of an unknown failure.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            retry: Retry::Permanent,
            scope: Scope::Batch,
            operation: "",
            message: message.into(),
            context: Vec::new(),
            advice: None,
            source: None,
        }))
    }

    /// Marks the error as worth another try.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.0.retry = Retry::Temporary { after: None };
        self
    }

    /// Marks the error as worth another try, no earlier than `after`.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry = Retry::Temporary { after: Some(after) };
        self
    }

    /// Narrows or widens what is at stake.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.0.scope = scope;
        self
    }

    /// Names the operation; an earlier name becomes context (`called: …`).
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        if !self.0.operation.is_empty() {
            self.0.context.push(("called", self.0.operation.to_owned()));
        }
        self.0.operation = operation;
        self
    }

    /// Says where: a file, key, table or line. Never a secret, never the value of a record.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        /// Longer texts are cut: nobody reads them, and a name that long may be a value gone astray.
        const LONGEST: usize = 200;
        let mut value = value.to_string();
        if let Some((end, _)) = value.char_indices().nth(LONGEST) {
            value.truncate(end);
            value.push('…');
        }
        // Said on the way up by more than one place.
        if !self.0.context.iter().any(|(known, said)| *known == key && *said == value) {
            self.0.context.push((key, value));
        }
        self
    }

    /// Says what the operator can do about it.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Cause>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether trying again can help, as a yes or no.
    pub fn is_temporary(&self) -> bool {
        matches!(self.0.retry, Retry::Temporary { .. })
    }

    /// What is at stake.
    pub fn scope(&self) -> Scope {
        self.0.scope
    }

    /// What the operator can do, when the place that raised the error knew.
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// The message and its context in one line, followed by every cause.
    pub fn report(&self) -> String {
        let mut report = self.to_string();
        let mut cause = error::Error::source(self);
        while let Some(next) = cause {
            let text = next.to_string();
            if !report.ends_with(&text) {
                report.push_str(": ");
                report.push_str(&text);
            }
            cause = next.source();
        }
        report
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { operation, context, message, .. } = &*self.0;
        if !operation.is_empty() {
            write!(f, "{operation}: ")?;
        }
        f.write_str(message)?;
        for (i, (key, value)) in context.iter().enumerate() {
            write!(f, "{}{key}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, retry, scope, .. } = &*self.0;
        write!(f, "{kind:?} ({retry:?}, {scope:?}) {}", self.report())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_is_one_word() {
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn a_report_reads_in_one_line_with_its_causes() {
        let error = Error::new(ErrorKind::Unavailable, "cannot open the file")
            .with_operation("open")
            .with_operation("apply")
            .with_context("file", "out.db")
            .with_source(std::io::Error::other("disk on fire"));
        assert_eq!(error.report(), "apply: cannot open the file (called: open, file: out.db): disk on fire");
    }

    #[test]
    fn context_is_said_once_and_cut() {
        let error = Error::new(ErrorKind::NotFound, "gone")
            .with_context("id", "x")
            .with_context("id", "x")
            .with_context("file", "é".repeat(10_000));
        assert_eq!(error.to_string().matches("id: x").count(), 1);
        assert!(error.to_string().chars().count() < 300);
    }

    #[test]
    fn unknown_errors_are_permanent_and_put_the_batch_at_stake() {
        let error = Error::new(ErrorKind::Unexpected, "what?");
        assert_eq!((error.retry(), error.scope()), (Retry::Permanent, Scope::Batch));
    }
}
