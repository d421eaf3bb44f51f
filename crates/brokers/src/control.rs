//! Orders of the server API on their way to all nodes, in JSON.
//!
//! Invariant: what is encoded decodes to the same; what is not understood is no order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::broker::{Control, Order, Target};
use engine::claims::{Overrides, SubscriptionGrant};
use serde_json::{Value, json};
use wire::protocol::{Disconnect, DisconnectCode, StreamPosition};

pub(crate) fn encode(control: &Control) -> Bytes {
    let Target { user, client, except, admitted_before } = &control.target;
    let order = match &control.order {
        Order::Subscribe { channel, expire_at, grant, recover_since } => {
            let Overrides {
                presence,
                join_leave,
                force_push_join_leave,
                force_recovery,
                force_positioning,
            } = grant.overrides;
            let overrides =
                [presence, join_leave, force_push_join_leave, force_recovery, force_positioning];
            json!({ "subscribe": {
                "channel": channel,
                "expire_at": expire_at,
                "info": STANDARD.encode(&grant.info),
                "data": STANDARD.encode(&grant.data),
                "overrides": overrides,
                "since": recover_since.as_ref().map(|since| json!([since.offset, since.epoch])),
            }})
        }
        Order::Unsubscribe { channel } => json!({ "unsubscribe": channel }),
        Order::Disconnect(disconnect) => {
            json!({ "disconnect": [disconnect.number(), disconnect.reason()] })
        }
        Order::Refresh { info, expire_at, expired } => {
            json!({ "refresh": [STANDARD.encode(info), expire_at, expired] })
        }
    };
    let target = json!({
        "user": user, "client": client, "except": except, "admitted_before": admitted_before,
    });
    json!({ "target": target, "order": order }).to_string().into()
}

pub(crate) fn decode(message: &[u8]) -> Option<Control> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let target = &message["target"];
    let except = target["except"].as_array()?.iter().map(text).collect::<Option<_>>()?;
    let admitted_before = match &target["admitted_before"] {
        Value::Null => None,
        pair => Some((pair[0].as_i64()?, text(&pair[1])?)),
    };
    let (user, client) = (text(&target["user"])?, text(&target["client"])?);
    let target = Target { user, client, except, admitted_before };
    let (name, what) = message["order"].as_object()?.iter().next()?;
    let order = match name.as_str() {
        "subscribe" => subscribe(what)?,
        "unsubscribe" => Order::Unsubscribe { channel: text(what)? },
        "disconnect" => {
            Order::Disconnect(disconnect(u16::try_from(what[0].as_u64()?).ok()?, text(&what[1])?))
        }
        "refresh" => Order::Refresh {
            info: bytes(&what[0])?,
            expire_at: what[1].as_i64(),
            expired: what[2].as_bool()?,
        },
        _ => return None,
    };
    Some(Control { target, order })
}

fn subscribe(what: &Value) -> Option<Order> {
    let choice = |index: usize| what["overrides"][index].as_bool();
    let overrides = Overrides {
        presence: choice(0),
        join_leave: choice(1),
        force_push_join_leave: choice(2),
        force_recovery: choice(3),
        force_positioning: choice(4),
    };
    let grant =
        SubscriptionGrant { info: bytes(&what["info"])?, data: bytes(&what["data"])?, overrides };
    let recover_since = match &what["since"] {
        Value::Null => None,
        since => Some(StreamPosition { offset: since[0].as_u64()?, epoch: text(&since[1])? }),
    };
    let (channel, expire_at) = (text(&what["channel"])?, what["expire_at"].as_i64());
    Some(Order::Subscribe { channel, expire_at, grant, recover_since })
}

/// One of the table when it is the table's, whole.
fn disconnect(number: u16, reason: String) -> Disconnect {
    let mut all = DisconnectCode::ALL.iter().copied();
    let known = all.find(|code| code.number() == number && code.reason() == reason);
    known.map_or_else(
        || Disconnect::Custom { code: number, reason: reason.into() },
        Disconnect::Code,
    )
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn bytes(value: &Value) -> Option<Bytes> {
    STANDARD.decode(value.as_str()?).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_back() {
        let target = Target {
            user: "ann".into(),
            client: "c".into(),
            except: vec!["d".into()],
            admitted_before: Some((7, "e".into())),
        };
        let grant = SubscriptionGrant {
            info: Bytes::from_static(b"{}"),
            data: Bytes::from_static(&[0, 255]),
            overrides: Overrides { presence: Some(false), ..Overrides::default() },
        };
        let since = StreamPosition { offset: u64::MAX, epoch: "x".into() };
        for order in [
            Order::Subscribe {
                channel: "a".into(),
                expire_at: Some(9),
                grant,
                recover_since: Some(since),
            },
            Order::Unsubscribe { channel: String::new() },
            Order::Disconnect(wire::protocol::DisconnectCode::ForceDisconnect.into()),
            Order::Refresh { info: Bytes::new(), expire_at: None, expired: true },
        ] {
            let control = Control { target: target.clone(), order };
            assert_eq!(decode(&encode(&control)), Some(control));
        }
        assert_eq!(decode(b"{}"), None);
    }
}
