//! Close codes and close frames (RFC 6455 §5.5.1, §7.4).

use std::fmt;

/// A code that may stand in a close frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// An endpoint goes away.
    pub const AWAY: CloseCode = CloseCode(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// The peer sent what is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// The peer sent more than is accepted.
    pub const TOO_BIG: CloseCode = CloseCode(1009);

    /// A code that may be sent; `None` for those that are reserved for local use or not assigned
    /// (§7.4.1, §7.4.2).
    #[must_use]
    pub fn new(number: u16) -> Option<CloseCode> {
        matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(CloseCode(number))
    }

    /// The number on the wire.
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

/// What a close frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// Why.
    pub code: CloseCode,
    /// Text for people.
    pub reason: String,
}
