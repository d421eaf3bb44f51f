//! Resolves the options of consumers of NATS JetStream.

use std::ops::Deref;
use std::path::PathBuf;

use ::consumers::decode::{PublicationHeaders, RecordForm};
use ::consumers::nats_jetstream::{
    DeliverPolicy, NatsConsumerSettings, NatsConsumerTls, NatsLogin,
};

use super::mistakes::KeyedMistakes;
use super::options::nats_consumers::{
    JetStreamConsumerSection, JetStreamDelivery, NatsConsumerTlsSection, NatsPublicationSection,
};
use super::schema::Setting;

pub(super) fn resolve_jetstream(
    section: &JetStreamConsumerSection,
    mistakes: &mut KeyedMistakes,
) -> NatsConsumerSettings {
    if let Err(expected) = brokers::nats::check_url(&section.url) {
        mistakes.push(section.url.fault(expected));
    }
    for name in [&section.stream_name, &section.durable_consumer_name] {
        // They are parts of subjects.
        if name.is_empty() {
            mistakes.push(name.fault("is required"));
        } else if name.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) {
            mistakes.push(name.fault("must not contain spaces, \".\", \"*\", \">\" or slashes"));
        }
    }
    let is_subject = |subject: &str| !subject.is_empty() && !subject.contains(char::is_whitespace);
    if !section.subjects.iter().all(|subject| is_subject(subject)) {
        mistakes.push(section.subjects.fault("has a subject that is empty or contains spaces"));
    }
    let dead = &section.dead_letter_subject;
    if !dead.is_empty() && (!is_subject(dead) || dead.contains(['*', '>'])) {
        mistakes.push(dead.fault("must be a subject without wildcards"));
    } else if section.subjects.contains(dead) {
        mistakes.push(dead.fault("is one of the subjects: dead letters would be consumed again"));
    }
    NatsConsumerSettings {
        url: section.url.to_string(),
        login: login(section, mistakes),
        tls: tls(&section.tls, mistakes),
        stream: section.stream_name.clone(),
        subjects: section.subjects.clone(),
        durable: section.durable_consumer_name.to_string(),
        deliver: match *section.deliver_policy {
            JetStreamDelivery::New => DeliverPolicy::New,
            JetStreamDelivery::All => DeliverPolicy::All,
        },
        max_ack_pending: match *section.max_ack_pending {
            0 => 100,
            value => value,
        },
        uses_existing: *section.use_existing_consumer,
        form: form(section, mistakes),
        dead_letter_subject: dead.to_string(),
    }
}

fn login(section: &JetStreamConsumerSection, mistakes: &mut KeyedMistakes) -> NatsLogin {
    match (section.username.is_empty(), section.token.is_empty()) {
        (true, true) => NatsLogin::Anonymous,
        (false, true) => NatsLogin::User(section.username.clone(), section.password.to_string()),
        (true, false) => NatsLogin::Token(section.token.to_string()),
        (false, false) => {
            mistakes.push(section.token.fault("excludes username: NATS takes one of them"));
            NatsLogin::Anonymous
        }
    }
}

fn tls(section: &NatsConsumerTlsSection, mistakes: &mut KeyedMistakes) -> NatsConsumerTls {
    if !*section.enabled {
        return NatsConsumerTls::default();
    }
    let roots = file(&section.server_ca_pem, mistakes);
    let client = file(&section.cert_pem, mistakes).zip(file(&section.key_pem, mistakes));
    NatsConsumerTls { is_required: true, roots, client }
}

fn file<T: Deref<Target = str>>(
    setting: &Setting<T>,
    mistakes: &mut KeyedMistakes,
) -> Option<PathBuf> {
    let path = PathBuf::from(setting.some()?);
    if !path.is_file() {
        let text = "expected the path of a readable file; PEM in the value is not supported here";
        mistakes.push(setting.fault(text));
    }
    Some(path)
}

fn form(section: &JetStreamConsumerSection, mistakes: &mut KeyedMistakes) -> RecordForm {
    let NatsPublicationSection {
        enabled,
        channels_header,
        idempotency_key_header,
        delta_header,
        version_header,
        version_epoch_header,
        tags_header_prefix,
    } = &section.publication_data_mode;
    if !**enabled {
        return RecordForm::Command { method_header: section.method_header.clone() };
    }
    if channels_header.is_empty() {
        mistakes.push(channels_header.fault("is required: messages name their channels in it"));
    }
    RecordForm::PublicationData(PublicationHeaders {
        channels: channels_header.to_string(),
        idempotency_key: idempotency_key_header.to_string(),
        delta: delta_header.to_string(),
        version: version_header.to_string(),
        version_epoch: version_epoch_header.to_string(),
        tags_prefix: tags_header_prefix.to_string(),
    })
}
