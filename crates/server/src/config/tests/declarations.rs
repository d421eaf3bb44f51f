//! A list of sections that only these tests have: everything follows from its declaration.

use std::collections::BTreeMap;

use super::*;
use crate::config::kind::{Secret, one_of};
use crate::config::raw_config::RawConfig;
use crate::config::sample::{reference_of, sample_of};
use crate::config::schema::{ListItem, Schema, Section as _, section};
use crate::config::{check, source};

section! {
    /// Connections to services, in tests.
    ServicesSection titled "Services" {
        test_services: Vec<ServiceSection>;
    }
}

section! {
    /// One of `test_services`.
    ServiceSection {
        name: String = "", "Name of the service.";
        timeout: Duration = "1s", "Time to wait for a reply.";
        mode: ServiceMode = "safe", "Whether to wait for a confirmation.";
        password: Secret = "", "Password of the service.";
        headers: BTreeMap<String, String> = {}, "Headers of each request.";
        tls: ServiceTlsSection;
    }
}

impl ListItem for ServiceSection {}

section! {
    /// TLS of the connections to a service.
    ServiceTlsSection titled "TLS: `test_services[].tls`" {
        enabled: bool = false, "Use TLS.";
        key_pem: Secret = "", "Private key of the client.";
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceMode {
    Safe,
    Fast,
}

one_of!(ServiceMode { "safe" => ServiceMode::Safe, "fast" => ServiceMode::Fast });

/// The table has these declarations too in tests.
pub(in crate::config) const SCHEMA: &Schema = ServicesSection::SCHEMA;

fn read(source: &Source) -> RawConfig {
    let mut raw = source::read(source).unwrap_or_else(|error| panic!("{error}"));
    check::check_keys(&mut raw, source.unknown);
    raw
}

fn services(raw: &RawConfig) -> Vec<ServiceSection> {
    ServicesSection::read("", &raw.tree).test_services
}

fn messages(raw: RawConfig) -> String {
    let (warnings, mistakes) = raw.into_messages();
    let lines = mistakes.iter().map(ToString::to_string);
    lines.chain(warnings.iter().map(ToString::to_string)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_file_and_variables_become_typed_values_with_their_keys() {
    let path = file(
        ".toml",
        r#"
        [[test_services]]
        name = "one"
        timeout = "250ms"
        mode = "FAST"
        headers = { "X-Key" = "a" }
        [test_services.tls]
        enabled = 1
        [[test_services]]
        name = "two"
        "#,
    );
    let environment = pairs(&[
        ("TIDINGS_TEST_SERVICES_ONE_TLS_KEY_PEM", "pem"),
        ("TIDINGS_TEST_SERVICES_TWO_HEADERS", r#"{"A": 1}"#),
    ]);
    let file = Some(path.to_path_buf());
    let raw = read(&Source { file, environment, ..Source::default() });
    let [one, two] = &services(&raw)[..] else { panic!("two services") };
    assert_eq!((one.name.as_str(), one.timeout.ms(), *one.mode), ("one", 250, ServiceMode::Fast));
    assert_eq!(one.headers["X-Key"], "a");
    assert!(*one.tls.enabled && one.password.is_empty());
    assert_eq!((one.tls.key_pem.as_str(), &*two.headers["A"]), ("pem", "1"));
    assert_eq!((two.timeout.ms(), *two.mode), (1_000, ServiceMode::Safe));
    assert_eq!(two.tls.key_pem.key, "test_services[1].tls.key_pem");
    assert_eq!(messages(raw), "");
}

#[test]
fn the_whole_list_is_one_variable() {
    let list = r#"[{"name": "one", "TLS": {"enabled": "true"}}, {"name": "two", "mode": "slow"}]"#;
    let environment = pairs(&[("CENTRIFUGO_TEST_SERVICES", list)]);
    let raw = read(&Source { environment, ..Source::default() });
    let services = services(&raw);
    assert!(*services[0].tls.enabled && services.len() == 2);
    expect![[r#"
        test_services[1].mode (CENTRIFUGO_TEST_SERVICES): expected one of "safe", "fast", not "slow"
        CENTRIFUGO_*: 1 of these variables are read like the TIDINGS_* variables of the same name, which override them"#]].assert_eq(&messages(raw));
}

#[test]
fn mistakes_name_the_key_and_its_place() {
    let path = file(
        ".yaml",
        "test_services:\n  - name: one\n    timeout: soon\n    password: [hidden]\n    tls:\n      \
         enabled: maybe\n      key_pm: hidden\n  - text\n",
    );
    let environment = pairs(&[
        ("TIDINGS_TEST_SERVICES_ONE_MODE", "slow"),
        ("TIDINGS_TEST_SERVICES_ONE_TIMEOOT", "1s"),
    ]);
    let file = Some(path.to_path_buf());
    let raw = read(&Source { file, environment, ..Source::default() });
    assert_eq!(services(&raw).len(), 1);
    expect![[r#"
        test_services[0].mode (TIDINGS_TEST_SERVICES_ONE_MODE): expected one of "safe", "fast", not "slow"
        test_services[0].password (line 4): expected a text, not a list
        test_services[0].timeout (line 3): expected a time such as "10s", "1m30s" or "250ms", not "soon"
        test_services[0].tls.enabled (line 6): expected true or false, not "maybe"
        test_services[1] (line 8): expected an item with a name and options
        TIDINGS_TEST_SERVICES_ONE_TIMEOOT: there is no such setting; did you mean TIDINGS_TEST_SERVICES_ONE_TIMEOUT?
        test_services[0].tls.key_pm (line 7): there is no such key; did you mean key_pem?"#]].assert_eq(&messages(raw));
}

#[test]
fn the_reference_and_the_sample_follow() {
    expect![[r#"

        ## Services

        | Key | Default | Meaning |
        |---|---|---|
        | `test_services[].name` | `""` | Name of the service. |
        | `test_services[].timeout` | `"1s"` | Time to wait for a reply. |
        | `test_services[].mode` | `"safe"` | Whether to wait for a confirmation. |
        | `test_services[].password` | `""` | Password of the service. |
        | `test_services[].headers` | `{}` | Headers of each request. |

        ## TLS: `test_services[].tls`

        | Key | Default | Meaning |
        |---|---|---|
        | `enabled` | `false` | Use TLS. |
        | `key_pem` | `""` | Private key of the client. |
    "#]]
    .assert_eq(&reference_of(SCHEMA));
    expect![[r#"

        # [[test_services]]
        # Name of the service.
        # name = ""
        # Time to wait for a reply.
        # timeout = "1s"
        # Whether to wait for a confirmation.
        # mode = "safe"
        # Password of the service.
        # password = ""
        # Headers of each request.
        # headers = {}

        # [test_services.tls]
        # Use TLS.
        # enabled = false
        # Private key of the client.
        # key_pem = ""
    "#]]
    .assert_eq(&sample_of(SCHEMA));
}

#[test]
fn every_default_is_a_value_of_its_type() {
    // Reading takes each default.
    crate::config::options::Options::read("", &serde_json::Value::Null);
}
