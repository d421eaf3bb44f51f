//! Payloads that are not JSON in messages that are. A Protobuf client, or `b64data` of the server
//! API, may put any bytes into a channel, a token or an answer.
//!
//! Invariant: such a payload costs a JSON client that payload and nothing else. Client information
//! that is not JSON is left out. A publication whose data is not JSON is skipped, and its
//! subscriber is notified.

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    self, ClientInfo, HistoryResult, Publication, Push, PushEvent, ReplyBody, SubscribeResult,
};

/// What prevents a body from being written as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    None,
    /// Only client information, which can be left out.
    Information,
    /// The data of a publication, or an answer itself.
    Data,
}

/// Checks every payload of a body.
pub(super) fn obstacle(body: &ReplyBody) -> Obstacle {
    let mut worst = Obstacle::None;
    let mut note = |is_json: bool, obstacle: Obstacle| match (is_json, worst) {
        (true, _) | (false, Obstacle::Data) => {}
        (false, _) => worst = obstacle,
    };
    let mut look = |part: Part<'_>| match part {
        Part::Data(data) => note(is_json(data), Obstacle::Data),
        Part::Information(data) => note(is_json(data), Obstacle::Information),
    };
    each(body, &mut look);
    worst
}

enum Part<'b> {
    Data(&'b Bytes),
    Information(&'b Bytes),
}

fn is_json(data: &Bytes) -> bool {
    data.is_empty() || protocol::is_json(data)
}

fn each(body: &ReplyBody, look: &mut impl FnMut(Part<'_>)) {
    match body {
        ReplyBody::Push(push) => match &push.event {
            PushEvent::Publication(publication) => each_of_publication(publication, look),
            PushEvent::Join(info) | PushEvent::Leave(info) => each_of_info(info, look),
            PushEvent::Message { data } => look(Part::Data(data)),
            PushEvent::Subscribe { data, .. } => look(Part::Information(data)),
            PushEvent::Unsubscribe { .. }
            | PushEvent::Disconnect { .. }
            | PushEvent::Refresh { .. }
            | PushEvent::Unknown => {}
        },
        ReplyBody::Subscribe(result) => each_of_subscription(result, look),
        ReplyBody::Connect(result) => {
            look(Part::Information(&result.data));
            result.subs.iter().for_each(|(_, result)| each_of_subscription(result, look));
        }
        ReplyBody::Presence(clients) => {
            clients.iter().for_each(|(_, info)| each_of_info(info, look));
        }
        ReplyBody::History(result) => {
            result.publications.iter().for_each(|one| each_of_publication(one, look));
        }
        ReplyBody::Rpc { data } => look(Part::Data(data)),
        ReplyBody::Ping
        | ReplyBody::Error(_)
        | ReplyBody::Unsubscribe
        | ReplyBody::Publish
        | ReplyBody::PresenceStats(_)
        | ReplyBody::Refresh(_)
        | ReplyBody::SubRefresh { .. } => {}
    }
}

fn each_of_publication(publication: &Publication, look: &mut impl FnMut(Part<'_>)) {
    look(Part::Data(&publication.data));
    if let Some(info) = &publication.info {
        each_of_info(info, look);
    }
}

fn each_of_info(info: &ClientInfo, look: &mut impl FnMut(Part<'_>)) {
    look(Part::Information(&info.conn_info));
    look(Part::Information(&info.chan_info));
}

fn each_of_subscription(result: &SubscribeResult, look: &mut impl FnMut(Part<'_>)) {
    look(Part::Information(&result.data));
    result.publications.iter().for_each(|one| each_of_publication(one, look));
}

/// Returns the body without client information that is not JSON.
pub(super) fn without_information(body: &ReplyBody) -> ReplyBody {
    let mut body = body.clone();
    match &mut body {
        ReplyBody::Push(Push { event, .. }) => match event {
            PushEvent::Publication(publication) => clean_publication(publication),
            PushEvent::Join(info) | PushEvent::Leave(info) => clean_info(Arc::make_mut(info)),
            PushEvent::Subscribe { data, .. } => clean(data),
            _ => {}
        },
        ReplyBody::Subscribe(result) => clean_subscription(result),
        ReplyBody::Connect(result) => {
            clean(&mut result.data);
            result.subs.iter_mut().for_each(|(_, result)| clean_subscription(result));
        }
        ReplyBody::Presence(clients) => clients.iter_mut().for_each(|(_, info)| clean_info(info)),
        ReplyBody::History(result) => result.publications.iter_mut().for_each(clean_publication),
        _ => {}
    }
    body
}

fn clean(data: &mut Bytes) {
    if !is_json(data) {
        *data = Bytes::new();
    }
}

fn clean_info(info: &mut ClientInfo) {
    clean(&mut info.conn_info);
    clean(&mut info.chan_info);
}

fn clean_publication(publication: &mut Arc<Publication>) {
    let is_clean = |info: &ClientInfo| is_json(&info.conn_info) && is_json(&info.chan_info);
    if !publication.info.as_ref().is_none_or(is_clean)
        && let Some(info) = &mut Arc::make_mut(publication).info
    {
        clean_info(info);
    }
}

fn clean_subscription(result: &mut SubscribeResult) {
    clean(&mut result.data);
    result.publications.iter_mut().for_each(clean_publication);
}

/// Removes the publications that are not JSON from a body. Returns the rest and the channels of
/// removed publications, where the body names them. `None` if nothing is left.
pub(crate) fn without_publications(body: &ReplyBody) -> Option<(ReplyBody, Vec<String>)> {
    let mut skipped = Vec::new();
    let mut body = body.clone();
    match &mut body {
        ReplyBody::Subscribe(result) => drop(skip(&mut result.publications)),
        ReplyBody::Connect(result) => {
            for (channel, result) in &mut result.subs {
                if skip(&mut result.publications) {
                    skipped.push(channel.clone());
                }
            }
        }
        ReplyBody::History(result) => skip_in_page(result),
        _ => return None,
    }
    Some((body, skipped))
}

fn skip(publications: &mut Vec<Arc<Publication>>) -> bool {
    let before = publications.len();
    publications.retain(|publication| is_json(&publication.data));
    publications.len() < before
}

/// A page of skipped publications keeps the last one, as `null`, so that a client that reads on
/// from it makes progress.
fn skip_in_page(result: &mut HistoryResult) {
    let last = result.publications.last().cloned();
    skip(&mut result.publications);
    if result.publications.is_empty()
        && let Some(mut last) = last
    {
        Arc::make_mut(&mut last).data = Bytes::from_static(b"null");
        result.publications.push(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(data: &'static [u8], conn_info: &'static [u8]) -> Arc<Publication> {
        let info = ClientInfo { conn_info: conn_info.into(), ..ClientInfo::default() };
        Arc::new(Publication { data: data.into(), info: Some(info), ..Publication::default() })
    }

    fn history(publications: &[Arc<Publication>]) -> ReplyBody {
        let publications = publications.to_vec();
        ReplyBody::History(HistoryResult { publications, ..HistoryResult::default() })
    }

    #[test]
    fn data_takes_precedence_over_information() {
        for (body, expected) in [
            (history(&[publication(b"1", b"{}")]), Obstacle::None),
            (history(&[publication(b"1", b"\xFF")]), Obstacle::Information),
            (history(&[publication(b"\xFF", b"1"), publication(b"1", b"\xFF")]), Obstacle::Data),
            (history(&[publication(b"1", b"\xFF"), publication(b"{", b"1")]), Obstacle::Data),
            (ReplyBody::Ping, Obstacle::None),
        ] {
            assert_eq!(obstacle(&body), expected, "{body:?}");
        }
    }

    #[test]
    fn information_that_is_not_json_is_left_out_and_the_rest_stays() {
        let mixed =
            [publication(b"1", b"\xFF"), publication(b"\xFF", b"2"), publication(b"3", b"")];
        let (left, _) = without_publications(&history(&mixed)).unwrap();
        assert_eq!(obstacle(&left), Obstacle::Information);
        let left = without_information(&left);
        assert_eq!(left, history(&[publication(b"1", b""), publication(b"3", b"")]));
        let (page, _) = without_publications(&history(&mixed[1..2])).unwrap();
        assert_eq!(page, history(&[publication(b"null", b"2")]));
        assert_eq!(without_publications(&ReplyBody::Rpc { data: Bytes::new() }), None);
    }
}
