//! Replies of the model, and their encoding in RESP3.
//!
//! Invariant: a reply encodes as Redis encodes it, so the product's decoder reads it.

/// A reply or a push.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::redis::tests) enum Reply {
    Status(&'static str),
    Bulk(Vec<u8>),
    Integer(i64),
    Null,
    Error(String),
    List(Vec<Reply>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
}

impl Reply {
    pub(in crate::redis::tests) fn bulk(text: &[u8]) -> Reply {
        Reply::Bulk(text.to_vec())
    }

    pub(in crate::redis::tests) fn error(text: &str) -> Reply {
        Reply::Error(text.to_owned())
    }

    pub(in crate::redis::tests) fn of_flag(flag: bool) -> Reply {
        Reply::Integer(i64::from(flag))
    }

    /// A text, or null.
    pub(in crate::redis::tests) fn of_text(text: Option<&Vec<u8>>) -> Reply {
        text.map_or(Reply::Null, |text| Reply::bulk(text))
    }

    pub(in crate::redis::tests) fn encode(&self, out: &mut Vec<u8>) {
        let line = |out: &mut Vec<u8>, kind: char, text: &str| {
            out.extend_from_slice(format!("{kind}{text}\r\n").as_bytes());
        };
        match self {
            Reply::Status(text) => line(out, '+', text),
            Reply::Error(text) => line(out, '-', text),
            Reply::Integer(number) => line(out, ':', &number.to_string()),
            Reply::Null => line(out, '_', ""),
            Reply::Bulk(text) => {
                line(out, '$', &text.len().to_string());
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Reply::List(items) | Reply::Set(items) | Reply::Push(items) => {
                let kind = match self {
                    Reply::Set(_) => '~',
                    Reply::Push(_) => '>',
                    _ => '*',
                };
                line(out, kind, &items.len().to_string());
                items.iter().for_each(|item| item.encode(out));
            }
        }
    }
}
