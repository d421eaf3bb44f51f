//! permessage-deflate (RFC 7692), always without context takeover: a connection stores nothing
//! between messages.
//!
//! So one [`Inflater`] and one [`Deflater`] serve all connections of a worker, and all connections
//! with compression share a compressed publication.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Compresses messages independently of each other.
#[derive(Debug)]
pub struct Deflater {
    level: Compression,
    full: Compress,
    /// Created on first use, because few peers request it.
    small: Option<Compress>,
    out: Vec<u8>,
}

/// The window of compressed messages. Only two sizes, so that few variants of a message exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// 32 KiB, the maximum of the format.
    Full,
    /// 512 bytes, for peers that limit the window to less than 15 bits; fits any limit of 9 bits or
    /// more.
    Small,
}

/// Inflates messages independently of each other. Owns no memory before the first compressed
/// message.
#[derive(Debug, Default)]
pub struct Inflater {
    decompress: Option<Decompress>,
}

/// Why a message could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateError {
    /// The bytes are not a DEFLATE stream.
    Corrupt,
    /// The message exceeds the size limit.
    TooBig,
}

/// The end of a flushed block, which the sender removes (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// The extension with the parameters that are always used.
const BASE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

const FULL_WINDOW_BITS: u8 = 15;

const SMALL_WINDOW_BITS: u8 = 9;

/// Minimum bytes by which an output buffer grows.
const STEP: usize = 4096;

/// Bytes of scratch memory kept between messages.
const SCRATCH_KEPT: usize = 256 * 1024;

impl Deflater {
    /// Creates a compressor; `level` is from 1 (fast) to 9 (small).
    #[must_use]
    pub fn new(level: u32) -> Deflater {
        let level = Compression::new(level.clamp(1, 9));
        Deflater { level, full: Compress::new(level, false), small: None, out: Vec::new() }
    }

    /// Returns the compressed payload without its tail; `None` if the library fails.
    pub fn deflate(&mut self, window: Window, payload: &[u8]) -> Option<&[u8]> {
        let compress = match window {
            Window::Full => &mut self.full,
            Window::Small => self.small.get_or_insert_with(|| {
                Compress::new_with_window_bits(self.level, false, SMALL_WINDOW_BITS)
            }),
        };
        compress.reset();
        self.out.clear();
        self.out.shrink_to(SCRATCH_KEPT);
        let mut consumed = 0;
        loop {
            self.out.reserve(STEP.max((payload.len() - consumed) / 2));
            let before = compress.total_in();
            let status =
                compress.compress_vec(&payload[consumed..], &mut self.out, FlushCompress::Sync);
            consumed += usize::try_from(compress.total_in() - before).ok()?;
            match status {
                // Unused output space means that everything was flushed.
                Ok(Status::Ok | Status::BufError)
                    if consumed == payload.len() && self.out.len() < self.out.capacity() =>
                {
                    break;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        let tail = self.out.len().checked_sub(TAIL.len())?;
        (self.out[tail..] == TAIL).then(|| &self.out[..tail])
    }
}

impl Inflater {
    /// Returns the inflated payload, at most `size_max` bytes.
    ///
    /// # Errors
    /// [`InflateError`]. The work is bounded by `size_max`.
    pub fn inflate(&mut self, payload: &[u8], size_max: usize) -> Result<Vec<u8>, InflateError> {
        let decompress = self.decompress.get_or_insert_with(|| Decompress::new(false));
        decompress.reset(false);
        let mut out = Vec::new();
        for (part, flush) in [(payload, FlushDecompress::None), (&TAIL[..], FlushDecompress::Sync)]
        {
            let mut rest = part;
            loop {
                let room = (size_max + 1).saturating_sub(out.len());
                if room == 0 {
                    return Err(InflateError::TooBig);
                }
                out.reserve_exact(room.min(STEP.max(out.len())));
                let (before_in, before_out) = (decompress.total_in(), out.len());
                let status = decompress
                    .decompress_vec(rest, &mut out, flush)
                    .map_err(|_| InflateError::Corrupt)?;
                let consumed = (decompress.total_in() - before_in) as usize;
                rest = &rest[consumed..];
                if out.len() > size_max {
                    return Err(InflateError::TooBig);
                }
                if status == Status::StreamEnd {
                    // A final block before the end: the bytes after it start a new stream (RFC 7692
                    // §7.2.3.4).
                    decompress.reset(false);
                    if rest.is_empty() {
                        break;
                    }
                    continue;
                }
                let is_stuck = consumed == 0 && out.len() == before_out;
                if is_stuck && !rest.is_empty() && out.len() < out.capacity() {
                    return Err(InflateError::Corrupt);
                }
                if rest.is_empty() && out.len() < out.capacity() {
                    break;
                }
            }
        }
        Ok(out)
    }
}

/// The negotiated extension; neither side keeps context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Window of the server's messages.
    pub window: Window,
    /// Whether the client limited the server's window, and so must be sent its size (RFC 7692
    /// §7.1.2.1).
    sends_server_window: bool,
    /// Window size in bits to send if the client supports a limit of its own window.
    sends_client_window: Option<u8>,
}

impl Negotiated {
    /// Returns the response's value of `Sec-WebSocket-Extensions`.
    #[must_use]
    pub fn header(&self) -> String {
        let mut header = BASE.to_owned();
        if self.sends_server_window {
            let bits = match self.window {
                Window::Full => FULL_WINDOW_BITS,
                Window::Small => SMALL_WINDOW_BITS,
            };
            header.push_str(&format!("; server_max_window_bits={bits}"));
        }
        if let Some(bits) = self.sends_client_window {
            header.push_str(&format!("; client_max_window_bits={bits}"));
        }
        header
    }
}

/// Accepts the first offer that is supported (RFC 7692 §5.1, §7.1). Skips offers with an unknown,
/// repeated or malformed parameter, and offers that limit the server's window to 8 bits, which the
/// library does not support.
#[must_use]
pub fn negotiate(offers: &str) -> Option<Negotiated> {
    offers.split(',').find_map(negotiate_one)
}

fn negotiate_one(offer: &str) -> Option<Negotiated> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut seen = Vec::new();
    let (mut server_bits, mut client_bits) = (None, None);
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            ("server_max_window_bits", Some(value)) => {
                server_bits = Some(parse_window(value).filter(|bits| *bits >= SMALL_WINDOW_BITS)?);
            }
            // Every window of the client fits into the decoder's.
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => client_bits = Some(parse_window(value)?),
            _ => return None,
        }
    }
    let is_small = server_bits.is_some_and(|bits| bits < FULL_WINDOW_BITS);
    Some(Negotiated {
        window: if is_small { Window::Small } else { Window::Full },
        sends_server_window: server_bits.is_some(),
        sends_client_window: client_bits,
    })
}

/// Parses a window size of 8 to 15 bits, without leading zeros (RFC 7692 §7.1.2).
fn parse_window(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=FULL_WINDOW_BITS).contains(bits))?;
    (value == bits.to_string()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn deflate_and_inflate_round_trip(payload in proptest::collection::vec(0u8..8, 0..20_000)) {
            let (mut deflater, mut inflater) = (Deflater::new(1), Inflater::default());
            for window in [Window::Full, Window::Small, Window::Full] {
                let compressed = deflater.deflate(window, &payload).unwrap().to_vec();
                prop_assert_eq!(inflater.inflate(&compressed, payload.len()).unwrap(), payload.clone());
            }
        }

        #[test]
        fn any_bytes_are_refused_or_inflated_within_the_bound(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(inflated) = Inflater::default().inflate(&bytes, 1000) {
                prop_assert!(inflated.len() <= 1000);
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let bomb = Deflater::new(9).deflate(Window::Full, &vec![0; 50_000_000]).unwrap().to_vec();
        assert!(bomb.len() < 100_000);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&bomb, 65_536), Err(InflateError::TooBig));
        assert_eq!(inflater.inflate(&bomb, 50_000_000).map(|out| out.len()), Ok(50_000_000));
    }

    #[test]
    fn a_small_window_is_respected() {
        // Every byte equally often, without a repetition within the small window: not compressible
        // there.
        let every_byte = |factor: u8| (0..=255u8).map(move |n| n.wrapping_mul(factor));
        let block: Vec<u8> = [77, 149, 211].into_iter().flat_map(every_byte).collect();
        let payload = block.repeat(20);
        for level in 1..=9 {
            let mut deflater = Deflater::new(level);
            let full = deflater.deflate(Window::Full, &payload).unwrap().to_vec();
            let small = deflater.deflate(Window::Small, &payload).unwrap().to_vec();
            assert!(full.len() < payload.len() / 10, "level {level}: a block is not found again");
            assert!(small.len() > payload.len(), "level {level}: referred beyond the window");
            assert!(Inflater::default().inflate(&small, payload.len()) == Ok(payload.clone()));
        }
    }

    #[test]
    fn offers_are_accepted_or_passed_over() {
        let header = |offers: &str| negotiate(offers).map(|negotiated| negotiated.header());
        for (parameters, answer) in [
            ("", ""),
            ("; client_max_window_bits", ""),
            ("; client_max_window_bits=\"10\"", "; client_max_window_bits=10"),
            ("; server_max_window_bits=15", "; server_max_window_bits=15"),
            ("; server_max_window_bits=14", "; server_max_window_bits=9"),
            ("; server_max_window_bits=9", "; server_max_window_bits=9"),
            ("; server_max_window_bits=8, permessage-deflate", ""),
        ] {
            let offer = format!("x-other, permessage-deflate{parameters}");
            assert_eq!(header(&offer), Some(format!("{BASE}{answer}")), "{offer}");
        }
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        ] {
            assert_eq!(header(offer), None, "{offer}");
        }
    }
}
