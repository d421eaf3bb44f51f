//! Progress of a long reply that is read in pages.
//!
//! Invariant: its bytes count towards the total of all readers of the server until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wire::protocol::{ClientInfo, Publication, StreamPosition};

use crate::limits::{PAGE_FIRST, PAGE_MAX};

/// Pages read so far of an incomplete reply.
#[derive(Debug, Default)]
pub(super) struct PageProgress {
    budget: usize,
    pub(super) top: Option<StreamPosition>,
    pub(super) publications: Vec<Arc<Publication>>,
    /// Publications in all pages, including dropped ones.
    read: i64,
    pub(super) clients: Vec<Arc<ClientInfo>>,
    /// `HSCAN` cursor of the next page of clients.
    pub(super) cursor: Vec<u8>,
    held: Option<HeldBytes>,
}

/// Bytes of incomplete replies, added to the server's total until dropped.
#[derive(Debug)]
struct HeldBytes {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl HeldBytes {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl PageProgress {
    pub(super) fn budget(&self) -> usize {
        self.budget.max(PAGE_FIRST)
    }

    /// Top of the stream in the first page of a history, or in the last page of a join.
    pub(super) fn top(&self) -> Option<&StreamPosition> {
        self.top.as_ref()
    }

    pub(super) fn read_count(&self) -> i64 {
        self.read
    }

    pub(super) fn last_offset(&self) -> Option<u64> {
        self.publications.last().map(|last| last.offset)
    }

    pub(super) fn cursor(&self) -> &[u8] {
        if self.cursor.is_empty() { b"0" } else { &self.cursor }
    }

    /// Sets the budget of the next page: at most `wanted` bytes, but at least `needed`, the size of
    /// the next entry.
    pub(super) fn grow(&mut self, total: &Arc<AtomicUsize>, needed: usize, wanted: usize) {
        let read = self.budget();
        let held = self.held.get_or_insert_with(|| HeldBytes { total: total.clone(), bytes: 0 });
        held.add(read);
        self.budget = (4 * read).min(PAGE_MAX).min(wanted).max(needed);
    }

    /// Adds a page. If retention has removed publications between pages, the earlier pages are
    /// dropped: the result then equals one read at this time.
    pub(super) fn add(&mut self, page: Vec<Arc<Publication>>) {
        self.read += i64::try_from(page.len()).unwrap_or(i64::MAX);
        if let (Some(last), Some(next)) = (self.publications.last(), page.first())
            && next.offset > last.offset.saturating_add(1)
        {
            self.publications.clear();
        }
        self.publications.extend(page);
    }
}
