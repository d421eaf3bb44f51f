//! What a process of the generator is to do, and the messages between it and the command: lines of
//! JSON, plan and commands in, events out.
//!
//! Invariant: a plan is complete; a process needs no other input.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wire::protocol::Codec;

use super::payload::PayloadSpec;
use super::run_totals::RunTotals;

/// What one process does. Clients, channels and streams have numbers that hold for the whole run:
/// client `n` listens to channel `n / per_channel`, stream `s` is published into channel `s /
/// streams_per_channel`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) target: ServerTarget,
    /// First client of this process.
    pub(crate) first_client: u32,
    pub(crate) clients: u32,
    pub(crate) per_channel: u32,
    pub(crate) streams_per_channel: u32,
    /// First stream that this process publishes.
    pub(crate) first_stream: u32,
    pub(crate) streams: u32,
    pub(crate) publisher: PublisherPlan,
    pub(crate) load: Load,
    /// Connections that are cut in a second, to come back and recover; with any, all clients hold a
    /// position.
    pub(crate) deaths: f64,
    pub(crate) payload: PayloadSpec,
    pub(crate) duration_ms: u64,
    /// Time between two samples.
    pub(crate) sample_ms: u64,
}

/// Where the server is, and how it is spoken to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerTarget {
    pub(crate) address: SocketAddr,
    /// Value of the `Host` header.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// With TLS.
    pub(crate) security: Option<Security>,
    pub(crate) encoding: CodecName,
    pub(crate) admission: ClientLogin,
    /// All channel names; `{n}` stands for the number.
    pub(crate) channel: String,
    /// Nothing follows the WebSocket handshake: no session, no subscription.
    pub(crate) is_bare: bool,
}

/// Whom a TLS connection trusts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Security {
    /// Name in the server's certificate.
    pub(crate) host: String,
    /// Certificates of authorities as PEM, in place of the public ones.
    pub(crate) ca: Option<PathBuf>,
}

/// The codec's name in arguments and plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CodecName {
    Json,
    Protobuf,
}

/// How clients show who they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ClientLogin {
    Anonymous,
    /// All with the same token.
    Token(String),
    /// Each with one of its own, signed (HS256) with this.
    Secret(String),
}

/// The server API to publish through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ApiTarget {
    pub(crate) protocol: ApiProtocol,
    pub(crate) address: SocketAddr,
    /// Host and port for the `Host` header or `:authority`.
    pub(crate) authority: String,
    /// TLS; `None` without it.
    pub(crate) security: Option<Security>,
    /// Path of the API over HTTP.
    pub(crate) path: String,
    /// API key.
    pub(crate) key: String,
}

/// Who publishes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum PublisherPlan {
    /// The server API, over connections that stay.
    Api { api: ApiTarget, connections: u32, batch: u32 },
    /// One client that only publishes, there.
    Client(Box<ServerTarget>),
    /// Client `n` publishes stream `n`.
    Subscribers,
    /// Not this process.
    Nobody,
}

/// Protocol of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ApiProtocol {
    Http,
    Grpc,
}

/// When it is published.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Load {
    /// Never.
    Hold,
    /// So many a second in all, at times that are fixed beforehand.
    Rate(f64),
    /// As fast as so many are on their way at once.
    Window(u32),
}

/// What a process full of clients that come and go does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StormPlan {
    pub(crate) target: ServerTarget,
    pub(crate) publisher: PublisherPlan,
    /// First channel of this process.
    pub(crate) first_channel: u32,
    pub(crate) channels: u32,
    /// Clients on their way at once.
    pub(crate) window: u32,
    /// Publications that each recovers.
    pub(crate) recover: u32,
    pub(crate) payload: PayloadSpec,
    pub(crate) duration_ms: u64,
    pub(crate) sample_ms: u64,
}

/// What a process that only sends does: the limit that everything is compared with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SendBaselinePlan {
    pub(crate) receivers: u32,
    /// Messages a second; 0 for as many as go out.
    pub(crate) rate: f64,
    pub(crate) size: u32,
    pub(crate) duration_ms: u64,
    pub(crate) encoding: CodecName,
    pub(crate) channel: String,
    /// Core to stay on.
    pub(crate) core: Option<u32>,
}

/// What a process does that publishes through a bare Redis and hears it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RedisBaselinePlan {
    pub(crate) address: SocketAddr,
    pub(crate) rate: f64,
    pub(crate) size: u32,
    pub(crate) channel: String,
    pub(crate) duration_ms: u64,
    pub(crate) sample_ms: u64,
}

/// What the command sends to its processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum GeneratorCommand {
    /// Begin at this time.
    Go(u64),
    /// So many publications were made, by stream.
    Expect(Vec<(u32, u64)>),
    /// Something failed: report the results so far.
    Stop,
}

/// What a process reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ProcessEvent {
    /// It takes connections here.
    Listening(SocketAddr),
    /// So many clients are live.
    Connected(u32),
    /// All clients are live.
    Ready,
    /// So far.
    Sample { deliveries: u64, published: u64 },
    /// So many publications were made, by stream; there will be no more.
    Published(Vec<(u32, u64)>),
    /// Something broke.
    Failed(String),
    /// The last event of a process.
    Result(Box<RunTotals>),
}

impl CodecName {
    pub(crate) fn codec(self) -> Codec {
        match self {
            CodecName::Json => Codec::Json,
            CodecName::Protobuf => Codec::Protobuf,
        }
    }

    /// As people write it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            CodecName::Json => "JSON",
            CodecName::Protobuf => "Protobuf",
        }
    }

    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            CodecName::Json => "centrifuge-json",
            CodecName::Protobuf => "centrifuge-protobuf",
        }
    }
}

/// Stands for a channel's number in the names.
const NUMBER: &str = "{n}";

impl ServerTarget {
    pub(crate) fn channel_name(&self, channel: u32) -> String {
        match self.channel.contains(NUMBER) {
            true => self.channel.replace(NUMBER, &channel.to_string()),
            false => format!("{}-{channel}", self.channel),
        }
    }
}

impl Plan {
    pub(crate) fn channel_of_client(&self, client: u32) -> u32 {
        client / self.per_channel.max(1)
    }

    pub(crate) fn channel_of_stream(&self, stream: u32) -> u32 {
        stream / self.streams_per_channel.max(1)
    }

    /// Clients of this process that listen to a channel.
    pub(crate) fn listeners(&self, channel: u32) -> u32 {
        let (first, end) = (self.first_client, self.first_client + self.clients);
        let begin = channel.saturating_mul(self.per_channel);
        let until = begin.saturating_add(self.per_channel);
        until.min(end).saturating_sub(begin.max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_counted_where_processes_meet() {
        let plan = Plan {
            target: ServerTarget {
                address: ([127, 0, 0, 1], 1).into(),
                authority: String::new(),
                path: String::new(),
                security: None,
                encoding: CodecName::Json,
                admission: ClientLogin::Anonymous,
                channel: String::new(),
                is_bare: false,
            },
            first_client: 5,
            clients: 10,
            per_channel: 10,
            streams_per_channel: 1,
            first_stream: 0,
            streams: 0,
            publisher: PublisherPlan::Nobody,
            load: Load::Hold,
            deaths: 0.0,
            payload: PayloadSpec::default(),
            duration_ms: 1,
            sample_ms: 1,
        };
        let listeners: Vec<u32> = (0..3).map(|channel| plan.listeners(channel)).collect();
        assert_eq!(listeners, [5, 5, 0]);
    }
}
