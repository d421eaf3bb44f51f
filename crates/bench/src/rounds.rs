//! Publications on their way: which of them have reached every receiver of this process.
//!
//! Invariant: a publication ends once, with its last receiver.

use std::collections::VecDeque;

use super::stamp::Stamp;

/// The rounds of one stream.
#[derive(Default)]
pub(crate) struct Rounds {
    first: u64,
    /// Receivers still to come, by number from `first` on.
    open: VecDeque<u32>,
}

impl Rounds {
    /// One of so many receivers has it; `true` when it was the last.
    pub(crate) fn handle(&mut self, stamp: Stamp, receivers: u32) -> bool {
        let Some(index) = stamp.number.checked_sub(self.first) else { return false };
        let index = index as usize;
        if index >= ROUNDS_MAX {
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

/// Rounds that are open at once; what is beyond is not timed.
const ROUNDS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_with_its_last_receiver() {
        let mut rounds = Rounds::default();
        let mut take = |number| rounds.handle(Stamp { stream: 0, number, planned: 0 }, 2);
        assert_eq!(
            [take(0), take(1), take(1), take(0), take(0)],
            [false, false, true, true, false]
        );
    }
}
