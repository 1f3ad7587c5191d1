//! What is wrong in a configuration, and how it is told.

use std::{collections::BTreeSet, fmt, sync::Arc};

use s3rep_core::{Error, ErrorKind};
use serde::Serialize;

/// A place in a text, both numbers from 1. Columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong, where, and what to do about it. Holds no secret and no value from the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Where in it; `None` when the file as a whole is meant.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong in a configuration, in the order of the file.
///
/// It shows no lines of the file, unlike a compiler: they may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::ConfigInvalid, error.to_string())
    }
}

/// Collects problems.
pub(crate) struct Problems {
    file: Arc<str>,
    list: Vec<Problem>,
    seen: BTreeSet<(Option<Place>, String)>,
    truncated: bool,
}

impl Problems {
    /// More are not told: after so many the file is not a configuration at all.
    pub(crate) const MAX: usize = 100;

    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.into(), list: Vec::new(), seen: BTreeSet::new(), truncated: false }
    }

    pub(crate) fn add(&mut self, place: Option<Place>, message: impl Into<String>, help: Option<String>) {
        if self.list.len() >= Self::MAX {
            self.truncated = true;
            return;
        }
        let message = message.into();
        // An alias repeats its anchor's problems at the same place.
        if self.seen.insert((place, message.clone())) {
            self.list.push(Problem { file: Arc::clone(&self.file), place, message, help });
        }
    }

    pub(crate) fn at(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Some(place), message, Some(help.into()));
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Some were not taken any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.truncated
    }

    pub(crate) fn into_error(mut self) -> ConfigError {
        self.list.sort_by_key(|problem| problem.place.unwrap_or(Place { line: usize::MAX, column: 0 }));
        if self.truncated {
            let message = format!("there are more than {} problems; the rest is not listed", Self::MAX);
            self.list.push(Problem { file: self.file, place: None, message, help: None });
        }
        ConfigError { problems: self.list }
    }
}

/// Text of the file as it may be shown: only when it looks like a name, so that a secret that stands in the
/// wrong place is not printed.
pub(crate) fn shown(name: &str) -> Option<&str> {
    let is_name = !name.is_empty()
        && name.len() <= 48
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '*'));
    is_name.then_some(name)
}

/// `'name'`, or something that stands for it.
pub(crate) fn quoted(name: &str) -> String {
    shown(name).map_or_else(|| "(not shown)".to_owned(), |name| format!("'{name}'"))
}

/// The one of `known` that `given` was probably meant to be.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // Long enough for any name of ours; the distance takes quadratic time.
    if given.len() > 64 {
        return None;
    }
    let plain = |text: &str| {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>()
    };
    let given = plain(given);
    known
        .iter()
        .map(|&name| (strsim::damerau_levenshtein(&given, &plain(name)), name))
        .filter(|(distance, name)| *distance <= (name.len().max(given.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `did you mean …` where something is near, else the list of what there is.
pub(crate) fn suggest(given: &str, known: &[&str]) -> String {
    match nearest(given, known) {
        Some(name) => format!("did you mean '{name}'?"),
        None if known.is_empty() => "remove it; nothing is expected here".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    }
}
