//! Keyed hashing for tables whose keys peers choose.
//!
//! Invariant: hashes depend only on the secret keys passed in. The same keys give the same run. A
//! peer that does not know the keys cannot choose names that collide (SipHash, Aumasson and
//! Bernstein 2012).

use std::hash::BuildHasher;

use siphasher::sip::SipHasher13;

/// The secret keys of a hash table. Several tables may share them.
#[derive(Clone, Copy)]
pub struct HashKeys([u64; 2]);

impl HashKeys {
    /// Creates keys. Where peers choose names, they must come from the operating system's random
    /// source. [`crate::random::Random`] does not qualify: client ids reveal its state.
    #[must_use]
    pub fn new(keys: [u64; 2]) -> HashKeys {
        HashKeys(keys)
    }
}

impl std::fmt::Debug for HashKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HashKeys")
    }
}

impl BuildHasher for HashKeys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        let [first, second] = self.0;
        SipHasher13::new_with_keys(first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_follow_from_both_keys() {
        let of = |keys| HashKeys::new(keys).hash_one("a");
        assert_eq!(of([1, 2]), of([1, 2]));
        assert_ne!(of([1, 2]), of([1, 3]));
        assert_ne!(of([1, 2]), of([3, 2]));
    }
}
