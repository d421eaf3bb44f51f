//! The stream of one channel: retained publications with offset and epoch.
//!
//! Invariant: retained offsets are consecutive and end at `top`, so that a read after a position is
//! either complete or known to be incomplete.

use std::collections::VecDeque;
use std::sync::Arc;

use wire::protocol::{HistoryResult, Publication, StreamPosition};

use crate::broker::{BrokerError, HistoryQuery, JoinRead, JoinedStream};
use crate::limits::PUBLICATION_COST;

/// The retained publications of one channel and its position.
#[derive(Clone, Debug)]
pub struct Stream {
    epoch: Arc<str>,
    top: u64,
    retained: VecDeque<Retained>,
    /// Bytes of the retained publications, counted by [`cost`].
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Retained {
    publication: Arc<Publication>,
    expires_at_ms: u64,
}

/// How much of a stream is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of publications.
    pub size: u32,
    /// Maximum age in milliseconds.
    pub ttl_ms: u64,
}

impl Stream {
    /// Creates an empty stream. The epoch identifies its numbering.
    #[must_use]
    pub fn new(epoch: Arc<str>) -> Stream {
        Stream { epoch, top: 0, retained: VecDeque::new(), bytes: 0 }
    }

    /// Creates a stream from stored publications, which must be consecutive and end at
    /// `top.offset`.
    #[must_use]
    pub fn restore(top: &StreamPosition, retained: Vec<Arc<Publication>>) -> Stream {
        let bytes = retained.iter().map(|publication| cost(publication)).sum();
        let keep = |publication| Retained { publication, expires_at_ms: u64::MAX };
        Stream {
            epoch: top.epoch.as_str().into(),
            top: top.offset,
            retained: retained.into_iter().map(keep).collect(),
            bytes,
        }
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// The position of the newest publication.
    #[must_use]
    pub fn position(&self) -> StreamPosition {
        StreamPosition { offset: self.top, epoch: self.epoch.to_string() }
    }

    /// Returns whether nothing was ever published. Such a stream equals any other new stream of its
    /// epoch.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.top == 0
    }

    /// Returns when the last retained publication expires; `None` if none is retained.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.retained.back().map(|newest| newest.expires_at_ms)
    }

    /// Assigns an offset to a publication and retains it.
    pub fn append(
        &mut self,
        now_ms: u64,
        retention: Retention,
        mut publication: Publication,
    ) -> Arc<Publication> {
        self.top += 1;
        publication.offset = self.top;
        let publication = Arc::new(publication);
        self.bytes += cost(&publication);
        let expires_at_ms = now_ms.saturating_add(retention.ttl_ms);
        self.retained.push_back(Retained { publication: publication.clone(), expires_at_ms });
        while self.retained.len() > retention.size as usize {
            self.drop_oldest();
        }
        self.expire(now_ms);
        publication
    }

    /// Removes expired publications. Only the oldest is checked, so that offsets stay consecutive:
    /// a publication with a shorter TTL stays as long as an earlier one.
    pub fn expire(&mut self, now_ms: u64) {
        while self.retained.front().is_some_and(|oldest| oldest.expires_at_ms <= now_ms) {
            self.drop_oldest();
        }
    }

    /// Removes all retained publications; position and epoch stay.
    pub fn clear(&mut self) {
        self.retained.clear();
        self.bytes = 0;
    }

    /// Returns whether no publication is retained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.retained.is_empty()
    }

    /// Bytes of the retained publications.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns by how many bytes this publication would grow the stream; it may replace the oldest
    /// one.
    #[must_use]
    pub fn growth(&self, retention: Retention, publication: &Publication) -> usize {
        let is_full = self.retained.len() >= retention.size as usize;
        let oldest = self.retained.front().filter(|_| is_full);
        cost(publication).saturating_sub(oldest.map_or(0, |oldest| cost(&oldest.publication)))
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.retained.pop_front() {
            self.bytes -= cost(&oldest.publication);
        }
    }

    /// Reads a part of the stream.
    ///
    /// # Errors
    /// [`BrokerError::UnrecoverablePosition`] if `since` names another epoch.
    pub fn read(&self, query: &HistoryQuery) -> Result<HistoryResult, BrokerError> {
        let limit = query.limit.map_or(usize::MAX, |limit| limit as usize);
        let since = query.since.as_ref();
        if since.is_some_and(|since| !self.accepts(&since.epoch)) {
            return Err(BrokerError::UnrecoverablePosition);
        }
        let publications = self.retained.iter().map(|retained| &retained.publication);
        let bytes_max = query.bytes_max;
        let publications = match (since, query.reverse) {
            (None, false) => fitting(publications.take(limit), bytes_max),
            (None, true) => fitting(publications.rev().take(limit), bytes_max),
            (Some(since), false) => {
                let behind = publications.filter(|p| p.offset > since.offset);
                fitting(behind.take(limit), bytes_max)
            }
            (Some(since), true) => {
                let before = publications.rev().filter(|p| p.offset < since.offset);
                fitting(before.take(limit), bytes_max)
            }
        };
        Ok(HistoryResult { publications, epoch: self.epoch.to_string(), offset: self.top })
    }

    /// Reads the part that a joining subscriber requests. A position of another epoch yields no
    /// publications.
    #[must_use]
    pub fn join(&self, read: &JoinRead) -> JoinedStream {
        let all = self.retained.iter().map(|retained| &retained.publication);
        let publications = match read {
            JoinRead::Nothing => return JoinedStream::default(),
            JoinRead::Position { .. } => Vec::new(),
            JoinRead::Newest { .. } => all.rev().take(1).cloned().collect(),
            JoinRead::Since { since, .. } if !self.accepts(&since.epoch) => Vec::new(),
            JoinRead::Since { since, limit, bytes_max, .. } => {
                let behind = all.filter(|p| p.offset > since.offset);
                fitting(behind.take(*limit as usize), *bytes_max)
            }
        };
        JoinedStream { top: self.position(), publications }
    }

    /// An empty epoch comes from a client that does not know one yet.
    fn accepts(&self, epoch: &str) -> bool {
        epoch.is_empty() || epoch == &*self.epoch
    }
}

/// Returns how many of these publications, from the first, fit into this many bytes; at least one,
/// so that a client that reads page by page makes progress.
#[must_use]
pub fn fitting_count<'p>(
    publications: impl IntoIterator<Item = &'p Arc<Publication>>,
    bytes_max: usize,
) -> usize {
    let mut weight = 0usize;
    let fits = |publication: &&Arc<Publication>| {
        let is_first = weight == 0;
        weight = weight.saturating_add(publication.weight());
        is_first || weight <= bytes_max
    };
    publications.into_iter().take_while(fits).count()
}

/// Returns the publications that fit, from the first.
fn fitting<'p>(
    publications: impl Iterator<Item = &'p Arc<Publication>> + Clone,
    bytes_max: Option<usize>,
) -> Vec<Arc<Publication>> {
    let count = bytes_max.map_or(usize::MAX, |bytes| fitting_count(publications.clone(), bytes));
    publications.take(count).cloned().collect()
}

/// Bytes of a retained publication.
fn cost(publication: &Publication) -> usize {
    publication.weight() + PUBLICATION_COST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(size: u32, ttl_ms: u64, count: u64) -> Stream {
        let mut stream = Stream::new("e".into());
        for index in 0..count {
            stream.append(index, Retention { size, ttl_ms }, Publication::default());
        }
        stream
    }

    fn offsets(stream: &Stream, limit: Option<u32>, since: Option<u64>, reverse: bool) -> Vec<u64> {
        let since = since.map(|offset| StreamPosition { offset, epoch: "e".into() });
        let result = stream.read(&HistoryQuery { limit, since, reverse, bytes_max: None }).unwrap();
        result.publications.iter().map(|publication| publication.offset).collect()
    }

    #[test]
    fn keeps_the_newest_and_reads_both_ways() {
        let stream = stream(3, 1000, 5);
        assert_eq!(offsets(&stream, None, None, false), [3, 4, 5]);
        assert_eq!(offsets(&stream, Some(2), None, true), [5, 4]);
        assert_eq!(offsets(&stream, None, Some(3), false), [4, 5]);
        assert_eq!(offsets(&stream, None, Some(5), true), [4, 3]);
        assert_eq!(offsets(&stream, Some(0), None, false), [0u64; 0]);
        assert_eq!(stream.position().offset, 5);
    }

    #[test]
    fn a_byte_limit_cuts_a_page_but_not_before_its_first_publication() {
        let mut stream = Stream::new("e".into());
        for length in [100, 100, 100, 5000, 100] {
            let data = vec![b'1'; length].into();
            let publication = Publication { data, ..Publication::default() };
            let weight = publication.weight();
            assert!(weight > length && weight < length + 200, "{weight}");
            stream.append(0, Retention { size: 10, ttl_ms: 1000 }, publication);
        }
        let two =
            2 * Publication { data: vec![b'1'; 100].into(), ..Publication::default() }.weight();
        let page = |since: u64, reverse, bytes_max| {
            let since = Some(StreamPosition { offset: since, epoch: "e".into() });
            let query = HistoryQuery { since, reverse, bytes_max, ..HistoryQuery::default() };
            let read = stream.read(&query).unwrap();
            assert_eq!(read.offset, 5, "the top is told whatever is cut");
            read.publications.iter().map(|one| one.offset).collect::<Vec<_>>()
        };
        assert_eq!(page(0, false, None), [1, 2, 3, 4, 5]);
        assert_eq!(page(0, false, Some(two)), [1, 2]);
        assert_eq!(page(0, false, Some(two - 1)), [1]);
        assert_eq!(page(2, false, Some(two)), [3]);
        assert_eq!(page(3, false, Some(two)), [4]);
        assert_eq!(page(4, false, Some(0)), [5]);
        assert_eq!(page(6, true, Some(two)), [5]);
        assert_eq!(page(4, true, Some(two)), [3, 2]);
        let since = StreamPosition { offset: 1, epoch: "e".into() };
        let read = JoinRead::Since { since, limit: 9, bytes_max: Some(two), meta_ttl_ms: 1 };
        assert_eq!(stream.join(&read).publications.len(), 2);
    }

    #[test]
    fn expiry_and_clearing_keep_the_position() {
        let mut stream = stream(10, 10, 3);
        stream.expire(11);
        assert_eq!(offsets(&stream, None, None, false), [3]);
        stream.clear();
        assert_eq!(offsets(&stream, None, None, false), [0u64; 0]);
        assert_eq!(stream.position().offset, 3);
    }

    #[test]
    fn bytes_are_those_of_the_retained_publications() {
        let publication = |size: usize| Publication {
            data: vec![b'x'; size].into(),
            tags: vec![("a".into(), "b".into())],
            ..Publication::default()
        };
        let retention = Retention { size: 2, ttl_ms: 10 };
        let mut stream = Stream::new("e".into());
        for (now_ms, size) in [(0, 100), (1, 200), (5, 50), (6, 1_000)] {
            let before = stream.bytes();
            let growth = stream.growth(retention, &publication(size));
            stream.append(now_ms, retention, publication(size));
            assert_eq!(growth, stream.bytes().saturating_sub(before), "of {size}");
        }
        assert_eq!(stream.bytes(), cost(&publication(50)) + cost(&publication(1_000)));
        stream.expire(15);
        assert_eq!(stream.bytes(), cost(&publication(1_000)));
        stream.expire(16);
        assert!(stream.is_empty() && stream.bytes() == 0);
    }

    #[test]
    fn another_epoch_is_refused_and_an_empty_one_accepted() {
        let stream = stream(10, 10, 3);
        let query = |epoch: &str| HistoryQuery {
            since: Some(StreamPosition { offset: 1, epoch: epoch.into() }),
            ..HistoryQuery::default()
        };
        assert_eq!(stream.read(&query("x")), Err(BrokerError::UnrecoverablePosition));
        assert_eq!(stream.read(&query("")).unwrap().publications.len(), 2);
    }
}
