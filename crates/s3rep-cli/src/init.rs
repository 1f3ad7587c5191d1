//! `s3rep init`: a configuration to start from.

use std::{fs, io::Write, path::PathBuf};

use clap::Args;
use s3rep::{Error, ErrorKind, config::TEMPLATE};

use crate::{Failure, output};

#[derive(Args)]
pub(crate) struct InitArgs {
    /// The file to write
    #[arg(value_name = "FILE", default_value = "s3rep.yaml")]
    file: PathBuf,
}

pub(crate) fn init(args: &InitArgs) -> Result<(), Failure> {
    let name = args.file.display();
    // Created only if absent: a configuration is somebody's work.
    let created = fs::OpenOptions::new().write(true).create_new(true).open(&args.file);
    created.and_then(|mut file| file.write_all(TEMPLATE.as_bytes())).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "name another file, or remove this one",
            _ => "name a file in a directory that can be written",
        };
        Error::new(ErrorKind::ConfigInvalid, "the configuration was not written")
            .with_context("file", name.to_string())
            .with_advice(advice)
            .with_source(error)
    })?;
    output::note(&format!("wrote {name}; say there what to follow, then: s3rep check -c {name}"));
    Ok(())
}
