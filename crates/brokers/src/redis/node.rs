//! The thread of the Redis broker: keeps a connection, and moves bytes and requests between it, the parties and the
//! [`State`].
//!
//! Invariant: it never waits for Redis alone: requests are heard at all times.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::connection::Connection;
use super::link::{Broken, Link};
use super::names::Names;
use super::options::{Address, RedisError};
use super::resp::Decoder;
use super::state::State;
use super::{Job, Shared};
use crate::limits::{PING_INTERVAL, RECONNECT_DELAY_MAX, TURN_MAX};

/// See the module.
pub(super) struct Node {
    pub(super) address: Address,
    pub(super) connect_timeout: Duration,
    pub(super) jobs: UnboundedReceiver<Job>,
}

/// Why there is no link any more.
enum Cut {
    Broken,
    /// The broker is dropped.
    Ended,
}

impl From<Broken> for Cut {
    fn from(Broken: Broken) -> Cut {
        Cut::Broken
    }
}

impl Node {
    /// Connects, tells what came of it, and works until the broker is dropped.
    pub(super) async fn run(
        mut self,
        names: Names,
        shared: Arc<Shared>,
        started: oneshot::Sender<Result<(), RedisError>>,
    ) {
        let mut state = State::new(names, shared);
        let mut connection = match Connection::open(&self.address, self.connect_timeout).await {
            Ok(connection) => connection,
            Err(error) => {
                // Whoever started us waits for this.
                let _told = started.send(Err(error));
                return;
            }
        };
        let _told = started.send(Ok(()));
        loop {
            let cut = self.work(&mut state, connection).await;
            state.disconnect();
            if matches!(cut, Cut::Ended) {
                return;
            }
            match self.connect_again(&mut state).await {
                Some(again) => connection = again,
                None => return,
            }
        }
    }

    /// `None` when the broker is dropped.
    async fn connect_again(&mut self, state: &mut State) -> Option<Connection> {
        let (address, timeout) = (self.address.clone(), self.connect_timeout);
        let connecting = async {
            let mut delay = Duration::ZERO;
            loop {
                if let Ok(connection) = Connection::open(&address, timeout).await {
                    return connection;
                }
                delay = (delay + Duration::from_millis(20)).min(RECONNECT_DELAY_MAX);
                tokio::time::sleep(delay).await;
            }
        };
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                connection = &mut connecting => return Some(connection),
                job = self.jobs.recv() => state.handle(job?),
            }
        }
    }

    async fn work(&mut self, state: &mut State, connection: Connection) -> Cut {
        let Connection { stream, mut decoder, scripts } = connection;
        let (mut read, mut write) = stream.into_split();
        state.connect(scripts);
        let mut beat = beat();
        let mut is_ending = false;
        loop {
            if let Err(cut) = turn(state, &mut decoder) {
                return cut;
            }
            let Some(link) = &mut state.link else { return Cut::Broken };
            if is_ending && link.is_quiet() {
                return Cut::Ended;
            }
            let (deadline, has_room) = (link.deadline(), link.has_room());
            decoder.buffer.reserve(READ_BYTES);
            tokio::select! {
                result = read.read_buf(&mut decoder.buffer) => {
                    if !matches!(result, Ok(1..)) {
                        return Cut::Broken;
                    }
                }
                result = write.write_buf(&mut link.out), if !link.out.is_empty() => {
                    if result.is_err() {
                        return Cut::Broken;
                    }
                }
                job = self.jobs.recv(), if has_room && !is_ending => match job {
                    Some(job) => self.take(state, job),
                    None => {
                        state.end();
                        is_ending = true;
                    }
                },
                _ = beat.tick(), if !is_ending => state.beat(),
                () = until(deadline) => return Cut::Broken,
            }
        }
    }

    /// Takes what waits, so that it leaves in one write.
    fn take(&mut self, state: &mut State, first: Job) {
        state.handle(first);
        for _ in 1..TURN_MAX {
            if !state.link.as_ref().is_some_and(Link::has_room) {
                return;
            }
            match self.jobs.try_recv() {
                Ok(job) => state.handle(job),
                Err(_) => return,
            }
        }
    }
}

/// Handles everything that has come.
fn turn(state: &mut State, decoder: &mut Decoder) -> Result<(), Cut> {
    while let Some(value) = decoder.next().map_err(|_| Cut::Broken)? {
        state.hear(value)?;
    }
    state.end_turn();
    Ok(())
}

fn beat() -> Interval {
    let mut beat = tokio::time::interval(PING_INTERVAL);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Room for one read.
const READ_BYTES: usize = 65_536;
