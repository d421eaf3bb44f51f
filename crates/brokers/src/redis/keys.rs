//! Names of keys and pub/sub channels in Redis. The layout is described in the broker's module.
//!
//! Invariant: all keys of a channel have its partition's tag, and so share one slot. The slots of
//! the partitions are spread evenly, so each server of a cluster has an equal share.

use engine::channel::SYSTEM;

use crate::limits::PARTITIONS;

/// Number of hash slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Builds names by partition and channel.
#[derive(Debug)]
pub(super) struct Keys {
    /// `prefix:{tag}:` of each partition.
    bases: Vec<String>,
    slots: Vec<u16>,
    node: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, node: &str) -> Keys {
        let mut bases = vec![String::new(); PARTITIONS];
        let mut slots = vec![0; PARTITIONS];
        let mut missing = PARTITIONS;
        for tag in 0u32.. {
            let tag = tag.to_string();
            let slot = slot(tag.as_bytes());
            let partition = usize::from(slot) * PARTITIONS / usize::from(SLOTS);
            if bases[partition].is_empty() {
                bases[partition] = format!("{prefix}:{{{tag}}}:");
                slots[partition] = slot;
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        Keys { bases, slots, node: node.to_owned() }
    }

    /// The partition of a channel. The server's own channels share the partition of the registry.
    pub(super) fn partition(channel: &str) -> usize {
        if is_system(channel) { 0 } else { (hash(channel) >> 32) as usize % PARTITIONS }
    }

    /// The slot of a partition.
    pub(super) fn slot(&self, partition: usize) -> u16 {
        self.slots[partition]
    }

    /// Key of a channel.
    pub(super) fn key(&self, partition: usize, kind: &str, channel: &str) -> String {
        [&self.bases[partition], kind, ":", channel].concat()
    }

    /// Key of an idempotency record.
    pub(super) fn once(&self, partition: usize, channel: &str, key: &str) -> String {
        format!("{}once:{}:{channel}:{key}", self.bases[partition], channel.len())
    }

    /// Key of the set of channels in which a node's clients are present.
    pub(super) fn of_node(&self, partition: usize, node: &str) -> String {
        format!("{}node:{node}", self.bases[partition])
    }

    /// Common prefix of the registry's keys.
    pub(super) fn registry_base(&self) -> &str {
        &self.bases[0]
    }

    /// Key of the registry.
    pub(super) fn registry(&self, name: &str) -> String {
        [&*self.bases[0], name].concat()
    }

    /// Pub/sub channel of control messages to all nodes.
    pub(super) fn control(&self) -> String {
        format!("{}control", self.bases[0])
    }

    /// Pub/sub channel of control messages to one node.
    pub(super) fn control_of(&self, node: &str) -> String {
        format!("{}control:{node}", self.bases[0])
    }

    /// Pub/sub channel of this node's probes.
    pub(super) fn probe(&self, partition: usize) -> String {
        format!("{}probe:{}", self.bases[partition], self.node)
    }

    /// Key that marks the data as Tidings' and holds its layout version.
    pub(super) fn layout(&self) -> String {
        format!("{}layout", self.bases[0])
    }

    /// Parses the name of a pub/sub channel; `None` for a name outside of the layout.
    pub(super) fn pubsub_name<'c>(&self, name: &'c str) -> Option<PubSubName<'c>> {
        // Every base begins with the same prefix up to the brace.
        let prefix = self.bases[0].rfind('{')?;
        let (_, rest) = name.get(prefix..)?.split_once("}:")?;
        match rest.split_once(':') {
            Some(("c", channel)) => Some(PubSubName::Channel(channel)),
            Some(("probe", node)) if node == self.node => Some(PubSubName::Probe),
            Some(("control", node)) if node == self.node => Some(PubSubName::Control),
            None if rest == "control" => Some(PubSubName::Control),
            _ => None,
        }
    }
}

/// A parsed pub/sub channel; see [`Keys::pubsub_name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PubSubName<'c> {
    Channel(&'c str),
    Control,
    Probe,
}

/// The server of a channel among several independent ones. Adding a server moves as few channels as
/// possible (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm").
pub(super) fn shard(channel: &str, shards: usize) -> usize {
    if is_system(channel) {
        return 0;
    }
    let mut key = hash(channel);
    let (mut bucket, mut next) = (0i64, 0i64);
    while next < shards as i64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    bucket as usize
}

fn is_system(channel: &str) -> bool {
    channel.starts_with(SYSTEM)
}

/// FNV-1a with a final mix; identical on all nodes and in all versions.
fn hash(text: &str) -> u64 {
    let mut hash = text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^ (hash >> 33)
}

/// CRC-16/XMODEM modulo the slots, as in the Redis Cluster specification.
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_and_spread_evenly() {
        // Values returned by CLUSTER KEYSLOT.
        assert_eq!((slot(b"foo"), slot(b"123456789")), (12182, 12739));
        let keys = Keys::new("p", "n");
        let width = usize::from(SLOTS) / PARTITIONS;
        for partition in 0..PARTITIONS {
            assert_eq!(usize::from(keys.slot(partition)) / width, partition);
        }
    }

    #[test]
    fn names_are_found_again() {
        let keys = Keys::new("in:stall", "n1");
        let name = keys.key(7, "c", "a:{b}:c");
        assert_eq!(keys.pubsub_name(&name), Some(PubSubName::Channel("a:{b}:c")));
        assert_eq!(keys.pubsub_name(&keys.control()), Some(PubSubName::Control));
        assert_eq!(keys.pubsub_name(&keys.control_of("n1")), Some(PubSubName::Control));
        assert_eq!(keys.pubsub_name(&keys.control_of("n2")), None);
        assert_eq!(keys.pubsub_name(&keys.probe(3)), Some(PubSubName::Probe));
        assert_eq!(keys.pubsub_name("x"), None);
        assert_ne!(keys.once(0, "a:b", "c"), keys.once(0, "a", "b:c"));
    }

    #[test]
    fn channels_spread_over_shards_and_few_move() {
        let channels: Vec<String> = (0..10_000).map(|index| format!("room-{index}")).collect();
        let count =
            |shard_of: usize| channels.iter().filter(|name| shard(name, 4) == shard_of).count();
        for index in 0..4 {
            assert!((2_000..3_000).contains(&count(index)), "{}", count(index));
        }
        let moved = channels.iter().filter(|name| shard(name, 4) != shard(name, 5)).count();
        assert!((1_600..2_400).contains(&moved), "{moved}");
        let mut seen = [0usize; PARTITIONS];
        channels.iter().for_each(|name| seen[Keys::partition(name)] += 1);
        assert!(seen.iter().all(|count| (10..90).contains(count)));
    }
}
