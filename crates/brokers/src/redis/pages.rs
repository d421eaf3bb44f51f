//! Reads long replies in pages: histories, recoveries, lists of clients.
//!
//! Redis closes a subscriber's connection when too much output waits for it
//! (`client-output-buffer-limit pubsub`, 32 MB by default), and replies count as well. So the read
//! scripts take a budget in bytes and return whether anything is left. The first page is small,
//! since most readers have missed little; each further page is four times as large. Invariant: the
//! pages form one reply without a gap, which follows every publication up to the top that it names.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use engine::broker::{
    BrokerError, BrokerReply, HistoryQuery, JoinRead, JoinedStream, PresenceRequest, RequestId,
};
use engine::history::fitting_count;
use wire::protocol::{ClientInfo, HistoryResult, Publication, StreamPosition};

use super::answer::{self, ClientsPage, StreamPage};
use super::clock::MonotonicTime;
use super::command_request::CommandRequest;
use super::open_request::OpenRequest;
use super::page_progress::PageProgress;
use super::resp::Frame;

/// A reply so far.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// The request must be sent again for the next page.
    More,
    /// The whole reply; `None` for a request without one.
    Whole(Option<BrokerReply>),
}

/// A request for publications of a stream.
#[derive(Clone, Copy)]
enum StreamRequest<'r> {
    Join(RequestId<JoinedStream>, &'r JoinRead),
    History(RequestId<HistoryResult>, &'r HistoryQuery),
}

/// Whether the reply may be long.
pub(super) fn is_long(request: &CommandRequest) -> bool {
    match request {
        CommandRequest::Subscribe { read, .. } => {
            matches!(read, JoinRead::Since { .. } | JoinRead::Newest { .. })
        }
        CommandRequest::History { query, .. } => query.limit != Some(0),
        CommandRequest::Presence(PresenceRequest::Clients { .. }) => true,
        _ => false,
    }
}

/// Handles one page; `held` counts the bytes that all readers of the server hold.
pub(super) fn take(
    now: MonotonicTime,
    pending: &mut OpenRequest,
    frame: &Frame,
    held: &Arc<AtomicUsize>,
) -> Taken {
    if !is_long(&pending.request) {
        return Taken::Whole(answer::read(&pending.request, frame));
    }
    let mut progress = pending.progress.take().unwrap_or_default();
    let reply = match &pending.request {
        CommandRequest::Presence(PresenceRequest::Clients { id, .. }) => {
            let page = answer::clients_page(frame);
            page.map_or(Some(Err(BrokerError::Unavailable)), |page| {
                take_clients(&mut progress, page, held).map(Ok)
            })
            .map(|result| id.answer(result))
        }
        CommandRequest::Subscribe { id, read, .. } => {
            take_stream_frame(StreamRequest::Join(*id, read), &mut progress, frame, held)
        }
        CommandRequest::History { id, query, .. } => {
            take_stream_frame(StreamRequest::History(*id, query), &mut progress, frame, held)
        }
        request => return Taken::Whole(answer::read(request, frame)),
    };
    if reply.is_none() {
        // The request has already failed at its deadline.
        if pending.deadline <= now {
            return Taken::Whole(pending.request.refuse(BrokerError::Unavailable));
        }
        pending.progress = Some(progress);
        return Taken::More;
    }
    Taken::Whole(reply)
}

fn take_clients(
    progress: &mut PageProgress,
    page: ClientsPage,
    held: &Arc<AtomicUsize>,
) -> Option<Vec<Arc<ClientInfo>>> {
    let is_first = progress.clients.is_empty();
    progress.clients.extend(page.clients);
    if page.cursor != b"0" {
        progress.cursor = page.cursor;
        progress.grow(held, 0, usize::MAX);
        return None;
    }
    let mut clients = std::mem::take(&mut progress.clients);
    if !is_first {
        // `HSCAN` may return an entry twice while the hash is resized.
        let mut seen = HashSet::new();
        clients.retain(|one| seen.insert(one.client.clone()));
    }
    Some(clients)
}

/// Returns the reply when the page is the last one.
fn take_stream_frame(
    request: StreamRequest<'_>,
    progress: &mut PageProgress,
    frame: &Frame,
    held: &Arc<AtomicUsize>,
) -> Option<BrokerReply> {
    let result = match answer::stream_page(frame) {
        Some(page) => take_stream(request, progress, page, held)?,
        None => Err(BrokerError::Unavailable),
    };
    Some(match request {
        StreamRequest::Join(id, _) => id.answer(result),
        StreamRequest::History(id, _) => id.answer(result.map(|stream| {
            let StreamPosition { offset, epoch } = stream.top;
            HistoryResult { publications: stream.publications, epoch, offset }
        })),
    })
}

fn take_stream(
    request: StreamRequest<'_>,
    progress: &mut PageProgress,
    page: StreamPage,
    held: &Arc<AtomicUsize>,
) -> Option<Result<JoinedStream, BrokerError>> {
    if !page.is_of_epoch {
        return Some(of_another_epoch(request, page.top));
    }
    let is_first = progress.top.is_none();
    let is_hopeless = is_first && has_gap_at_start(request, &page);
    progress.add(page.publications);
    if is_first || matches!(request, StreamRequest::Join(..)) {
        progress.top = Some(page.top);
    }
    let fitting = fitting(request, &progress.publications);
    if page.next > 0 && !is_hopeless && fitting == progress.publications.len() {
        let weight: usize = progress.publications.iter().map(|one| one.weight()).sum();
        let left = bytes_max(request).map_or(usize::MAX, |most| most.saturating_sub(weight));
        progress.grow(held, page.next, left);
        return None;
    }
    let top = progress.top.take().unwrap_or_default();
    let mut publications = std::mem::take(&mut progress.publications);
    publications.truncate(fitting);
    Some(Ok(JoinedStream { top, publications }))
}

/// Number of publications within the byte limit.
fn fitting(request: StreamRequest<'_>, publications: &[Arc<Publication>]) -> usize {
    let all = publications.len();
    bytes_max(request).map_or(all, |bytes_max| fitting_count(publications, bytes_max))
}

/// Byte limit of the request, if any.
fn bytes_max(request: StreamRequest<'_>) -> Option<usize> {
    match request {
        StreamRequest::Join(_, JoinRead::Since { bytes_max, .. }) => *bytes_max,
        StreamRequest::Join(..) => None,
        StreamRequest::History(_, query) => query.bytes_max,
    }
}

/// The result when the requested epoch has ended: a join gets the position only.
fn of_another_epoch(
    request: StreamRequest<'_>,
    top: StreamPosition,
) -> Result<JoinedStream, BrokerError> {
    match request {
        StreamRequest::Join(..) => Ok(JoinedStream { top, publications: Vec::new() }),
        StreamRequest::History(_, query) if query.since.is_none() => Err(BrokerError::Unavailable),
        StreamRequest::History(..) => Err(BrokerError::UnrecoverablePosition),
    }
}

/// Whether the publication after the client's position is no longer retained: recovery is
/// impossible, so the rest is not read.
fn has_gap_at_start(request: StreamRequest<'_>, page: &StreamPage) -> bool {
    let StreamRequest::Join(_, JoinRead::Since { since, .. }) = request else { return false };
    let first = page.publications.first();
    first.is_some_and(|first| first.offset > since.offset.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::stream_range::StreamRange;
    use super::*;
    use crate::Endpoint;
    use crate::limits::{PAGE_FIRST, PAGE_MAX};

    fn publications(offsets: std::ops::RangeInclusive<u64>) -> Vec<Arc<Publication>> {
        let one = |offset| Arc::new(Publication { offset, ..Publication::default() });
        offsets.map(one).collect()
    }

    fn page(top: u64, offsets: std::ops::RangeInclusive<u64>, next: usize) -> StreamPage {
        let top = StreamPosition { offset: top, epoch: "e".into() };
        StreamPage { top, is_of_epoch: true, publications: publications(offsets), next }
    }

    fn join(offset: u64) -> CommandRequest {
        let since = StreamPosition { offset, epoch: "e".into() };
        let read = JoinRead::Since { since, limit: 100, bytes_max: None, meta_ttl_ms: 0 };
        CommandRequest::Subscribe { id: RequestId::new(1), channel: "a".into(), read }
    }

    fn history(reverse: bool) -> CommandRequest {
        let query = HistoryQuery { limit: Some(50), reverse, ..HistoryQuery::default() };
        history_of(query)
    }

    fn history_of(query: HistoryQuery) -> CommandRequest {
        let (id, channel) = (RequestId::new(1), "a".into());
        CommandRequest::History { id, channel, query, meta_ttl_ms: 0 }
    }

    /// The publications of a whole reply.
    fn take_page(
        request: &CommandRequest,
        progress: &mut PageProgress,
        page: StreamPage,
        held: &Arc<AtomicUsize>,
    ) -> Option<Result<JoinedStream, BrokerError>> {
        let request = match request {
            CommandRequest::Subscribe { id, read, .. } => StreamRequest::Join(*id, read),
            CommandRequest::History { id, query, .. } => StreamRequest::History(*id, query),
            other => panic!("not a read of a stream: {other:?}"),
        };
        take_stream(request, progress, page, held)
    }

    fn next(request: &CommandRequest, progress: &PageProgress) -> (String, String, i64, usize) {
        let (part, _) = StreamRange::next_of(request, progress).unwrap();
        (part.first, part.last, part.limit, part.budget)
    }

    #[test]
    fn a_join_reads_to_the_newest_publication_and_a_history_to_its_first_top() {
        let held = Arc::default();
        let (joining, mut progress) = (join(2), PageProgress::default());
        assert_eq!(next(&joining, &progress), ("3".into(), "+".into(), 100, PAGE_FIRST));
        assert_eq!(take_page(&joining, &mut progress, page(9, 3..=5, 7), &held), None);
        assert_eq!(next(&joining, &progress), ("6".into(), "+".into(), 97, 4 * PAGE_FIRST));
        let last = take_page(&joining, &mut progress, page(10, 6..=10, 0), &held);
        let top = StreamPosition { offset: 10, epoch: "e".into() };
        let publications = publications(3..=10);
        assert_eq!(last, Some(Ok(JoinedStream { top, publications })));

        let (reading, mut progress) = (history(false), PageProgress::default());
        assert_eq!(take_page(&reading, &mut progress, page(9, 3..=5, 3 * PAGE_MAX), &held), None);
        assert_eq!(next(&reading, &progress), ("6".into(), "9".into(), 47, 3 * PAGE_MAX));
        let (reading, mut progress) = (history(true), PageProgress::default());
        assert_eq!(take_page(&reading, &mut progress, page(5, 5..=5, 1), &held), None);
        assert_eq!(next(&reading, &progress), ("-".into(), "4".into(), 49, 4 * PAGE_FIRST));
        // The newest publication exceeds the first page: publications since then are not read.
        let (reading, mut progress) = (history(true), PageProgress::default());
        let none = StreamPage { publications: Vec::new(), ..page(9, 9..=9, 3 * PAGE_MAX) };
        assert_eq!(take_page(&reading, &mut progress, none, &held), None);
        assert_eq!(next(&reading, &progress), ("-".into(), "9".into(), 50, 3 * PAGE_MAX));
    }

    #[test]
    fn a_page_is_not_larger_than_the_rest_of_the_byte_limit() {
        let held = Arc::default();
        let publication = |offset| {
            let data = vec![b'x'; 4_000].into();
            Arc::new(Publication { offset, data, ..Publication::default() })
        };
        let weight = publication(1).weight();
        for (bytes_max, budget) in
            [(4 * weight, PAGE_FIRST), (9 * weight, 6 * weight), (90 * weight, 4 * PAGE_FIRST)]
        {
            let (limit, bytes_max) = (Some(50), Some(bytes_max));
            let request = history_of(HistoryQuery { limit, bytes_max, ..HistoryQuery::default() });
            let mut progress = PageProgress::default();
            let publications = (1..=3).map(publication).collect();
            let page = StreamPage { publications, ..page(99, 1..=1, 4_096) };
            assert_eq!(take_page(&request, &mut progress, page, &held), None);
            assert_eq!(next(&request, &progress).3, budget);
        }
    }

    #[test]
    fn a_gap_between_two_pages_is_never_hidden() {
        let held = Arc::default();
        let (joining, mut progress) = (join(2), PageProgress::default());
        assert_eq!(take_page(&joining, &mut progress, page(9, 3..=5, 7), &held), None);
        let Some(Ok(stream)) = take_page(&joining, &mut progress, page(12, 8..=12, 0), &held)
        else {
            panic!("no answer")
        };
        assert_eq!(stream.publications, publications(8..=12), "the result begins after the gap");
        // Further pages cannot make the recovery complete.
        let mut progress = PageProgress::default();
        let hopeless = take_page(&joining, &mut progress, page(9, 4..=5, 7), &held);
        assert!(matches!(hopeless, Some(Ok(_))), "{hopeless:?}");
    }

    #[test]
    fn held_bytes_are_counted_until_dropped() {
        let held: Arc<AtomicUsize> = Arc::default();
        let mut progress = PageProgress::default();
        assert_eq!(take_page(&join(2), &mut progress, page(9, 3..=5, 7), &held), None);
        assert_eq!(held.load(Ordering::Relaxed), PAGE_FIRST);
        drop(progress);
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_client_returned_twice_is_listed_once() {
        let held = Arc::default();
        let page = |clients: &[&str], cursor: &[u8]| {
            let one = |client: &&str| {
                Arc::new(ClientInfo { client: (*client).into(), ..ClientInfo::default() })
            };
            ClientsPage { clients: clients.iter().map(one).collect(), cursor: cursor.to_vec() }
        };
        let mut progress = PageProgress::default();
        assert_eq!(take_clients(&mut progress, page(&["a", "b"], b"7"), &held), None);
        assert_eq!(progress.cursor(), b"7");
        let taken = take_clients(&mut progress, page(&["b", "c"], b"0"), &held);
        let Some(clients) = taken else { panic!("no reply") };
        let names: Vec<&str> = clients.iter().map(|one| &*one.client).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn no_page_is_read_after_the_deadline() {
        let now = MonotonicTime::default();
        let mut pending = OpenRequest::new(Endpoint(0), join(2), now);
        let entry = |offset: u64| {
            let text = |text: String| Frame::Text(text.into());
            let fields = vec![
                text("x".into()),
                text("1".into()),
                text("d".into()),
                Frame::Text(bytes::Bytes::new()),
            ];
            Frame::List(vec![text(format!("{offset}-0")), Frame::List(fields)])
        };
        let frame = Frame::List(vec![
            Frame::Text("e".into()),
            Frame::Text("9".into()),
            Frame::Integer(1),
            Frame::List(vec![entry(3)]),
            Frame::Integer(7),
        ]);
        let held = Arc::default();
        let refusal = pending.request.refuse(BrokerError::Unavailable);
        assert_eq!(take(now, &mut pending, &frame, &held), Taken::Whole(refusal));
        pending.deadline = now + std::time::Duration::from_secs(1);
        assert_eq!(take(now, &mut pending, &frame, &held), Taken::More);
    }
}
