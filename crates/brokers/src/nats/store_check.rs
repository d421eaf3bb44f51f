//! Checks of the store: whether it has lost messages, and whether it returns what it stores.
//!
//! Invariant: a generation is stored under the condition that no other one was stored since the
//! newest was read, so that nodes that notice the same loss begin one generation together.

use bytes::Bytes;
use engine::broker::BrokerError;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use super::availability::UnavailableCause;
use super::generation::Generation;
use super::link::NatsLink;
use super::stored_message::Ack;
use super::subject::Store;
use crate::limits::ANSWER_TIMEOUT;

/// Compares the store with the high-water mark; a loss begins a generation.
pub(super) async fn verify_store(link: &NatsLink) -> Result<(), BrokerError> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while Instant::now() < deadline {
        let connection = link.connection();
        // Read before looking for a loss: then a loss that another node has noticed already has
        // its generation here.
        let (stored, sequence) = stored_generation(link).await?;
        let (is_new, own) = {
            let generations = link.generations();
            (generations.is_new(&stored), generations.number())
        };
        if is_new {
            link.begin_generation(stored);
            continue;
        }
        if stored.number < own || has_lost(link).await? {
            warn!("NATS: the store has lost messages");
            begin_generation(link, own + 1, sequence).await?;
            continue;
        }
        link.set_verified(connection);
        // A generation that this node could not store was stored by another node, or with delay.
        link.shared.availability.clear(UnavailableCause::Store(Store::Generation));
        return take_newest_high_water_mark(link).await;
    }
    Err(BrokerError::Unavailable)
}

/// Stores a message of no meaning and reads it back; returns whether it was there.
pub(super) async fn probe(link: &NatsLink) -> Result<bool, BrokerError> {
    let (sequence, payload) = store_probe(link).await?;
    let read = link.numbered(&link.names.history_stream(), sequence).await?;
    Ok(read.is_some_and(|read| read.payload == payload))
}

/// Like [`probe`], but reads through a consumer, as histories are read.
pub(super) async fn probe_range(link: &NatsLink) -> Result<bool, BrokerError> {
    let (sequence, payload) = store_probe(link).await?;
    let stream = link.names.history_stream();
    let stored = link.range_up_to(&stream, &link.names.probe(), sequence).await?;
    Ok(stored.iter().any(|one| one.sequence == sequence && one.payload == payload))
}

async fn store_probe(link: &NatsLink) -> Result<(u64, Bytes), BrokerError> {
    // Each payload is unique, so that it can serve as a high-water mark.
    let payload = Bytes::from(format!("t1 probe {}\n", link.new_epoch()));
    let above = link.generations().high_water_sequence();
    let stored = link.store(&link.names.probe(), None, "", payload.clone()).await?;
    let Ack::Stored(sequence) = stored else { return Err(BrokerError::Unavailable) };
    link.record(above, sequence, &payload);
    Ok((sequence, payload))
}

async fn has_lost(link: &NatsLink) -> Result<bool, BrokerError> {
    let high_water_mark = link.generations().high_water_mark().clone();
    if high_water_mark.sequence == 0 {
        return has_lost_before_start(link).await;
    }
    match link.numbered(&link.names.history_stream(), high_water_mark.sequence).await? {
        Some(stored) => return Ok(stored.payload != high_water_mark.payload),
        // It was removed, because its channel has newer messages.
        None if newest_sequence(link).await? >= high_water_mark.sequence => return Ok(false),
        None => {}
    }
    // A new leader of the stream may not return all messages yet, but it already numbers new ones
    // above them.
    let stored = link.store(&link.names.probe(), None, "", PROBE).await?;
    Ok(matches!(stored, Ack::Stored(sequence) if sequence <= high_water_mark.sequence))
}

/// At the start of a node: returns whether NATS was restarted while no node ran, so that no node
/// has a high-water mark. Leases are kept in memory, and a restart of NATS loses all of them.
async fn has_lost_before_start(link: &NatsLink) -> Result<bool, BrokerError> {
    if link.generations().has_started() {
        return Ok(false);
    }
    let leases = link.stream_info(&link.names.presence_stream()).await?;
    let is_alone = last_sequence(&leases)? == 0;
    Ok(is_alone && newest_sequence(link).await? > 0)
}

async fn begin_generation(link: &NatsLink, number: u64, after: u64) -> Result<(), BrokerError> {
    let name = link.new_epoch();
    let payload = Generation::encode(number, &name);
    link.set_started();
    if let Ack::Stored(_) = link.store(&link.names.generation(), Some(after), "", payload).await? {
        link.begin_generation(Generation::new(number, &name));
    }
    Ok(())
}

async fn stored_generation(link: &NatsLink) -> Result<(Generation, u64), BrokerError> {
    let stored = link.newest(&link.names.generation_stream(), &link.names.generation()).await?;
    let Some(stored) = stored else { return Ok((Generation::default(), 0)) };
    Ok((Generation::decode(&stored.payload).unwrap_or_default(), stored.sequence))
}

async fn take_newest_high_water_mark(link: &NatsLink) -> Result<(), BrokerError> {
    let sequence = newest_sequence(link).await?;
    if sequence <= link.generations().high_water_sequence() {
        return Ok(());
    }
    if let Some(stored) = link.numbered(&link.names.history_stream(), sequence).await? {
        link.record(0, stored.sequence, &stored.payload);
    }
    Ok(())
}

async fn newest_sequence(link: &NatsLink) -> Result<u64, BrokerError> {
    let info = link.stream_info(&link.names.history_stream()).await?;
    if let Some(leader) = info["cluster"]["leader"].as_str() {
        link.record_leader(leader);
    }
    last_sequence(&info)
}

fn last_sequence(info: &Value) -> Result<u64, BrokerError> {
    info["state"]["last_seq"].as_u64().ok_or(BrokerError::Unavailable)
}

/// A message that is stored only to read the sequence that NATS gives it.
const PROBE: Bytes = Bytes::from_static(b"t1 probe\n");
