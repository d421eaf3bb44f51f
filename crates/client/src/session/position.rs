//! The position of one subscription in its channel's stream.
//!
//! Invariant: within an epoch the position only grows, and a publication at or below it is
//! delivered no second time.

use std::sync::Arc;

use wire::protocol::{Publication, StreamPosition, SubscribeResult};

use crate::limits::EPOCH_SIZE_MAX;

/// Position of a subscription in its channel's stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracker {
    position: Option<StreamPosition>,
    duplicates: u64,
}

impl Tracker {
    pub(super) fn at(position: Option<StreamPosition>) -> Tracker {
        Tracker { position, duplicates: 0 }
    }

    pub(super) fn position(&self) -> Option<&StreamPosition> {
        self.position.as_ref()
    }

    /// Publications that were received again, and not delivered.
    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The server knows no position that is older: the next attempt is answered with "not
    /// recovered".
    pub(super) fn invalidate(&mut self) {
        if self.position.is_some() {
            self.position = Some(StreamPosition { offset: 0, epoch: "_".to_owned() });
        }
    }

    /// A subscription begins: takes the server's position, and gives the missed publications to
    /// deliver.
    pub(super) fn begin(&mut self, result: &SubscribeResult) -> Vec<Arc<Publication>> {
        let is_recovered = result.was_recovering && result.recovered;
        let before = self.position.take().filter(|_| is_recovered);
        // An empty epoch matches any.
        let before = before.filter(|old| old.epoch.is_empty() || old.epoch == result.epoch);
        let mut offset = before.map_or(0, |position| position.offset);
        let mut missed = result.publications.clone();
        // A later one that came first would make the others look as if they had been delivered.
        missed.sort_by_key(|publication| publication.offset);
        missed.retain(|publication| {
            let is_new = self.is_new(publication, offset);
            offset = offset.max(publication.offset);
            is_new
        });
        let offset = offset.max(result.offset);
        let position = StreamPosition { offset, epoch: result.epoch.clone() };
        self.begin_at(result.recoverable.then_some(position));
        missed
    }

    /// The server began a subscription at this position.
    pub(super) fn begin_at(&mut self, position: Option<StreamPosition>) {
        self.position = position.filter(|position| position.epoch.len() <= EPOCH_SIZE_MAX);
    }

    /// Moves to a live publication; `false` when it was delivered before.
    pub(super) fn accept(&mut self, publication: &Publication) -> bool {
        let offset = self.position.as_ref().map_or(0, |position| position.offset);
        let is_new = self.is_new(publication, offset);
        if let Some(position) = self.position.as_mut().filter(|_| is_new && publication.offset > 0)
        {
            position.offset = publication.offset;
        }
        is_new
    }

    /// An offset of zero says that the channel has no history.
    fn is_new(&mut self, publication: &Publication, offset: u64) -> bool {
        let is_new = publication.offset == 0 || publication.offset > offset;
        self.duplicates += u64::from(!is_new);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(offset: u64) -> Arc<Publication> {
        Arc::new(Publication { offset, ..Publication::default() })
    }

    fn result(offset: u64, epoch: &str, recovered: bool, missed: &[u64]) -> SubscribeResult {
        SubscribeResult {
            recoverable: true,
            was_recovering: true,
            recovered,
            offset,
            epoch: epoch.to_owned(),
            publications: missed.iter().map(|offset| publication(*offset)).collect(),
            ..SubscribeResult::default()
        }
    }

    fn at(offset: u64, epoch: &str) -> StreamPosition {
        StreamPosition { offset, epoch: epoch.to_owned() }
    }

    #[test]
    fn a_recovery_delivers_what_was_missed_once() {
        let mut tracker = Tracker::at(Some(at(2, "e")));
        let missed = tracker.begin(&result(2, "e", true, &[2, 3, 4]));
        assert_eq!(missed.iter().map(|one| one.offset).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(tracker.position(), Some(&at(4, "e")));
        assert!(!tracker.accept(&publication(4)) && tracker.accept(&publication(5)));
        assert_eq!((tracker.position(), tracker.duplicates()), (Some(&at(5, "e")), 2));
    }

    #[test]
    fn what_is_recovered_out_of_order_is_delivered_in_order_and_all_of_it() {
        let mut tracker = Tracker::at(Some(at(2, "e")));
        let missed = tracker.begin(&result(2, "e", true, &[5, 3, 5, 4, 1]));
        assert_eq!(missed.iter().map(|one| one.offset).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!((tracker.position(), tracker.duplicates()), (Some(&at(5, "e")), 2));
    }

    #[test]
    fn the_newest_publication_of_a_cache_is_delivered_though_the_result_names_its_offset() {
        let mut tracker = Tracker::at(Some(at(2, "e")));
        assert_eq!(tracker.begin(&result(7, "e", true, &[7])).len(), 1);
        assert_eq!(tracker.position(), Some(&at(7, "e")));
    }

    #[test]
    fn a_failed_recovery_takes_the_position_of_the_server() {
        let mut tracker = Tracker::at(Some(at(9, "e")));
        assert!(tracker.begin(&result(1, "f", false, &[])).is_empty());
        assert_eq!(tracker.position(), Some(&at(1, "f")));
        assert!(tracker.accept(&publication(2)));
        tracker.invalidate();
        assert_eq!(tracker.position(), Some(&at(0, "_")));
    }

    #[test]
    fn an_epoch_without_end_is_not_kept() {
        let mut tracker = Tracker::default();
        tracker.begin(&result(1, &"e".repeat(EPOCH_SIZE_MAX + 1), false, &[]));
        assert_eq!(tracker.position(), None);
    }

    #[test]
    fn a_channel_without_history_has_no_position() {
        let mut tracker = Tracker::default();
        tracker.begin(&SubscribeResult::default());
        assert!(tracker.accept(&publication(0)) && tracker.accept(&publication(0)));
        tracker.invalidate();
        assert_eq!(tracker.position(), None);
    }
}
