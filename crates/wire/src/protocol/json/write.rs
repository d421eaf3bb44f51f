//! Encoding JSON directly into the caller's buffer, because this is the hot path of every delivery.
//!
//! Zero and empty values are left out, except those that clients require.

use crate::protocol::{
    ClientInfo, Command, ConnectRequest, ConnectResult, ErrorReply, HistoryRequest, HistoryResult,
    Publication, Push, PushEvent, RefreshResult, Reply, ReplyBody, Request, StreamPosition,
    SubscribeRequest, SubscribeResult,
};

/// An object being written; inserts commas.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    fn begin(out: &'o mut Vec<u8>) -> Object<'o> {
        out.push(b'{');
        Object { out, is_empty: true }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn number(&mut self, key: &str, value: impl itoa::Integer) {
        let out = self.key(key);
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn number_if(&mut self, key: &str, value: impl itoa::Integer + Default + PartialEq + Copy) {
        if value != Default::default() {
            self.number(key, value);
        }
    }

    fn flag_if(&mut self, key: &str, value: bool) {
        if value {
            self.key(key).extend_from_slice(b"true");
        }
    }

    fn string(&mut self, key: &str, value: &str) {
        string(value, self.key(key));
    }

    fn string_if(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.string(key, value);
        }
    }

    /// Appends a payload that is JSON already, without newlines between its tokens.
    fn raw_if(&mut self, key: &str, value: &[u8]) {
        if !value.is_empty() {
            let out = self.key(key);
            if memchr::memchr2(b'\n', b'\r', value).is_none() {
                out.extend_from_slice(value);
            } else {
                out.extend(value.iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
            }
        }
    }

    fn object(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) {
        let mut object = Object::begin(self.key(key));
        write(&mut object);
        object.end();
    }

    fn array<T>(&mut self, key: &str, items: &[T], write: impl Fn(&T, &mut Object<'_>)) {
        let out = self.key(key);
        out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let mut object = Object::begin(out);
            write(item, &mut object);
            object.end();
        }
        out.push(b']');
    }

    fn strings_if(&mut self, key: &str, pairs: &[(String, String)]) {
        if !pairs.is_empty() {
            self.object(key, |object| {
                for (name, value) in pairs {
                    object.named(name, |out| string(value, out));
                }
            });
        }
    }

    /// Appends a member whose name is data and may need escapes.
    fn named(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        string(name, self.out);
        self.out.push(b':');
        write(self.out);
    }

    fn named_object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        self.named(name, |out| {
            let mut object = Object::begin(out);
            write(&mut object);
            object.end();
        });
    }
}

/// Appends a JSON string. `<`, `>`, `&` and the two line separators are escaped as by the
/// compatible server, so that the text can be embedded in a script.
fn string(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = value.as_bytes();
    let mut done = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let is_separator = *byte == 0xE2
            && bytes.get(index + 1) == Some(&0x80)
            && matches!(bytes.get(index + 2), Some(0xA8 | 0xA9));
        let (escape, width): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            b'<' => (b"\\u003c", 1),
            b'>' => (b"\\u003e", 1),
            b'&' => (b"\\u0026", 1),
            0xE2 if is_separator && bytes[index + 2] == 0xA8 => (b"\\u2028", 3),
            0xE2 if is_separator => (b"\\u2029", 3),
            0..0x20 => (b"", 1),
            _ => continue,
        };
        out.extend_from_slice(&bytes[done..index]);
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
        out.extend_from_slice(escape);
        done = index + width;
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

pub(super) fn reply(reply: &Reply, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.number_if("id", reply.id);
    match &reply.body {
        ReplyBody::Ping => {}
        ReplyBody::Error(error) => object.object("error", |object| error_reply(error, object)),
        ReplyBody::Push(body) => object.object("push", |object| push(body, object)),
        ReplyBody::Connect(result) => {
            object.object("connect", |object| connect_result(result, object));
        }
        ReplyBody::Subscribe(result) => {
            object.object("subscribe", |object| subscribe_result(result, object));
        }
        ReplyBody::Unsubscribe => object.object("unsubscribe", |_| {}),
        ReplyBody::Publish => object.object("publish", |_| {}),
        ReplyBody::Presence(clients) => object.object("presence", |object| {
            object.object("presence", |object| {
                for (client, info) in clients {
                    object.named_object(client, |object| client_info(info, object));
                }
            });
        }),
        ReplyBody::PresenceStats(stats) => object.object("presence_stats", |object| {
            object.number("num_clients", stats.num_clients);
            object.number("num_users", stats.num_users);
        }),
        ReplyBody::History(result) => {
            object.object("history", |object| history_result(result, object));
        }
        ReplyBody::Rpc { data } => object.object("rpc", |object| object.raw_if("data", data)),
        ReplyBody::Refresh(result) => {
            object.object("refresh", |object| refresh_result(result, object));
        }
        ReplyBody::SubRefresh { expires, ttl } => object.object("sub_refresh", |object| {
            object.flag_if("expires", *expires);
            object.number_if("ttl", *ttl);
        }),
    }
    object.end();
}

fn error_reply(error: &ErrorReply, object: &mut Object<'_>) {
    object.number_if("code", error.code);
    object.string_if("message", &error.message);
    object.flag_if("temporary", error.temporary);
}

fn push(push: &Push, object: &mut Object<'_>) {
    object.string_if("channel", &push.channel);
    match &push.event {
        PushEvent::Publication(item) => object.object("pub", |object| publication(item, object)),
        PushEvent::Join(info) => {
            object.object("join", |object| {
                object.object("info", |object| client_info(info, object));
            });
        }
        PushEvent::Leave(info) => {
            object.object("leave", |object| {
                object.object("info", |object| client_info(info, object));
            });
        }
        PushEvent::Unsubscribe { code, reason } => object.object("unsubscribe", |object| {
            object.number_if("code", *code);
            object.string_if("reason", reason);
        }),
        PushEvent::Message { data } => {
            object.object("message", |object| object.raw_if("data", data));
        }
        PushEvent::Subscribe { recoverable, positioned, position, data } => {
            object.object("subscribe", |object| {
                object.flag_if("recoverable", *recoverable);
                object.string_if("epoch", &position.epoch);
                object.number_if("offset", position.offset);
                object.flag_if("positioned", *positioned);
                object.raw_if("data", data);
            });
        }
        PushEvent::Disconnect { code, reason, reconnect } => {
            object.object("disconnect", |object| {
                object.number_if("code", *code);
                object.string_if("reason", reason);
                object.flag_if("reconnect", *reconnect);
            });
        }
        PushEvent::Refresh { expires, ttl } => object.object("refresh", |object| {
            object.flag_if("expires", *expires);
            object.number_if("ttl", *ttl);
        }),
        PushEvent::Unknown => {}
    }
}

fn publication(publication: &Publication, object: &mut Object<'_>) {
    object.raw_if("data", &publication.data);
    if let Some(info) = &publication.info {
        object.object("info", |object| client_info(info, object));
    }
    object.number_if("offset", publication.offset);
    object.strings_if("tags", &publication.tags);
    object.number_if("time", publication.time);
}

fn client_info(info: &ClientInfo, object: &mut Object<'_>) {
    object.string("user", &info.user);
    object.string("client", &info.client);
    object.raw_if("conn_info", &info.conn_info);
    object.raw_if("chan_info", &info.chan_info);
}

fn connect_result(result: &ConnectResult, object: &mut Object<'_>) {
    object.string_if("client", &result.client);
    object.string_if("version", &result.version);
    object.flag_if("expires", result.expires);
    object.number_if("ttl", result.ttl);
    object.raw_if("data", &result.data);
    if !result.subs.is_empty() {
        object.object("subs", |object| {
            for (channel, result) in &result.subs {
                object.named_object(channel, |object| subscribe_result(result, object));
            }
        });
    }
    object.number_if("ping", result.ping);
    object.flag_if("pong", result.pong);
    object.string_if("session", &result.session);
    object.string_if("node", &result.node);
    object.number_if("time", result.time);
}

fn subscribe_result(result: &SubscribeResult, object: &mut Object<'_>) {
    object.flag_if("expires", result.expires);
    object.number_if("ttl", result.ttl);
    object.flag_if("recoverable", result.recoverable);
    object.string_if("epoch", &result.epoch);
    if !result.publications.is_empty() {
        object.array("publications", &result.publications, |item, object| {
            publication(item, object);
        });
    }
    object.flag_if("recovered", result.recovered);
    object.number_if("offset", result.offset);
    object.flag_if("positioned", result.positioned);
    object.raw_if("data", &result.data);
    object.flag_if("was_recovering", result.was_recovering);
}

fn history_result(result: &HistoryResult, object: &mut Object<'_>) {
    object.array("publications", &result.publications, |item, object| {
        publication(item, object);
    });
    object.string("epoch", &result.epoch);
    object.number("offset", result.offset);
}

fn refresh_result(result: &RefreshResult, object: &mut Object<'_>) {
    object.string_if("client", &result.client);
    object.string_if("version", &result.version);
    object.flag_if("expires", result.expires);
    object.number_if("ttl", result.ttl);
}

pub(super) fn command(command: &Command, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.number_if("id", command.id);
    let channel_only = |object: &mut Object<'_>, key: &str, channel: &str| {
        object.object(key, |object| object.string_if("channel", channel));
    };
    match &command.request {
        Request::Connect(request) => {
            object.object("connect", |object| connect_request(request, object));
        }
        Request::Ping => object.object("ping", |_| {}),
        Request::Subscribe(request) => {
            object.object("subscribe", |object| subscribe_request(request, object));
        }
        Request::Unsubscribe { channel } => channel_only(&mut object, "unsubscribe", channel),
        Request::Publish(request) => object.object("publish", |object| {
            object.string_if("channel", &request.channel);
            object.raw_if("data", &request.data);
            object.number_if("type", request.kind);
        }),
        Request::Presence { channel } => channel_only(&mut object, "presence", channel),
        Request::PresenceStats { channel } => channel_only(&mut object, "presence_stats", channel),
        Request::History(request) => {
            object.object("history", |object| history_request(request, object));
        }
        Request::Rpc { method, data } => object.object("rpc", |object| {
            object.raw_if("data", data);
            object.string_if("method", method);
        }),
        Request::Send { data } => object.object("send", |object| object.raw_if("data", data)),
        Request::Refresh { token } => {
            object.object("refresh", |object| object.string_if("token", token));
        }
        Request::SubRefresh(request) => object.object("sub_refresh", |object| {
            object.string_if("channel", &request.channel);
            object.string_if("token", &request.token);
            object.number_if("type", request.kind);
        }),
        Request::Pong | Request::Missing => {}
    }
    object.end();
}

fn connect_request(request: &ConnectRequest, object: &mut Object<'_>) {
    object.string_if("token", &request.token);
    object.raw_if("data", &request.data);
    if !request.subs.is_empty() {
        object.object("subs", |object| {
            for (channel, request) in &request.subs {
                object.named_object(channel, |object| subscribe_request(request, object));
            }
        });
    }
    object.string_if("name", &request.name);
    object.string_if("version", &request.version);
    object.strings_if("headers", &request.headers);
    object.number_if("flag", request.flag);
}

fn subscribe_request(request: &SubscribeRequest, object: &mut Object<'_>) {
    object.string_if("channel", &request.channel);
    object.string_if("token", &request.token);
    object.flag_if("recover", request.recover);
    object.string_if("epoch", &request.epoch);
    object.number_if("offset", request.offset);
    object.raw_if("data", &request.data);
    object.flag_if("positioned", request.positioned);
    object.flag_if("recoverable", request.recoverable);
    object.flag_if("join_leave", request.join_leave);
    object.string_if("delta", &request.delta);
    if request.tags_filter {
        object.object("tf", |_| {});
    }
    object.number_if("flag", request.flag);
    object.number_if("type", request.kind);
}

fn history_request(request: &HistoryRequest, object: &mut Object<'_>) {
    object.string_if("channel", &request.channel);
    object.number_if("limit", request.limit);
    if let Some(StreamPosition { offset, epoch }) = &request.since {
        object.object("since", |object| {
            object.number_if("offset", *offset);
            object.string_if("epoch", epoch);
        });
    }
    object.flag_if("reverse", request.reverse);
}
