//! What a publication of the generator carries: which one it is, and when it was to be sent. It
//! stands in the payload as a JSON string, so that both codecs carry the same bytes.
//!
//! Invariant: a tag is found by its mark wherever it stands, and reads as it was written.

use memchr::memmem::Finder;

/// The tag of a publication: its stream, its number and its planned time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PublicationTag {
    pub(crate) stream: u32,
    /// Number within the stream, from 0.
    pub(crate) number: u64,
    /// Planned time of sending.
    pub(crate) planned: u64,
}

const MARK: &[u8] = b"~bench:";
const DIGITS: usize = 8 + 12 + 16;

/// Bytes of the smallest payload.
pub(crate) const SIZE_MIN: u32 = (MARK.len() + DIGITS + 2) as u32;

impl PublicationTag {
    /// Appends a payload of so many bytes.
    pub(crate) fn write(self, size: u32, out: &mut Vec<u8>) {
        let PublicationTag { stream, number, planned } = self;
        let end = out.len() + size.max(SIZE_MIN) as usize;
        out.push(b'"');
        out.extend_from_slice(MARK);
        out.extend_from_slice(format!("{stream:08x}{number:012x}{planned:016x}").as_bytes());
        out.resize(end - 1, b'.');
        out.push(b'"');
    }
}

/// Finds tags.
pub(crate) struct TagReader(Finder<'static>);

impl TagReader {
    pub(crate) fn new() -> TagReader {
        TagReader(Finder::new(MARK))
    }

    /// The first tag in these bytes.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<PublicationTag> {
        let digits = self.0.find(bytes)? + MARK.len();
        let digits = bytes.get(digits..digits + DIGITS)?;
        Some(PublicationTag {
            stream: u32::try_from(hexadecimal(&digits[..8])?).ok()?,
            number: hexadecimal(&digits[8..20])?,
            planned: hexadecimal(&digits[20..])?,
        })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_as_it_was_written() {
        let tag = PublicationTag { stream: 7, number: 1 << 40, planned: u64::MAX };
        for size in [0, SIZE_MIN, 128] {
            let mut payload = b"{\"data\":".to_vec();
            tag.write(size, &mut payload);
            assert_eq!(payload.len() - 8, size.max(SIZE_MIN) as usize);
            assert!(wire::protocol::is_json(&payload[8..]));
            assert_eq!(TagReader::new().find(&payload), Some(tag));
            payload.truncate(30);
            assert_eq!(TagReader::new().find(&payload), None);
        }
    }
}
