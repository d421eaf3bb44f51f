//! Options of consumers of NATS JetStream.

use crate::config::kind::{Secret, one_of};
use crate::config::schema::section;

section! {
    /// `consumers[].nats_jetstream`.
    JetStreamConsumerSection titled "NATS JetStream: `consumers[].nats_jetstream`" {
        url: Secret = "nats://127.0.0.1:4222", "Addresses of NATS servers, separated by commas.";
        username: String = "", "User to authenticate as.";
        password: Secret = "", "Password of the user.";
        token: Secret = "", "Token to authenticate with, instead of a user.";
        stream_name: String = "", "Stream to consume.";
        subjects: Vec<String> = [], "Subjects to consume. Empty means all of the stream; several need NATS 2.10.";
        durable_consumer_name: String = "", "Name of the durable consumer. All nodes of one installation need the same: they share the messages.";
        deliver_policy: JetStreamDelivery = "new", "Where a new durable consumer begins: with new messages, or with all messages of the stream.";
        max_ack_pending: u32 = 100, "Maximum number of messages that are delivered and not acknowledged.";
        use_existing_consumer: bool = false, "Use a durable consumer that exists, with its own settings. subjects, deliver_policy and max_ack_pending have no effect then.";
        method_header: String = "centrifugo-method", "Header that names the method of the server API. If a message has it, its body is the payload of the method; otherwise the body is an object with method and payload.";
        dead_letter_subject: String = "", "Subject to which messages are published that can never be handled. Empty drops them; they are logged and counted in any case.";
        tls: NatsConsumerTlsSection;
        publication_data_mode: NatsPublicationSection;
    }
}

/// Where a new durable consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JetStreamDelivery {
    New,
    All,
}

one_of!(JetStreamDelivery { "new" => JetStreamDelivery::New, "all" => JetStreamDelivery::All });

section! {
    /// `consumers[].nats_jetstream.tls`.
    NatsConsumerTlsSection {
        enabled: bool = false, "Require TLS for connections to NATS.";
        server_ca_pem: String = "", "Path of a PEM file with CA certificates that are trusted in addition to those of the system.";
        cert_pem: String = "", "Path of a PEM file with the certificate chain that this node presents to NATS. Empty presents none.";
        key_pem: Secret = "", "Path of a PEM file with the private key of that certificate.";
    }
}

section! {
    /// `consumers[].nats_jetstream.publication_data_mode`.
    NatsPublicationSection {
        enabled: bool = false, "Publish the body of each message to the channels that a header names, instead of reading a method from the message.";
        channels_header: String = "centrifugo-channels", "Header with the channels, separated by commas.";
        idempotency_key_header: String = "centrifugo-idempotency-key", "Header with the idempotency key of the publication.";
        delta_header: String = "centrifugo-delta", "Header that asks for delta compression; accepted without effect.";
        version_header: String = "centrifugo-version", "Header with the version of the publication.";
        version_epoch_header: String = "centrifugo-version-epoch", "Header with the epoch of the version.";
        tags_header_prefix: String = "centrifugo-tag-", "Prefix of headers that become tags of the publication.";
    }
}
