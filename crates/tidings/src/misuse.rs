//! An invalid argument or setting: reported in one line, with exit status 2, since trying
//! again changes nothing.

use std::fmt;

use server::config;

/// An invalid argument or setting, reported in one line.
#[derive(Debug)]
pub(crate) struct Misuse(pub(crate) String);

impl fmt::Display for Misuse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// Ends with a [`Misuse`].
macro_rules! misuse {
    ($($text:tt)*) => {
        return Err(anyhow::Error::new($crate::misuse::Misuse(format!($($text)*))))
    };
}

pub(crate) use misuse;

/// Milliseconds of an argument such as `10s`.
pub(crate) fn duration_ms(flag: &str, text: &str) -> anyhow::Result<u64> {
    match config::parse_duration_ms(text) {
        Some(ms) => Ok(ms),
        None if text.parse::<f64>().is_ok_and(|number| number > 0.0) => {
            misuse!(
                "{flag} {text}: a time needs a unit; did you mean {text}s (seconds) or {text}m (minutes)?"
            )
        }
        None => misuse!("{flag} {text}: expected a time such as 250ms, 10s, 5m or 24h"),
    }
}
