//! Questions that are the same, and answers that may be given again.
//!
//! Which questions are the same is declared by [`Share`]. What is no part of the question is not
//! sent either, so that an answer cannot depend on it.
//!
//! Invariant: an answer is reused only for the lifetime that the backend named, and never beyond a
//! time at which it says to expire. Count and bytes of the kept answers are bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::limits::{ANSWERS_BYTES_MAX, ANSWERS_MAX};
use crate::reply::{ProxyReply, ProxyResult};
use crate::request::{ProxyMethod, ProxyRequest};

/// Which connect and subscribe questions are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// None: each client has an answer of its own.
    #[default]
    Off,
    /// Those of one user, or of the same forwarded headers: the id of the client is left out.
    User,
    /// Those about one channel: user, meta and forwarded headers are left out too.
    Channel,
}

/// Whether the headers of a client are part of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadersPart {
    Included,
    LeftOut,
}

impl Share {
    /// Leaves out of a request what is no part of the question. `None` if its answer is not shared.
    pub(crate) fn reduce(self, request: &mut ProxyRequest) -> Option<HeadersPart> {
        let is_shareable =
            matches!(request.method(), ProxyMethod::Connect | ProxyMethod::Subscribe);
        match self {
            _ if !is_shareable => None,
            Share::Off => None,
            Share::User => {
                request.client.clear();
                Some(HeadersPart::Included)
            }
            // One shared reply would give every client the same identity.
            Share::Channel if request.method() == ProxyMethod::Connect => None,
            Share::Channel => {
                request.client.clear();
                request.user.clear();
                request.meta.clear();
                Some(HeadersPart::LeftOut)
            }
        }
    }
}

/// A question as bytes: equal bytes are the same question.
pub(crate) type QuestionKey = Arc<[u8]>;

/// The kept answers of a backend, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct KeptAnswers {
    entries: HashMap<QuestionKey, KeptAnswer>,
    /// Keys with the numbers of their entries. A number that the entry no longer has is void.
    order: VecDeque<(QuestionKey, u64)>,
    bytes: usize,
    newest: u64,
}

#[derive(Debug)]
struct KeptAnswer {
    reply: ProxyReply,
    number: u64,
    bytes: usize,
    fresh_until_ms: u64,
    stale_until_ms: u64,
    expire_at: Option<i64>,
}

/// For how long an answer is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// Milliseconds for which it answers the question.
    pub(crate) fresh_ms: u64,
    /// Milliseconds for which it does so while the breaker is open.
    pub(crate) stale_ms: u64,
}

/// The time, for answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerTime {
    pub(crate) now_ms: u64,
    /// Unix time in seconds.
    pub(crate) unix: i64,
}

impl KeptAnswers {
    /// An answer within the lifetime that the backend named.
    pub(crate) fn fresh(&self, now: AnswerTime, key: &[u8]) -> Option<&ProxyReply> {
        let entry = self.entries.get(key).filter(|entry| entry.holds(now))?;
        (now.now_ms < entry.fresh_until_ms).then_some(&entry.reply)
    }

    /// A result that is not too old for an open breaker.
    pub(crate) fn stale(&self, now: AnswerTime, key: &[u8]) -> Option<&ProxyReply> {
        let entry = self.entries.get(key).filter(|entry| entry.holds(now))?;
        let is_kept = now.now_ms < entry.stale_until_ms && is_grant(&entry.reply);
        is_kept.then_some(&entry.reply)
    }

    /// Keeps an answer in place of an older one.
    pub(crate) fn keep(
        &mut self,
        now: AnswerTime,
        key: &QuestionKey,
        reply: &ProxyReply,
        lifetime: Lifetime,
    ) {
        self.remove(key);
        let stale_ms = if is_grant(reply) { lifetime.stale_ms } else { 0 };
        if lifetime.fresh_ms.max(stale_ms) == 0 {
            return;
        }
        self.newest += 1;
        let entry = KeptAnswer {
            reply: reply.clone(),
            number: self.newest,
            bytes: reply.size() + key.len() + ENTRY_BYTES,
            fresh_until_ms: now.now_ms.saturating_add(lifetime.fresh_ms),
            stale_until_ms: now.now_ms.saturating_add(stale_ms),
            expire_at: reply.expire_at(),
        };
        self.bytes += entry.bytes;
        self.order.push_back((key.clone(), entry.number));
        self.entries.insert(key.clone(), entry);
        while self.bytes > ANSWERS_BYTES_MAX || self.entries.len() > ANSWERS_MAX {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|entry| entry.number == number) {
                self.remove(&oldest);
            }
        }
        // Void numbers would otherwise grow with each renewed answer.
        if self.order.len() > 2 * self.entries.len() + 16 {
            let KeptAnswers { entries, order, .. } = self;
            order.retain(|(key, number)| {
                entries.get(key).is_some_and(|entry| entry.number == *number)
            });
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}

impl KeptAnswer {
    fn holds(&self, now: AnswerTime) -> bool {
        self.expire_at.is_none_or(|expire_at| now.unix < expire_at)
    }
}

/// Bytes of an entry beside its texts.
const ENTRY_BYTES: usize = 2 * size_of::<(QuestionKey, u64)>() + size_of::<KeptAnswer>();

/// Whether an answer allows what was asked. A refusal is not repeated while the breaker is open.
fn is_grant(reply: &ProxyReply) -> bool {
    !matches!(
        reply,
        ProxyReply::Disconnect { .. }
            | ProxyReply::Error { .. }
            | ProxyReply::Result(ProxyResult::Connect(None))
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::reply::BackendSubscribe;

    fn at(now_ms: u64) -> AnswerTime {
        AnswerTime { now_ms, unix: 1_000 + i64::try_from(now_ms / 1_000).unwrap() }
    }

    fn key(name: usize) -> QuestionKey {
        name.to_string().into_bytes().into()
    }

    fn answer(expire_at: i64, info: usize) -> ProxyReply {
        let info = Bytes::from(vec![b'1'; info]);
        let result = BackendSubscribe { expire_at, info, ..BackendSubscribe::default() };
        ProxyReply::Result(ProxyResult::Subscribe(Some(result)))
    }

    const LIFETIME: Lifetime = Lifetime { fresh_ms: 2_000, stale_ms: 10_000 };

    #[test]
    fn an_answer_lives_as_long_as_the_backend_says() {
        let mut answers = KeptAnswers::default();
        answers.keep(at(0), &key(1), &answer(0, 1), LIFETIME);
        assert!(answers.fresh(at(1_999), &key(1)).is_some());
        assert!(answers.fresh(at(2_000), &key(1)).is_none());
        assert!(answers.fresh(at(0), &key(2)).is_none());
        assert!(answers.stale(at(9_999), &key(1)).is_some());
        assert!(answers.stale(at(10_000), &key(1)).is_none());
        // Not beyond the end of what it allows.
        answers.keep(at(0), &key(1), &answer(1_001, 1), LIFETIME);
        assert!(answers.fresh(at(999), &key(1)).is_some());
        assert!(answers.fresh(at(1_000), &key(1)).is_none());
        assert!(answers.stale(at(1_000), &key(1)).is_none());
        // A refusal replaces it.
        let refusal = ProxyReply::Error { code: 103, message: String::new(), temporary: false };
        answers.keep(at(0), &key(1), &refusal, Lifetime { fresh_ms: 0, ..LIFETIME });
        assert!(answers.stale(at(0), &key(1)).is_none());
        assert_eq!(answers.bytes, 0);
    }

    #[test]
    fn no_client_gets_the_identity_of_another() {
        let question = crate::request::ProxyQuestion::Connect {
            data: Bytes::new(),
            name: String::new(),
            version: String::new(),
            channels: Vec::new(),
        };
        let mut request = ProxyRequest {
            client: "c1".to_owned(),
            transport: "websocket",
            protocol: "json",
            user: String::new(),
            meta: Bytes::new(),
            question,
        };
        assert_eq!(Share::Channel.reduce(&mut request), None);
        assert_eq!(request.client, "c1");
    }

    #[test]
    fn count_and_bytes_are_bounded() {
        let mut answers = KeptAnswers::default();
        for name in 0..ANSWERS_MAX + 10 {
            answers.keep(at(0), &key(name), &answer(0, 1), LIFETIME);
        }
        assert_eq!((answers.entries.len(), answers.order.len()), (ANSWERS_MAX, ANSWERS_MAX));
        assert!(answers.fresh(at(0), &key(9)).is_none());
        assert!(answers.fresh(at(0), &key(10)).is_some());
        for name in 0..100 {
            answers.keep(at(0), &key(name), &answer(0, ANSWERS_BYTES_MAX / 4), LIFETIME);
        }
        assert!(answers.bytes <= ANSWERS_BYTES_MAX && answers.entries.len() == 3);
        for _ in 0..1_000 {
            answers.keep(at(0), &key(1), &answer(0, 1), LIFETIME);
        }
        assert!(answers.order.len() < 100);
    }
}
