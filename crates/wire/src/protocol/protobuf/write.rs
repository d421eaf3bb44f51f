//! Encoding Protobuf with the field numbers of `wire/proto/client.proto`.

use super::field::{bytes, flag, message, number, signed};
use crate::protocol::{
    ClientInfo, Command, ConnectRequest, ConnectResult, Publication, Push, PushEvent, Reply,
    ReplyBody, Request, StreamPosition, SubscribeRequest, SubscribeResult,
};

pub(super) fn reply(reply: &Reply, out: &mut Vec<u8>) {
    number(out, 1, u64::from(reply.id));
    match &reply.body {
        ReplyBody::Ping => {}
        ReplyBody::Error(error) => message(out, 2, |out| {
            number(out, 1, u64::from(error.code));
            bytes(out, 2, error.message.as_bytes());
            flag(out, 3, error.temporary);
        }),
        ReplyBody::Push(body) => message(out, 4, |out| push(body, out)),
        ReplyBody::Connect(result) => message(out, 5, |out| connect_result(result, out)),
        ReplyBody::Subscribe(result) => message(out, 6, |out| subscribe_result(result, out)),
        ReplyBody::Unsubscribe => message(out, 7, |_| {}),
        ReplyBody::Publish => message(out, 8, |_| {}),
        ReplyBody::Presence(clients) => message(out, 9, |out| {
            for (client, info) in clients {
                message(out, 1, |out| {
                    bytes(out, 1, client.as_bytes());
                    message(out, 2, |out| client_info(info, out));
                });
            }
        }),
        ReplyBody::PresenceStats(stats) => message(out, 10, |out| {
            number(out, 1, u64::from(stats.num_clients));
            number(out, 2, u64::from(stats.num_users));
        }),
        ReplyBody::History(result) => message(out, 11, |out| {
            for item in &result.publications {
                message(out, 1, |out| publication(item, out));
            }
            bytes(out, 2, result.epoch.as_bytes());
            number(out, 3, result.offset);
        }),
        ReplyBody::Rpc { data } => message(out, 13, |out| bytes(out, 1, data)),
        ReplyBody::Refresh(result) => message(out, 14, |out| {
            bytes(out, 1, result.client.as_bytes());
            bytes(out, 2, result.version.as_bytes());
            lifetime(out, 3, result.expires, result.ttl);
        }),
        ReplyBody::SubRefresh { expires, ttl } => {
            message(out, 15, |out| lifetime(out, 1, *expires, *ttl));
        }
    }
}

/// `expires` and `ttl` always have neighbouring numbers.
fn lifetime(out: &mut Vec<u8>, first_field: u32, expires: bool, ttl: u32) {
    flag(out, first_field, expires);
    number(out, first_field + 1, u64::from(ttl));
}

fn push(push: &Push, out: &mut Vec<u8>) {
    bytes(out, 2, push.channel.as_bytes());
    match &push.event {
        PushEvent::Publication(item) => message(out, 4, |out| publication(item, out)),
        PushEvent::Join(info) => {
            message(out, 5, |out| message(out, 1, |out| client_info(info, out)));
        }
        PushEvent::Leave(info) => {
            message(out, 6, |out| message(out, 1, |out| client_info(info, out)));
        }
        PushEvent::Unsubscribe { code, reason } => message(out, 7, |out| {
            number(out, 2, u64::from(*code));
            bytes(out, 3, reason.as_bytes());
        }),
        PushEvent::Message { data } => message(out, 8, |out| bytes(out, 1, data)),
        PushEvent::Subscribe { recoverable, positioned, position, data } => {
            message(out, 9, |out| {
                flag(out, 1, *recoverable);
                bytes(out, 4, position.epoch.as_bytes());
                number(out, 5, position.offset);
                flag(out, 6, *positioned);
                bytes(out, 7, data);
            });
        }
        PushEvent::Disconnect { code, reason, reconnect } => message(out, 11, |out| {
            number(out, 1, u64::from(*code));
            bytes(out, 2, reason.as_bytes());
            flag(out, 3, *reconnect);
        }),
        PushEvent::Refresh { expires, ttl } => {
            message(out, 12, |out| lifetime(out, 1, *expires, *ttl));
        }
        PushEvent::Unknown => {}
    }
}

pub(super) fn publication(publication: &Publication, out: &mut Vec<u8>) {
    bytes(out, 4, &publication.data);
    if let Some(info) = &publication.info {
        message(out, 5, |out| client_info(info, out));
    }
    number(out, 6, publication.offset);
    pairs(out, 7, &publication.tags);
    signed(out, 9, publication.time);
}

fn pairs(out: &mut Vec<u8>, field: u32, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        message(out, field, |out| {
            bytes(out, 1, key.as_bytes());
            bytes(out, 2, value.as_bytes());
        });
    }
}

pub(super) fn client_info(info: &ClientInfo, out: &mut Vec<u8>) {
    bytes(out, 1, info.user.as_bytes());
    bytes(out, 2, info.client.as_bytes());
    bytes(out, 3, &info.conn_info);
    bytes(out, 4, &info.chan_info);
}

fn connect_result(result: &ConnectResult, out: &mut Vec<u8>) {
    bytes(out, 1, result.client.as_bytes());
    bytes(out, 2, result.version.as_bytes());
    lifetime(out, 3, result.expires, result.ttl);
    bytes(out, 5, &result.data);
    for (channel, result) in &result.subs {
        message(out, 6, |out| {
            bytes(out, 1, channel.as_bytes());
            message(out, 2, |out| subscribe_result(result, out));
        });
    }
    number(out, 7, u64::from(result.ping));
    flag(out, 8, result.pong);
    bytes(out, 9, result.session.as_bytes());
    bytes(out, 10, result.node.as_bytes());
    signed(out, 11, result.time);
}

fn subscribe_result(result: &SubscribeResult, out: &mut Vec<u8>) {
    lifetime(out, 1, result.expires, result.ttl);
    flag(out, 3, result.recoverable);
    bytes(out, 6, result.epoch.as_bytes());
    for item in &result.publications {
        message(out, 7, |out| publication(item, out));
    }
    flag(out, 8, result.recovered);
    number(out, 9, result.offset);
    flag(out, 10, result.positioned);
    bytes(out, 11, &result.data);
    flag(out, 12, result.was_recovering);
}

pub(super) fn command(command: &Command, out: &mut Vec<u8>) {
    number(out, 1, u64::from(command.id));
    let channel_only = |out: &mut Vec<u8>, field: u32, channel: &str| {
        message(out, field, |out| bytes(out, 1, channel.as_bytes()));
    };
    match &command.request {
        Request::Connect(request) => message(out, 4, |out| connect_request(request, out)),
        Request::Subscribe(request) => message(out, 5, |out| subscribe_request(request, out)),
        Request::Unsubscribe { channel } => channel_only(out, 6, channel),
        Request::Publish(request) => message(out, 7, |out| {
            bytes(out, 1, request.channel.as_bytes());
            bytes(out, 2, &request.data);
            signed(out, 3, i64::from(request.kind));
        }),
        Request::Presence { channel } => channel_only(out, 8, channel),
        Request::PresenceStats { channel } => channel_only(out, 9, channel),
        Request::History(request) => message(out, 10, |out| {
            bytes(out, 1, request.channel.as_bytes());
            signed(out, 7, i64::from(request.limit));
            if let Some(StreamPosition { offset, epoch }) = &request.since {
                message(out, 8, |out| {
                    number(out, 1, *offset);
                    bytes(out, 2, epoch.as_bytes());
                });
            }
            flag(out, 9, request.reverse);
        }),
        Request::Ping => message(out, 11, |_| {}),
        Request::Send { data } => message(out, 12, |out| bytes(out, 1, data)),
        Request::Rpc { method, data } => message(out, 13, |out| {
            bytes(out, 1, data);
            bytes(out, 2, method.as_bytes());
        }),
        Request::Refresh { token } => message(out, 14, |out| bytes(out, 1, token.as_bytes())),
        Request::SubRefresh(request) => message(out, 15, |out| {
            bytes(out, 1, request.channel.as_bytes());
            bytes(out, 2, request.token.as_bytes());
            signed(out, 3, i64::from(request.kind));
        }),
        Request::Pong | Request::Missing => {}
    }
}

fn connect_request(request: &ConnectRequest, out: &mut Vec<u8>) {
    bytes(out, 1, request.token.as_bytes());
    bytes(out, 2, &request.data);
    for (channel, request) in &request.subs {
        message(out, 3, |out| {
            bytes(out, 1, channel.as_bytes());
            message(out, 2, |out| subscribe_request(request, out));
        });
    }
    bytes(out, 4, request.name.as_bytes());
    bytes(out, 5, request.version.as_bytes());
    pairs(out, 6, &request.headers);
    signed(out, 7, request.flag);
}

fn subscribe_request(request: &SubscribeRequest, out: &mut Vec<u8>) {
    bytes(out, 1, request.channel.as_bytes());
    bytes(out, 2, request.token.as_bytes());
    flag(out, 3, request.recover);
    bytes(out, 6, request.epoch.as_bytes());
    number(out, 7, request.offset);
    bytes(out, 8, &request.data);
    flag(out, 9, request.positioned);
    flag(out, 10, request.recoverable);
    flag(out, 11, request.join_leave);
    bytes(out, 12, request.delta.as_bytes());
    if request.tags_filter {
        message(out, 13, |_| {});
    }
    signed(out, 14, request.flag);
    signed(out, 15, i64::from(request.kind));
}
