//! The records of one partition that were received and are not finished: which may start, and up to
//! which offset the partition may be committed.
//!
//! Records of one key are handled one after the other; records of different keys at the same time.
//! Records without a key have one key in common. Invariant: the committed offset covers only
//! records that are finished, and everything before them is finished too.

use std::collections::{HashMap, VecDeque};

/// Unfinished records of one partition. `R` is the record itself.
#[derive(Debug)]
pub(crate) struct PartitionQueue<R> {
    /// Offsets in the order of the partition, of which the first ones are not finished.
    open: VecDeque<OpenOffset>,
    /// Records that may start, in the order of the partition.
    ready: VecDeque<QueuedRecord<R>>,
    /// Records behind a started one of the same key. A key is present from the start of its first
    /// record until its last one is finished.
    behind: HashMap<Option<u64>, VecDeque<QueuedRecord<R>>>,
    commit: Option<i64>,
    started: usize,
}

/// A record with its place.
#[derive(Debug)]
pub(crate) struct QueuedRecord<R> {
    pub(crate) offset: i64,
    /// Hash of the key; `None` without a key.
    pub(crate) key: Option<u64>,
    pub(crate) record: R,
}

#[derive(Debug)]
struct OpenOffset {
    offset: i64,
    is_finished: bool,
}

impl<R> Default for PartitionQueue<R> {
    fn default() -> PartitionQueue<R> {
        PartitionQueue {
            open: VecDeque::new(),
            ready: VecDeque::new(),
            behind: HashMap::new(),
            commit: None,
            started: 0,
        }
    }
}

impl<R> PartitionQueue<R> {
    /// Adds a record; offsets increase.
    pub(crate) fn push(&mut self, queued: QueuedRecord<R>) {
        let is_newer = self.open.back().is_none_or(|last| last.offset < queued.offset);
        debug_assert!(is_newer, "offsets of a partition increase");
        self.open.push_back(OpenOffset { offset: queued.offset, is_finished: false });
        match self.behind.get_mut(&queued.key) {
            Some(waiting) => waiting.push_back(queued),
            None => {
                self.behind.insert(queued.key, VecDeque::new());
                self.ready.push_back(queued);
            }
        }
    }

    /// The next record that may start, if any.
    pub(crate) fn start_next(&mut self) -> Option<QueuedRecord<R>> {
        let next = self.ready.pop_front()?;
        self.started += 1;
        Some(next)
    }

    /// Notes that a started record is finished.
    pub(crate) fn finish(&mut self, offset: i64, key: Option<u64>) {
        self.started -= 1;
        if let Ok(index) = self.open.binary_search_by_key(&offset, |open| open.offset) {
            self.open[index].is_finished = true;
        }
        while let Some(first) = self.open.front().filter(|open| open.is_finished) {
            self.commit = Some(first.offset + 1);
            self.open.pop_front();
        }
        let waiting = self.behind.get_mut(&key).expect("the key of a started record");
        match waiting.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => drop(self.behind.remove(&key)),
        }
    }

    /// The offset to commit: that of the first record that is not finished.
    pub(crate) fn commit(&self) -> Option<i64> {
        self.commit
    }

    /// Number of records that have started and are not finished.
    pub(crate) fn started(&self) -> usize {
        self.started
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(records: &[(i64, Option<u64>)]) -> PartitionQueue<()> {
        let mut queue = PartitionQueue::default();
        for (offset, key) in records {
            queue.push(QueuedRecord { offset: *offset, key: *key, record: () });
        }
        queue
    }

    fn start(queue: &mut PartitionQueue<()>) -> Vec<i64> {
        std::iter::from_fn(|| queue.start_next().map(|next| next.offset)).collect()
    }

    #[test]
    fn keys_run_at_the_same_time_and_a_key_in_order() {
        let mut queue =
            queue(&[(10, Some(1)), (11, Some(2)), (12, Some(1)), (15, None), (16, None)]);
        assert_eq!(start(&mut queue), [10, 11, 15]);
        queue.finish(11, Some(2));
        assert_eq!((queue.commit(), start(&mut queue)), (None, vec![]));
        queue.finish(10, Some(1));
        assert_eq!((queue.commit(), start(&mut queue)), (Some(12), vec![12]));
        queue.finish(15, None);
        queue.finish(12, Some(1));
        // Offsets of a partition have holes.
        assert_eq!((queue.commit(), start(&mut queue)), (Some(16), vec![16]));
        queue.finish(16, None);
        assert_eq!((queue.commit(), queue.started()), (Some(17), 0));
        assert!(queue.open.is_empty() && queue.behind.is_empty());
    }

    proptest! {
        #[test]
        fn order_per_key_and_only_finished_prefixes(
            steps in prop::collection::vec((0_u8..3, 0_u64..4, 0_usize..8), 0..300)
        ) {
            let mut queue = PartitionQueue::default();
            let (mut offset, mut running) = (0_i64, Vec::<(i64, Option<u64>)>::new());
            let (mut last, mut finished) = (HashMap::<Option<u64>, i64>::new(), Vec::new());
            for (step, key, which) in steps {
                match step {
                    0 => {
                        offset += 1 + i64::from(key == 3);
                        let key = (key != 0).then_some(key);
                        queue.push(QueuedRecord { offset, key, record: () });
                    }
                    1 => if let Some(next) = queue.start_next() {
                        prop_assert!(!running.iter().any(|(_, key)| *key == next.key));
                        prop_assert!(last.insert(next.key, next.offset).is_none_or(|last| last < next.offset));
                        running.push((next.offset, next.key));
                    }
                    _ => if !running.is_empty() {
                        let (offset, key) = running.remove(which % running.len());
                        queue.finish(offset, key);
                        finished.push(offset);
                    }
                }
                if let Some(commit) = queue.commit() {
                    prop_assert!(finished.contains(&(commit - 1)));
                    prop_assert!(running.iter().all(|(offset, _)| *offset >= commit));
                }
                prop_assert_eq!(queue.started(), running.len());
            }
        }
    }
}
