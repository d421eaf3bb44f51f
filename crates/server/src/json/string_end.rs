//! The end of a string in JSON text, which may be invalid or truncated.

/// The offset behind the string that begins at `start`; the length of the text if it has no end.
pub(crate) fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}
