//! A subscription as a client sees it: its position, and its check of the next publication.

use wire::protocol::{Codec, Publication, StreamPosition};

use super::client::Surroundings;
use super::judge::{check_payload, skip_foreign};
use super::oracle::{Oracle, Violation};

/// An active subscription.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) is_positioned: bool,
    pub(crate) position: StreamPosition,
    /// Without a position: index of the last publication in the truth.
    last_place: Option<usize>,
    /// Whether the client can receive JSON only.
    pub(crate) is_json: bool,
    /// Whether a publication was skipped for that reason, as far as the client has read.
    pub(crate) has_skipped: bool,
    /// Number of notifications about it.
    pub(crate) notices: u32,
}

impl Live {
    pub(crate) fn new(is_positioned: bool, position: StreamPosition, codec: Codec) -> Live {
        let is_json = codec == Codec::Json;
        let (last_place, has_skipped, notices) = (None, false, 0);
        Live { is_positioned, position, last_place, is_json, has_skipped, notices }
    }

    /// Checks a received publication.
    pub(crate) fn accept(
        &mut self,
        at: &Surroundings<'_>,
        channel: &str,
        publication: &Publication,
    ) -> Result<(), Violation> {
        let truth = at.truth;
        if !self.is_positioned {
            if publication.offset > 0 {
                return Ok(());
            }
            let Some(place) = truth.place(channel, &publication.data) else {
                return Oracle::Order.broken(format!("{channel}: nobody published this"));
            };
            let last = self.last_place.replace(place);
            Oracle::Order.check(last.is_none_or(|last| last < place), || {
                format!("{channel}: place {place} comes after {last:?}")
            })?;
            let is_next = last.is_none_or(|last| last + 1 == place);
            return Oracle::Gap.check(is_next || !at.is_faultless, || {
                format!("{channel}: place {place} comes after {last:?}, though nothing went wrong")
            });
        }
        let before = self.position.offset;
        if self.is_json {
            self.position.offset = skip_foreign(truth, channel, &self.position);
        }
        self.has_skipped |= self.position.offset > before;
        let expected = self.position.offset + 1;
        let offset = publication.offset;
        if offset < expected {
            return Oracle::Duplicate.broken(format!("{channel}: {offset} comes again"));
        }
        Oracle::Gap.check(offset == expected, || {
            format!("{channel}: {offset} comes instead of {expected}, without notice")
        })?;
        check_payload(truth, channel, &self.position.epoch, publication)?;
        self.position.offset = offset;
        Ok(())
    }
}
