//! Sets and sorted sets of the model.
//!
//! Invariant: a sorted set is ordered by score, then by member.

use std::collections::{BTreeMap, BTreeSet};

use super::reply::Reply;
use super::store::{Outcome, Store, Value, Words, integer, wrong_type};

const NOT_FLOAT: &str = "ERR value is not a valid float";
const NOT_BOUND: &str = "ERR min or max is not a float";

impl Store {
    pub(super) fn set_command(&mut self, name: &str, words: Words<'_>) -> Outcome {
        if name == "SMEMBERS" {
            return match self.value(&words[0]) {
                None => Ok(Reply::Set(Vec::new())),
                Some(Value::Set(members)) => {
                    Ok(Reply::Set(members.iter().map(|member| Reply::bulk(member)).collect()))
                }
                Some(_) => wrong_type(),
            };
        }
        self.change(
            &words[0],
            || Value::Set(BTreeSet::new()),
            |value| {
                let Value::Set(members) = value else { return wrong_type() };
                let changed = words[1..].iter().filter(|member| match name {
                    "SADD" => members.insert((*member).clone()),
                    _ => members.remove(*member),
                });
                Ok(Reply::Integer(changed.count().try_into().unwrap_or(0)))
            },
        )
    }

    pub(super) fn sorted_command(&mut self, name: &str, words: Words<'_>) -> Outcome {
        if let "ZADD" | "ZREM" = name {
            return self.change(
                &words[0],
                || Value::Sorted(BTreeMap::new()),
                |value| {
                    let Value::Sorted(members) = value else { return wrong_type() };
                    change(name, members, &words[1..])
                },
            );
        }
        let none = BTreeMap::new();
        let members = match self.value(&words[0]) {
            None => &none,
            Some(Value::Sorted(members)) => members,
            Some(_) => return wrong_type(),
        };
        match name {
            "ZCARD" => Ok(Reply::Integer(members.len().try_into().unwrap_or(0))),
            "ZSCORE" => Ok(members
                .get(&words[1])
                .map_or(Reply::Null, |score| Reply::Bulk(show(*score).into_bytes()))),
            "ZRANGE" => range(members, &words[1..]),
            "ZRANGEBYSCORE" => range_by_score(members, &words[1..]),
            _ => panic!("the model does not know the command {name}"),
        }
    }
}

fn change(name: &str, members: &mut BTreeMap<Vec<u8>, f64>, words: Words<'_>) -> Outcome {
    let changed = match name {
        "ZADD" => {
            let pairs = words.chunks_exact(2);
            let scores: Vec<(f64, &Vec<u8>)> = pairs
                .map(|pair| Ok((float(&pair[0]).ok_or_else(|| NOT_FLOAT.to_owned())?, &pair[1])))
                .collect::<Result<_, String>>()?;
            let added = scores
                .into_iter()
                .filter(|(score, one)| members.insert((*one).clone(), *score).is_none());
            added.count()
        }
        _ => words.iter().filter(|member| members.remove(*member).is_some()).count(),
    };
    Ok(Reply::Integer(changed.try_into().unwrap_or(0)))
}

fn in_order(members: &BTreeMap<Vec<u8>, f64>) -> Vec<(f64, &Vec<u8>)> {
    let mut all: Vec<(f64, &Vec<u8>)> = members.iter().map(|(one, score)| (*score, one)).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(other.1)));
    all
}

fn range(members: &BTreeMap<Vec<u8>, f64>, words: Words<'_>) -> Outcome {
    let all = in_order(members);
    let size = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let index = |word: &[u8]| integer(word).map(|at| if at < 0 { at + size } else { at });
    let (first, last) = (index(&words[0])?.max(0), index(&words[1])?.min(size - 1));
    let with_scores = words[2..].iter().any(|word| word.eq_ignore_ascii_case(b"WITHSCORES"));
    let picked = (first..=last).filter_map(|at| all.get(usize::try_from(at).ok()?));
    Ok(Reply::List(
        picked
            .flat_map(|(score, one)| {
                let score = with_scores.then(|| Reply::Bulk(show(*score).into_bytes()));
                [Some(Reply::bulk(one)), score].into_iter().flatten()
            })
            .collect(),
    ))
}

fn range_by_score(members: &BTreeMap<Vec<u8>, f64>, words: Words<'_>) -> Outcome {
    let bound = |word: &[u8]| {
        let (is_open, text) = match word.strip_prefix(b"(") {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        float(text).map(|score| (score, is_open)).ok_or_else(|| NOT_BOUND.to_owned())
    };
    let ((min, above), (max, below)) = (bound(&words[0])?, bound(&words[1])?);
    let limit = words[2..].iter().position(|word| word.eq_ignore_ascii_case(b"LIMIT"));
    let (skip, take) = match limit {
        Some(at) => (integer(&words[at + 3])?, integer(&words[at + 4])?),
        None => (0, -1),
    };
    let take = usize::try_from(take).unwrap_or(usize::MAX);
    let within = |score: f64| {
        (if above { score > min } else { score >= min })
            && (if below { score < max } else { score <= max })
    };
    let found = in_order(members).into_iter().filter(|(score, _)| within(*score));
    let found = found.skip(usize::try_from(skip).unwrap_or(0)).take(take);
    Ok(Reply::List(found.map(|(_, one)| Reply::bulk(one)).collect()))
}

fn float(word: &[u8]) -> Option<f64> {
    match word {
        b"-inf" => Some(f64::NEG_INFINITY),
        b"+inf" | b"inf" => Some(f64::INFINITY),
        word => std::str::from_utf8(word).ok()?.parse().ok().filter(|it: &f64| !it.is_nan()),
    }
}

fn show(score: f64) -> String {
    match score {
        f64::INFINITY => "inf".to_owned(),
        f64::NEG_INFINITY => "-inf".to_owned(),
        score => score.to_string(),
    }
}
