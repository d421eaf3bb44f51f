//! Turns the claims of a token whose signature holds into what the engine knows about it.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::claims::{ConnectionClaims, Overrides, SubscriptionClaims, SubscriptionGrant};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use wire::protocol::is_nested_too_deep;

use super::cause::Cause;
use super::limits::{ROLE_BYTES_MAX, ROLES_MAX};
use super::object::{Object, read_claims};
use super::registered::{NumericDate, Registered};

/// Reads a connection token (who connects is `user`).
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
    })
}

/// Reads a subscription token (who subscribes is `user`).
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
        expire_at: registered.lifetime_end(claims.expire_at),
        grant: grant.resolve()?,
        token_id: registered.token_id()?.to_owned(),
        issued_at: registered.issued_at(),
    })
}

/// Reads the one claim `name` as an identifier, empty when absent.
pub(super) fn identifier(payload: &[u8], name: &str) -> Result<String, Cause> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let found = NamedClaim::new(name).deserialize(&mut json).map_err(|_| Cause::Claims)?;
    json.end().map_err(|_| Cause::Claims)?;
    Ok(found.map(|Identifier(text)| text).unwrap_or_default())
}

/// Reads the roles in claim `name`. What is no text there is no role, and roles beyond what a
/// session keeps are left out: a role only ever allows something, and tokens of others may mean
/// something else by the claim.
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

/// A text, or the whole number that many databases have in its place.
pub(super) struct Identifier(pub(super) String);

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdentifierVisitor)
    }
}

struct IdentifierVisitor;

impl Visitor<'_> for IdentifierVisitor {
    type Value = Identifier;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a whole number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Identifier, E> {
        Ok(Identifier(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Identifier, E> {
        Ok(Identifier(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Identifier, E> {
        Ok(Identifier(number.to_string()))
    }

    /// Only where the number is exact: two users must not become one.
    fn visit_f64<E: Error>(self, number: f64) -> Result<Identifier, E> {
        if number.fract() != 0.0 || number.abs() > EXACT_INTEGER_MAX {
            return Err(E::custom("not a whole number that is exact"));
        }
        Ok(Identifier((number as i64).to_string()))
    }
}

/// Up to here every whole number has a floating-point number of its own.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

#[derive(Deserialize)]
struct Connection<'p> {
    expire_at: Option<NumericDate>,
    #[serde(borrow)]
    info: Option<&'p RawValue>,
    b64info: Option<String>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<Subs<'p>>,
    channel: Option<IgnoredAny>,
}

/// A subscription token has the claims of a [`Grant`] beside these.
#[derive(Deserialize)]
struct Subscription {
    channel: Option<String>,
    client: Option<String>,
    expire_at: Option<NumericDate>,
}

/// What a token grants for one channel.
#[derive(Deserialize)]
struct Grant<'p> {
    #[serde(borrow)]
    info: Option<&'p RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'p RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<Object<RawOverrides>>,
}

/// `null` is a grant without options, as `{}` is.
fn resolve(grant: Option<Object<Grant<'_>>>) -> Result<SubscriptionGrant, Cause> {
    grant.map_or_else(|| Ok(SubscriptionGrant::default()), |Object(grant)| grant.resolve())
}

impl Grant<'_> {
    fn resolve(self) -> Result<SubscriptionGrant, Cause> {
        Ok(SubscriptionGrant {
            info: content(self.info, self.b64info)?,
            data: content(self.data, self.b64data)?,
            overrides: self
                .overrides
                .map(|Object(overrides)| overrides.resolve())
                .unwrap_or_default(),
        })
    }
}

#[derive(Deserialize)]
struct RawOverrides {
    presence: Option<Object<Switch>>,
    join_leave: Option<Object<Switch>>,
    force_push_join_leave: Option<Object<Switch>>,
    force_recovery: Option<Object<Switch>>,
    force_positioning: Option<Object<Switch>>,
}

impl RawOverrides {
    fn resolve(self) -> Overrides {
        let on = |switch: Option<Object<Switch>>| {
            switch.map(|Object(Switch { value })| value.unwrap_or_default())
        };
        Overrides {
            presence: on(self.presence),
            join_leave: on(self.join_leave),
            force_push_join_leave: on(self.force_push_join_leave),
            force_recovery: on(self.force_recovery),
            force_positioning: on(self.force_positioning),
        }
    }
}

/// `{"value": true}`. Producers that leave out zero values write `{}` for off, others `{"value":
/// null}`.
#[derive(Deserialize)]
struct Switch {
    value: Option<bool>,
}

/// Claim `subs`: channels in the order of the token, none of them twice.
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
                return Err(A::Error::custom("a channel twice"));
            }
            subs.push((channel, grant));
        }
        Ok(Subs(subs))
    }
}

/// Claim `channels`, each once.
fn without_options(channels: Vec<String>) -> Vec<(String, SubscriptionGrant)> {
    let mut names = HashSet::new();
    channels
        .into_iter()
        .filter(|channel| names.insert(channel.clone()))
        .map(|channel| (channel, SubscriptionGrant::default()))
        .collect()
}

/// Bytes given as JSON or, for anything else, in base64, which wins.
fn content(json: Option<&RawValue>, base64: Option<String>) -> Result<Bytes, Cause> {
    let content = match base64.filter(|text| !text.is_empty()) {
        Some(text) => STANDARD.decode(text).map(Bytes::from).map_err(|_| Cause::Claims)?,
        None => json.map(|value| compact(value.get())).unwrap_or_default(),
    };
    if is_nested_too_deep(&content) { Err(Cause::Claims) } else { Ok(content) }
}

/// A JSON text without the white space between its tokens: a line break would end the reply that
/// carries it, as replies to JSON clients are separated by line breaks.
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

/// Looks for one claim by a name that is known only at run time.
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
                return Err(A::Error::custom("a claim twice"));
            }
        }
        Ok(found.flatten())
    }
}
