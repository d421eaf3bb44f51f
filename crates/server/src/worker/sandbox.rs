//! Runs the engine so that a panic closes only the session that was being handled.
//!
//! Invariant: after a panic the engine is consistent before the next input is handled.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::SessionKey;
use engine::time::Now;
use engine::worker::Worker as Engine;
use tracing::error;

use crate::supervision::supervisor::panic_text;

/// Handles an input that belongs to no single session: a broker event or a timer.
pub(super) fn run(engine: &mut Engine, now: Now, handle: impl FnOnce(&mut Engine)) {
    guard(engine, now, None, handle);
}

/// Handles an input of one session, which is closed after a panic unless the engine was handling
/// another session.
pub(super) fn run_for(
    engine: &mut Engine,
    now: Now,
    owner: SessionKey,
    handle: impl FnOnce(&mut Engine),
) {
    guard(engine, now, Some(owner), handle);
}

fn guard(
    engine: &mut Engine,
    now: Now,
    owner: Option<SessionKey>,
    handle: impl FnOnce(&mut Engine),
) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| handle(engine))) else {
        return;
    };
    let current_session = engine.current_session().or(owner);
    let identity = current_session.and_then(|key| engine.identity(key));
    let (user, client) = identity.map_or(("", ""), |identity| (identity.user, identity.client));
    let reason = panic_text(&*panic);
    let is_closed = current_session.is_some();
    error!(
        user,
        client,
        reason,
        is_closed,
        "handling an input has panicked; this is a bug, please report it with this line"
    );
    if engine.handle_panic(now).is_none()
        && let Some(key) = owner
    {
        engine.abandon(now, key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::encoding::{Encoder, Encoding};
    use engine::hash_keys::HashKeys;
    use engine::rules::Rules;
    use engine::{Effect, Opening, PingStyle};
    use wire::protocol::{Codec, DisconnectCode};
    use wire::websocket::deflate::Deflater;

    use super::*;

    const NOW: Now = Now { monotonic_ms: 0, unix_ms: 0 };

    fn opening() -> Opening {
        let encoding = Encoding { codec: Codec::Json, deflate: None };
        Opening { encoding, user: None, ping_style: PingStyle::Protocol }
    }

    fn closed(engine: &mut Engine) -> Vec<(SessionKey, u16)> {
        let effects = std::iter::from_fn(|| engine.poll_effect());
        let close = |effect| match effect {
            Effect::Close { key, disconnect } => Some((key, disconnect.number())),
            _ => None,
        };
        effects.filter_map(close).collect()
    }

    #[test]
    fn a_panic_closes_the_session_whose_input_it_was_and_no_other() {
        let encoder = Encoder::new(Deflater::new(1), 0);
        let (rules, hasher) = (Arc::new(Rules::default()), HashKeys::new([1, 2]));
        let mut engine = Engine::new(NOW, rules, encoder, 1, hasher);
        let [first, second] = [(), ()].map(|()| engine.handle_open(NOW, opening()));
        run(&mut engine, NOW, |_| panic!("no session was being handled"));
        assert_eq!(closed(&mut engine), []);
        run_for(&mut engine, NOW, first, |_| panic!("a message could not be decoded"));
        assert_eq!(closed(&mut engine), [(first, DisconnectCode::ServerError.number())]);
        run_for(&mut engine, NOW, second, |engine| engine.handle_message(NOW, second, b"{}"));
        assert_eq!(closed(&mut engine), [(second, DisconnectCode::BadRequest.number())]);
    }
}
