//! Decodes the bytes and headers of a record into what it asks for.
//!
//! Three forms are understood: method and payload in the body, the method in a header and the
//! payload as the body, and publication data mode, in which the body is the data of a publication
//! and headers name channels and options. Invariant: a record that is in no form is an error with a
//! reason, never a panic and never a guess.

use std::borrow::Cow;
use std::str;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::CHANNELS_MAX;
use crate::message::{Body, ConsumedPublication};

/// Methods that messages may name.
pub const METHODS: [&str; 7] =
    ["publish", "broadcast", "subscribe", "unsubscribe", "disconnect", "history_remove", "refresh"];

/// How the records of a consumer are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordForm {
    /// A method and its payload. If the header of this name is present, it names the method and the
    /// body is the payload; otherwise the body is an object with `method` and `payload`.
    Command {
        /// Name of the header; empty for none.
        method_header: String,
    },
    /// The body is the data of a publication, and headers name the rest.
    PublicationData(PublicationHeaders),
}

/// Names of the headers in publication data mode; an empty name is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationHeaders {
    /// Channels, separated by commas.
    pub channels: String,
    /// Idempotency key.
    pub idempotency_key: String,
    /// Delta flag.
    pub delta: String,
    /// Version.
    pub version: String,
    /// Epoch of the version.
    pub version_epoch: String,
    /// Prefix of headers that are tags.
    pub tags_prefix: String,
}

impl Default for PublicationHeaders {
    fn default() -> PublicationHeaders {
        PublicationHeaders {
            channels: "centrifugo-channels".to_owned(),
            idempotency_key: "centrifugo-idempotency-key".to_owned(),
            delta: "centrifugo-delta".to_owned(),
            version: "centrifugo-version".to_owned(),
            version_epoch: "centrifugo-version-epoch".to_owned(),
            tags_prefix: "centrifugo-tag-".to_owned(),
        }
    }
}

/// Why a record asks for nothing.
pub type Undecodable = Cow<'static, str>;

impl RecordForm {
    /// Decodes a record. `headers` are names with their values.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn decode<'h>(
        &self,
        body: Bytes,
        headers: &(impl Iterator<Item = (&'h str, &'h [u8])> + Clone),
    ) -> Result<Body, Undecodable> {
        match self {
            RecordForm::Command { method_header } => match text(headers, method_header)? {
                Some(method) => command(method, body),
                None => enveloped(&body),
            },
            RecordForm::PublicationData(names) => {
                publication(names, body, headers).map(Body::Publication)
            }
        }
    }
}

/// A method with its payload, as an outbox or a header gives them.
///
/// # Errors
/// If no message may name the method.
pub fn command(method: &str, payload: Bytes) -> Result<Body, Undecodable> {
    if !METHODS.contains(&method) {
        let shown: String = method.chars().take(40).flat_map(char::escape_debug).collect();
        let text = format!("unknown method \"{shown}\"; the methods are {}", METHODS.join(", "));
        return Err(text.into());
    }
    Ok(Body::Command { method: method.into(), payload })
}

/// A body with method and payload.
#[derive(Deserialize)]
struct Envelope<'b> {
    method: Option<Cow<'b, str>>,
    #[serde(borrow)]
    payload: Option<&'b RawValue>,
}

fn enveloped(body: &Bytes) -> Result<Body, Undecodable> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|error| {
        Cow::from(format!("the body is no JSON object with method and payload: {error}"))
    })?;
    let method = envelope.method.ok_or("the body names no method")?;
    let payload = envelope.payload.ok_or("the body has no payload")?;
    command(&method, body.slice_ref(payload.get().as_bytes()))
}

fn publication<'h>(
    names: &PublicationHeaders,
    data: Bytes,
    headers: &(impl Iterator<Item = (&'h str, &'h [u8])> + Clone),
) -> Result<ConsumedPublication, Undecodable> {
    let header = |name: &str| text(headers, name);
    let channels = header(&names.channels)?.unwrap_or_default();
    let channels: Vec<String> =
        channels.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if channels.is_empty() {
        return Err(format!("the header {} names no channel", names.channels).into());
    }
    if channels.len() > CHANNELS_MAX {
        return Err(format!("the header {} names too many channels", names.channels).into());
    }
    let version = match header(&names.version)? {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| wrong(&names.version, "a whole number"))?,
    };
    let delta = match header(&names.delta)? {
        None | Some("" | "false" | "FALSE" | "False" | "f" | "F" | "0") => false,
        Some("true" | "TRUE" | "True" | "t" | "T" | "1") => true,
        Some(_) => return Err(wrong(&names.delta, "true or false")),
    };
    let tags = headers.clone().filter_map(|(name, value)| {
        let tag = name.strip_prefix(names.tags_prefix.as_str());
        let tag = tag.filter(|_| !names.tags_prefix.is_empty())?;
        Some((tag.to_owned(), String::from_utf8_lossy(value).into_owned()))
    });
    Ok(ConsumedPublication {
        channels,
        data,
        tags: tags.collect(),
        idempotency_key: header(&names.idempotency_key)?.unwrap_or_default().to_owned(),
        delta,
        version,
        version_epoch: header(&names.version_epoch)?.unwrap_or_default().to_owned(),
    })
}

fn wrong(name: &str, wanted: &str) -> Undecodable {
    format!("the header {name} is not {wanted}").into()
}

/// The first header of this name.
fn text<'h>(
    headers: &(impl Iterator<Item = (&'h str, &'h [u8])> + Clone),
    name: &str,
) -> Result<Option<&'h str>, Undecodable> {
    if name.is_empty() {
        return Ok(None);
    }
    let Some((_, value)) = headers.clone().find(|(header, _)| *header == name) else {
        return Ok(None);
    };
    str::from_utf8(value).map(Some).map_err(|_| wrong(name, "UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(form: &RecordForm, body: &'static str, headers: &[(&str, &str)]) -> String {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        match form.decode(body.into(), &headers) {
            Ok(Body::Command { method, payload }) => {
                format!("{method} {}", str::from_utf8(&payload).unwrap())
            }
            Ok(Body::Publication(publication)) => format!("{publication:?}"),
            Err(reason) => format!("error: {reason}"),
        }
    }

    fn commands() -> RecordForm {
        RecordForm::Command { method_header: "centrifugo-method".to_owned() }
    }

    #[test]
    fn a_command_is_in_the_body_or_names_its_method_in_a_header() {
        let form = commands();
        let body = r#" {"method": "publish", "payload": {"channel": "a"}, "more": 1} "#;
        assert_eq!(decode(&form, body, &[]), r#"publish {"channel": "a"}"#);
        let headers = [("other", "x"), ("centrifugo-method", "broadcast")];
        assert_eq!(decode(&form, "{}", &headers), "broadcast {}");
        let no_header = RecordForm::Command { method_header: String::new() };
        assert!(decode(&no_header, "{}", &headers).contains("names no method"));
    }

    #[test]
    fn what_is_no_command_is_refused_with_a_reason() {
        let form = commands();
        let cases = [
            ("", "no JSON object"),
            ("[]", "no JSON object"),
            ("\"text\"", "no JSON object"),
            ("{}", "names no method"),
            (r#"{"method": null, "payload": {}}"#, "names no method"),
            (r#"{"method": 1, "payload": {}}"#, "no JSON object"),
            (r#"{"method": "publish"}"#, "no payload"),
            (r#"{"method": "info", "payload": {}}"#, "unknown method \"info\""),
            (r#"{"method": "publish", "payload": {}"#, "no JSON object"),
        ];
        for (body, reason) in cases {
            assert!(
                decode(&form, body, &[]).contains(reason),
                "{body}: {}",
                decode(&form, body, &[])
            );
        }
        let invalid: &[u8] = &[0xFF];
        let headers = [("centrifugo-method", invalid)];
        let error = form.decode(Bytes::new(), &headers.into_iter()).unwrap_err();
        assert_eq!(error, "the header centrifugo-method is not UTF-8");
    }

    #[test]
    fn a_publication_takes_channels_and_options_from_headers() {
        let form = RecordForm::PublicationData(PublicationHeaders::default());
        let headers = [
            ("centrifugo-channels", "a,b"),
            ("centrifugo-idempotency-key", "key"),
            ("centrifugo-delta", "true"),
            ("centrifugo-version", "7"),
            ("centrifugo-version-epoch", "e"),
            ("centrifugo-tag-kind", "order"),
        ]
        .map(|(name, value)| (name, value.as_bytes()));
        let body = form.decode("data".into(), &headers.into_iter()).unwrap();
        let expected = ConsumedPublication {
            channels: vec!["a".to_owned(), "b".to_owned()],
            data: "data".into(),
            tags: [("kind".to_owned(), "order".to_owned())].into(),
            idempotency_key: "key".to_owned(),
            delta: true,
            version: 7,
            version_epoch: "e".to_owned(),
        };
        assert_eq!(body, Body::Publication(expected));
    }

    #[test]
    fn a_publication_without_channels_or_with_wrong_options_is_refused() {
        let form = RecordForm::PublicationData(PublicationHeaders::default());
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[], "centrifugo-channels names no channel"),
            (&[("centrifugo-channels", ",")], "centrifugo-channels names no channel"),
            (&[("Centrifugo-Channels", "a")], "centrifugo-channels names no channel"),
            (
                &[("centrifugo-channels", "a"), ("centrifugo-version", "-1")],
                "centrifugo-version is not a whole number",
            ),
            (
                &[("centrifugo-channels", "a"), ("centrifugo-delta", "maybe")],
                "centrifugo-delta is not true or false",
            ),
        ];
        for (headers, reason) in cases {
            assert!(decode(&form, "data", headers).contains(reason), "{headers:?}");
        }
    }
}
