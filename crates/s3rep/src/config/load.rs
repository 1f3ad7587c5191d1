//! From a file to a [`Config`].

use std::{fs::File, io::Read, path::Path};

use super::{
    Config, ConfigError, Syntax, env, env::Lookup, problem::Problems, resolve, secrets::Secrets, syntax,
};
use crate::drivers::{self, Driver};

/// No configuration is larger; a device or a data file named by mistake is.
const MAX_BYTES: u64 = 4 << 20;

impl Config {
    /// Reads a file. Its ending tells the syntax: `.yaml`, `.yml`, `.toml`, `.json`; any other is read as
    /// YAML, which has JSON in it. `env` looks up environment variables: `&|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(path: &Path, env: Lookup<'_>) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let bytes = read_file(path).map_err(|(message, help)| {
            let mut problems = Problems::new(&name);
            problems.add(None, message, help);
            problems.into_error()
        })?;
        Self::parse_bytes(&bytes, Syntax::of_path(path), &name, env)
    }

    /// Reads a text; `name` stands for the file in messages.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(text: &str, syntax: Syntax, name: &str, env: Lookup<'_>) -> Result<Self, ConfigError> {
        Self::parse_with_drivers(text, syntax, name, env, drivers::all())
    }

    /// As [`Config::parse`], with other drivers than [`drivers::all`].
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse_with_drivers(
        text: &str,
        syntax: Syntax,
        name: &str,
        env: Lookup<'_>,
        drivers: &'static [Driver],
    ) -> Result<Self, ConfigError> {
        let mut problems = Problems::new(name);
        let config = parse(text, syntax, env, drivers, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => {
                if problems.is_empty() {
                    problems.add(None, "this is no configuration", None);
                }
                Err(problems.into_error())
            }
        }
    }

    pub(super) fn parse_bytes(
        bytes: &[u8],
        syntax: Syntax,
        name: &str,
        env: Lookup<'_>,
    ) -> Result<Self, ConfigError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text, syntax, name, env),
            Err(error) => {
                let good = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
                let place = syntax::Lines::new(&good).place(good.len());
                let mut problems = Problems::new(name);
                problems.at(place, "the file is not UTF-8 from here on", "save it as UTF-8");
                Err(problems.into_error())
            }
        }
    }
}

fn parse(
    text: &str,
    syntax: Syntax,
    env: Lookup<'_>,
    drivers: &'static [Driver],
    problems: &mut Problems,
) -> Option<Config> {
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        problems.add(None, "the file is empty", Some("`s3rep init` writes one to begin with".to_owned()));
        return None;
    }
    let mut tree = syntax::parse(text, syntax, problems)?;
    let mut from_env = Vec::new();
    env::substitute(&mut tree, env, &mut from_env, problems);
    let secrets = Secrets::new(from_env, &tree);
    resolve::resolve(&mut tree, &secrets, drivers, problems)
}

fn read_file(path: &Path) -> Result<Vec<u8>, (String, Option<String>)> {
    let told = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ("there is no such file".to_owned(), Some("`s3rep init` writes one to begin with".to_owned()))
        }
        _ => (format!("the file cannot be read: {error}"), None),
    };
    let file = File::open(path).map_err(told)?;
    if file.metadata().map_err(told)?.is_dir() {
        return Err(("this is a directory".to_owned(), Some("name the file in it".to_owned())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err((
            format!("the file is larger than {} MiB: this is no configuration", MAX_BYTES >> 20),
            None,
        ));
    }
    Ok(bytes)
}
