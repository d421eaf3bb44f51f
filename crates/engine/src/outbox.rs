//! The bounded queue of frames to one peer.
//!
//! Invariant: `queued` is the number of bytes not yet written. A peer is slow if its socket is
//! blocked and a push would raise the queue's weight above the bound. Then the push is refused as a
//! whole and the session closes (3008). While the socket is not known to be blocked, a push is
//! always accepted and the driver is asked to write. An empty outbox owns no heap memory.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::limits::FRAME_COST;

/// Frames to be written to one peer.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The oldest frame, possibly written in part. A single frame, the usual case, needs no queue.
    first: Bytes,
    #[expect(clippy::box_collection, reason = "8 bytes in every idle session instead of 32")]
    rest: Option<Box<VecDeque<Bytes>>>,
    queued: usize,
    /// Whether `first` is written in part.
    is_begun: bool,
    /// Whether the socket accepts no more bytes for now.
    is_blocked: bool,
}

/// The peer reads more slowly than the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow;

impl Outbox {
    /// Appends a whole frame.
    ///
    /// # Errors
    /// [`Slow`] if the socket is blocked and more than `bound` bytes would be queued.
    pub fn push(&mut self, frame: Bytes, bound: usize) -> Result<(), Slow> {
        if self.is_blocked && self.weight() + frame.len() > bound {
            return Err(Slow);
        }
        self.queued += frame.len();
        if self.first.is_empty() {
            self.first = frame;
        } else {
            self.rest.get_or_insert_default().push_back(frame);
        }
        Ok(())
    }

    /// Returns whether the socket accepts no more bytes for now, as the driver has reported.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Records that the socket accepted only a part of a write.
    pub fn mark_blocked(&mut self) {
        self.is_blocked = true;
    }

    /// Records that the socket is writable again.
    pub fn mark_writable(&mut self) {
        self.is_blocked = false;
    }

    /// Bytes not yet written.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// The cost of the queue: its bytes, and [`FRAME_COST`] for each frame but the first.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.queued + self.rest.as_ref().map_or(0, |rest| rest.len()) * FRAME_COST
    }

    /// Returns whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Returns the bytes to write if they are one frame or a part of it.
    #[must_use]
    pub fn only(&self) -> Option<&[u8]> {
        (self.rest.is_none() && !self.first.is_empty()).then_some(&*self.first)
    }

    /// Fills `slices` with the bytes to write, oldest first. Returns the number of slices used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let first = Some(&self.first).filter(|frame| !frame.is_empty());
        let frames = first.into_iter().chain(self.rest.iter().flat_map(|rest| rest.iter()));
        let mut used = 0;
        for (slice, frame) in slices.iter_mut().zip(frames) {
            *slice = IoSlice::new(frame);
            used += 1;
        }
        used
    }

    /// Removes the first `written` bytes.
    ///
    /// # Panics
    /// If `written` exceeds the queued bytes, which is a bug of the driver.
    pub fn advance(&mut self, mut written: usize) {
        assert!(written <= self.queued, "wrote more than was queued");
        self.queued -= written;
        while written > 0 {
            let step = written.min(self.first.len());
            self.first.advance(step);
            written -= step;
            self.is_begun = !self.first.is_empty();
            if !self.is_begun {
                self.take_next();
            }
        }
    }

    /// Drops all frames that are not partly written, so that a close frame can follow.
    pub fn drop_unbegun(&mut self) {
        self.rest = None;
        if !self.is_begun {
            self.first = Bytes::new();
        }
        self.queued = self.first.len();
    }

    fn take_next(&mut self) {
        self.first = self.rest.as_mut().and_then(|rest| rest.pop_front()).unwrap_or_default();
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let used = outbox.slices(&mut slices);
        slices[..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn keeps_order_across_partial_writes_and_ends_empty_without_heap() {
        let mut outbox = Outbox::default();
        for frame in ["ab", "cd", "ef"] {
            outbox.push(Bytes::from_static(frame.as_bytes()), 100).unwrap();
        }
        assert_eq!(written(&outbox), b"abcdef");
        outbox.advance(3);
        assert_eq!(written(&outbox), b"def");
        outbox.advance(3);
        assert!(outbox.is_empty() && outbox.rest.is_none());
    }

    #[test]
    fn a_frame_above_the_bound_is_refused_once_the_socket_is_blocked() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"0123456789"), 4).unwrap();
        outbox.push(Bytes::from_static(b"0123456789"), 4).unwrap();
        outbox.mark_blocked();
        assert_eq!(outbox.push(Bytes::from_static(b"x"), 4), Err(Slow));
        assert_eq!(outbox.queued(), 20);
        outbox.advance(18);
        outbox.push(Bytes::from_static(b"xy"), 4).unwrap();
    }

    #[test]
    fn frames_cost_more_than_their_bytes() {
        let mut outbox = Outbox::default();
        outbox.mark_blocked();
        let bound = 10 * FRAME_COST;
        let taken = (0..bound).take_while(|_| outbox.push(Bytes::from_static(b"x"), bound).is_ok());
        // The first frame costs nothing: it needs no queue.
        assert_eq!(taken.count(), 11);
    }

    #[test]
    fn a_frame_that_was_begun_is_kept_before_a_close() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"), 100).unwrap();
        outbox.push(Bytes::from_static(b"def"), 100).unwrap();
        outbox.advance(1);
        outbox.drop_unbegun();
        outbox.push(Bytes::from_static(b"!"), 100).unwrap();
        assert_eq!(written(&outbox), b"bc!");
    }
}
