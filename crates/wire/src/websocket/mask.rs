//! Masking (RFC 6455 §5.3): XOR with a key of four bytes, eight bytes at a time.

/// Applies `key` to `payload`, whose first byte is the `offset`-th of its frame.
pub(super) fn apply(key: [u8; 4], offset: usize, payload: &mut [u8]) {
    let mut rotated = key;
    rotated.rotate_left(offset % 4);
    let wide = u64::from_ne_bytes([
        rotated[0], rotated[1], rotated[2], rotated[3], rotated[0], rotated[1], rotated[2],
        rotated[3],
    ]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(rotated.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_definition_at_any_offset() {
        let key = [1, 2, 3, 4];
        for length in 0..40 {
            for offset in 0..9 {
                let mut payload: Vec<u8> = (0..length).collect();
                super::apply(key, offset, &mut payload);
                for (index, byte) in payload.iter().enumerate() {
                    assert_eq!(*byte, index as u8 ^ key[(index + offset) % 4]);
                }
            }
        }
    }
}
