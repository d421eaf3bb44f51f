//! Log lines and counters about single clients: refusals, mismatched tokens, gaps.
//!
//! Invariant: every refusal is counted, log lines about refusals are limited, and no token is
//! logged.

use engine::counters::CommandKind;
use engine::{SessionKey, SessionNotice};
use tracing::{debug, info};
use wire::protocol::ErrorCode;

use super::Driver;
use crate::admission::call_place::CallPlace;
use crate::telemetry::{RefusalSubject, shown};
use crate::token::Cause as TokenCause;

impl Driver {
    /// Logs and counts a notice of the engine.
    pub(super) fn note(&self, key: SessionKey, channel: &str, cause: &SessionNotice) {
        let (user, client) = self.identity_of(key);
        match cause {
            SessionNotice::Refused { command, code } => {
                self.note_refused(key, *command, channel, *code);
            }
            SessionNotice::TokenMismatch { kind, claim, found } => {
                let refusals = &self.parts.counts.refusals;
                if let Some(left_out) = refusals.note(RefusalSubject::Token, claim.name()) {
                    let (kind, claim, found) = (kind.name(), claim.name(), &**found);
                    info!(
                        kind,
                        claim,
                        found,
                        user,
                        client,
                        channel = shown(channel),
                        left_out,
                        "token rejected: claim does not match the session"
                    );
                }
            }
            SessionNotice::Limited(bucket) => {
                debug!(bucket = bucket.name(), user, client, channel, "command rate-limited");
            }
            SessionNotice::Gap => debug!(user, client, channel, "a gap was reported"),
            SessionNotice::Skipped => {
                debug!(user, client, channel, "a publication that is not JSON was skipped");
            }
        }
    }

    fn note_refused(&self, key: SessionKey, command: CommandKind, channel: &str, code: ErrorCode) {
        let subject = match command {
            CommandKind::Publish => RefusalSubject::Publish,
            CommandKind::Presence | CommandKind::PresenceStats => RefusalSubject::Presence,
            CommandKind::History => RefusalSubject::History,
            _ => RefusalSubject::Subscribe,
        };
        let reason = match code {
            ErrorCode::PermissionDenied => "permission_denied",
            ErrorCode::UnknownChannel => "unknown_channel",
            ErrorCode::NotAvailable => "not_available",
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::TokenExpired => "token_expired",
            ErrorCode::LimitExceeded => "limit_exceeded",
            _ => "other",
        };
        let (user, client) = self.identity_of(key);
        let (command, code, channel) = (command.name(), code.number(), shown(channel));
        let refusals = &self.parts.counts.refusals;
        // Only a missing permission needs an operator's attention.
        if reason != "permission_denied" {
            refusals.count(subject, reason);
            debug!(command, code, reason, user, client, channel, "command rejected");
        } else if let Some(left_out) = refusals.note(subject, reason) {
            info!(command, code, reason, user, client, channel, left_out, "command rejected");
        }
    }

    /// Logs and counts a refused token.
    pub(super) fn note_token(&self, CallPlace { key, call }: CallPlace, cause: TokenCause) {
        let (user, client) = self.identity_of(key);
        let channel = shown(self.engine.channel_of_call(key, call));
        let refusals = &self.parts.counts.refusals;
        let reason = cause.name();
        // Expired tokens are expected: the client fetches a new one.
        if cause.refusal() != engine::claims::TokenRefusal::Invalid {
            refusals.count(RefusalSubject::Token, reason);
            debug!(reason, user, client, channel, "a token is refused: {cause}");
        } else if let Some(left_out) = refusals.note(RefusalSubject::Token, reason) {
            info!(reason, user, client, channel, left_out, "a token is refused: {cause}");
        }
    }
}
