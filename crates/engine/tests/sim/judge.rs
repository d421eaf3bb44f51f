//! Compares what a client receives about a stream with the truth.

use std::sync::Arc;

use wire::protocol::{HistoryResult, Publication, StreamPosition, is_json};

use super::channels::{REPLY_BYTES, kind_of};
use super::oracle::{Oracle, Violation};
use super::truth::Truth;

/// A prefix that makes a payload invalid as JSON.
pub(crate) const FOREIGN: u8 = 0xFF;

/// Invalid channel names: with a control character, and longer than 255 bytes.
pub(crate) const NO_NAMES: [&str; 2] = ["kept:a\nb", TOO_LONG];

const TOO_LONG: &str = match std::str::from_utf8(&[b'x'; 256]) {
    Ok(text) => text,
    Err(_) => unreachable!(),
};

/// Maximum bytes of a publication beside its payload: information about its publisher.
const OVERHEAD_MAX: usize = 400;

/// The last offset before the next publication from this position on that a JSON client can
/// receive.
pub(crate) fn skip_foreign(truth: &Truth, channel: &str, position: &StreamPosition) -> u64 {
    let mut offset = position.offset;
    while truth.at(channel, &position.epoch, offset + 1).is_some_and(|data| !is_json(data)) {
        offset += 1;
    }
    offset
}

pub(crate) fn check_payload(
    truth: &Truth,
    channel: &str,
    epoch: &str,
    publication: &Publication,
) -> Result<(), Violation> {
    let published = truth.at(channel, epoch, publication.offset);
    Oracle::Order.check(published == Some(&publication.data), || {
        format!(
            "{channel} {epoch} {}: {:?}, not {published:?}",
            publication.offset, publication.data
        )
    })
}

/// A recovery is at most as large as a reply may be, except for a single publication.
pub(crate) fn check_recovery(
    channel: &str,
    publications: &[Arc<Publication>],
) -> Result<(), Violation> {
    let bytes: usize = publications.iter().map(|one| one.data.len()).sum();
    Oracle::Bound.check(bytes <= REPLY_BYTES || publications.len() == 1, || {
        format!("{channel}: {bytes} bytes are recovered")
    })
}

/// A refused recovery must have been impossible.
pub(crate) fn check_refusal(
    truth: &Truth,
    channel: &str,
    since: &StreamPosition,
) -> Result<(), Violation> {
    let Some((epoch, top)) = truth.now(channel) else { return Ok(()) };
    let dropped = truth.dropped(channel, epoch);
    let missing = top.saturating_sub(since.offset);
    let is_retained = since.offset >= dropped && missing <= kind_of(channel).history_size();
    let lengths = (since.offset + 1..=top).filter_map(|offset| truth.at(channel, epoch, offset));
    let fits =
        !is_retained || lengths.map(|data| data.len() + OVERHEAD_MAX).sum::<usize>() <= REPLY_BYTES;
    let is_possible = is_retained && fits;
    Oracle::Recovery.check(since.epoch != epoch || since.offset > top || !is_possible, || {
        format!("{channel}: recovery from {since:?} is refused, though the top is {top}")
    })
}

/// A history starts with the first retained publication, has no gaps, and ends before the top only
/// if no more fits. A JSON client receives no other data, except the last publication of a page
/// without JSON.
pub(crate) fn check_history(
    truth: &Truth,
    channel: &str,
    result: &HistoryResult,
    is_json_client: bool,
) -> Result<(), Violation> {
    let is_foreign = |offset| {
        let data = truth.at(channel, &result.epoch, offset);
        is_json_client && data.is_some_and(|data| !is_json(data))
    };
    let mut expected: Option<u64> = None;
    let mut bytes = 0;
    for publication in &result.publications {
        let offset = publication.offset;
        let is_next = expected.is_none_or(|next| (next..offset).all(is_foreign));
        Oracle::Gap.check(is_next && expected.is_none_or(|next| next <= offset), || {
            format!("{channel}: the history has a hole before {offset}")
        })?;
        expected = Some(offset + 1);
        bytes += publication.data.len() + OVERHEAD_MAX;
        if is_foreign(offset) {
            let is_alone = publication.data == "null" && result.publications.len() == 1;
            Oracle::Order.check(is_alone, || format!("{channel}: {offset} is no JSON"))?;
        } else {
            check_payload(truth, channel, &result.epoch, publication)?;
        }
    }
    let Some(next) = expected else { return Ok(()) };
    let following = truth.at(channel, &result.epoch, next).map_or(0, |data| data.len());
    let is_cut = bytes + following + OVERHEAD_MAX > REPLY_BYTES;
    let reaches_top = (next..=result.offset).all(is_foreign);
    Oracle::Gap.check(reaches_top || is_cut, || {
        format!("{channel}: the history ends before {}", result.offset)
    })
}
