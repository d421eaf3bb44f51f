//! The command run to its end, and what it says.

use std::process::Output;

use crate::process::tidings;

pub(crate) fn run(arguments: &[&str]) -> Output {
    tidings(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
