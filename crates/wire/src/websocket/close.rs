//! Close codes and close frames (RFC 6455 §5.5.1, §7.4).

use std::fmt;

/// A code that may appear in a close frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The connection has fulfilled its purpose.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// An endpoint shuts down, or a page was left.
    pub const AWAY: CloseCode = CloseCode(1001);
    /// The peer violated RFC 6455.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// The peer sent text that is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// The peer sent a message above the size limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);

    /// Creates a code; `None` for numbers that are reserved for local use or not assigned (§7.4.1,
    /// §7.4.2).
    #[must_use]
    pub fn new(number: u16) -> Option<CloseCode> {
        matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(CloseCode(number))
    }

    /// Returns the number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// The content of a close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// Code of the close frame.
    pub code: CloseCode,
    /// Reason in words; may be empty.
    pub reason: String,
}
