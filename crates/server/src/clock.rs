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
        Now { monotonic_ms: self.monotonic_ms(), unix_ms: self.unix_ms() }
    }

    /// Reads the monotonic time alone, at half the price.
    #[must_use]
    pub fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads the Unix time alone.
    #[must_use]
    pub fn unix_ms(&self) -> i64 {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(unix.as_millis()).unwrap_or(i64::MAX)
    }
}

impl brokers::Clock for ServerClock {
    fn monotonic_ms(&self) -> u64 {
        ServerClock::monotonic_ms(self)
    }
}
