//! One connection to one server: connect, log in, verify, then pump bytes between the socket and
//! the broker's state.
//!
//! Invariant: a server's configuration is verified before any request is sent to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::DriverMessage;
use super::clock::RedisClock;
use super::driver_messages::{ConnectionId, DriverEvent, LinkEvent, LinkTarget, Opened};
use super::identity::ServerIdentity;
use super::keys::Keys;
use super::request_connection::{RequestConnection, ServerMode, ServerSocket, lost};
use super::resp::Frame;
use super::scripts::Digests;
use super::settings::{Address, Deployment, RedisSettings, ServerLocation};
use super::topology::SlotRange;
use super::unavailable::{UnavailableReason, show};
use super::write_queue::WriteQueue;

/// Bytes requested from the socket in one read.
const READ_SIZE: usize = 64 * 1024;

/// Opens connections; shared by all of them.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) settings: RedisSettings,
    pub(super) clock: RedisClock,
    /// Key that marks the data as Tidings'.
    layout_key: String,
    /// Cluster slot of the layout key.
    layout_slot: u16,
}

/// Facts about a server, read at connect.
struct ServerFacts {
    digests: Digests,
    identity: ServerIdentity,
    has_shards: bool,
}

impl Dialer {
    pub(super) fn new(settings: RedisSettings, clock: RedisClock) -> Dialer {
        let keys = Keys::new(&settings.root(), &settings.node);
        let (layout_key, layout_slot) = (keys.layout(), keys.slot(0));
        Dialer { settings, clock, layout_key, layout_slot }
    }

    /// Connects, then carries bytes and events until the connection ends; returns why.
    pub(super) async fn run(
        &self,
        connection_id: ConnectionId,
        target: &LinkTarget,
        events: &mpsc::Sender<DriverMessage>,
    ) -> UnavailableReason {
        let (connection, found) = match self.open(target).await {
            Ok(opened) => opened,
            Err(reason) => return reason,
        };
        let queue = Arc::new(WriteQueue::new(connection.socket.second()));
        let address = connection.address.clone();
        let ServerFacts { digests, identity, has_shards } = found;
        let opened = Opened { address: address.clone(), digests, identity, has_shards };
        let up = DriverEvent::Link(connection_id, LinkEvent::Up(Box::new(opened)));
        if events.send(DriverMessage::WriteQueue(connection_id, queue.clone())).await.is_err()
            || events.send(up.into()).await.is_err()
        {
            return UnavailableReason::Lost(address, "this node shuts down".to_owned());
        }
        carry(connection, connection_id, &queue, events).await
    }

    async fn open(
        &self,
        target: &LinkTarget,
    ) -> Result<(RequestConnection, ServerFacts), UnavailableReason> {
        let address = match target {
            LinkTarget::Server(ServerLocation::At(address)) | LinkTarget::Member(address) => {
                address.clone()
            }
            LinkTarget::Server(ServerLocation::Sentinel { master, sentinels, login }) => {
                self.find_master(master, sentinels, login).await?.certain()?
            }
        };
        let examined = async {
            let mut connection = self.connect(&address).await?;
            let is_cluster = matches!(target, LinkTarget::Member(_));
            let mode = if is_cluster { ServerMode::ClusterMember } else { ServerMode::Standalone };
            let major = connection.handshake(&self.settings.login, mode).await?;
            connection.select(self.settings.database).await?;
            let digests = connection.load_scripts().await?;
            if !is_cluster || connection.owns(self.layout_slot).await? {
                let label = self.label(target);
                connection.claim(&self.layout_key, &label, &self.settings.prefix).await?;
            }
            let identity = ServerIdentity::read(&mut connection).await?;
            let has_shards = is_cluster && major >= 7;
            Ok((connection, ServerFacts { digests, identity, has_shards }))
        };
        let limit = self.settings.connect_timeout + self.settings.io_timeout;
        timeout(limit, examined).await.unwrap_or(Err(UnavailableReason::Silent(address.clone())))
    }

    /// Label of a server among several independent ones; empty for a single server.
    fn label(&self, target: &LinkTarget) -> String {
        let Deployment::Servers(servers) = &self.settings.deployment else { return String::new() };
        let is_it =
            |server: &ServerLocation| matches!(target, LinkTarget::Server(it) if it == server);
        match servers.iter().position(is_it) {
            Some(index) if servers.len() > 1 => format!(" {} of {}", index + 1, servers.len()),
            _ => String::new(),
        }
    }

    pub(super) async fn connect(
        &self,
        address: &Address,
    ) -> Result<RequestConnection, UnavailableReason> {
        let connect = TcpStream::connect((&*address.host, address.port));
        let unreachable =
            |error: &io::Error| UnavailableReason::Unreachable(address.clone(), error.to_string());
        let stream = match timeout(self.settings.connect_timeout, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(_) => return Err(UnavailableReason::ConnectTimeout(address.clone())),
        };
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let socket: Box<dyn ServerSocket> = match &self.settings.tls {
            None => Box::new(stream),
            Some(tls) => {
                let failed = |text: String| UnavailableReason::Tls(address.clone(), text);
                let name = tls.server_name.as_ref().unwrap_or(&address.host).clone();
                let name = ServerName::try_from(name).map_err(|error| failed(error.to_string()))?;
                let handshake = TlsConnector::from(tls.config.clone()).connect(name, stream);
                match timeout(self.settings.connect_timeout, handshake).await {
                    Ok(Ok(stream)) => Box::new(stream),
                    Ok(Err(error)) => return Err(failed(error.to_string())),
                    Err(_) => {
                        return Err(failed(
                            "no answer to the handshake; the port may not use TLS".to_owned(),
                        ));
                    }
                }
            }
        };
        Ok(RequestConnection::new(address.clone(), socket))
    }

    /// Reads the cluster's slots from the first member that replies.
    pub(super) async fn slots(
        &self,
        members: &[Address],
    ) -> Result<Vec<SlotRange>, UnavailableReason> {
        let mut last = UnavailableReason::Incomplete;
        for address in members {
            let ask = async {
                let mut connection = self.connect(address).await?;
                connection.authenticate(&self.settings.login).await?;
                connection.ask(&[b"CLUSTER", b"SLOTS"]).await
            };
            let limit = self.settings.connect_timeout + self.settings.connect_timeout;
            match timeout(limit, ask)
                .await
                .unwrap_or(Err(UnavailableReason::Silent(address.clone())))
            {
                Ok(Frame::List(ranges)) => {
                    let ranges: Vec<SlotRange> =
                        ranges.iter().filter_map(|range| SlotRange::read(range, address)).collect();
                    if !ranges.is_empty() {
                        return Ok(ranges);
                    }
                    last = UnavailableReason::Incomplete;
                }
                Ok(Frame::Error(text))
                    if text.windows(15).any(|part| part == b"cluster support")
                        || text.starts_with(b"ERR unknown command") =>
                {
                    last = UnavailableReason::IsNoCluster(address.clone());
                }
                Ok(Frame::Error(text)) if text.starts_with(b"NOAUTH") => {
                    last = UnavailableReason::Login(address.clone(), show(&text));
                }
                Ok(Frame::Error(text)) => last = UnavailableReason::of_answer(address, &text),
                Ok(_) => last = UnavailableReason::NotRedis(address.clone()),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    }
}

/// Reads and writes until one side ends; returns why.
async fn carry(
    connection: RequestConnection,
    connection_id: ConnectionId,
    queue: &WriteQueue,
    events: &mpsc::Sender<DriverMessage>,
) -> UnavailableReason {
    let RequestConnection { address, socket, mut decoder } = connection;
    let (mut reader, writer) = tokio::io::split(socket);
    let read = async {
        // Bytes read since the socket was last drained.
        let mut backlog = 0;
        loop {
            let mut frames = Vec::new();
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(_) => return UnavailableReason::NotRedis(address.clone()),
                }
            }
            let has_frames = !frames.is_empty();
            let event = DriverEvent::Link(connection_id, LinkEvent::Frames(frames));
            if has_frames && events.send(event.into()).await.is_err() {
                return UnavailableReason::Lost(address.clone(), "this node shuts down".to_owned());
            }
            decoder.buffer().reserve(READ_SIZE);
            let room = decoder.buffer().capacity() - decoder.buffer().len();
            match reader.read_buf(decoder.buffer()).await {
                Ok(length) if length > 0 => {
                    backlog = if length >= room.min(READ_SIZE) { backlog + length } else { 0 };
                }
                _ if backlog >= BACKLOG_OF_CUTS => {
                    return UnavailableReason::CutOff(address.clone(), backlog);
                }
                ended => return lost(&address, &ended),
            }
        }
    };
    tokio::select! {
        error = queue.pump(writer) => lost(&address, &Err(error)),
        reason = read => reason,
    }
}

/// Unread bytes at a disconnect from which the server's output limit is assumed to be the cause.
const BACKLOG_OF_CUTS: usize = 512 * 1024;

/// Delay before the next attempt after this many consecutive failures.
pub(super) fn backoff(failures: u32, jitter: u64) -> Duration {
    let most = 25u64 << failures.min(4);
    Duration::from_millis(most / 2 + jitter % (most / 2 + 1))
}
