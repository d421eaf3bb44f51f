//! The keys of a model server, and the dispatch of commands to the types of values.
//!
//! Invariant: an expired key does not exist, and no value is empty.

use std::collections::{BTreeMap, BTreeSet};

use super::reply::Reply;

/// Result of a command; an error is Redis' text.
pub(super) type Outcome = Result<Reply, String>;

/// Words of a command, its name left out.
pub(super) type Words<'w> = &'w [Vec<u8>];

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Sorted(BTreeMap<Vec<u8>, f64>),
    Stream(Stream),
}

/// A stream: entries by id, and the last id that it had.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<StreamId, Vec<Vec<u8>>>,
    pub(super) last: StreamId,
}

pub(super) type StreamId = (u64, u64);

#[derive(Clone, Debug)]
struct Entry {
    value: Value,
    expires_ms: Option<i64>,
}

/// A message that a command has published.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::redis::tests) struct Published {
    pub(in crate::redis::tests) channel: Vec<u8>,
    pub(in crate::redis::tests) payload: Vec<u8>,
    pub(in crate::redis::tests) is_sharded: bool,
}

/// Why a server refuses to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::redis::tests) enum Writes {
    #[default]
    Accepted,
    /// It has become a replica.
    ReadOnly,
    /// `maxmemory` is reached and nothing can be evicted.
    OutOfMemory,
}

/// The keys of one server.
#[derive(Clone, Debug, Default)]
pub(in crate::redis::tests) struct Store {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Unix microseconds during the current command.
    pub(in crate::redis::tests) now_us: i64,
    pub(in crate::redis::tests) writes: Writes,
    /// Size up to which HSCAN returns a hash whole.
    pub(in crate::redis::tests) small_hash: usize,
    pub(in crate::redis::tests) published: Vec<Published>,
}

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
pub(super) const NOT_INTEGER: &str = "ERR value is not an integer or out of range";

/// Commands that change keys, and whether they may need memory.
const WRITES: &[(&str, bool)] = &[
    ("SET", true),
    ("DEL", false),
    ("PEXPIRE", false),
    ("EXPIREAT", false),
    ("HSET", true),
    ("HSETNX", true),
    ("HINCRBY", true),
    ("HDEL", false),
    ("SADD", true),
    ("SREM", false),
    ("ZADD", true),
    ("ZREM", false),
    ("XADD", true),
    ("XTRIM", false),
];

impl Store {
    pub(super) fn now_ms(&self) -> i64 {
        self.now_us.div_euclid(1000)
    }

    /// Whether the command changes keys, and if so whether it may need memory.
    pub(super) fn write_kind(name: &str) -> Option<bool> {
        WRITES.iter().find(|(one, _)| *one == name).map(|(_, needs_memory)| *needs_memory)
    }

    /// Executes one command.
    pub(in crate::redis::tests) fn execute(&mut self, words: &[Vec<u8>]) -> Reply {
        let name = String::from_utf8_lossy(&words[0]).to_uppercase();
        let outcome = match (Store::write_kind(&name), self.writes) {
            (Some(_), Writes::ReadOnly) => {
                Err("READONLY You can't write against a read only replica.".to_owned())
            }
            (Some(true), Writes::OutOfMemory) => {
                Err("OOM command not allowed when used memory > 'maxmemory'.".to_owned())
            }
            _ => self.dispatch(&name, &words[1..]),
        };
        outcome.unwrap_or_else(Reply::Error)
    }

    pub(super) fn dispatch(&mut self, name: &str, words: Words<'_>) -> Outcome {
        match name {
            "TIME" => Ok(Reply::List(vec![
                Reply::Bulk((self.now_us / 1_000_000).to_string().into_bytes()),
                Reply::Bulk((self.now_us % 1_000_000).to_string().into_bytes()),
            ])),
            "PUBLISH" | "SPUBLISH" => {
                let (channel, payload) = (words[0].clone(), words[1].clone());
                let is_sharded = name == "SPUBLISH";
                self.published.push(Published { channel, payload, is_sharded });
                Ok(Reply::Integer(0))
            }
            "DEL" => Ok(Reply::Integer(
                words.iter().filter(|key| self.remove(key)).count().try_into().unwrap_or(0),
            )),
            "EXISTS" => {
                let found = words.iter().filter(|key| self.value(key).is_some()).count();
                Ok(Reply::Integer(found.try_into().unwrap_or(0)))
            }
            "PTTL" => Ok(Reply::Integer(self.ttl_ms(&words[0]))),
            "PEXPIRE" => {
                let at = self.now_ms().saturating_add(integer(&words[1])?);
                Ok(Reply::of_flag(self.expire(&words[0], at)))
            }
            "EXPIREAT" => {
                let at = integer(&words[1])?.saturating_mul(1000);
                Ok(Reply::of_flag(self.expire(&words[0], at)))
            }
            _ if name.starts_with('H') => self.hash_command(name, words),
            _ if name.starts_with('X') => self.stream_command(name, words),
            "SADD" | "SREM" | "SMEMBERS" => self.set_command(name, words),
            _ if name.starts_with('Z') => self.sorted_command(name, words),
            "GET" | "SET" => self.text_command(name, words),
            _ => panic!("the model does not know the command {name}"),
        }
    }

    /// Executes a command that changes the value of a key; removes the key when it is empty then.
    pub(super) fn change(
        &mut self,
        key: &[u8],
        begin: fn() -> Value,
        change: impl FnOnce(&mut Value) -> Outcome,
    ) -> Outcome {
        self.drop_expired(key);
        let entry = self
            .entries
            .entry(key.to_vec())
            .or_insert_with(|| Entry { value: begin(), expires_ms: None });
        let outcome = change(&mut entry.value);
        if entry.value.is_empty() {
            self.entries.remove(key);
        }
        outcome
    }

    pub(super) fn value(&mut self, key: &[u8]) -> Option<&Value> {
        self.drop_expired(key);
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(super) fn set(&mut self, key: &[u8], value: Value, expires_ms: Option<i64>) {
        self.entries.insert(key.to_vec(), Entry { value, expires_ms });
    }

    /// The keys that exist.
    pub(in crate::redis::tests) fn keys(&mut self) -> Vec<Vec<u8>> {
        let keys: Vec<Vec<u8>> = self.entries.keys().cloned().collect();
        keys.into_iter().filter(|key| self.value(key).is_some()).collect()
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.drop_expired(key);
        self.entries.remove(key).is_some()
    }

    fn drop_expired(&mut self, key: &[u8]) {
        let now = self.now_ms();
        let ends = self.entries.get(key).and_then(|entry| entry.expires_ms);
        if ends.is_some_and(|ends| ends <= now) {
            self.entries.remove(key);
        }
    }

    fn ttl_ms(&mut self, key: &[u8]) -> i64 {
        let now = self.now_ms();
        self.drop_expired(key);
        match self.entries.get(key) {
            None => -2,
            Some(entry) => entry.expires_ms.map_or(-1, |ends| ends - now),
        }
    }

    fn expire(&mut self, key: &[u8], at_ms: i64) -> bool {
        self.drop_expired(key);
        let Some(entry) = self.entries.get_mut(key) else { return false };
        entry.expires_ms = Some(at_ms);
        self.drop_expired(key);
        true
    }
}

impl Value {
    fn is_empty(&self) -> bool {
        match self {
            Value::Text(_) | Value::Stream(_) => false,
            Value::Hash(fields) => fields.is_empty(),
            Value::Set(members) => members.is_empty(),
            Value::Sorted(members) => members.is_empty(),
        }
    }
}

pub(super) fn wrong_type<T>() -> Result<T, String> {
    Err(WRONG_TYPE.to_owned())
}

pub(super) fn integer(word: &[u8]) -> Result<i64, String> {
    std::str::from_utf8(word)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| NOT_INTEGER.to_owned())
}

/// The value behind an option such as COUNT, if it is given.
pub(super) fn option<'w>(words: Words<'w>, name: &str) -> Option<&'w [u8]> {
    let at = words.iter().position(|word| word.eq_ignore_ascii_case(name.as_bytes()))?;
    words.get(at + 1).map(|word| &word[..])
}
