//! Names of keys and channels in Redis. The layout is described at the head of the broker.
//!
//! Invariant: all keys of a channel have the tag of its partition, and with it one slot; the slots
//! of the partitions are spread evenly, so that each server of a cluster has its share of them.

use engine::channel::SYSTEM;

use crate::limits::PARTITIONS;

/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Names by partition and channel.
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

    /// The partition of a channel. The server's own channels lie beside what is known of nodes.
    pub(super) fn partition(channel: &str) -> usize {
        if is_system(channel) { 0 } else { (hash(channel) >> 32) as usize % PARTITIONS }
    }

    /// The slot of a partition.
    pub(super) fn slot(&self, partition: usize) -> u16 {
        self.slots[partition]
    }

    /// A key of a channel.
    pub(super) fn key(&self, partition: usize, kind: &str, channel: &str) -> String {
        [&self.bases[partition], kind, ":", channel].concat()
    }

    /// What remembers an idempotency key of a channel.
    pub(super) fn once(&self, partition: usize, channel: &str, key: &str) -> String {
        format!("{}once:{}:{channel}:{key}", self.bases[partition], channel.len())
    }

    /// The channels in which clients of a node are present.
    pub(super) fn of_node(&self, partition: usize, node: &str) -> String {
        format!("{}node:{node}", self.bases[partition])
    }

    /// What the keys of nodes begin with.
    pub(super) fn registry_base(&self) -> &str {
        &self.bases[0]
    }

    /// A key of all nodes, or of one.
    pub(super) fn registry(&self, name: &str) -> String {
        [&*self.bases[0], name].concat()
    }

    /// The Redis channel of orders to all nodes.
    pub(super) fn control(&self) -> String {
        format!("{}control", self.bases[0])
    }

    /// The Redis channel of messages to one node.
    pub(super) fn control_of(&self, node: &str) -> String {
        format!("{}control:{node}", self.bases[0])
    }

    /// The Redis channel of this node's own probes.
    pub(super) fn probe(&self, partition: usize) -> String {
        format!("{}probe:{}", self.bases[partition], self.node)
    }

    /// Says that the keys are ours, and in which layout.
    pub(super) fn layout(&self) -> String {
        format!("{}layout", self.bases[0])
    }

    /// The meaning of a channel of Redis; `None` for one of somebody else.
    pub(super) fn pubsub_name<'c>(&self, name: &'c str) -> Option<PubSubName<'c>> {
        // Every base begins with the same prefix and brace.
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

/// See [`Keys::pubsub_name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PubSubName<'c> {
    Channel(&'c str),
    Control,
    Probe,
}

/// Which of several independent servers has a channel: as few channels as possible move when one is
/// added (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm").
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

/// FNV-1a with a last mixing: the same on every node and in every version.
fn hash(text: &str) -> u64 {
    let mut hash = text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^ (hash >> 33)
}

/// CRC-16/XMODEM modulo the slots, as Redis Cluster does it.
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
        // Values of CLUSTER KEYSLOT.
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
