//! An invalid argument: reported in one line, with exit status 2, since trying again changes
//! nothing.

use std::fmt;

/// An argument, or a line of a scenario file, with which no run is possible.
#[derive(Debug)]
pub struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Ends with a [`UsageError`].
macro_rules! usage_error {
    ($($text:tt)*) => {
        return Err(anyhow::Error::new($crate::usage::UsageError(format!($($text)*))))
    };
}

pub(crate) use usage_error;
