//! Progress of the cleanup of a node whose lease has expired: first its clients' presence, one
//! partition after the other, then the clients themselves.
//!
//! Invariant: a partition is done when all its channels are.

/// A cleanup in progress.
pub(super) struct Cleanup {
    number: u64,
    node: String,
    partitions: usize,
    /// Partition whose channels are being cleaned up; the number of partitions when all are done.
    partition: usize,
    /// Channels of that partition that remain.
    channels: usize,
}

impl Cleanup {
    /// A cleanup of a failed node. `number` identifies its commands.
    pub(super) fn new(number: u64, node: String, partitions: usize) -> Cleanup {
        Cleanup { number, node, partitions, partition: 0, channels: 0 }
    }

    /// A cleanup of a node whose presence has ended already.
    pub(super) fn of_clients(number: u64, node: String) -> Cleanup {
        Cleanup::new(number, node, 0)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// The partition to clean up; `None` when only the clients remain.
    pub(super) fn partition(&self) -> Option<usize> {
        (self.partition < self.partitions).then_some(self.partition)
    }

    /// The partition has no usable server.
    pub(super) fn skip_partition(&mut self) {
        self.partition += 1;
    }

    /// Sets the number of the partition's channels. Returns whether there are any; without, the
    /// partition is done.
    pub(super) fn begin_channels(&mut self, count: usize) -> bool {
        self.channels = count;
        if count == 0 {
            self.partition += 1;
        }
        count > 0
    }

    /// A channel is done. Returns whether the partition is done as well.
    pub(super) fn finish_channel(&mut self) -> bool {
        self.channels = self.channels.saturating_sub(1);
        if self.channels == 0 {
            self.partition += 1;
        }
        self.channels == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_cleaned_up_in_turn() {
        let mut cleanup = Cleanup::new(7, "a".to_owned(), 3);
        assert!(cleanup.begin_channels(2));
        assert!(!cleanup.finish_channel());
        assert_eq!(cleanup.partition(), Some(0));
        assert!(cleanup.finish_channel());
        assert!(!cleanup.begin_channels(0));
        assert_eq!(cleanup.partition(), Some(2));
        cleanup.skip_partition();
        assert_eq!(cleanup.partition(), None);
        assert_eq!(Cleanup::of_clients(7, "a".to_owned()).partition(), None);
    }
}
