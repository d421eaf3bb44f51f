//! Configuration of a test's server: a base in TOML, and settings that override it.

use std::io::Write as _;

use server::config::{Config, Source, load};

/// Panics with all mistakes when the configuration has some.
pub(crate) fn configuration(base: &str, settings: &[(&str, &str)]) -> Config {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(base.as_bytes()).unwrap();
    let flags = settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let source = Source { file: Some(file.path().to_path_buf()), flags, ..Source::default() };
    let (config, _) = load(&source).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    config
}
