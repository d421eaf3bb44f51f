//! Reads the system clocks for the rest of the server.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::time::Now;

/// Clock with a monotonic time since the start and the Unix time.
#[derive(Clone, Copy, Debug)]
pub struct ServerClock {
    start: Instant,
}

impl ServerClock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> ServerClock {
        ServerClock { start: Instant::now() }
    }

    /// Reads both times.
    #[must_use]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

impl brokers::Clock for ServerClock {
    fn monotonic_ms(&self) -> u64 {
        self.now().monotonic_ms
    }
}
