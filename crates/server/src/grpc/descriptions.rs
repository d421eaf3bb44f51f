//! Types and services generated from `proto/` by the build script.

/// What the compatible server has too.
pub(super) mod compatible {
    #![expect(
        unreachable_pub,
        clippy::too_many_lines,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/server/centrifugal.centrifugo.api.rs"));
}

/// What only this server has.
pub(super) mod own {
    #![expect(
        unreachable_pub,
        clippy::too_many_lines,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/server/tidings.api.v1.rs"));
}

/// The description of both, for reflection.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
