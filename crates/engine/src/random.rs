//! A seeded generator for ids and jitter. The same seed gives the same run. Not for secrets.

/// Xoshiro256++ by Blackman and Vigna, seeded through SplitMix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// Creates a generator whose whole sequence follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        let mut mixer = seed;
        let mut next = || {
            mixer = mixer.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = mixer;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        };
        Random { state: [next(), next(), next(), next()] }
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Returns a number below `bound`; zero if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is uniform to within bound / 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a version 4 UUID (RFC 9562 §5.4) as text.
    pub fn uuid(&mut self) -> String {
        let high = (self.next_u64() & !0xF000) | 0x4000;
        let low = (self.next_u64() & !(0b11 << 62)) | (0b10 << 62);
        let number = u128::from(high) << 64 | u128::from(low);
        // One for each connection: not by the machinery of `format!`.
        let mut text = [b'-'; 36];
        let places = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        for (digit, (_, place)) in places.enumerate() {
            *place = HEX_DIGITS[(number >> (124 - 4 * digit)) as usize & 0xF];
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_fixes_the_sequence_and_uuids_carry_version_and_variant() {
        let (mut one, mut two, mut other) = (Random::new(7), Random::new(7), Random::new(8));
        let id = one.uuid();
        assert_eq!(id, two.uuid());
        assert_ne!(id, other.uuid());
        assert_eq!(id.len(), 36);
        let is_of_form = |(at, digit): (usize, char)| match at {
            8 | 13 | 18 | 23 => digit == '-',
            _ => matches!(digit, '0'..='9' | 'a'..='f'),
        };
        assert!(id.chars().enumerate().all(is_of_form), "{id}");
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert!((0..1000).all(|_| one.below(10) < 10));
    }
}
