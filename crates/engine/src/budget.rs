//! A limit on the bytes of publications in one reply.
//!
//! Invariant: the publications taken weigh at most the budget, or are one publication alone,
//! because a client must be able to read whatever it could be sent.

use std::sync::Arc;

use wire::protocol::Publication;

/// Bytes left in a reply, out of [`crate::limits::reply_bytes_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    left: usize,
    is_untouched: bool,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Budget {
        Budget { left: bytes, is_untouched: true }
    }

    /// Takes room for all of these publications. Returns `false` and takes nothing if they do not
    /// fit.
    pub(crate) fn take(&mut self, publications: &[Arc<Publication>]) -> bool {
        if publications.is_empty() {
            return true;
        }
        let weight: usize = publications.iter().map(|publication| publication.weight()).sum();
        let is_alone = self.is_untouched && publications.len() == 1;
        if weight > self.left && !is_alone {
            return false;
        }
        self.left = self.left.saturating_sub(weight);
        self.is_untouched = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publications(count: usize, length: usize) -> Vec<Arc<Publication>> {
        let data = vec![b'1'; length].into();
        let publication = Arc::new(Publication { data, ..Publication::default() });
        std::iter::repeat_n(publication, count).collect()
    }

    #[test]
    fn a_budget_is_spent_once_and_admits_one_publication_of_any_size() {
        let mut budget = Budget::new(3_000);
        assert!(!budget.take(&publications(4, 1_000)), "more than all of it");
        assert!(budget.take(&publications(2, 1_000)));
        assert!(!budget.take(&publications(2, 500)), "more than is left");
        assert!(!budget.take(&publications(1, 1_000)));
        assert!(budget.take(&publications(1, 500)) && budget.take(&[]));
        let mut budget = Budget::new(10);
        assert!(budget.take(&publications(1, 5_000)), "one alone");
        assert!(!budget.take(&publications(1, 1)));
    }
}
