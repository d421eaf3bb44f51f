//! Decoding Protobuf with the field numbers of `wire/proto/client.proto`. Unknown fields are
//! skipped.

use std::sync::Arc;

use super::field::{Reader, Value};
use crate::protocol::{
    ClientInfo, Command, ConnectRequest, ConnectResult, DecodeError, ErrorReply, HistoryRequest,
    HistoryResult, PresenceStats, Publication, PublishRequest, Push, PushEvent, RefreshResult,
    Reply, ReplyBody, Request, StreamPosition, SubRefreshRequest, SubscribeRequest,
    SubscribeResult,
};

type Read<T> = Result<T, DecodeError>;

/// Decodes all fields of a message into a value that starts as its default.
fn fields<T: Default>(
    mut reader: Reader<'_>,
    mut set: impl FnMut(&mut T, u32, Value<'_>) -> Read<()>,
) -> Read<T> {
    let mut value = T::default();
    while let Some((number, field)) = reader.next()? {
        set(&mut value, number, field)?;
    }
    Ok(value)
}

/// Field numbers of the requests of a command, in the order of precedence if a peer sets
/// several.
const REQUEST_ORDER: [u32; 12] = [4, 11, 5, 6, 7, 8, 9, 10, 13, 12, 14, 15];

pub(super) fn command(mut reader: Reader<'_>) -> Read<Command> {
    let mut id = 0;
    let mut request: Option<(usize, Request)> = None;
    let mut send = None;
    while let Some((number, field)) = reader.next()? {
        if number == 1 {
            id = field.u32()?;
            continue;
        }
        let Some(rank) = REQUEST_ORDER.iter().position(|field| *field == number) else {
            continue;
        };
        let read = one_request(number, field.message()?)?;
        if let Request::Send { data } = &read {
            send = Some(data.clone());
        }
        if request.as_ref().is_none_or(|(best, _)| rank <= *best) {
            request = Some((rank, read));
        }
    }
    let request = match (id, send) {
        (0, Some(data)) => Request::Send { data },
        (0, None) => Request::Pong,
        _ => request.map_or(Request::Missing, |(_, request)| request),
    };
    Ok(Command { id, request })
}

fn one_request(number: u32, reader: Reader<'_>) -> Read<Request> {
    Ok(match number {
        4 => Request::Connect(Box::new(connect_request(reader)?)),
        5 => Request::Subscribe(Box::new(subscribe_request(reader)?)),
        6 => Request::Unsubscribe { channel: channel(reader)? },
        7 => Request::Publish(fields(reader, |request: &mut PublishRequest, number, field| {
            match number {
                1 => request.channel = field.string()?,
                2 => request.data = field.bytes()?,
                3 => request.kind = field.i32()?,
                _ => {}
            }
            Ok(())
        })?),
        8 => Request::Presence { channel: channel(reader)? },
        9 => Request::PresenceStats { channel: channel(reader)? },
        10 => Request::History(history_request(reader)?),
        11 => Request::Ping,
        12 => Request::Send { data: rpc(reader)?.1 },
        13 => {
            let (method, data) = rpc(reader)?;
            Request::Rpc { method, data }
        }
        14 => Request::Refresh { token: channel(reader)? },
        _ => Request::SubRefresh(fields(
            reader,
            |request: &mut SubRefreshRequest, number, field| {
                match number {
                    1 => request.channel = field.string()?,
                    2 => request.token = field.string()?,
                    3 => request.kind = field.i32()?,
                    _ => {}
                }
                Ok(())
            },
        )?),
    })
}

/// Decodes a message of which only the string in field 1 is used.
fn channel(reader: Reader<'_>) -> Read<String> {
    fields(reader, |channel: &mut String, number, field| {
        if number == 1 {
            *channel = field.string()?;
        }
        Ok(())
    })
}

fn rpc(reader: Reader<'_>) -> Read<(String, bytes::Bytes)> {
    fields(reader, |(method, data): &mut (String, bytes::Bytes), number, field| {
        match number {
            1 => *data = field.bytes()?,
            2 => *method = field.string()?,
            _ => {}
        }
        Ok(())
    })
}

fn connect_request(reader: Reader<'_>) -> Read<ConnectRequest> {
    fields(reader, |request: &mut ConnectRequest, number, field| {
        match number {
            1 => request.token = field.string()?,
            2 => request.data = field.bytes()?,
            3 => request.subs.push(entry(field.message()?, subscribe_request)?),
            4 => request.name = field.string()?,
            5 => request.version = field.string()?,
            6 => request.headers.push(pair(field.message()?)?),
            7 => request.flag = field.i64()?,
            _ => {}
        }
        Ok(())
    })
}

fn entry<T: Default>(
    reader: Reader<'_>,
    read: impl Fn(Reader<'_>) -> Read<T>,
) -> Read<(String, T)> {
    fields(reader, |(key, value): &mut (String, T), number, field| {
        match number {
            1 => *key = field.string()?,
            2 => *value = read(field.message()?)?,
            _ => {}
        }
        Ok(())
    })
}

fn pair(reader: Reader<'_>) -> Read<(String, String)> {
    fields(reader, |(key, value): &mut (String, String), number, field| {
        match number {
            1 => *key = field.string()?,
            2 => *value = field.string()?,
            _ => {}
        }
        Ok(())
    })
}

fn subscribe_request(reader: Reader<'_>) -> Read<SubscribeRequest> {
    fields(reader, |request: &mut SubscribeRequest, number, field| {
        match number {
            1 => request.channel = field.string()?,
            2 => request.token = field.string()?,
            3 => request.recover = field.bool()?,
            6 => request.epoch = field.string()?,
            7 => request.offset = field.u64()?,
            8 => request.data = field.bytes()?,
            9 => request.positioned = field.bool()?,
            10 => request.recoverable = field.bool()?,
            11 => request.join_leave = field.bool()?,
            12 => request.delta = field.string()?,
            13 => request.tags_filter = true,
            14 => request.flag = field.i64()?,
            15 => request.kind = field.i32()?,
            _ => {}
        }
        Ok(())
    })
}

fn history_request(reader: Reader<'_>) -> Read<HistoryRequest> {
    fields(reader, |request: &mut HistoryRequest, number, field| {
        match number {
            1 => request.channel = field.string()?,
            7 => request.limit = field.i32()?,
            8 => request.since = Some(position(field.message()?)?),
            9 => request.reverse = field.bool()?,
            _ => {}
        }
        Ok(())
    })
}

fn position(reader: Reader<'_>) -> Read<StreamPosition> {
    fields(reader, |position: &mut StreamPosition, number, field| {
        match number {
            1 => position.offset = field.u64()?,
            2 => position.epoch = field.string()?,
            _ => {}
        }
        Ok(())
    })
}

pub(super) fn reply(mut reader: Reader<'_>) -> Read<Reply> {
    let mut reply = Reply { id: 0, body: ReplyBody::Ping };
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => reply.id = field.u32()?,
            2 => reply.body = ReplyBody::Error(error(field.message()?)?),
            4 => reply.body = ReplyBody::Push(push(field.message()?)?),
            5 => reply.body = ReplyBody::Connect(Box::new(connect_result(field.message()?)?)),
            6 => reply.body = ReplyBody::Subscribe(Box::new(subscribe_result(field.message()?)?)),
            7 => reply.body = ReplyBody::Unsubscribe,
            8 => reply.body = ReplyBody::Publish,
            9 => reply.body = ReplyBody::Presence(presence(field.message()?)?),
            10 => reply.body = ReplyBody::PresenceStats(presence_stats(field.message()?)?),
            11 => reply.body = ReplyBody::History(history_result(field.message()?)?),
            13 => reply.body = ReplyBody::Rpc { data: rpc(field.message()?)?.1 },
            14 => reply.body = ReplyBody::Refresh(refresh_result(field.message()?)?),
            15 => {
                let (expires, ttl) = lifetime(field.message()?)?;
                reply.body = ReplyBody::SubRefresh { expires, ttl };
            }
            _ => {}
        }
    }
    Ok(reply)
}

fn error(reader: Reader<'_>) -> Read<ErrorReply> {
    let (code, message, temporary) = three(reader)?;
    Ok(ErrorReply { code, message, temporary })
}

/// Decodes an error or a disconnect: code, text and a flag in fields 1 to 3.
fn three(reader: Reader<'_>) -> Read<(u32, String, bool)> {
    fields(reader, |(code, text, advice): &mut (u32, String, bool), number, field| {
        match number {
            1 => *code = field.u32()?,
            2 => *text = field.string()?,
            3 => *advice = field.bool()?,
            _ => {}
        }
        Ok(())
    })
}

fn lifetime(reader: Reader<'_>) -> Read<(bool, u32)> {
    fields(reader, |(expires, ttl): &mut (bool, u32), number, field| {
        match number {
            1 => *expires = field.bool()?,
            2 => *ttl = field.u32()?,
            _ => {}
        }
        Ok(())
    })
}

fn push(mut reader: Reader<'_>) -> Read<Push> {
    let (mut channel, mut event) = ("", PushEvent::Unknown);
    while let Some((number, field)) = reader.next()? {
        let read = match number {
            2 => {
                channel = field.str()?;
                continue;
            }
            4 => PushEvent::Publication(Arc::new(publication(field.message()?)?)),
            5 => PushEvent::Join(Arc::new(member(field.message()?)?)),
            6 => PushEvent::Leave(Arc::new(member(field.message()?)?)),
            7 => unsubscribe(field.message()?)?,
            8 => PushEvent::Message { data: rpc(field.message()?)?.1 },
            9 => subscribe(field.message()?)?,
            11 => {
                let (code, reason, reconnect) = three(field.message()?)?;
                PushEvent::Disconnect { code, reason, reconnect }
            }
            12 => {
                let (expires, ttl) = lifetime(field.message()?)?;
                PushEvent::Refresh { expires, ttl }
            }
            _ => continue,
        };
        event = read;
    }
    Ok(Push { channel: channel.into(), event })
}

fn unsubscribe(reader: Reader<'_>) -> Read<PushEvent> {
    let (code, reason) = fields(reader, |(code, reason): &mut (u32, String), number, field| {
        match number {
            2 => *code = field.u32()?,
            3 => *reason = field.string()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(PushEvent::Unsubscribe { code, reason })
}

fn subscribe(reader: Reader<'_>) -> Read<PushEvent> {
    let result = fields(reader, |result: &mut SubscribeResult, number, field| {
        match number {
            1 => result.recoverable = field.bool()?,
            4 => result.epoch = field.string()?,
            5 => result.offset = field.u64()?,
            6 => result.positioned = field.bool()?,
            7 => result.data = field.bytes()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(PushEvent::Subscribe {
        recoverable: result.recoverable,
        positioned: result.positioned,
        position: StreamPosition { offset: result.offset, epoch: result.epoch },
        data: result.data,
    })
}

fn member(reader: Reader<'_>) -> Read<ClientInfo> {
    fields(reader, |info: &mut ClientInfo, number, field| {
        if number == 1 {
            *info = client_info(field.message()?)?;
        }
        Ok(())
    })
}

pub(super) fn client_info(reader: Reader<'_>) -> Read<ClientInfo> {
    fields(reader, |info: &mut ClientInfo, number, field| {
        match number {
            1 => info.user = field.string()?,
            2 => info.client = field.string()?,
            3 => info.conn_info = field.bytes()?,
            4 => info.chan_info = field.bytes()?,
            _ => {}
        }
        Ok(())
    })
}

pub(super) fn publication(reader: Reader<'_>) -> Read<Publication> {
    fields(reader, |publication: &mut Publication, number, field| {
        match number {
            4 => publication.data = field.bytes()?,
            5 => publication.info = Some(client_info(field.message()?)?),
            6 => publication.offset = field.u64()?,
            7 => publication.tags.push(pair(field.item()?)?),
            9 => publication.time = field.i64()?,
            _ => {}
        }
        Ok(())
    })
}

fn connect_result(reader: Reader<'_>) -> Read<ConnectResult> {
    fields(reader, |result: &mut ConnectResult, number, field| {
        match number {
            1 => result.client = field.string()?,
            2 => result.version = field.string()?,
            3 => result.expires = field.bool()?,
            4 => result.ttl = field.u32()?,
            5 => result.data = field.bytes()?,
            6 => result.subs.push(entry(field.item()?, subscribe_result)?),
            7 => result.ping = field.u32()?,
            8 => result.pong = field.bool()?,
            9 => result.session = field.string()?,
            10 => result.node = field.string()?,
            11 => result.time = field.i64()?,
            _ => {}
        }
        Ok(())
    })
}

fn subscribe_result(reader: Reader<'_>) -> Read<SubscribeResult> {
    fields(reader, |result: &mut SubscribeResult, number, field| {
        match number {
            1 => result.expires = field.bool()?,
            2 => result.ttl = field.u32()?,
            3 => result.recoverable = field.bool()?,
            6 => result.epoch = field.string()?,
            7 => result.publications.push(Arc::new(publication(field.item()?)?)),
            8 => result.recovered = field.bool()?,
            9 => result.offset = field.u64()?,
            10 => result.positioned = field.bool()?,
            11 => result.data = field.bytes()?,
            12 => result.was_recovering = field.bool()?,
            _ => {}
        }
        Ok(())
    })
}

fn presence(reader: Reader<'_>) -> Read<Vec<(String, ClientInfo)>> {
    fields(reader, |clients: &mut Vec<(String, ClientInfo)>, number, field| {
        if number == 1 {
            clients.push(entry(field.item()?, client_info)?);
        }
        Ok(())
    })
}

fn presence_stats(reader: Reader<'_>) -> Read<PresenceStats> {
    fields(reader, |stats: &mut PresenceStats, number, field| {
        match number {
            1 => stats.num_clients = field.u32()?,
            2 => stats.num_users = field.u32()?,
            _ => {}
        }
        Ok(())
    })
}

fn history_result(reader: Reader<'_>) -> Read<HistoryResult> {
    fields(reader, |result: &mut HistoryResult, number, field| {
        match number {
            1 => result.publications.push(Arc::new(publication(field.item()?)?)),
            2 => result.epoch = field.string()?,
            3 => result.offset = field.u64()?,
            _ => {}
        }
        Ok(())
    })
}

fn refresh_result(reader: Reader<'_>) -> Read<RefreshResult> {
    fields(reader, |result: &mut RefreshResult, number, field| {
        match number {
            1 => result.client = field.string()?,
            2 => result.version = field.string()?,
            3 => result.expires = field.bool()?,
            4 => result.ttl = field.u32()?,
            _ => {}
        }
        Ok(())
    })
}
