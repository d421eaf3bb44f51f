//! Publications on their way: which of them have reached every receiver of this process.
//!
//! Invariant: a publication ends once, with its last receiver.

use std::collections::VecDeque;

use super::publication_tag::PublicationTag;

/// Publications of one stream that have not reached every receiver.
#[derive(Default)]
pub(crate) struct InFlight {
    first: u64,
    /// Receivers still to come, by number from `first` on.
    open: VecDeque<u32>,
}

impl InFlight {
    /// One of so many receivers has it; `true` when it was the last.
    pub(crate) fn handle(&mut self, tag: PublicationTag, receivers: u32) -> bool {
        let Some(index) = tag.number.checked_sub(self.first) else { return false };
        let index = index as usize;
        if index >= IN_FLIGHT_MAX {
            return false;
        }
        while self.open.len() <= index {
            self.open.push_back(receivers);
        }
        let Some(left) = self.open[index].checked_sub(1) else { return false };
        self.open[index] = left;
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.first += 1;
        }
        left == 0
    }
}

/// Publications that are tracked at once; what is beyond is not timed.
const IN_FLIGHT_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_ends_with_its_last_receiver() {
        let mut in_flight = InFlight::default();
        let mut take =
            |number| in_flight.handle(PublicationTag { stream: 0, number, planned: 0 }, 2);
        assert_eq!(
            [take(0), take(1), take(1), take(0), take(0)],
            [false, false, true, true, false]
        );
    }
}
