//! The copy of the workspace in which mutation tests put their mistakes.
//!
//! Invariant: sources outside of the target folder are only read.

use std::fs;
use std::path::{Path, PathBuf};

/// Copies the workspace's sources. Keeps the copy's target folder, so that only the engine is
/// rebuilt.
pub(crate) fn copy_sources(workspace: &Path, copy: &Path) {
    let _absent = fs::remove_dir_all(copy.join("crates"));
    fs::create_dir_all(copy).unwrap();
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        fs::copy(workspace.join(file), copy.join(file)).unwrap();
    }
    let mut folders = vec![PathBuf::from("crates")];
    while let Some(folder) = folders.pop() {
        fs::create_dir_all(copy.join(&folder)).unwrap();
        for entry in fs::read_dir(workspace.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                fs::copy(entry.path(), copy.join(path)).unwrap();
            }
        }
    }
}
