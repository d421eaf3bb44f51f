//! `tidings sample-config`: a configuration to begin with.
//!
//! Invariant: a file that it makes itself is its owner's alone, and none is ever overwritten.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::arguments::SampleArguments;
use crate::misuse::misuse;
use crate::output::{print, print_error};
use crate::random;

pub(crate) fn sample(wanted: &SampleArguments) -> anyhow::Result<ExitCode> {
    let text = match wanted.all {
        true => server::config::sample(),
        false => server::config::starter(random()?),
    };
    match &wanted.output {
        Some(path) if path.extension().is_none_or(|ending| ending != "toml") => misuse!(
            "{}: the sample is TOML, and the server reads a file by its name: let it end in .toml",
            path.display()
        ),
        Some(path) => write(path, &text)?,
        None => {
            print(&text)?;
            if !wanted.all {
                warn_of_readers();
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} exists and is not overwritten: choose another name, or move it away",
                path.display()
            );
        }
        made => made.with_context(|| format!("{} cannot be made", path.display()))?,
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("{} cannot be written", path.display()))?;
    print_error(&format!("wrote {} with fresh secrets, readable for you alone", path.display()));
    Ok(())
}

/// A shell has made the file, with the mode that the user's mask leaves.
fn warn_of_readers() {
    let Ok(file) = std::io::stdout().as_fd().try_clone_to_owned().map(File::from) else { return };
    let Ok(metadata) = file.metadata() else { return };
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        print_error(&format!(
            "the file holds secrets, and others may read it (mode {mode:04o}): chmod 600 it, or let sample-config -o FILE \
             make it"
        ));
    }
}
