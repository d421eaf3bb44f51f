//! Configuration: any text is a valid configuration or a list of mistakes, with the same result
//! every time.
//!
//! Input: a choice of format, then a file in TOML, YAML or JSON, or lines `NAME=value` of the
//! environment and `--key=value` of flags.

#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use server::config::{self, Config, Mistake, Source, Unknown};

const FORMS: [&str; 3] = ["toml", "yaml", "json"];

fuzz_target!(init: the_samples_are_valid(), |input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(rest) else { return };
    let source = match FORMS.get(usize::from(choice % 4)) {
        Some(form) => of_file(form, text),
        None => of_environment(text),
    };
    let unknown = if choice & 4 == 0 { Unknown::Mistake } else { Unknown::Warning };
    let source = Source { unknown, ..source };
    match (config::load(&source), config::load(&source)) {
        (Ok((config, warnings)), Ok((again, warnings_again))) => {
            assert_eq!(warnings, warnings_again);
            assert_eq!(show(&config), show(&again));
            check(&config);
        }
        (Err(mistakes), Err(again)) => {
            assert_eq!(mistakes, again);
            assert!(!mistakes.mistakes.is_empty());
            assert!(mistakes.mistakes.iter().all(is_reported));
        }
        (one, two) => panic!("{one:?} but then {two:?}"),
    }
});

fn the_samples_are_valid() {
    for text in [config::sample(), config::starter([7; 64])] {
        let (config, _) = config::load(&of_file("toml", &text)).expect("valid");
        check(&config);
    }
}

/// One file for all inputs of this process.
fn of_file(form: &str, text: &str) -> Source {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = std::env::temp_dir().join(format!("tidings-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the file");
        directory
    });
    let path = DIRECTORY.join(format!("configuration.{form}"));
    std::fs::write(&path, text).expect("a file with the text");
    Source { file: Some(path), ..Source::default() }
}

fn of_environment(text: &str) -> Source {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let (flags, environment): (Vec<_>, Vec<_>) =
        pairs.map(owned).partition(|(name, _)| name.starts_with("--"));
    let flags = flags.into_iter().map(|(name, value)| (name[2..].to_owned(), value)).collect();
    Source { environment, flags, ..Source::default() }
}

fn is_reported(mistake: &Mistake) -> bool {
    !mistake.key.is_empty() && !mistake.text.is_empty()
}

/// Checks what a valid configuration guarantees to its users.
fn check(config: &Config) {
    assert!(config.websocket.limits.message_size > 0);
    assert!(config.websocket.limits.inflated_size > 0);
    let client = &config.rules.client;
    assert!(client.ping_interval_ms == 0 || client.pong_timeout_ms < client.ping_interval_ms);
    assert!(client.position_check_delay_ms > 0);
    for path in [&config.websocket.path, &config.api.path, &config.health, &config.metrics] {
        assert!(path.as_ref().is_none_or(|path| path.starts_with('/')));
    }
    let namespaces = config.rules.channels.namespaces.values();
    for namespace in namespaces.chain([&config.rules.channels.without_namespace]) {
        assert_eq!(namespace.history_size > 0, namespace.history_ttl_ms > 0);
    }
}

/// Prints a whole configuration in a fixed order.
fn show(config: &Config) -> String {
    let Config { rules, http, websocket, admission, .. } = config;
    let namespaces: BTreeMap<_, String> =
        rules.channels.namespaces.iter().map(|(name, one)| (name, format!("{one:?}"))).collect();
    let rest = (&config.api, &config.log, &config.shutdown, config.workers, config.demo);
    format!(
        "{:?} {namespaces:?} {:?} {http:?} {websocket:?} {admission:?} {rest:?} {:?}",
        rules.client, rules.channels.without_namespace, config.node_name
    )
}
