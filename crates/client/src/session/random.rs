//! Randomness is an input: jitter, mask keys and handshake keys come from the function that the
//! driver passes in.

use std::fmt;

/// Gives random numbers. Mask keys (RFC 6455 §10.3) must not be predictable: a driver takes them
/// from the operating system; a test takes them from a seed.
pub type RandomSource = Box<dyn FnMut() -> u64 + Send>;

/// The source of randomness of a session.
pub(super) struct Randomness(RandomSource);

impl Randomness {
    pub(super) fn new(source: RandomSource) -> Randomness {
        Randomness(source)
    }

    pub(super) fn next(&mut self) -> u64 {
        (self.0)()
    }

    /// A mask of a frame.
    pub(super) fn mask(&mut self) -> [u8; 4] {
        let bytes = self.next().to_le_bytes();
        [bytes[0], bytes[1], bytes[2], bytes[3]]
    }

    /// The key of a handshake.
    pub(super) fn key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.next().to_le_bytes());
        key[8..].copy_from_slice(&self.next().to_le_bytes());
        key
    }
}

impl fmt::Debug for Randomness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Randomness")
    }
}
