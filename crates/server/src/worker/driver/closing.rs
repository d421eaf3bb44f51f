//! Closing of connections: our close frame, the peer's, and a lingering close of the socket.
//!
//! Invariant: a socket with unread input is not closed before its peer has had time to read our
//! close frame. The kernel answers unread input with a reset, which destroys a close frame that is
//! still on its way (RFC 6455 §7.1.1).

use std::io;
use std::sync::atomic::Ordering;

use engine::SessionKey;
use engine::time::Now;
use tracing::debug;
use wire::protocol::{Disconnect, DisconnectCode};
use wire::websocket::close::CloseCode;
use wire::websocket::encoder;
use wire::websocket::protocol_error::ProtocolError;

use super::Driver;
use crate::limits::{CLOSE_TIMEOUT_MS, HALF_CLOSE_DELAY_MS, LINGER_BYTES_MAX, READS_PER_TURN};
use crate::worker::connection::{CloseState, ConnectionStanding};
use crate::worker::sandbox;

impl Driver {
    pub(super) fn close(&mut self, key: SessionKey, disconnect: &Disconnect) {
        let (user, client) = self.identity_of(key);
        let now_ms = self.parts.clock.monotonic_ms();
        let Some(connection) = self.connection(key) else {
            return;
        };
        if connection.state != CloseState::Open {
            return;
        }
        // Official clients take 3000 for a lost transport, which no close frame announces.
        let is_silent = disconnect.number() == DisconnectCode::ConnectionClosed.number();
        connection.state = if is_silent { CloseState::Closed } else { CloseState::Closing };
        let (code, reason) = (disconnect.number(), disconnect.reason());
        debug!(code, reason, user, client, "server closes the connection");
        self.closes.count(code);
        if is_silent {
            return self.finish(key);
        }
        self.close_deadlines.push_back((now_ms + CLOSE_TIMEOUT_MS, key));
        if *disconnect == DisconnectCode::Slow.into()
            && let Some(outbox) = self.engine.outbox(key)
        {
            outbox.drop_unbegun();
        }
        // Codes that are invalid in a close frame were refused by the API.
        let code = CloseCode::new(code).unwrap_or(CloseCode::AWAY);
        self.send_close_frame(key, encoder::close_frame(code.number(), reason));
    }

    /// Fails a connection whose peer has violated RFC 6455 (§7.1.7).
    pub(super) fn handle_breach(&mut self, key: SessionKey, failure: ProtocolError) {
        let code = failure.close_code();
        let (user, client) = self.identity_of(key);
        debug!(code = code.number(), reason = %failure, user, client, "WebSocket protocol violation");
        let Some(connection) = self.connection(key) else { return };
        // Further input cannot be decoded.
        let before = std::mem::replace(&mut connection.state, CloseState::Failed);
        let now = self.parts.clock.now();
        sandbox::run_for(&mut self.engine, now, key, |engine| engine.handle_disconnect(now, key));
        if before == CloseState::Open {
            self.closes.count(code.number());
            self.send_close_frame(key, encoder::close_frame(code.number(), &failure.to_string()));
        }
        self.finish(key);
    }

    /// Queues a close frame and flushes. The bound of the outbox does not apply, since nothing
    /// follows.
    pub(super) fn send_close_frame(&mut self, key: SessionKey, frame: bytes::Bytes) {
        if let Some(outbox) = self.engine.outbox(key) {
            let pushed = outbox.push(frame, usize::MAX);
            debug_assert!(pushed.is_ok(), "there is no bound");
        }
        self.flush(key);
    }

    /// Closes the socket when everything is written; both close frames are sent or not needed.
    pub(super) fn finish(&mut self, key: SessionKey) {
        let now_ms = self.parts.clock.monotonic_ms();
        self.close_deadlines.push_back((now_ms + CLOSE_TIMEOUT_MS, key));
        self.flush(key);
    }

    /// Lingering close, once everything is written: shuts down writing and discards input until the
    /// peer's stream ends. On a failed connection writing is shut down later, because a browser
    /// that reads the end of the stream before it has sent its close frame reports 1006. A peer
    /// that has closed as well sends nothing more, so that usually the socket is closed at once.
    pub(super) fn linger(&mut self, key: SessionKey) {
        let now_ms = self.parts.clock.monotonic_ms();
        let Some(connection) = self.connection(key) else { return };
        // The session has ended, so its permit is released before the peer can see the end of the
        // stream and reconnect. A connection that was never admitted keeps its slot until its
        // socket is closed, because slots bound the number of such sockets.
        if matches!(connection.standing, ConnectionStanding::Admitted { .. }) {
            connection.standing = ConnectionStanding::Ended;
        }
        if connection.state == CloseState::Failed {
            connection.state = CloseState::Lingering { bytes_left: LINGER_BYTES_MAX };
            self.half_closes.push_back((now_ms + HALF_CLOSE_DELAY_MS, key));
            return;
        }
        match connection.socket.finish() {
            Ok(()) if connection.state == CloseState::Closed && connection.socket.is_drained() => {
                self.remove(key, DisconnectCode::ConnectionClosed.number());
            }
            Ok(()) => {
                connection.state = CloseState::Lingering { bytes_left: LINGER_BYTES_MAX };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some(outbox) = self.engine.outbox(key) {
                    outbox.mark_blocked();
                }
            }
            Err(_) => self.remove(key, DisconnectCode::ConnectionClosed.number()),
        }
    }

    /// Shuts down writing on failed connections whose delay has passed.
    pub(super) fn half_close(&mut self, now: Now) {
        while let Some((_, key)) =
            self.half_closes.pop_front_if(|(at_ms, _)| *at_ms <= now.monotonic_ms)
        {
            if let Some(connection) = self.connection(key) {
                // A peer that does not read is removed at its deadline.
                let _unsent = connection.socket.finish();
            }
        }
    }

    /// Reads and discards input. Returns whether the kernel has no more data for now.
    pub(super) fn discard(&mut self, key: SessionKey, buffer: &mut [u8]) -> bool {
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connection(key) else { return true };
            let CloseState::Lingering { bytes_left } = &mut connection.state else { return true };
            match connection.socket.discard(buffer) {
                Ok(count) if count > 0 && *bytes_left > 0 => {
                    *bytes_left =
                        bytes_left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
                    self.traffic.received += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The end of the stream, or more input than a peer sends that is about to read.
                Ok(_) | Err(_) => {
                    self.remove(key, DisconnectCode::ConnectionClosed.number());
                    return true;
                }
            }
        }
        false
    }

    /// Fails a connection whose peer has violated TLS; the alert is already sent.
    pub(super) fn handle_tls_breach(&mut self, key: SessionKey) {
        let now = self.parts.clock.now();
        let Some(connection) = self.connection(key) else { return };
        let before = std::mem::replace(&mut connection.state, CloseState::Failed);
        if before == CloseState::Open {
            self.closes.count(DisconnectCode::ConnectionClosed.number());
        }
        sandbox::run_for(&mut self.engine, now, key, |engine| engine.handle_disconnect(now, key));
        self.close_deadlines.push_back((now.monotonic_ms + CLOSE_TIMEOUT_MS, key));
        self.linger(key);
    }

    /// Removes connections whose closing handshake has exceeded its deadline.
    pub(super) fn remove_overdue(&mut self, now: Now) {
        while let Some((_, key)) =
            self.close_deadlines.pop_front_if(|(at_ms, _)| *at_ms <= now.monotonic_ms)
        {
            self.remove(key, DisconnectCode::ConnectionClosed.number());
        }
    }

    /// Removes a connection at once; queued frames are dropped.
    pub(super) fn remove(&mut self, key: SessionKey, code: u16) {
        if self.connection(key).is_none() {
            return;
        }
        let Some(mut connection) = self.connections[key.slot as usize].take() else {
            return;
        };
        if connection.state == CloseState::Open {
            self.closes.count(code);
        }
        connection.standing = ConnectionStanding::Ended;
        // The socket is closed either way.
        let _unsent = connection.socket.finish();
        let now = self.parts.clock.now();
        sandbox::run_for(&mut self.engine, now, key, |engine| engine.handle_gone(now, key));
        // After a panic the closed session is still in its slot; otherwise this does nothing.
        self.engine.handle_gone(now, key);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if self.count.load(Ordering::Relaxed) == 0 {
            self.connections = Vec::new();
        }
    }
}
