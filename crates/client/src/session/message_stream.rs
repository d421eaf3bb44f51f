//! One WebSocket connection without its socket: bytes in, replies of the server out.
//!
//! Invariant: any split of the input gives the same items; after a close or an error nothing more
//! comes.

use wire::protocol::{self, Codec, Reply};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::handshake::{ClientHandshake, ClientRefused, ClientRequest};

use super::options::SessionOptions;
use super::outbox::CommandOutbox;
use super::random::Randomness;
use crate::error::TransportError;
use crate::limits::{REFUSAL_BODY_MAX, RESPONSE_HEAD_MAX};
use crate::url::ServerUrl;

/// A WebSocket connection without its socket: bytes in, replies of the server out.
#[derive(Debug)]
pub(super) struct MessageStream {
    codec: Codec,
    stage: Stage,
    decoder: Decoder,
    inflater: Inflater,
}

#[derive(Debug)]
enum Stage {
    /// The handshake was sent; this has come of the answer.
    Handshake {
        handshake: ClientHandshake,
        answer: Vec<u8>,
    },
    /// The server refused it; this has come of the answer.
    Refused {
        status: u16,
        answer: Vec<u8>,
    },
    Open,
}

/// What has come over the byte stream.
#[derive(Debug)]
pub(super) enum Item {
    /// The handshake is complete: commands may be sent.
    Open,
    /// The replies of one message.
    Replies(Vec<Reply>),
    /// A close frame; 1005 is a close frame without a code.
    Closed { code: u16, reason: String },
}

impl MessageStream {
    /// Writes the handshake.
    pub(super) fn new(
        url: &ServerUrl,
        options: &SessionOptions,
        random: &mut Randomness,
        out: &mut CommandOutbox,
    ) -> MessageStream {
        let headers = options.http_headers.iter();
        let headers: Vec<(&str, &str)> = headers.map(|(name, value)| (&**name, &**value)).collect();
        let (handshake, request) = ClientHandshake::new(ClientRequest {
            host: url.authority(),
            target: url.target(),
            subprotocol: match options.codec {
                Codec::Json => "centrifuge-json",
                Codec::Protobuf => "centrifuge-protobuf",
            },
            headers: &headers,
            key: random.key(),
        });
        out.bytes(&request);
        let limits = DecoderLimits {
            message_size: options.message_size_max,
            inflated_size: options.message_size_max,
        };
        MessageStream {
            codec: options.codec,
            stage: Stage::Handshake { handshake, answer: Vec::new() },
            decoder: Decoder::new(Role::Client, limits, None),
            inflater: Inflater::default(),
        }
    }

    /// Takes bytes off the front of `input` until there is an item; `None` when more is needed.
    pub(super) fn next(
        &mut self,
        input: &mut &mut [u8],
        out: &mut CommandOutbox,
    ) -> Result<Option<Item>, TransportError> {
        match &mut self.stage {
            Stage::Open => {}
            Stage::Handshake { .. } => return self.handshake(input),
            Stage::Refused { status, answer } => return refusal(*status, answer, input),
        }
        while let Some(message) =
            self.decoder.next(&mut self.inflater, input).map_err(TransportError::WebSocket)?
        {
            match message {
                Message::Text(payload) | Message::Binary(payload) => {
                    let replies = protocol::decode_replies(self.codec, &payload)
                        .map_err(TransportError::Codec)?;
                    return Ok(Some(Item::Replies(replies)));
                }
                Message::Ping(payload) => out.answer_ping(&payload),
                Message::Pong(_) => {}
                Message::Close(close) => {
                    let (code, reason) = close
                        .map_or((1005, String::new()), |close| (close.code.number(), close.reason));
                    return Ok(Some(Item::Closed { code, reason }));
                }
            }
        }
        Ok(None)
    }

    /// The peer has ended its side: what a half-read answer says.
    pub(super) fn end(&self) -> TransportError {
        match &self.stage {
            Stage::Refused { status, answer } => refused(*status, answer),
            Stage::Handshake { .. } | Stage::Open => TransportError::Closed,
        }
    }

    fn handshake(&mut self, input: &mut &mut [u8]) -> Result<Option<Item>, TransportError> {
        let Stage::Handshake { handshake, answer } = &mut self.stage else { return Ok(None) };
        let known = answer.len();
        answer.extend_from_slice(input);
        match handshake.handle_response(answer) {
            Ok(Some(length)) => {
                // The answer's end lies in this input, since it was not whole before.
                let (_, rest) = std::mem::take(input).split_at_mut(length - known);
                *input = rest;
                self.stage = Stage::Open;
                Ok(Some(Item::Open))
            }
            Ok(None) if answer.len() > RESPONSE_HEAD_MAX => Err(TransportError::ResponseTooLong),
            Ok(None) => {
                *input = &mut [];
                Ok(None)
            }
            Err(ClientRefused::Status(status)) => {
                let answer = std::mem::take(answer);
                *input = &mut [];
                self.stage = Stage::Refused { status, answer };
                let Stage::Refused { answer, .. } = &mut self.stage else { return Ok(None) };
                refusal(status, answer, input)
            }
            Err(error) => Err(TransportError::Handshake(error)),
        }
    }
}

/// Waits for the body of a refusal, as far as it is of interest.
fn refusal(
    status: u16,
    answer: &mut Vec<u8>,
    input: &mut &mut [u8],
) -> Result<Option<Item>, TransportError> {
    answer.extend_from_slice(input);
    *input = &mut [];
    let (head, body) = split(answer);
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    let wanted = length.unwrap_or(REFUSAL_BODY_MAX).min(REFUSAL_BODY_MAX);
    if body.len() < wanted && answer.len() < RESPONSE_HEAD_MAX + REFUSAL_BODY_MAX {
        return Ok(None);
    }
    Err(refused(status, answer))
}

/// The first line of a refusal's body is its reason; pages are for browsers.
fn refused(status: u16, answer: &[u8]) -> TransportError {
    let (head, body) = split(answer);
    let body = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BODY_MAX)]);
    // In chunks, the first line is the length of the first one.
    let skipped = usize::from(header(head, "transfer-encoding").is_some());
    let line = body.trim_start().lines().nth(skipped).unwrap_or_default().trim();
    let reason = if line.starts_with('<') { String::new() } else { line.to_owned() };
    TransportError::Refused { status, reason }
}

fn split(answer: &[u8]) -> (&str, &[u8]) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let head = std::str::from_utf8(&answer[..end]).unwrap_or_default();
    (head, answer.get(end + 4..).unwrap_or_default())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    let mut named = pairs.filter(|(header, _)| header.trim().eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim())
}
