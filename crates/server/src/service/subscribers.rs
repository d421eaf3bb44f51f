//! The subscribers of a channel on all nodes, a page at a time, whether or not it has presence.
//!
//! Invariant: pages are in the order of client ids. Read one after the other, with the cursor of
//! the one before, they contain each subscriber once that was there from the first to the last, as
//! long as no node is missing.

use super::ServiceContext;
use super::caller::ApiCaller;
use super::error::ApiError;
use crate::cluster::members::Answers;
use crate::cluster::questions::{Question, SubscriberList};
use crate::limits::{SUBSCRIBERS_PER_PAGE, SUBSCRIBERS_PER_PAGE_MAX};

/// The method that lists subscribers of a channel.
pub(crate) struct SubscriberService {
    context: ServiceContext,
}

/// Some subscribers of a channel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SubscriberPage {
    pub(crate) subscribers: Vec<SubscriberPlace>,
    /// Start of the next page; `None` on the last page.
    pub(crate) cursor: Option<String>,
    /// Number of nodes that did not answer.
    pub(crate) missing_nodes: usize,
}

/// A subscriber and the node that it is connected to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SubscriberPlace {
    pub(crate) client: String,
    pub(crate) user: String,
    /// Name of the node.
    pub(crate) node: String,
}

impl SubscriberService {
    pub(super) fn new(context: ServiceContext) -> SubscriberService {
        SubscriberService { context }
    }

    /// Reads a page. A limit of 0 stands for the default, an empty cursor for the beginning.
    pub(crate) async fn page(
        &self,
        caller: &ApiCaller,
        channel: &str,
        limit: i64,
        cursor: &str,
    ) -> Result<SubscriberPage, ApiError> {
        caller.view(&self.context.node.rules(), channel)?;
        let limit = match usize::try_from(limit) {
            Ok(0) => SUBSCRIBERS_PER_PAGE,
            Ok(limit) => limit.min(SUBSCRIBERS_PER_PAGE_MAX),
            Err(_) => return Err(ApiError::bad("limit is negative")),
        };
        if cursor.len() > CURSOR_LENGTH_MAX {
            let text = "cursor is none that this method has answered with: leave it out to begin";
            return Err(ApiError::bad(text));
        }
        let (channel, after) = (channel.to_owned(), cursor.to_owned());
        let question = Question::Subscribers { channel, after, limit };
        let Answers { answers, missing } =
            self.context.members.ask::<SubscriberList>(&question).await?;
        Ok(SubscriberPage { missing_nodes: missing, ..merged(answers, limit) })
    }
}

/// The first subscribers of all nodes.
fn merged(lists: Vec<SubscriberList>, limit: usize) -> SubscriberPage {
    // After the last id that a node with more subscribers returned, entries of that node are
    // missing. The page ends there.
    let ends = lists.iter().filter(|list| list.has_more);
    let end = ends.filter_map(|list| list.subscribers.last()).map(|(client, _)| client).min();
    let end = end.cloned();
    let mut subscribers: Vec<SubscriberPlace> = lists
        .into_iter()
        .flat_map(|list| {
            let node = list.node;
            list.subscribers.into_iter().map(move |(client, user)| SubscriberPlace {
                client,
                user,
                node: node.clone(),
            })
        })
        .filter(|one| end.as_ref().is_none_or(|end| one.client <= *end))
        .collect();
    subscribers.sort_unstable_by(|one, other| one.client.cmp(&other.client));
    let has_more = end.is_some() || subscribers.len() > limit;
    subscribers.truncate(limit);
    let cursor = subscribers.last().filter(|_| has_more).map(|last| last.client.clone());
    SubscriberPage { subscribers, cursor, missing_nodes: 0 }
}

/// A client id has 36 bytes.
const CURSOR_LENGTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A node's answer: its clients behind a cursor, at most this many.
    fn list(node: &str, clients: &str, after: &str, most: usize) -> SubscriberList {
        let clients = clients.split(' ').filter(|client| *client > after).take(most);
        let subscribers: Vec<_> =
            clients.map(|client| (client.to_owned(), String::new())).collect();
        let has_more = subscribers.len() == most;
        SubscriberList { node: node.to_owned(), subscribers, has_more }
    }

    #[test]
    fn pages_of_several_nodes_contain_each_subscriber_once_and_in_order() {
        // A node whose answer is full before the page is stays ahead of no other.
        for (limit, most) in [(1, 1), (2, 2), (3, 3), (100, 100), (5, 1), (4, 3)] {
            let (mut seen, mut cursor) = (String::new(), String::new());
            loop {
                let lists = vec![
                    list("one", "a c e g i", &cursor, most.min(limit)),
                    list("two", "b d h", &cursor, limit),
                    list("three", "f", &cursor, limit),
                ];
                let page = merged(lists, limit);
                assert!(page.subscribers.len() <= limit);
                seen.extend(page.subscribers.iter().map(|one| &*one.client));
                match page.cursor {
                    Some(next) => cursor = next,
                    None => break,
                }
            }
            assert_eq!(seen, "abcdefghi", "{limit} {most}");
        }
    }
}
