//! Converts the claims of a verified token to the claims of the engine.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::claims::{ConnectionClaims, SubscriptionClaims, SubscriptionGrant};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use wire::protocol::is_nested_too_deep;

use super::cause::Cause;
use super::limits::{ROLE_BYTES_MAX, ROLES_MAX};
use super::payload::read_claims;
use super::registered::Registered;
use crate::json::{Identifier, NumericDate, Object, OverridesJson};

/// Reads the claims of a connection token of `user`.
pub(super) fn connection(
    payload: &[u8],
    registered: &Registered,
    user: String,
) -> Result<ConnectionClaims, Cause> {
    let claims: Connection<'_> = read_claims(payload)?;
    if claims.channel.is_some() {
        return Err(Cause::ForSubscription);
    }
    let subscriptions = match claims.subs {
        Some(Subs(subs)) if !subs.is_empty() => subs
            .into_iter()
            .map(|(channel, grant)| Ok((channel, resolve(grant)?)))
            .collect::<Result<_, Cause>>()?,
        Some(_) | None => without_options(claims.channels.unwrap_or_default()),
    };
    Ok(ConnectionClaims {
        user,
        expire_at: registered.lifetime_end(claims.expire_at),
        info: content(claims.info, claims.b64info)?,
        subscriptions,
        roles: Vec::new(),
        token_id: registered.token_id()?.to_owned(),
        issued_at: registered.issued_at(),
        data: Bytes::new(),
        meta: content(claims.meta, None)?,
    })
}

/// Reads the claims of a subscription token of `user`.
pub(super) fn subscription(
    payload: &[u8],
    registered: &Registered,
    user: String,
) -> Result<SubscriptionClaims, Cause> {
    let claims: Subscription = read_claims(payload)?;
    let channel = claims.channel.filter(|channel| !channel.is_empty()).ok_or(Cause::NoChannel)?;
    let grant: Grant<'_> = read_claims(payload)?;
    Ok(SubscriptionClaims {
        user,
        channel,
        client: claims.client.unwrap_or_default(),
        grant: SubscriptionGrant {
            expire_at: registered.lifetime_end(claims.expire_at),
            ..grant.resolve()?
        },
        token_id: registered.token_id()?.to_owned(),
        issued_at: registered.issued_at(),
    })
}

/// Reads claim `name` as an identifier; empty if absent.
pub(super) fn identifier(payload: &[u8], name: &str) -> Result<String, Cause> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let found = NamedClaim::new(name).deserialize(&mut json).map_err(|_| Cause::Claims)?;
    json.end().map_err(|_| Cause::Claims)?;
    Ok(found.map(|Identifier(text)| text).unwrap_or_default())
}

/// Reads the roles in claim `name`. Values that are not texts, and roles beyond the limits of a
/// session, are ignored: roles only add permissions, and an identity provider may use the claim for
/// something else.
pub(super) fn roles(payload: &[u8], name: &str) -> Result<Vec<String>, Cause> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let found: Option<Value> =
        NamedClaim::new(name).deserialize(&mut json).map_err(|_| Cause::Claims)?;
    json.end().map_err(|_| Cause::Claims)?;
    let values = match found {
        Some(Value::String(role)) => vec![Value::String(role)],
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    };
    let mut bytes = 0;
    let texts = values.into_iter().filter_map(|value| match value {
        Value::String(role) => Some(role),
        _ => None,
    });
    let fits = |role: &String| {
        bytes += role.len();
        bytes <= ROLE_BYTES_MAX
    };
    Ok(texts.take(ROLES_MAX).take_while(fits).collect())
}

#[derive(Deserialize)]
struct Connection<'p> {
    expire_at: Option<NumericDate>,
    #[serde(borrow)]
    info: Option<&'p RawValue>,
    b64info: Option<String>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<Subs<'p>>,
    #[serde(borrow)]
    meta: Option<&'p RawValue>,
    channel: Option<IgnoredAny>,
}

/// The claims of a subscription token besides those of its [`Grant`].
#[derive(Deserialize)]
struct Subscription {
    channel: Option<String>,
    client: Option<String>,
    expire_at: Option<NumericDate>,
}

/// The grant of a token for one channel.
#[derive(Deserialize)]
struct Grant<'p> {
    #[serde(borrow)]
    info: Option<&'p RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'p RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<Object<OverridesJson>>,
}

/// Resolves a grant; `null` is a grant without options, like `{}`.
fn resolve(grant: Option<Object<Grant<'_>>>) -> Result<SubscriptionGrant, Cause> {
    grant.map_or_else(|| Ok(SubscriptionGrant::default()), |Object(grant)| grant.resolve())
}

impl Grant<'_> {
    fn resolve(self) -> Result<SubscriptionGrant, Cause> {
        Ok(SubscriptionGrant {
            info: content(self.info, self.b64info)?,
            data: content(self.data, self.b64data)?,
            overrides: self.overrides.map(|Object(overrides)| overrides.into()).unwrap_or_default(),
            expire_at: None,
        })
    }
}

/// Claim `subs`: unique channels in the order of the token.
struct Subs<'p>(Vec<(String, Option<Object<Grant<'p>>>)>);

impl<'de: 'p, 'p> Deserialize<'de> for Subs<'p> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SubsVisitor)
    }
}

struct SubsVisitor;

impl<'de> Visitor<'de> for SubsVisitor {
    type Value = Subs<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of channels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Subs<'de>, A::Error> {
        let mut names = HashSet::new();
        let mut subs = Vec::new();
        while let Some((channel, grant)) = map.next_entry::<String, _>()? {
            if !names.insert(channel.clone()) {
                return Err(A::Error::custom("duplicate channel"));
            }
            subs.push((channel, grant));
        }
        Ok(Subs(subs))
    }
}

/// Converts claim `channels` to grants without options, and removes duplicates.
fn without_options(channels: Vec<String>) -> Vec<(String, SubscriptionGrant)> {
    let mut names = HashSet::new();
    channels
        .into_iter()
        .filter(|channel| names.insert(channel.clone()))
        .map(|channel| (channel, SubscriptionGrant::default()))
        .collect()
}

/// Returns data that is given as JSON or in base64; base64 takes precedence.
fn content(json: Option<&RawValue>, base64: Option<String>) -> Result<Bytes, Cause> {
    let content = match base64.filter(|text| !text.is_empty()) {
        Some(text) => STANDARD.decode(text).map(Bytes::from).map_err(|_| Cause::Claims)?,
        None => json.map(|value| compact(value.get())).unwrap_or_default(),
    };
    if is_nested_too_deep(&content) { Err(Cause::Claims) } else { Ok(content) }
}

/// Removes white space between JSON tokens. Replies to JSON clients are separated by line breaks,
/// so that a line break inside would split a reply.
fn compact(json: &str) -> Bytes {
    let mut in_text = false;
    let mut escaped = false;
    json.bytes()
        .filter(|byte| {
            if in_text {
                in_text = escaped || *byte != b'"';
                escaped = !escaped && *byte == b'\\';
                return true;
            }
            in_text = *byte == b'"';
            !byte.is_ascii_whitespace()
        })
        .collect()
}

/// Reads one claim whose name is known only at run time.
struct NamedClaim<'n, T> {
    name: &'n str,
    value: PhantomData<T>,
}

impl<'n, T> NamedClaim<'n, T> {
    fn new(name: &'n str) -> NamedClaim<'n, T> {
        NamedClaim { name, value: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for NamedClaim<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedClaim<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found: Option<Option<T>> = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != self.name {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("duplicate claim"));
            }
        }
        Ok(found.flatten())
    }
}
