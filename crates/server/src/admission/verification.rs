//! Verification of tokens: cheap ones on the worker's thread, expensive ones on verifier threads,
//! and those whose keys must be fetched on a separate thread.
//!
//! Invariant: a worker never waits for a verification, a verifier thread never waits for a key
//! server, and the queues of both are bounded.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use engine::{CallOutcome, TokenKind};
use tracing::error;

use crate::admission::call_place::CallPlace;
use crate::admission::token_result::TokenResult;
use crate::clock::ServerClock;
use crate::limits::{VERIFICATIONS_MAX, VERIFIER_THREADS};
use crate::supervision::supervisor::{panic_text, spawn_thread};
use crate::token::{Cause, Cost, Verifier};
use crate::worker::inbox::{Input, WorkerInbox};

/// Queue and threads that verify tokens.
pub struct Verification {
    verifiers: Arc<Verifiers>,
    tasks: SyncSender<Task>,
}

/// One verifier for each kind of token.
pub struct Verifiers {
    /// Verifies connection tokens.
    pub connection: Arc<Verifier>,
    /// Verifies subscription tokens; may be the same verifier.
    pub subscription: Arc<Verifier>,
}

/// A token to verify, and the call that asks for it.
pub(crate) struct TokenCheck {
    pub(crate) place: CallPlace,
    pub(crate) kind: TokenKind,
    pub(crate) token: String,
}

struct Task {
    check: TokenCheck,
    /// Inbox that the verdict is sent to.
    inbox: Arc<WorkerInbox>,
}

impl Verification {
    /// Starts the threads, which end when this is dropped.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(verifiers: Verifiers, clock: ServerClock) -> io::Result<Verification> {
        let (tasks, waiting) = sync_channel(VERIFICATIONS_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let (fetches, for_keys) = sync_channel(VERIFICATIONS_MAX);
        let verifiers = Arc::new(verifiers);
        for index in 0..VERIFIER_THREADS {
            let (waiting, fetches, verifiers) =
                (waiting.clone(), fetches.clone(), verifiers.clone());
            let verify = move || verifiers.run(&waiting, &fetches, clock);
            spawn_thread(format!("verifier-{index}"), verify)?;
        }
        let fetching = verifiers.clone();
        let fetch = move || for_keys.iter().for_each(|task| fetching.answer(&task, clock));
        spawn_thread("key-fetcher".to_owned(), fetch)?;
        Ok(Verification { verifiers, tasks })
    }

    /// Verifies a token. Returns `None` if the verdict will be sent to the inbox.
    pub(crate) fn verify(
        &self,
        unix_ms: i64,
        check: TokenCheck,
        inbox: &Arc<WorkerInbox>,
    ) -> Option<TokenResult> {
        let kind = check.kind;
        if self.verifiers.of(kind).cost(&check.token) == Cost::Inline {
            return Some(self.verifiers.verify(unix_ms, kind, &check.token));
        }
        let task = Task { check, inbox: inbox.clone() };
        let is_taken = self.tasks.try_send(task).is_ok();
        (!is_taken).then(|| TokenResult::refuse(kind, Cause::Overloaded))
    }
}

impl Verifiers {
    fn of(&self, kind: TokenKind) -> &Verifier {
        match kind {
            TokenKind::Connection => &self.connection,
            TokenKind::Subscription => &self.subscription,
        }
    }

    fn verify(&self, unix_ms: i64, kind: TokenKind, token: &str) -> TokenResult {
        let verifier = self.of(kind);
        let now = unix_ms / 1000;
        match kind {
            TokenKind::Connection => {
                TokenResult::of(verifier.judge_connection(token, now), CallOutcome::Connection)
            }
            TokenKind::Subscription => {
                TokenResult::of(verifier.judge_subscription(token, now), CallOutcome::Subscription)
            }
        }
    }

    fn run(&self, waiting: &Mutex<Receiver<Task>>, fetches: &SyncSender<Task>, clock: ServerClock) {
        loop {
            let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(task) = task else { return };
            let now = clock.unix_ms() / 1000;
            if !self.of(task.check.kind).needs_fetch(&task.check.token, now) {
                self.answer(&task, clock);
            } else if let Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) =
                fetches.try_send(task)
            {
                let token_result = TokenResult::refuse(task.check.kind, Cause::Overloaded);
                task.inbox.send(Input::TokenResult(task.check.place, token_result));
            }
        }
    }

    /// Verifies a token and sends the verdict to its worker.
    fn answer(&self, task: &Task, clock: ServerClock) {
        let unix_ms = clock.unix_ms();
        let Task { check: TokenCheck { place, kind, token }, inbox } = task;
        let verify = || self.verify(unix_ms, *kind, token);
        let token_result = catch_unwind(AssertUnwindSafe(verify)).unwrap_or_else(|panic| {
            let reason = panic_text(&*panic);
            error!(reason, "token verification panicked; this is a bug, please report it");
            TokenResult::refuse(*kind, Cause::Panicked)
        });
        inbox.send(Input::TokenResult(*place, token_result));
    }
}
