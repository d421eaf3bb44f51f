//! A place in the write-ahead log of PostgreSQL.
//!
//! Invariant: its text is that of PostgreSQL's type `pg_lsn`.

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log of PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The text is no place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the log of PostgreSQL, such as 0/16B3748")]
pub struct NotLsn;

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = NotLsn;

    fn from_str(text: &str) -> Result<Lsn, NotLsn> {
        let (high, low) = text.split_once('/').ok_or(NotLsn)?;
        let half = |text| u32::from_str_radix(text, 16).map_err(|_| NotLsn);
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_the_same_place() {
        for (text, number) in [("0/16B3748", 0x16B_3748), ("A/FFFFFFFF", 0xA_FFFF_FFFF)] {
            assert_eq!(text.parse(), Ok(Lsn(number)));
            assert_eq!(Lsn(number).to_string(), text);
        }
        assert_eq!("0/1FFFFFFFF".parse::<Lsn>(), Err(NotLsn));
        assert_eq!("16B3748".parse::<Lsn>(), Err(NotLsn));
    }
}
