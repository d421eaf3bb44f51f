//! What one receiver has got of each stream.
//!
//! Invariant: a publication counts once, and only in its turn; everything else is a fault with a
//! name.

use std::collections::BTreeSet;

use super::publication_tag::PublicationTag;
use super::run_totals::Faults;

/// What one receiver has received of each stream.
pub(crate) struct ReceivedStreams {
    first_stream: u32,
    streams: Box<[Stream]>,
}

#[derive(Default)]
struct Stream {
    /// The number that comes next.
    next: u64,
    /// Numbers below it that never came.
    missing: BTreeSet<u64>,
}

/// Holes that are kept for each stream; beyond them the oldest are lost for good.
const MISSING_MAX: usize = 100_000;

impl ReceivedStreams {
    pub(crate) fn new(first_stream: u32, streams: u32) -> ReceivedStreams {
        ReceivedStreams { first_stream, streams: (0..streams).map(|_| Stream::default()).collect() }
    }

    /// The number that comes next in its only stream.
    pub(crate) fn next(&self) -> u64 {
        self.streams.first().map_or(0, |stream| stream.next)
    }

    /// Its client was notified that it misses everything below this number of its only stream.
    pub(crate) fn skip(&mut self, number: u64) {
        if let Some(stream) = self.streams.first_mut() {
            stream.next = stream.next.max(number);
        }
    }

    /// Takes a delivery; `true` when it is new.
    pub(crate) fn take(&mut self, tag: PublicationTag, faults: &mut Faults) -> bool {
        let index = tag.stream.checked_sub(self.first_stream).map(|index| index as usize);
        let Some(stream) = index.and_then(|index| self.streams.get_mut(index)) else {
            faults.misrouted += 1;
            return false;
        };
        if tag.number == stream.next {
            stream.next += 1;
            return true;
        }
        if tag.number > stream.next {
            let missing = &mut stream.missing;
            let from = stream.next.max(tag.number.saturating_sub(MISSING_MAX as u64));
            faults.lost += from - stream.next;
            missing.extend(from..tag.number);
            while missing.len() > MISSING_MAX {
                missing.pop_first();
                faults.lost += 1;
            }
            stream.next = tag.number + 1;
            return true;
        }
        let was_missing = stream.missing.remove(&tag.number);
        match was_missing {
            true => faults.out_of_order += 1,
            false => faults.duplicate += 1,
        }
        was_missing
    }

    /// Whether it has everything, when so many were published.
    pub(crate) fn is_complete(&self, published: impl Fn(u32) -> u64) -> bool {
        self.lost(published) == 0
    }

    /// How many it has not, when so many were published.
    pub(crate) fn lost(&self, published: impl Fn(u32) -> u64) -> u64 {
        let streams = (self.first_stream..).zip(&self.streams);
        streams
            .map(|(number, stream)| {
                let holes = stream.missing.len() as u64;
                published(number).saturating_sub(stream.next) + holes
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(received: &mut ReceivedStreams, faults: &mut Faults, stream: u32, number: u64) -> bool {
        received.take(PublicationTag { stream, number, planned: 0 }, faults)
    }

    #[test]
    fn every_fault_has_its_name() {
        let (mut received, mut faults) = (ReceivedStreams::new(4, 2), Faults::default());
        for number in [0, 1, 4, 2] {
            assert!(take(&mut received, &mut faults, 5, number));
        }
        assert!(!take(&mut received, &mut faults, 5, 1));
        assert!(!take(&mut received, &mut faults, 6, 0));
        assert!(!take(&mut received, &mut faults, 3, 0));
        assert_eq!(faults, Faults { lost: 0, duplicate: 1, out_of_order: 1, misrouted: 2 });
        assert_eq!(received.lost(|stream| if stream == 5 { 7 } else { 0 }), 1 + 2);
        assert!(!received.is_complete(|_| 5));
        assert!(take(&mut received, &mut faults, 5, 3));
        assert!(received.is_complete(|stream| if stream == 5 { 5 } else { 0 }));
    }
}
