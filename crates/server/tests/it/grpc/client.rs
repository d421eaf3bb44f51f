//! Clients generated from `proto/` by the build script.

pub(super) mod compatible {
    #![expect(unreachable_pub, clippy::allow_attributes_without_reason, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/client/centrifugal.centrifugo.api.rs"));
}

pub(super) mod own {
    #![expect(unreachable_pub, clippy::allow_attributes_without_reason, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/client/tidings.api.v1.rs"));
}
