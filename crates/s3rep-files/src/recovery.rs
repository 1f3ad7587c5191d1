//! Putting a directory into the state that was committed.

use std::{
    fs::{self, File},
    path::Path,
};

use s3rep_core::Result;

use crate::{
    error::{At, corrupt},
    ledger::{Files, Ledger, Part, sync_directory},
    names,
    stage::set_aside,
};

/// Cuts off uncommitted tails, gives complete files their final names, and sets aside what nobody knows.
pub(crate) fn recover(directory: &Path, ledger: &mut Ledger) -> Result<()> {
    for (table, files) in &mut ledger.tables {
        let place = directory.join(table);
        finish(&place, files)?;
        let Some(part) = &files.part else { continue };
        let path = place.join(format!("{}{}", part.file, names::PART));
        if path.try_exists().at(&path)? {
            cut(&path, part)?;
        } else if has_final_name(&place, part) {
            files.part = None;
        }
        // Else it was taken away: the next line for this table says so.
    }
    for entry in fs::read_dir(directory).at(directory)? {
        let entry = entry.at(directory)?;
        let Some(table) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if names::check_table(&table).is_ok() && entry.file_type().at(&entry.path())?.is_dir() {
            set_strangers_aside(&entry.path(), &table, ledger)?;
        }
    }
    Ok(())
}

/// Gives complete files their final names. Their bytes are durable already.
pub(crate) fn finish(place: &Path, files: &mut Files) -> Result<()> {
    if files.closing.is_empty() {
        return Ok(());
    }
    for part in &files.closing {
        let path = place.join(format!("{}{}", part.file, names::PART));
        if path.try_exists().at(&path)? {
            cut(&path, part)?;
            fs::rename(&path, place.join(&part.file)).at(&path)?;
        }
        // Else it has its name already, or was taken away since.
    }
    // Complete files are the user's to take away, with their directory too.
    if place.try_exists().at(place)? {
        sync_directory(place)?;
    }
    files.closing.clear();
    Ok(())
}

fn cut(path: &Path, part: &Part) -> Result<()> {
    let file = File::options().write(true).open(path).at(path)?;
    let length = file.metadata().at(path)?.len();
    if length < part.bytes {
        return Err(corrupt("the file is shorter than what was committed to it", path));
    }
    if length > part.bytes {
        file.set_len(part.bytes).and_then(|()| file.sync_all()).at(path)?;
    }
    Ok(())
}

fn has_final_name(place: &Path, part: &Part) -> bool {
    fs::metadata(place.join(&part.file)).is_ok_and(|metadata| metadata.len() == part.bytes)
}

fn set_strangers_aside(place: &Path, table: &str, ledger: &mut Ledger) -> Result<()> {
    for entry in fs::read_dir(place).at(place)? {
        let name = entry.at(place)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let (file, is_part) = match name.strip_suffix(names::PART) {
            Some(file) => (file, true),
            None => (name, false),
        };
        let numbered = ["jsonl", "csv"].iter().find_map(|extension| names::parse(file, table, extension));
        let Some((log, number)) = numbered else { continue };
        let files = ledger.tables.entry(table.to_owned()).or_default();
        if is_part && files.part.as_ref().is_none_or(|part| part.file != file) {
            set_aside(&place.join(name))?;
        }
        // Names that are taken are not given again, even when the cursor file was lost.
        if !is_part {
            match files.logs.iter_mut().find(|(known, _)| known == log) {
                Some((_, last)) => *last = number.max(*last),
                None => files.logs.push((log.to_owned(), number)),
            }
        }
    }
    Ok(())
}
