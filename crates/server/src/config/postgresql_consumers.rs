//! Resolves the options of consumers of PostgreSQL.
//!
//! Invariant: every name that becomes part of a statement is checked here.

use std::ops::Deref;
use std::time::Duration;

use ::consumers::postgresql::capture_settings::CaptureSettings;
use ::consumers::postgresql::dsn::Dsn;
use ::consumers::postgresql::outbox_settings::{OutboxSettings, PartitionLock};
use ::consumers::postgresql::tls::PostgresTls;
use brokers::redis::settings::{TlsPem, TlsSettings};

use super::engine::pem;
use super::kind::UpTo;
use super::mistakes::KeyedMistakes;
use super::options::postgresql_consumers::{CaptureSection, OutboxSection, PostgresTlsSection};
use super::schema::Setting;

pub(super) fn resolve_outbox(
    section: &OutboxSection,
    mistakes: &mut KeyedMistakes,
) -> Option<OutboxSettings> {
    let dsn = dsn(&section.dsn, mistakes);
    let notification_dsn = match section.partition_notification_dsn.is_empty() {
        true => Some(None),
        false => self::dsn(&section.partition_notification_dsn, mistakes).map(Some),
    };
    let table = parsed(&section.outbox_table_name, mistakes);
    let dead_letters = match section.dead_letter_table_name.is_empty() {
        true => Some(None),
        false => parsed(&section.dead_letter_table_name, mistakes).map(Some),
    };
    let tls = tls(&section.tls, mistakes);
    Some(OutboxSettings {
        dsn: dsn?,
        tls: tls?,
        table: table?,
        partitions: or(&section.num_partitions, 1),
        select_limit: or(&section.partition_select_limit, 100),
        poll_interval: match *section.partition_poll_interval {
            Duration::ZERO => Duration::from_millis(300),
            interval => interval,
        },
        notification_channel: section.partition_notification_channel.clone(),
        notification_dsn: notification_dsn?,
        lock: match *section.use_try_lock {
            true => PartitionLock::Try,
            false => PartitionLock::Wait,
        },
        dead_letters: dead_letters?,
    })
}

pub(super) fn resolve_capture(
    section: &CaptureSection,
    mistakes: &mut KeyedMistakes,
) -> Option<CaptureSettings> {
    let dsn = dsn(&section.dsn, mistakes);
    let is_slot = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let slot = &section.slot_name;
    if slot.is_empty() || slot.len() > 63 || !slot.chars().all(is_slot) {
        let text = "expected up to 63 lower-case letters, digits and underscores";
        mistakes.push(slot.fault(text));
    }
    if section.publication_name.is_empty() || section.publication_name.contains('\0') {
        mistakes
            .push(section.publication_name.fault("is required: the publication names the tables"));
    }
    if section.channels.is_empty() {
        mistakes.push(section.channels.fault("is required, such as [\"db:{schema}.{table}\"]"));
    }
    let mut tables = Vec::new();
    for table in section.tables.iter() {
        match table.parse() {
            Ok(table) => tables.push(table),
            Err(error) => mistakes.push(section.tables.fault(format!("{table:?} {error}"))),
        }
    }
    let mut channels = Vec::new();
    for channel in section.channels.iter() {
        match channel.parse() {
            Ok(channel) => channels.push(channel),
            Err(error) => mistakes.push(section.channels.fault(format!("{channel:?} {error}"))),
        }
    }
    let tls = tls(&section.tls, mistakes);
    Some(CaptureSettings {
        dsn: dsn?,
        tls: tls?,
        slot: slot.to_string(),
        creates_slot: *section.create_slot,
        publication: section.publication_name.clone(),
        creates_publication: *section.create_publication,
        tables,
        channels,
        row_bytes_max: section.max_row_bytes.count(),
    })
}

fn dsn<T: Deref<Target = str>>(setting: &Setting<T>, mistakes: &mut KeyedMistakes) -> Option<Dsn> {
    parsed(setting, mistakes)
}

fn parsed<T, P>(setting: &Setting<T>, mistakes: &mut KeyedMistakes) -> Option<P>
where
    T: Deref<Target = str>,
    P: std::str::FromStr<Err: std::fmt::Display>,
{
    setting.parse().map_err(|error: P::Err| mistakes.push(setting.fault(error.to_string()))).ok()
}

/// The value of a setting of which 0 means the default.
fn or<const MAX: u64>(setting: &Setting<UpTo<MAX>>, default: u32) -> u32 {
    match u32::try_from(setting.number()) {
        Ok(0) | Err(_) => default,
        Ok(value) => value,
    }
}

fn tls(section: &PostgresTlsSection, mistakes: &mut KeyedMistakes) -> Option<Option<PostgresTls>> {
    if !*section.enabled {
        return Some(None);
    }
    let roots = pem(&section.server_ca_pem, mistakes);
    let own = pem(&section.cert_pem, mistakes).zip(pem(&section.key_pem, mistakes));
    let own = own.as_ref().map(|(chain, key)| (&**chain, &**key));
    let pem = TlsPem { roots: roots.as_deref(), own };
    match TlsSettings::new(pem, section.server_name.some()) {
        Ok(TlsSettings { config, server_name }) => Some(Some(PostgresTls { config, server_name })),
        Err(error) => {
            mistakes.push((section.enabled.section().to_owned(), error.to_string()));
            None
        }
    }
}
