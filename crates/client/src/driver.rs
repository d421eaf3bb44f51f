//! The task of a client: gives a session its bytes, time and tokens, and does what it asks for.
//!
//! Invariant: everything that the task waits for may be dropped between two polls, since one
//! `select!` waits for all.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, ReadHalf, split};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep_until, timeout};
use wire::protocol::{HistoryRequest, ReplyBody, StreamPosition};

use crate::error::{CallError, SubscribeError, TokenError, TransportError};
use crate::events::{EventSender, Events, queue};
use crate::limits::{CLOSE_TIMEOUT, READ_SIZE, REQUEST_QUEUE_MAX, TIMER_MAX};
use crate::options::{ClientOptions, TokenCallback};
use crate::session::{
    Action, CallId, ClientSession, ConnectionState, Event, RandomSource, SubscriptionOptions,
    TokenRequestId, TokenSubject,
};
use crate::socket::{self, ClientSocket};
use crate::url::ServerUrl;
use crate::writer::SocketWriter;

/// What a handle wants.
pub(crate) enum DriverCommand {
    Connect {
        done: oneshot::Sender<()>,
    },
    Disconnect {
        done: oneshot::Sender<()>,
    },
    Subscribe {
        channel: String,
        options: Box<SubscriptionOptions>,
        answer: oneshot::Sender<Result<(), SubscribeError>>,
    },
    Unsubscribe {
        channel: String,
    },
    Remove {
        channel: String,
    },
    Position {
        channel: String,
        answer: oneshot::Sender<Option<StreamPosition>>,
    },
    Call {
        call: ClientCall,
        answer: oneshot::Sender<Result<ReplyBody, CallError>>,
    },
}

/// A command with one result.
pub(crate) enum ClientCall {
    Publish { channel: String, data: Bytes },
    Rpc { method: String, data: Bytes },
    History(HistoryRequest),
    Presence { channel: String },
    PresenceStats { channel: String },
}

/// The task of a client, which connects a session with a socket, a clock and the application.
pub(crate) struct ClientDriver {
    url: ServerUrl,
    tls: Option<Arc<ClientConfig>>,
    token_callback: Option<TokenCallback>,
    session: ClientSession,
    orders: mpsc::Receiver<DriverCommand>,
    events: EventSender,
    state: watch::Sender<ConnectionState>,
    answers: HashMap<CallId, oneshot::Sender<Result<ReplyBody, CallError>>>,
    opening: Option<Opening>,
    reader: Option<ReadHalf<ClientSocket>>,
    writer: Option<SocketWriter>,
    write_timeout: Duration,
    tokens: JoinSet<Result<String, TokenError>>,
    /// What each task of `tokens` was asked for.
    token_requests: HashMap<Id, TokenRequestId>,
    buffer: Vec<u8>,
}

type Opening = Pin<Box<dyn Future<Output = Result<ClientSocket, TransportError>> + Send>>;

/// What has happened.
enum Input {
    Order(Option<DriverCommand>),
    Opened(Result<ClientSocket, TransportError>),
    Read(io::Result<usize>),
    Written(io::Result<()>),
    Token(Id, Result<String, TokenError>),
    /// A timer is due, or there is room for events.
    Nothing,
}

impl ClientDriver {
    /// A driver whose session connects, with the handles' ends of its queues.
    pub(crate) fn new(
        url: ServerUrl,
        options: ClientOptions,
    ) -> (ClientDriver, mpsc::Sender<DriverCommand>, watch::Receiver<ConnectionState>, Events) {
        let ClientOptions { session, tls, tokens: token_callback } = options;
        let write_timeout = session.timeout.min(TIMER_MAX);
        let mut session = ClientSession::new(url.clone(), session, system_random());
        session.connect(Instant::now());
        let (orders, receiver) = mpsc::channel(REQUEST_QUEUE_MAX);
        let (events, receiver_of_events) = queue();
        let (state, receiver_of_state) = watch::channel(session.state());
        let driver = ClientDriver {
            url,
            tls,
            token_callback,
            session,
            orders: receiver,
            events,
            state,
            answers: HashMap::new(),
            opening: None,
            reader: None,
            writer: None,
            write_timeout,
            tokens: JoinSet::new(),
            token_requests: HashMap::new(),
            buffer: vec![0; READ_SIZE],
        };
        (driver, orders, receiver_of_state, receiver_of_events)
    }

    /// Runs until the last handle is gone.
    pub(crate) async fn run(mut self) {
        loop {
            self.drain().await;
            let input = self.next().await;
            let now = Instant::now();
            match input {
                Input::Order(Some(order)) => self.handle_order(now, order).await,
                Input::Order(None) => break,
                Input::Opened(Ok(socket)) => {
                    let (reader, writer) = split(socket);
                    let writer = SocketWriter::new(writer, self.write_timeout);
                    (self.reader, self.writer) = (Some(reader), Some(writer));
                    self.session.handle_opened(now);
                }
                Input::Opened(Err(error)) => self.session.handle_closed(now, error),
                Input::Read(Ok(0)) => self.lose(now, TransportError::Closed),
                Input::Read(Ok(count)) => {
                    self.session.handle_bytes(now, &mut self.buffer[..count]);
                }
                Input::Read(Err(error)) | Input::Written(Err(error)) => {
                    self.lose(now, socket::explain(&error, &self.url));
                }
                Input::Written(Ok(())) | Input::Nothing => {}
                Input::Token(task, token) => {
                    if let Some(request) = self.token_requests.remove(&task) {
                        self.session.handle_token(now, request, token);
                    }
                }
            }
            self.session.handle_timeout(now);
        }
        self.session.disconnect();
        self.drain().await;
    }

    /// Waits for what happens next.
    async fn next(&mut self) -> Input {
        let ClientDriver {
            session, orders, events, opening, reader, writer, tokens, buffer, ..
        } = self;
        let due = session.poll_timeout();
        tokio::select! {
            order = orders.recv(), if session.has_room() => Input::Order(order),
            socket = opened(opening) => Input::Opened(socket),
            count = read(reader, buffer), if events.has_room() && session.wants_bytes() => {
                Input::Read(count)
            }
            result = write(writer) => Input::Written(result),
            Some(token) = tokens.join_next_with_id() => match token {
                Ok((task, token)) => Input::Token(task, token),
                Err(error) => {
                    let reason = format!("the token source has failed: {error}");
                    Input::Token(error.id(), Err(TokenError::Unavailable(reason)))
                }
            },
            () = until(due) => Input::Nothing,
            () = events.room(), if !events.has_room() => Input::Nothing,
        }
    }

    /// Takes all outputs of the session.
    async fn drain(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Open => {
                    let (url, tls) = (self.url.clone(), self.tls.clone());
                    self.opening = Some(Box::pin(socket::open(url, tls)));
                }
                Action::Close => self.close().await,
                Action::GetToken { request, subject } => self.get_token(request, subject),
            }
        }
        if let Some(writer) = self.writer.as_mut().filter(|writer| writer.is_idle())
            && let Some(bytes) = self.session.poll_transmit()
        {
            writer.send(bytes);
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Reply { call, result } => {
                    let answer = self.answers.remove(&call);
                    // The caller may have stopped waiting.
                    let _dropped = answer.map(|answer| answer.send(result));
                }
                event => self.events.send(event),
            }
        }
        self.state.send_if_modified(|state| {
            std::mem::replace(state, self.session.state()) != self.session.state()
        });
    }

    async fn handle_order(&mut self, now: Instant, order: DriverCommand) {
        match order {
            DriverCommand::Connect { done } => {
                self.session.connect(now);
                self.drain().await;
                let _dropped = done.send(());
            }
            DriverCommand::Disconnect { done } => {
                self.session.disconnect();
                self.drain().await;
                let _dropped = done.send(());
            }
            DriverCommand::Subscribe { channel, options, answer } => {
                let _dropped = answer.send(self.session.subscribe(now, &channel, *options));
            }
            DriverCommand::Unsubscribe { channel } => self.session.unsubscribe(now, &channel),
            DriverCommand::Remove { channel } => self.session.remove(now, &channel),
            DriverCommand::Position { channel, answer } => {
                let _dropped = answer.send(self.session.position(&channel).cloned());
            }
            DriverCommand::Call { call, answer } => {
                let session = &mut self.session;
                let made = match call {
                    ClientCall::Publish { channel, data } => session.publish(now, &channel, data),
                    ClientCall::Rpc { method, data } => session.rpc(now, &method, data),
                    ClientCall::History(request) => session.history(now, request),
                    ClientCall::Presence { channel } => session.presence(now, &channel),
                    ClientCall::PresenceStats { channel } => session.presence_stats(now, &channel),
                };
                match made {
                    Ok(call) => drop(self.answers.insert(call, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
        }
    }

    fn get_token(&mut self, request: TokenRequestId, subject: TokenSubject) {
        match &self.token_callback {
            Some(callback) => {
                let callback = callback.clone();
                // In the task, where a panic of the application's function ends nothing else.
                let task = self.tokens.spawn(async move { callback(subject).await });
                self.token_requests.insert(task.id(), request);
            }
            None => {
                let now = Instant::now();
                self.session.handle_token(now, request, Err(TokenError::Unauthorized));
            }
        }
    }

    /// The socket has ended by itself.
    fn lose(&mut self, now: Instant, error: TransportError) {
        (self.reader, self.writer) = (None, None);
        self.session.handle_closed(now, error);
    }

    /// Sends the last bytes, and closes the socket.
    async fn close(&mut self) {
        (self.opening, self.reader) = (None, None);
        let last = self.session.poll_transmit();
        if let Some(mut writer) = self.writer.take() {
            // The peer may be gone, or read nothing any more.
            let _lost = timeout(CLOSE_TIMEOUT, writer.finish(last.unwrap_or_default())).await;
        }
    }
}

async fn opened(opening: &mut Option<Opening>) -> Result<ClientSocket, TransportError> {
    match opening {
        Some(future) => {
            let socket = future.await;
            *opening = None;
            socket
        }
        None => pending().await,
    }
}

async fn read(reader: &mut Option<ReadHalf<ClientSocket>>, buffer: &mut [u8]) -> io::Result<usize> {
    match reader {
        Some(reader) => reader.read(buffer).await,
        None => pending().await,
    }
}

async fn write(writer: &mut Option<SocketWriter>) -> io::Result<()> {
    match writer {
        Some(writer) => writer.step().await,
        None => pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

/// Randomness of the operating system.
fn system_random() -> RandomSource {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    Box::new(move || {
        let mut bytes = [0; 8];
        random.fill(&mut bytes).expect("the operating system gives random bytes");
        u64::from_le_bytes(bytes)
    })
}
