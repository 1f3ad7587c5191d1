//! What can go wrong with a function.

use std::fmt;

use rquickjs::{Ctx, Object, Value};

use crate::host::HOST_FILE;

/// An error that a function threw, or that ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsError {
    /// The thrown error's own name (`TypeError`), or `Timeout`, `Memory`, `StackOverflow` for a limit, or
    /// `InvalidReturn` for a result that is no record.
    pub name: String,
    /// What it says. It may hold values of the record, as the function's own code wrote it.
    pub message: String,
    /// File, line and column of a syntax error, or of where it was thrown.
    pub place: Option<String>,
}

impl JsError {
    pub(crate) const TIMEOUT: &'static str = "Timeout";
    pub(crate) const MEMORY: &'static str = "Memory";
    pub(crate) const STACK_OVERFLOW: &'static str = "StackOverflow";
    pub(crate) const SYNTAX: &'static str = "SyntaxError";

    pub(crate) fn new(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: message.into(), place: None }
    }

    pub(crate) fn invalid_return(what: &str) -> Self {
        Self::new("InvalidReturn", format!("{what} was returned; a record (an object) or null is expected"))
    }

    /// What is being thrown in this realm.
    pub(crate) fn thrown(cx: &Ctx<'_>, error: &rquickjs::Error) -> Self {
        if !error.is_exception() {
            let name = if matches!(error, rquickjs::Error::Allocation) { Self::MEMORY } else { "Error" };
            return Self::new(name, error.to_string());
        }
        let thrown = cx.catch();
        match thrown.as_object() {
            Some(object) => Self::of(object),
            // What the engine throws when there is no room for an error.
            None if thrown.is_null() => Self::new(Self::MEMORY, "out of memory"),
            None => Self::new("Error", shown(thrown)),
        }
    }

    fn of(object: &Object<'_>) -> Self {
        let text = |member: &str| object.get::<_, Option<String>>(member).ok().flatten();
        let (name, message) = (text("name"), text("message").unwrap_or_default());
        let is_about_memory = message.starts_with("out of memory") || message == "string too long";
        let name = match name.as_deref() {
            Some("InternalError") if is_about_memory => Self::MEMORY,
            Some("InternalError") if message == "stack overflow" => Self::STACK_OVERFLOW,
            Some("RangeError") if message == "Maximum call stack size exceeded" => Self::STACK_OVERFLOW,
            Some(name) => name,
            None => "Error",
        };
        Self { name: name.to_owned(), place: place(&text("stack").unwrap_or_default()), message }
    }
}

/// Of a stack such as `    at f (users.js:3:9)`, the first place that is not the host's.
fn place(stack: &str) -> Option<String> {
    let is_own = |line: &&str| !["(native)", HOST_FILE, "<input>"].iter().any(|other| line.contains(other));
    let line = stack.lines().find(is_own)?.trim();
    let place = line.rsplit_once('(').map_or(line, |(_, place)| place.trim_end_matches(')'));
    let place = place.strip_prefix("at ").unwrap_or(place);
    place.contains(':').then(|| place.to_owned())
}

fn shown(value: Value<'_>) -> String {
    match value.as_string().map(rquickjs::String::to_string) {
        Some(Ok(text)) => text,
        _ => format!("a value of type {} was thrown", value.type_name()),
    }
}

impl fmt::Display for JsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)?;
        match &self.place {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for JsError {}

impl JsError {
    pub(crate) fn at(self, place: String) -> Self {
        Self { place: Some(place), ..self }
    }
}
