//! Strings of the model: SET with expiry and NX, GET.
//!
//! Invariant: SET replaces value and expiry, unless NX forbids it.

use super::reply::Reply;
use super::store::{Outcome, Store, Value, Words, integer, option, wrong_type};

impl Store {
    pub(super) fn text_command(&mut self, name: &str, words: Words<'_>) -> Outcome {
        let key = &words[0];
        if name == "GET" {
            return match self.value(key) {
                None => Ok(Reply::Null),
                Some(Value::Text(text)) => Ok(Reply::bulk(text)),
                Some(_) => wrong_type(),
            };
        }
        let options = &words[2..];
        let is_nx = options.iter().any(|word| word.eq_ignore_ascii_case(b"NX"));
        let ends = match option(options, "PX") {
            Some(ms) => match integer(ms)? {
                ms if ms > 0 => Some(self.now_ms().saturating_add(ms)),
                _ => return Err("ERR invalid expire time in 'set' command".to_owned()),
            },
            None => None,
        };
        if is_nx && self.value(key).is_some() {
            return Ok(Reply::Null);
        }
        self.set(key, Value::Text(words[1].clone()), ends);
        Ok(Reply::Status("OK"))
    }
}
