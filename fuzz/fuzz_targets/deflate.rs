//! Compression: inflating stops at its limit and keeps no context; what is deflated inflates to the
//! same bytes.
//!
//! Input: a level with a bit for the window, two bytes of limit, then a payload, compressed or not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::websocket::deflate::{Deflater, InflateError, Inflater, Window};

fuzz_target!(|input: &[u8]| {
    let Some((&[level, high, low], payload)) = input.split_first_chunk() else { return };
    let bound = usize::from(u16::from_be_bytes([high, low]));
    let mut inflater = Inflater::default();
    inflate(&mut inflater, payload, bound);

    let window = if level & 128 == 0 { Window::Full } else { Window::Small };
    let mut deflater = Deflater::new(u32::from(level & 127));
    let compressed = deflater.deflate(window, payload).expect("deflating does not fail").to_vec();
    assert_eq!(inflater.inflate(&compressed, payload.len()).as_deref(), Ok(payload));
    if let Some(less) = payload.len().checked_sub(1) {
        assert_eq!(inflater.inflate(&compressed, less), Err(InflateError::TooBig));
    }
    assert_eq!(
        deflater.deflate(window, payload),
        Some(&compressed[..]),
        "nothing is kept between messages"
    );
});

fn inflate(inflater: &mut Inflater, payload: &[u8], bound: usize) {
    let first = inflater.inflate(payload, bound);
    assert_eq!(first, inflater.inflate(payload, bound), "nothing is kept between messages");
    match first {
        Ok(inflated) => {
            assert!(inflated.len() <= bound);
            assert_eq!(inflater.inflate(payload, inflated.len()).as_ref(), Ok(&inflated));
            if let Some(less) = inflated.len().checked_sub(1) {
                assert_eq!(inflater.inflate(payload, less), Err(InflateError::TooBig));
            }
        }
        // A higher limit may reveal an error after it, but never a smaller message.
        Err(InflateError::TooBig) => {
            let more = inflater.inflate(payload, 2 * bound + 1);
            assert!(more.is_err() || more.is_ok_and(|inflated| inflated.len() > bound));
        }
        Err(InflateError::Corrupt) => {
            let more = inflater.inflate(payload, 2 * bound + 1);
            assert_eq!(more, Err(InflateError::Corrupt));
        }
    }
}
