//! One connection to one server: connect, log in, verify, then pump bytes between the socket and
//! the broker's state.
//!
//! Invariant: a server's configuration is verified before any request is sent to it.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::exchange::{ConnectionId, DriverEvent, LinkEvent, Opened};
use super::identity::ServerIdentity;
use super::keys::Keys;
use super::pipe::Pipe;
use super::resp::{self, Frame, RespDecoder};
use super::scripts::{self, Digests};
use super::settings::{Address, Deployment, Login, RedisSettings, ServerLocation};
use super::unavailable::UnavailableReason;

/// Value of the layout key.
const LAYOUT: &str = "tidings 2";

/// TTL of the layout key in milliseconds: longer than any history.
const LAYOUT_TTL_MS: &str = "7776000000";

/// Bytes requested from the socket in one read.
const READ_SIZE: usize = 64 * 1024;

/// The server that a link connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkTarget {
    /// An independent server.
    Server(ServerLocation),
    /// A master of the cluster.
    Member(Address),
}

/// Opens connections; shared by all of them.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) settings: RedisSettings,
    /// Key that marks the data as Tidings'.
    layout_key: String,
    /// Cluster slot of the layout key.
    layout_slot: u16,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// A second handle for direct writes; `None` if writes need more than the socket, as with TLS.
    fn second(&self) -> Option<std::net::TcpStream>;
}

impl Socket for TcpStream {
    fn second(&self) -> Option<std::net::TcpStream> {
        // Without a second handle the pump writes everything.
        self.as_fd().try_clone_to_owned().ok().map(Into::into)
    }
}

impl Socket for TlsStream<TcpStream> {
    fn second(&self) -> Option<std::net::TcpStream> {
        None
    }
}

/// Facts about a server, read at connect.
struct Found {
    digests: Digests,
    identity: ServerIdentity,
    has_shards: bool,
}

/// A socket used for one request at a time.
pub(super) struct Conversation {
    address: Address,
    socket: Box<dyn Socket>,
    decoder: RespDecoder,
}

impl Dialer {
    pub(super) fn new(settings: RedisSettings) -> Dialer {
        let keys = Keys::new(&settings.root(), &settings.node);
        let (layout_key, layout_slot) = (keys.layout(), keys.slot(0));
        Dialer { settings, layout_key, layout_slot }
    }

    /// Connects, then carries bytes and events until the connection ends; returns why.
    pub(super) async fn run(
        &self,
        line: ConnectionId,
        target: &LinkTarget,
        events: &mpsc::Sender<DriverEvent>,
    ) -> UnavailableReason {
        let (conversation, found) = match self.open(target).await {
            Ok(opened) => opened,
            Err(reason) => return reason,
        };
        let pipe = Arc::new(Pipe::new(conversation.socket.second()));
        let address = conversation.address.clone();
        let Found { digests, identity, has_shards } = found;
        let opened =
            Opened { address: address.clone(), digests, identity, has_shards, pipe: pipe.clone() };
        if events.send(DriverEvent::Link(line, LinkEvent::Up(Box::new(opened)))).await.is_err() {
            return UnavailableReason::Lost(address, "this node shuts down".to_owned());
        }
        conversation.pump(line, &pipe, events).await
    }

    async fn open(&self, target: &LinkTarget) -> Result<(Conversation, Found), UnavailableReason> {
        let address = match target {
            LinkTarget::Server(ServerLocation::At(address)) | LinkTarget::Member(address) => {
                address.clone()
            }
            LinkTarget::Server(ServerLocation::Sentinel { master, sentinels, login }) => {
                self.find_master(master, sentinels, login).await?.certain()?
            }
        };
        let examined = async {
            let mut conversation = self.connect(&address).await?;
            let is_cluster = matches!(target, LinkTarget::Member(_));
            let major = conversation.enter(&self.settings.login, is_cluster).await?;
            conversation.select(self.settings.database).await?;
            let digests = conversation.load_scripts().await?;
            if !is_cluster || conversation.owns(self.layout_slot).await? {
                let place = self.place(target);
                conversation.claim(&self.layout_key, &place, &self.settings.prefix).await?;
            }
            let identity = ServerIdentity::read(&mut conversation).await?;
            let has_shards = is_cluster && major >= 7;
            Ok((conversation, Found { digests, identity, has_shards }))
        };
        let limit = self.settings.connect_timeout + self.settings.io_timeout;
        timeout(limit, examined).await.unwrap_or(Err(UnavailableReason::Silent(address.clone())))
    }

    /// Label of a server among several independent ones; empty for a single server.
    fn place(&self, target: &LinkTarget) -> String {
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
    ) -> Result<Conversation, UnavailableReason> {
        let connect = TcpStream::connect((&*address.host, address.port));
        let unreachable =
            |error: &io::Error| UnavailableReason::Unreachable(address.clone(), error.to_string());
        let stream = match timeout(self.settings.connect_timeout, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(_) => return Err(UnavailableReason::ConnectTimeout(address.clone())),
        };
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let socket: Box<dyn Socket> = match &self.settings.tls {
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
        Ok(Conversation { address: address.clone(), socket, decoder: RespDecoder::default() })
    }

    /// Reads the cluster's slots from the first member that replies.
    pub(super) async fn slots(
        &self,
        members: &[Address],
    ) -> Result<Vec<SlotRange>, UnavailableReason> {
        let mut last = UnavailableReason::Incomplete;
        for address in members {
            let ask = async {
                let mut conversation = self.connect(address).await?;
                conversation.authenticate(&self.settings.login).await?;
                conversation.ask(&[b"CLUSTER", b"SLOTS"]).await
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

/// A range of slots: the master first, then its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) members: Vec<Address>,
}

impl SlotRange {
    /// A member without a known host is the member that was asked.
    fn read(range: &Frame, asked: &Address) -> Option<SlotRange> {
        let [first, last, members @ ..] = range.list()? else { return None };
        let slot = |frame: &Frame| frame.u64().and_then(|slot| u16::try_from(slot).ok());
        let member = |member: &Frame| {
            let host = member.list()?.first()?.str().filter(|host| !matches!(*host, "" | "?"));
            let port = u16::try_from(member.list()?.get(1)?.u64()?).ok()?;
            Some(Address { host: host.unwrap_or(&asked.host).to_owned(), port })
        };
        let members: Vec<Address> = members.iter().filter_map(member).collect();
        (!members.is_empty()).then_some(SlotRange {
            first: slot(first)?,
            last: slot(last)?,
            members,
        })
    }
}

impl Conversation {
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn ask(&mut self, words: &[&[u8]]) -> Result<Frame, UnavailableReason> {
        let mut out = Vec::new();
        resp::encode(&mut out, words);
        self.socket.write_all(&out).await.map_err(|error| lost(&self.address, &Err(error)))?;
        loop {
            match self.next_frame().await? {
                Frame::Push(_) => {}
                frame => return Ok(frame),
            }
        }
    }

    /// The next frame, a reply or a push.
    pub(super) async fn next_frame(&mut self) -> Result<Frame, UnavailableReason> {
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => match self.socket.read_buf(self.decoder.buffer()).await {
                    Ok(length) if length > 0 => {}
                    ended => return Err(lost(&self.address, &ended)),
                },
                Err(_) => return Err(UnavailableReason::NotRedis(self.address.clone())),
            }
        }
    }

    pub(super) async fn authenticate(&mut self, login: &Login) -> Result<(), UnavailableReason> {
        if login.password.is_empty() {
            return Ok(());
        }
        let user = if login.user.is_empty() { "default" } else { &login.user };
        let answer = match login.user.is_empty() {
            true => self.ask(&[b"AUTH", login.password.as_bytes()]).await?,
            false => self.ask(&[b"AUTH", user.as_bytes(), login.password.as_bytes()]).await?,
        };
        match answer {
            Frame::Error(text) if is_login(&text) => {
                Err(UnavailableReason::Login(self.address.clone(), show(&text)))
            }
            Frame::Error(text) => Err(UnavailableReason::of_answer(&self.address, &text)),
            _ => Ok(()),
        }
    }

    /// Switches to RESP3 and verifies mode, version and role; returns the major version.
    async fn enter(&mut self, login: &Login, is_cluster: bool) -> Result<u32, UnavailableReason> {
        self.authenticate(login).await?;
        let address = self.address.clone();
        let answer = self.ask(&[b"HELLO", b"3"]).await.map_err(|reason| match reason {
            UnavailableReason::Lost(address, _) => UnavailableReason::ClosedEarly(address),
            reason => reason,
        })?;
        let answer = match answer {
            Frame::List(answer) => answer,
            Frame::Error(text) if text.starts_with(b"NOAUTH") => {
                return Err(UnavailableReason::Login(address, show(&text)));
            }
            Frame::Error(text)
                if text.starts_with(b"ERR unknown command") || text.starts_with(b"NOPROTO") =>
            {
                return Err(UnavailableReason::TooOld(address, "below 6".to_owned()));
            }
            Frame::Error(text) => return Err(UnavailableReason::of_answer(&address, &text)),
            _ => return Err(UnavailableReason::NotRedis(address)),
        };
        let field = |name: &str| {
            let mut pairs = answer.chunks_exact(2);
            let pair = pairs.find(|pair| pair[0].str() == Some(name));
            pair.and_then(|pair| pair[1].str()).unwrap_or_default()
        };
        match (field("mode"), is_cluster) {
            ("sentinel", _) => return Err(UnavailableReason::IsSentinel(address)),
            ("cluster", false) => return Err(UnavailableReason::IsCluster(address)),
            ("standalone", true) => return Err(UnavailableReason::IsNoCluster(address)),
            _ => {}
        }
        let version = field("version");
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version_numbers = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version_numbers < (6, 2) {
            return Err(UnavailableReason::TooOld(address, version.to_owned()));
        }
        if field("role") != "master" {
            return Err(UnavailableReason::Replica(address));
        }
        Ok(version_numbers.0)
    }

    async fn select(&mut self, database: u32) -> Result<(), UnavailableReason> {
        if database == 0 {
            return Ok(());
        }
        match self.ask(&[b"SELECT", database.to_string().as_bytes()]).await? {
            Frame::Error(text) => {
                Err(UnavailableReason::Database(self.address.clone(), database, show(&text)))
            }
            _ => Ok(()),
        }
    }

    async fn load_scripts(&mut self) -> Result<Digests, UnavailableReason> {
        let mut digests = Digests::default();
        for (digest, script) in digests.iter_mut().zip(scripts::ALL) {
            *digest = match self.ask(&[b"SCRIPT", b"LOAD", script.text().as_bytes()]).await? {
                Frame::Text(digest) => digest,
                Frame::Error(text) if is_transient(&text) => {
                    return Err(UnavailableReason::of_answer(&self.address, &text));
                }
                Frame::Error(text) => {
                    return Err(UnavailableReason::NoScripts(self.address.clone(), show(&text)));
                }
                _ => return Err(UnavailableReason::NotRedis(self.address.clone())),
            };
        }
        Ok(digests)
    }

    /// Whether this cluster member is the master of the slot.
    async fn owns(&mut self, slot: u16) -> Result<bool, UnavailableReason> {
        let Frame::List(ranges) = self.ask(&[b"CLUSTER", b"SLOTS"]).await? else {
            return Ok(false);
        };
        let ranges = ranges.iter().filter_map(|range| SlotRange::read(range, &self.address));
        let found = ranges.into_iter().find(|range| (range.first..=range.last).contains(&slot));
        let mine = |address: &Address| *address == self.address;
        Ok(found.and_then(|range| range.members.into_iter().next()).as_ref().is_some_and(mine))
    }

    /// Writes the layout key; fails when the prefix holds other data.
    async fn claim(
        &mut self,
        key: &str,
        place: &str,
        prefix: &str,
    ) -> Result<(), UnavailableReason> {
        let layout = format!("{LAYOUT}{place}");
        let set: [&[u8]; 6] =
            [b"SET", key.as_bytes(), layout.as_bytes(), b"NX", b"PX", LAYOUT_TTL_MS.as_bytes()];
        let address = self.address.clone();
        let refused = |text: &Bytes| UnavailableReason::of_answer(&address, text);
        match self.ask(&set).await? {
            Frame::Error(text) => return Err(refused(&text)),
            Frame::Text(_) => return Ok(()),
            _ => {}
        }
        match self.ask(&[b"GET", key.as_bytes()]).await? {
            Frame::Text(text) if text == layout.as_bytes() => {
                self.ask(&[b"PEXPIRE", key.as_bytes(), LAYOUT_TTL_MS.as_bytes()]).await.map(drop)
            }
            Frame::Text(text) if text.starts_with(LAYOUT.as_bytes()) => {
                let found = String::from_utf8_lossy(&text[LAYOUT.len()..]).into_owned();
                let show = |place: String| match place.is_empty() {
                    true => "the only one".to_owned(),
                    false => format!("number{place}"),
                };
                let (found, wanted) = (show(found), show(place.to_owned()));
                let (address, key) = (self.address.clone(), key.to_owned());
                Err(UnavailableReason::OtherOrder { address, found, wanted, key })
            }
            Frame::Error(text) if !text.starts_with(b"WRONGTYPE") => {
                Err(UnavailableReason::of_answer(&self.address, &text))
            }
            _ => Err(UnavailableReason::Foreign(self.address.clone(), prefix.to_owned())),
        }
    }

    /// Reads and writes until one side ends; returns why.
    async fn pump(
        self,
        line: ConnectionId,
        pipe: &Pipe,
        events: &mpsc::Sender<DriverEvent>,
    ) -> UnavailableReason {
        let Conversation { address, socket, mut decoder } = self;
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
                let event = DriverEvent::Link(line, LinkEvent::Frames(frames));
                if has_frames && events.send(event).await.is_err() {
                    return UnavailableReason::Lost(
                        address.clone(),
                        "this node shuts down".to_owned(),
                    );
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
            error = pipe.pump(writer) => lost(&address, &Err(error)),
            reason = read => reason,
        }
    }
}

/// Unread bytes at a disconnect from which the server's output limit is assumed to be the cause.
const BACKLOG_OF_CUTS: usize = 512 * 1024;

/// Why a connection ended.
fn lost(address: &Address, ended: &io::Result<usize>) -> UnavailableReason {
    let how = match ended {
        Ok(_) => "Redis closed the connection".to_owned(),
        Err(error) => error.to_string(),
    };
    UnavailableReason::Lost(address.clone(), how)
}

/// Whether an error concerns user or password.
fn is_login(error: &[u8]) -> bool {
    const LOGIN: [&[u8]; 5] =
        [b"WRONGPASS", b"NOAUTH", b"NOPERM", b"ERR AUTH", b"ERR invalid password"];
    LOGIN.iter().any(|name| error.starts_with(name))
}

/// Whether an error is transient.
pub(super) fn is_transient(error: &[u8]) -> bool {
    const TRANSIENT_ERRORS: [&[u8]; 6] =
        [b"LOADING", b"BUSY", b"CLUSTERDOWN", b"MASTERDOWN", b"TRYAGAIN", b"READONLY"];
    TRANSIENT_ERRORS.iter().any(|name| error.starts_with(name))
}

/// Server text for messages: without control characters, at most 200 characters.
pub(super) fn show(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Delay before the next attempt after this many consecutive failures.
pub(super) fn backoff(failures: u32, jitter: u64) -> Duration {
    let most = 25u64 << failures.min(4);
    Duration::from_millis(most / 2 + jitter % (most / 2 + 1))
}
