//! A backend: one endpoint with everything that calls to it share.
//!
//! A call passes: the kept answers, the same question under way, the breaker, the queue for a
//! place, and up to three attempts.
//!
//! Invariant: a call ends at its deadline at the latest. A lock is never held across an await.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::answers::{AnswerTime, HeadersPart, Lifetime, QuestionKey};
use crate::breaker::{BreakerPass, BreakerState, CallEnd};
use crate::bulkhead::{Bulkhead, QueueIsFull};
use crate::failure::{BackendError, FailureKind};
use crate::headers::CallerHeaders;
use crate::limits::{ATTEMPTS_MAX, RETRY_PAUSE};
use crate::reply::ProxyReply;
use crate::request::ProxyRequest;
use crate::settings::{BackendSettings, TransformTarget, WhenOpen};
use crate::state::{BackendState, Refused, StateChange};
use crate::stats::BackendStats;
use crate::transport::{BackendTransport, EncodedQuestion};

/// A backend of the application.
pub struct Backend {
    settings: BackendSettings,
    transport: BackendTransport,
    bulkhead: Bulkhead,
    state: Mutex<BackendState>,
    /// Shared questions under way.
    asked: Mutex<HashMap<QuestionKey, Arc<AskedQuestion>>>,
    started: Instant,
}

type Outcome = Result<ProxyReply, BackendError>;
type AskedQuestion = OnceCell<Outcome>;

/// A reply and the time for which the backend allows to reuse it.
struct Answer {
    reply: ProxyReply,
    max_age: Duration,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Backend {
    /// Prepares calls. The first one connects.
    #[must_use]
    pub fn new(settings: BackendSettings) -> Backend {
        Backend {
            transport: BackendTransport::new(&settings),
            bulkhead: Bulkhead::new(settings.concurrency, settings.queue),
            state: Mutex::new(BackendState::new(settings.breaker)),
            asked: Mutex::default(),
            started: Instant::now(),
            settings,
        }
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Asks the backend, or takes an answer to the same question.
    ///
    /// # Errors
    /// When there is no usable answer before the deadline.
    pub async fn call(
        &self,
        mut request: ProxyRequest,
        headers: &CallerHeaders,
    ) -> Result<ProxyReply, BackendError> {
        let deadline = Instant::now() + self.settings.timeout;
        if !self.settings.includes_meta {
            request.meta.clear();
        }
        let part = self.settings.share.reduce(&mut request);
        let forwarded = match part {
            Some(HeadersPart::LeftOut) => Default::default(),
            Some(HeadersPart::Included) | None => self.settings.forwarding.select(headers),
        };
        let question = match self.transport.question(&request, forwarded, &self.settings) {
            Ok(question) => question,
            Err(error) => {
                self.note_failure(&error);
                return Err(error);
            }
        };
        match part {
            None => self.ask(deadline, &question).await.map(|answer| answer.reply),
            Some(_) => self.ask_shared(deadline, &question).await,
        }
    }

    /// Counts since the start, and the state now.
    #[must_use]
    pub fn stats(&self) -> BackendStats {
        let state = self.lock();
        BackendStats {
            name: self.settings.name.clone(),
            breaker: state.breaker(),
            opened: state.opened(),
            in_flight: state.in_flight(),
            waiting: self.bulkhead.waiting() as u64,
            calls: state.counts.clone(),
        }
    }

    /// Asks once for all who have the same question.
    async fn ask_shared(&self, deadline: Instant, question: &EncodedQuestion) -> Outcome {
        let key = question.key();
        let kept = self.lock().answers.fresh(self.answer_time(), &key).cloned();
        if let Some(reply) = kept {
            self.lock().counts.cached += 1;
            return Ok(reply);
        }
        let asked = self.join(&key);
        let ask = || async {
            let answer = self.ask(deadline, question).await?;
            let when_open = self.settings.when_open;
            let lifetime = Lifetime {
                fresh_ms: millis(answer.max_age),
                stale_ms: match when_open {
                    WhenOpen::Deny => 0,
                    WhenOpen::Allow { stale_max_age } => millis(stale_max_age),
                },
            };
            self.lock().answers.keep(self.answer_time(), &key, &answer.reply, lifetime);
            Ok(answer.reply)
        };
        let outcome = asked.question.get_or_init(ask).await.clone();
        drop(asked);
        outcome.or_else(|error| {
            let mut state = self.lock();
            let is_refused =
                matches!(error.kind, FailureKind::BreakerOpen | FailureKind::Throttled);
            let stale = state.answers.stale(self.answer_time(), &key).cloned();
            let stale = stale.filter(|_| is_refused).ok_or(error)?;
            state.counts.stale += 1;
            Ok(stale)
        })
    }

    /// The same question under way, or this one as the first.
    fn join(&self, key: &QuestionKey) -> Joined<'_> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = asked.get(key) {
            self.lock().counts.joined += 1;
            return Joined { backend: self, key: key.clone(), question: question.clone() };
        }
        let question = Arc::<AskedQuestion>::default();
        asked.insert(key.clone(), question.clone());
        Joined { backend: self, key: key.clone(), question }
    }

    /// Asks the backend, and counts and logs what came of it.
    async fn ask(
        &self,
        deadline: Instant,
        question: &EncodedQuestion,
    ) -> Result<Answer, BackendError> {
        let outcome = match self.attempts(deadline, question).await {
            Err(error) => match self.transformed(&error) {
                Some(reply) => Ok(Answer { reply, max_age: Duration::ZERO }),
                None => Err(error),
            },
            answer => answer,
        };
        match &outcome {
            Ok(Answer { reply: ProxyReply::Result(_), .. }) => self.lock().counts.results += 1,
            Ok(_) => self.lock().counts.refusals += 1,
            Err(error) => self.note_failure(error),
        }
        outcome
    }

    async fn attempts(
        &self,
        deadline: Instant,
        question: &EncodedQuestion,
    ) -> Result<Answer, BackendError> {
        // While the circuit breaker is open, a call fails before it is queued.
        self.lock().check(self.now_ms()).map_err(refusal)?;
        let overloaded = |detail| BackendError::new(FailureKind::Overloaded, detail);
        let place = timeout_at(deadline, self.bulkhead.enter()).await;
        let _place = place
            .map_err(|_| overloaded("no place among the concurrent calls before the deadline"))?
            .map_err(|QueueIsFull| overloaded("the queue of calls is full"))?;
        let mut attempts = 1;
        loop {
            let error = match self.attempt(deadline, question).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let may_repeat = question.method.is_idempotent()
                && error.kind.is_before_answer()
                && attempts < ATTEMPTS_MAX;
            // Between half and one and a half of the mean.
            let pause = RETRY_PAUSE.mul_f64(f64::from(attempts) * (0.5 + fastrand::f64()));
            if !may_repeat || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            attempts += 1;
            self.lock().counts.retries += 1;
        }
    }

    async fn attempt(
        &self,
        deadline: Instant,
        question: &EncodedQuestion,
    ) -> Result<Answer, BackendError> {
        let (pass, change) = self.lock().begin(self.now_ms()).map_err(refusal)?;
        self.note_change(change);
        let attempt = Attempt { backend: self, pass: Some(pass), started: Instant::now() };
        let outcome = timeout_at(deadline, self.transport.call(question)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            let detail = format!("no answer within {:?}", self.settings.timeout);
            Err(BackendError::new(FailureKind::Timeout, detail))
        });
        let outcome = outcome.and_then(|raw| {
            let reply = self.transport.read(question.method, &raw)?;
            Ok(Answer { reply, max_age: raw.max_age })
        });
        attempt.end(outcome.as_ref().err());
        outcome
    }

    /// The reply that is configured for a status.
    fn transformed(&self, error: &BackendError) -> Option<ProxyReply> {
        let status = error.status?;
        let transform = self.settings.transforms.iter().find(|one| one.status == status)?;
        Some(match transform.target.clone() {
            TransformTarget::Error { code, message, temporary } => {
                ProxyReply::Error { code, message, temporary }
            }
            TransformTarget::Disconnect { code, reason } => ProxyReply::Disconnect { code, reason },
        })
    }

    fn note_failure(&self, error: &BackendError) {
        let mut state = self.lock();
        state.counts.count_failure(error.kind);
        let Some(suppressed) = state.log.admit(self.now_ms(), error.kind) else { return };
        drop(state);
        let (proxy, endpoint) = (&self.settings.name, &self.settings.address);
        let (cause, detail) = (error.kind.name(), &error.detail);
        warn!(proxy, %endpoint, cause, detail, suppressed, "a call to a backend failed");
    }

    fn note_change(&self, change: Option<StateChange>) {
        let Some(StateChange { from, to }) = change else { return };
        let (proxy, endpoint) = (&self.settings.name, &self.settings.address);
        let from = from.name();
        match to {
            BreakerState::Open => {
                warn!(proxy, %endpoint, from, "circuit breaker opened");
            }
            BreakerState::HalfOpen => {
                info!(proxy, %endpoint, from, "circuit breaker half-open");
            }
            BreakerState::Closed => {
                info!(proxy, %endpoint, from, "circuit breaker closed");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BackendState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn answer_time(&self) -> AnswerTime {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        AnswerTime { now_ms: self.now_ms(), unix: i64::try_from(unix).unwrap_or(i64::MAX) }
    }
}

/// An attempt under way. Its end is counted also when it is dropped.
struct Attempt<'b> {
    backend: &'b Backend,
    pass: Option<BreakerPass>,
    started: Instant,
}

impl Attempt<'_> {
    fn end(mut self, error: Option<&BackendError>) {
        let took = self.started.elapsed();
        let took_ms = millis(took);
        let end = match error {
            None => CallEnd::Answered { took_ms },
            Some(error) if self.is_decision(error) => CallEnd::Answered { took_ms },
            Some(error) if error.kind.is_of_backend() => CallEnd::Failed { took_ms },
            Some(_) => CallEnd::Unknown,
        };
        let mut state = self.backend.lock();
        state.counts.count_attempt(took);
        let retry_after = error.and_then(|error| error.retry_after);
        if let Some(retry_after) = retry_after.filter(|_| end == CallEnd::Unknown) {
            state.pause(self.backend.now_ms(), retry_after);
        }
        drop(state);
        self.finish(end);
    }

    /// Whether a status below 500 has a configured meaning: then it is an answer.
    fn is_decision(&self, error: &BackendError) -> bool {
        error.status.is_some_and(|status| status < 500) && self.backend.transformed(error).is_some()
    }

    fn finish(&mut self, end: CallEnd) {
        if let Some(pass) = self.pass.take() {
            let change = self.backend.lock().end(self.backend.now_ms(), pass, end);
            self.backend.note_change(change);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.finish(CallEnd::Unknown);
    }
}

/// Membership in a question under way. The last one who leaves removes it.
struct Joined<'b> {
    backend: &'b Backend,
    key: QuestionKey,
    question: Arc<AskedQuestion>,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut asked = self.backend.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = asked.get(&self.key).is_some_and(|one| Arc::ptr_eq(one, &self.question));
        // One reference is that of the map.
        let is_last = Arc::strong_count(&self.question) == 2;
        if is_same && (is_last || self.question.initialized()) {
            asked.remove(&self.key);
        }
    }
}

fn refusal(refused: Refused) -> BackendError {
    match refused {
        Refused::Open => BackendError::new(FailureKind::BreakerOpen, "the circuit breaker is open"),
        Refused::Paused => {
            BackendError::new(FailureKind::Throttled, "the backend asked for a pause")
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
