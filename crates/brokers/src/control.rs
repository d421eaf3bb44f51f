//! Messages between nodes: orders of the server API, questions and answers, revocations, channel
//! options. Each text is preceded by its length, each variant by a byte.
//!
//! Invariant: encoding and decoding a message gives an equal message. Unknown input decodes to
//! `None`.

use bytes::{BufMut as _, Bytes};
use engine::broker::{Control, Order, Target, Ticket};
use engine::claims::{Overrides, SubscriptionGrant};
use engine::revocation::{Revocation, RevocationState, Subject};
use wire::protocol::{Disconnect, DisconnectCode, StreamPosition};

/// A message from one node to others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeMessage {
    /// To the nodes that have the sessions.
    Order(Control),
    /// To all nodes. The ticket names the node that asks.
    Question { ticket: Ticket, question: Bytes },
    /// To the node that asked, with the number of its question.
    Answer { node: String, number: u64, answer: Bytes },
    /// To all nodes. Brokers store it in the same form.
    Revocation(Revocation),
    /// To all nodes: read the leases of nodes again, because one has changed.
    Look,
    /// To all nodes: the channel options of one node.
    Options(NodeOptions),
}

/// The channel options of a node, in a message to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeOptions {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) text: String,
    /// Whether the receivers are to send theirs.
    pub(crate) asks: bool,
}

const ORDER: u8 = 0;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const REVOCATION: u8 = 3;
const LOOK: u8 = 4;
const OPTIONS: u8 = 5;

/// Encodes a question of a node.
pub(crate) fn encode_question(ticket: &Ticket, question: &[u8]) -> Vec<u8> {
    let mut out = vec![QUESTION];
    text(&mut out, &ticket.node);
    out.put_u64(ticket.number);
    bytes(&mut out, question);
    out
}

/// Encodes the message to read the leases of nodes again.
pub(crate) fn encode_look() -> Vec<u8> {
    vec![LOOK]
}

/// Encodes the channel options of a node.
pub(crate) fn encode_options(options: &NodeOptions) -> Vec<u8> {
    let mut out = vec![OPTIONS];
    text(&mut out, &options.node);
    text(&mut out, &options.name);
    text(&mut out, &options.text);
    out.put_u8(u8::from(options.asks));
    out
}

/// Encodes the answer of a node.
pub(crate) fn encode_answer(node: &str, number: u64, answer: &[u8]) -> Vec<u8> {
    let mut out = vec![ANSWER];
    text(&mut out, node);
    out.put_u64(number);
    bytes(&mut out, answer);
    out
}

/// Encodes a change of what is revoked. A Redis script reads the time of the change in its last
/// eight bytes.
pub(crate) fn encode_revocation(revocation: &Revocation) -> Vec<u8> {
    let Revocation { subject, state, ends_at, changed_at_ms } = revocation;
    let (kind, name) = match subject {
        Subject::User(user) => (0, &**user),
        Subject::Token(token) => (1, &**token),
        Subject::IssuedTo(user) => (2, &**user),
        Subject::IssuedToAll => (3, ""),
    };
    let mut out = vec![REVOCATION, kind];
    text(&mut out, name);
    let issued_before = match state {
        RevocationState::Revoked { issued_before } => Some(issued_before),
        RevocationState::Lifted => None,
    };
    option(&mut out, issued_before, |out, at| out.put_i64(*at));
    out.put_i64(*ends_at);
    out.put_i64(*changed_at_ms);
    out
}

/// Decodes a change that a broker stored.
pub(crate) fn decode_revocation(bytes: &[u8]) -> Option<Revocation> {
    let NodeMessage::Revocation(revocation) = decode(bytes)? else { return None };
    Some(revocation)
}

/// Returns the key under which changes of this subject are stored, so that a later change replaces
/// an earlier one.
pub(crate) fn subject_key(subject: &Subject) -> String {
    match subject {
        Subject::User(user) => format!("user:{user}"),
        Subject::Token(token) => format!("token:{token}"),
        Subject::IssuedTo(user) => format!("issued:{user}"),
        Subject::IssuedToAll => "issued".to_owned(),
    }
}

/// Encodes an order.
pub(crate) fn encode(control: &Control) -> Vec<u8> {
    let mut out = vec![ORDER];
    let Target { user, client, except, admitted_before } = &control.target;
    text(&mut out, user);
    text(&mut out, client);
    out.put_u32(except.len() as u32);
    except.iter().for_each(|client| text(&mut out, client));
    option(&mut out, admitted_before.as_ref(), |out, (at, client)| {
        out.put_i64(*at);
        text(out, client);
    });
    match &control.order {
        Order::Subscribe { channel, grant, recover_since } => {
            out.put_u8(0);
            text(&mut out, channel);
            option(&mut out, grant.expire_at.as_ref(), |out, at| out.put_i64(*at));
            bytes(&mut out, &grant.info);
            bytes(&mut out, &grant.data);
            for flag in flags(&grant.overrides) {
                out.put_u8(flag.map_or(2, u8::from));
            }
            option(&mut out, recover_since.as_ref(), |out, since| {
                out.put_u64(since.offset);
                text(out, &since.epoch);
            });
        }
        Order::Unsubscribe { channel } => {
            out.put_u8(1);
            text(&mut out, channel);
        }
        Order::Disconnect(disconnect) => {
            out.put_u8(2);
            out.put_u16(disconnect.number());
            text(&mut out, disconnect.reason());
        }
        Order::Refresh { info, expire_at, expired } => {
            out.put_u8(3);
            bytes(&mut out, info);
            option(&mut out, expire_at.as_ref(), |out, at| out.put_i64(*at));
            out.put_u8(u8::from(*expired));
        }
    }
    out
}

/// Decodes a message; `None` if it is not one.
pub(crate) fn decode(bytes: &[u8]) -> Option<NodeMessage> {
    let mut reader = Reader(bytes);
    let message = match reader.u8()? {
        ORDER => NodeMessage::Order(order(&mut reader)?),
        QUESTION => NodeMessage::Question {
            ticket: Ticket { node: reader.text()?, number: reader.u64()? },
            question: reader.bytes()?,
        },
        ANSWER => NodeMessage::Answer {
            node: reader.text()?,
            number: reader.u64()?,
            answer: reader.bytes()?,
        },
        REVOCATION => NodeMessage::Revocation(revocation(&mut reader)?),
        LOOK => NodeMessage::Look,
        OPTIONS => NodeMessage::Options(NodeOptions {
            node: reader.text()?,
            name: reader.text()?,
            text: reader.text()?,
            asks: reader.u8()? == 1,
        }),
        _ => return None,
    };
    reader.0.is_empty().then_some(message)
}

fn revocation(reader: &mut Reader<'_>) -> Option<Revocation> {
    let (kind, name) = (reader.u8()?, reader.text()?);
    let subject = match kind {
        0 => Subject::User(name.into()),
        1 => Subject::Token(name.into()),
        2 => Subject::IssuedTo(name.into()),
        3 => Subject::IssuedToAll,
        _ => return None,
    };
    let state = match reader.some_i64()? {
        Some(issued_before) => RevocationState::Revoked { issued_before },
        None => RevocationState::Lifted,
    };
    Some(Revocation { subject, state, ends_at: reader.i64()?, changed_at_ms: reader.i64()? })
}

fn order(reader: &mut Reader<'_>) -> Option<Control> {
    let target = Target {
        user: reader.text()?,
        client: reader.text()?,
        except: (0..reader.u32()?).map(|_| reader.text()).collect::<Option<_>>()?,
        admitted_before: match reader.u8()? {
            0 => None,
            _ => Some((reader.i64()?, reader.text()?)),
        },
    };
    let order = match reader.u8()? {
        0 => Order::Subscribe {
            channel: reader.text()?,
            grant: SubscriptionGrant {
                expire_at: reader.some_i64()?,
                info: reader.bytes()?,
                data: reader.bytes()?,
                overrides: Overrides {
                    presence: reader.some_bool()?,
                    join_leave: reader.some_bool()?,
                    force_push_join_leave: reader.some_bool()?,
                    force_recovery: reader.some_bool()?,
                    force_positioning: reader.some_bool()?,
                },
            },
            recover_since: match reader.u8()? {
                0 => None,
                _ => Some(StreamPosition { offset: reader.u64()?, epoch: reader.text()? }),
            },
        },
        1 => Order::Unsubscribe { channel: reader.text()? },
        2 => {
            let (code, reason) = (reader.u16()?, reader.text()?);
            let known = DisconnectCode::ALL.iter().find(|known| {
                let known = Disconnect::from(**known);
                known.number() == code && known.reason() == reason
            });
            Order::Disconnect(match known {
                Some(code) => (*code).into(),
                None => Disconnect::Custom { code, reason: reason.into() },
            })
        }
        3 => Order::Refresh {
            info: reader.bytes()?,
            expire_at: reader.some_i64()?,
            expired: reader.u8()? == 1,
        },
        _ => return None,
    };
    Some(Control { target, order })
}

fn flags(overrides: &Overrides) -> [Option<bool>; 5] {
    let Overrides {
        presence,
        join_leave,
        force_push_join_leave,
        force_recovery,
        force_positioning,
    } = *overrides;
    [presence, join_leave, force_push_join_leave, force_recovery, force_positioning]
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, text: &str) {
    bytes(out, text.as_bytes());
}

fn option<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        write(out, value);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn some_i64(&mut self) -> Option<Option<i64>> {
        match self.u8()? {
            0 => Some(None),
            _ => self.i64().map(Some),
        }
    }

    fn some_bool(&mut self) -> Option<Option<bool>> {
        self.u8().map(|byte| (byte < 2).then_some(byte == 1))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Bytes::copy_from_slice(taken))
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn controls() -> impl Strategy<Value = Control> {
        let flag = || prop::option::of(any::<bool>());
        let flags = (flag(), flag(), flag(), flag(), flag());
        let data = || prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
        let overrides = flags.prop_map(|(a, b, c, d, e)| Overrides {
            presence: a,
            join_leave: b,
            force_push_join_leave: c,
            force_recovery: d,
            force_positioning: e,
        });
        let since =
            (any::<u64>(), ".{0,9}").prop_map(|(offset, epoch)| StreamPosition { offset, epoch });
        let expire_at = || prop::option::of(any::<i64>());
        let grant = (expire_at(), data(), data(), overrides).prop_map(
            |(expire_at, info, data, overrides)| SubscriptionGrant {
                expire_at,
                info,
                data,
                overrides,
            },
        );
        let subscribe = (".{0,9}", grant, prop::option::of(since)).prop_map(
            |(channel, grant, recover_since)| Order::Subscribe { channel, grant, recover_since },
        );
        let order = prop_oneof![
            subscribe,
            ".{0,9}".prop_map(|channel| Order::Unsubscribe { channel }),
            (4000u16..5000, ".{0,9}").prop_map(|(code, reason)| {
                Order::Disconnect(Disconnect::Custom { code, reason: reason.into() })
            }),
            prop::sample::select(DisconnectCode::ALL)
                .prop_map(|code| Order::Disconnect(code.into())),
            (data(), expire_at(), any::<bool>())
                .prop_map(|(info, expire_at, expired)| Order::Refresh { info, expire_at, expired }),
        ];
        let names = prop::collection::vec(".{0,9}", 0..3);
        let target = (".{0,9}", ".{0,9}", names, prop::option::of((any::<i64>(), ".{0,9}")))
            .prop_map(|(user, client, except, admitted_before)| Target {
                user,
                client,
                except,
                admitted_before,
            });
        (target, order).prop_map(|(target, order)| Control { target, order })
    }

    proptest! {
        #[test]
        fn orders_round_trip(control in controls()) {
            let bytes = encode(&control);
            prop_assert_eq!(decode(&bytes), Some(NodeMessage::Order(control)));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn questions_and_answers_round_trip(node in ".{0,9}", number: u64, said in prop::collection::vec(any::<u8>(), 0..9)) {
            let (ticket, said) = (Ticket { node: node.clone(), number }, Bytes::from(said));
            let bytes = encode_question(&ticket, &said);
            let question = said.clone();
            prop_assert_eq!(decode(&bytes), Some(NodeMessage::Question { ticket, question }));
            let bytes = encode_answer(&node, number, &said);
            prop_assert_eq!(decode(&bytes), Some(NodeMessage::Answer { node, number, answer: said }));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn revocations_come_back(name in ".{0,9}", kind in 0..4, before: Option<i64>, ends_at: i64, changed_at_ms: i64) {
            let subject = match kind {
                0 => Subject::User(name.as_str().into()),
                1 => Subject::Token(name.as_str().into()),
                2 => Subject::IssuedTo(name.as_str().into()),
                _ => Subject::IssuedToAll,
            };
            let state = before.map_or(RevocationState::Lifted, |issued_before| RevocationState::Revoked { issued_before });
            let revocation = Revocation { subject, state, ends_at, changed_at_ms };
            let bytes = encode_revocation(&revocation);
            prop_assert_eq!(decode_revocation(&bytes), Some(revocation));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn options_round_trip(node in ".{0,9}", name in ".{0,9}", text in ".{0,9}", asks: bool) {
            let options = NodeOptions { node, name, text, asks };
            let bytes = encode_options(&options);
            prop_assert_eq!(decode(&bytes), Some(NodeMessage::Options(options)));
            prop_assert_eq!(decode(&encode_look()), Some(NodeMessage::Look));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _any = decode(&bytes);
        }
    }
}
