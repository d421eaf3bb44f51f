//! Payloads in Redis' pub/sub channels and keys: publications and clients in the Protobuf encoding
//! of the client protocol.
//!
//! A publication is `p<offset>:<epoch>:<publication>` (the script writes the prefix), a join
//! `j<client>`, a leave `l<client>`, a lifecycle event `e<Unix milliseconds>:<JSON>`.

use bytes::Bytes;
use engine::broker::Membership;
use wire::protocol::protobuf::{
    decode_client_info, decode_publication, encode_client_info, encode_publication,
};
use wire::protocol::{ClientInfo, Publication};

/// A decoded payload of a channel.
#[derive(Debug, PartialEq)]
pub(super) enum ChannelPayload<'a> {
    Publication { publication: Publication, epoch: &'a str },
    Membership { info: ClientInfo, change: Membership },
}

pub(super) fn publication(publication: &Publication, out: &mut Vec<u8>) {
    encode_publication(publication, out);
}

pub(super) fn membership(info: &ClientInfo, change: Membership) -> Vec<u8> {
    let mut out = vec![match change {
        Membership::Join => b'j',
        Membership::Leave => b'l',
    }];
    encode_client_info(info, &mut out);
    out
}

/// Decodes a payload; `None` if it is malformed.
pub(super) fn decode(bytes: &[u8]) -> Option<ChannelPayload<'_>> {
    let (kind, rest) = bytes.split_first()?;
    let change = match kind {
        b'p' => {
            let mut parts = rest.splitn(3, |byte| *byte == b':');
            let offset = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            let epoch = std::str::from_utf8(parts.next()?).ok()?;
            let publication = Publication { offset, ..decode_publication(parts.next()?).ok()? };
            return Some(ChannelPayload::Publication { publication, epoch });
        }
        b'e' => {
            let mut parts = rest.splitn(2, |byte| *byte == b':');
            let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            let data = Bytes::copy_from_slice(parts.next()?);
            let publication = Publication { data, time, ..Publication::default() };
            return Some(ChannelPayload::Publication { publication, epoch: "" });
        }
        b'j' => Membership::Join,
        b'l' => Membership::Leave,
        _ => return None,
    };
    Some(ChannelPayload::Membership { info: decode_client_info(rest).ok()?, change })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _any = decode(&bytes);
        }
    }
}
