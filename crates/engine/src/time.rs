//! Time as an argument: the driver of the engine supplies it.

/// The current time on two clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; used for timers.
    pub monotonic_ms: u64,
    /// Unix time in milliseconds; used for expiry of tokens. It may jump.
    pub unix_ms: i64,
}

impl Now {
    /// The monotonic time at which the Unix clock shows `unix_ms` if it does not jump; now if that
    /// time has passed.
    #[must_use]
    pub fn monotonic_at(self, unix_ms: i64) -> u64 {
        let ahead_ms = unix_ms.saturating_sub(self.unix_ms);
        self.monotonic_ms.saturating_add(u64::try_from(ahead_ms).unwrap_or(0))
    }

    /// Seconds from now until `unix_seconds`, rounded up; zero or less if that time has passed.
    #[must_use]
    pub fn seconds_until(self, unix_seconds: i64) -> i64 {
        let ahead_ms = unix_seconds.saturating_mul(1000).saturating_sub(self.unix_ms);
        ahead_ms.saturating_add(999).div_euclid(1000)
    }
}
