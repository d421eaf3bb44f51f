//! Hashes of the model.
//!
//! Invariant: HSCAN returns every field that exists during the whole scan, as Redis promises. A
//! small hash is returned whole, a larger one in the order of a hash of its fields.

use std::collections::BTreeMap;

use super::reply::Reply;
use super::store::{Outcome, Store, Value, Words, integer, option, wrong_type};

type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

impl Store {
    pub(super) fn hash_command(&mut self, name: &str, words: Words<'_>) -> Outcome {
        match name {
            "HSET" | "HSETNX" | "HINCRBY" | "HDEL" => self.change(
                &words[0],
                || Value::Hash(Fields::new()),
                |value| match value {
                    Value::Hash(fields) => change(name, fields, &words[1..]),
                    _ => wrong_type(),
                },
            ),
            _ => {
                let small = self.small_hash;
                let none = Fields::new();
                let fields = match self.value(&words[0]) {
                    None => &none,
                    Some(Value::Hash(fields)) => fields,
                    Some(_) => return wrong_type(),
                };
                match name {
                    "HSCAN" => scan(fields, &words[1..], small),
                    _ => Ok(read(name, fields, &words[1..])),
                }
            }
        }
    }
}

fn change(name: &str, fields: &mut Fields, words: Words<'_>) -> Outcome {
    Ok(match name {
        "HSET" => {
            let pairs = words.chunks_exact(2);
            let added =
                pairs.filter(|pair| fields.insert(pair[0].clone(), pair[1].clone()).is_none());
            Reply::Integer(added.count().try_into().unwrap_or(0))
        }
        "HSETNX" => {
            let is_new = !fields.contains_key(&words[0]);
            if is_new {
                fields.insert(words[0].clone(), words[1].clone());
            }
            Reply::of_flag(is_new)
        }
        "HINCRBY" => {
            let by = integer(&words[1])?;
            let before = match fields.get(&words[0]) {
                Some(text) => {
                    integer(text).map_err(|_| "ERR hash value is not an integer".to_owned())?
                }
                None => 0,
            };
            fields.insert(words[0].clone(), (before + by).to_string().into_bytes());
            Reply::Integer(before + by)
        }
        _ => {
            let removed = words.iter().filter(|field| fields.remove(*field).is_some()).count();
            Reply::Integer(removed.try_into().unwrap_or(0))
        }
    })
}

fn read(name: &str, fields: &Fields, words: Words<'_>) -> Reply {
    let texts = |texts: Vec<&Vec<u8>>| {
        Reply::List(texts.into_iter().map(|text| Reply::bulk(text)).collect())
    };
    match name {
        "HGET" => Reply::of_text(fields.get(&words[0])),
        "HMGET" => {
            Reply::List(words.iter().map(|field| Reply::of_text(fields.get(field))).collect())
        }
        "HEXISTS" => Reply::of_flag(fields.contains_key(&words[0])),
        "HLEN" => Reply::Integer(fields.len().try_into().unwrap_or(0)),
        "HKEYS" => texts(fields.keys().collect()),
        "HVALS" => texts(fields.values().collect()),
        "HGETALL" => texts(fields.iter().flat_map(|(field, value)| [field, value]).collect()),
        _ => panic!("the model does not know the command {name}"),
    }
}

fn scan(fields: &Fields, words: Words<'_>, small: usize) -> Outcome {
    let cursor: u64 = std::str::from_utf8(&words[0])
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "ERR invalid cursor".to_owned())?;
    let count = option(words, "COUNT").map_or(Ok(10), integer)?;
    let count = usize::try_from(count).unwrap_or(1).max(1);
    let mut hashed: Vec<(u64, &Vec<u8>, &Vec<u8>)> =
        fields.iter().map(|(field, value)| (hash(field), field, value)).collect();
    hashed.sort();
    let is_whole = fields.len() <= small;
    let rest = hashed.into_iter().filter(|(hash, ..)| is_whole || *hash > cursor);
    let rest: Vec<_> = rest.collect();
    let take = if is_whole { rest.len() } else { count.min(rest.len()) };
    let next = if take < rest.len() { rest[take - 1].0 } else { 0 };
    let pairs = rest[..take].iter();
    let pairs = pairs.flat_map(|(_, field, value)| [Reply::bulk(field), Reply::bulk(value)]);
    let next = Reply::Bulk(next.to_string().into_bytes());
    Ok(Reply::List(vec![next, Reply::List(pairs.collect())]))
}

/// Never zero, which is the cursor at the beginning and the end.
fn hash(field: &[u8]) -> u64 {
    let hash = field.iter().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (hash ^ (hash >> 29)).max(1)
}
