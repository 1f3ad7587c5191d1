//! Names of directories and files.

use s3rep_core::{Error, ErrorKind, Result, Scope};

/// What a file is called while it is written.
pub(crate) const PART: &str = ".part";
/// The directory's own files and directories begin with it.
const OWN: &str = "_s3rep";
/// What file systems take, less what is added to a table's name.
const LONGEST_TABLE: usize = 200;

/// Refuses names of tables that would lead out of the directory or hide in it.
pub(crate) fn check_table(name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "the table has no name"
    } else if name.contains(['/', '\\', '\0']) || name == ".." {
        "the table's name is a path, and it has to be the name of a directory"
    } else if name.starts_with('.') || name.starts_with(OWN) {
        "the table's name is reserved"
    } else if name.len() > LONGEST_TABLE {
        "the table's name is too long for a file"
    } else if name.chars().any(char::is_control) {
        "the table's name has control characters"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::ConfigInvalid, problem)
        .with_scope(Scope::Table)
        .with_context("table", name.escape_debug())
        .with_advice("name another table in the mapping of the resource"))
}

/// The part of a log's id that file names carry.
pub(crate) fn short_log(log: &str) -> String {
    let short: String = log.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    if short.is_empty() { "log".to_owned() } else { short }
}

/// A file's final name.
pub(crate) fn file(table: &str, log: &str, number: u64, extension: &str) -> String {
    format!("{table}-{log}-{number:016}.{extension}")
}

/// The log and the number in a file's final name.
pub(crate) fn parse<'a>(file: &'a str, table: &str, extension: &str) -> Option<(&'a str, u64)> {
    let stem = file.strip_suffix(extension)?.strip_suffix('.')?;
    let (log, number) = stem.strip_prefix(table)?.strip_prefix('-')?.rsplit_once('-')?;
    let is_number = number.len() >= 16 && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_log = !log.is_empty() && log.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_number && is_log).then_some(())?;
    Some((log, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stay_in_their_directory() {
        let long = "x".repeat(300);
        for name in ["", ".", "..", "a/b", "../a", "a\0b", ".hidden", "a\\b", "_s3rep.lock", "a\nb", &long] {
            let error = check_table(name).unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::ConfigInvalid, Scope::Table), "{name:?}");
        }
        for name in ["cars", "a b", "naïve", "a..b", "x; rm -rf", "_log"] {
            check_table(name).unwrap();
        }
    }

    #[test]
    fn names_of_files_come_apart_again() {
        let name = file("a-b", &short_log("3f2a91c0-77"), 5213, "jsonl");
        assert_eq!(name, "a-b-3f2a91c0-0000000000005213.jsonl");
        assert_eq!(parse(&name, "a-b", "jsonl"), Some(("3f2a91c0", 5213)));
        assert_eq!(parse(&file("t", "log", u64::MAX, "csv"), "t", "csv"), Some(("log", u64::MAX)));
        for (name, table, extension) in [
            ("a-b-3f2a91c0-0000000000005213.jsonl", "a", "jsonl"),
            ("a-b-3f2a91c0-0000000000005213.jsonl", "a-b", "csv"),
            ("a-b-3f2a91c0-0000000000005213.jsonl.part", "a-b", "jsonl"),
            ("t-x-1.jsonl", "t", "jsonl"),
            ("notes.jsonl", "t", "jsonl"),
        ] {
            assert_eq!(parse(name, table, extension), None, "{name}");
        }
    }
}
