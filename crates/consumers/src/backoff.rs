//! Delays between attempts: they double up to a maximum, and are spread at random so that nodes do
//! not try at the same time.

use std::time::Duration;

/// Delays between attempts.
#[derive(Clone, Debug)]
pub struct RetryBackoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl RetryBackoff {
    /// Delays that begin with `first` and double up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> RetryBackoff {
        RetryBackoff { first, longest, next: first }
    }

    /// The delay before the next attempt: between half of the step and the whole step.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Begins again with the first delay, after an attempt that succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_begin_again() {
        let ms = Duration::from_millis;
        let mut backoff = RetryBackoff::new(ms(100), ms(350));
        for step in [100, 200, 350, 350] {
            let delay = backoff.next_delay();
            assert!(delay >= ms(step) / 2 && delay <= ms(step), "{delay:?} of {step} ms");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= ms(100));
    }
}
