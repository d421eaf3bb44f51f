//! Options of the engine and the broker.

use std::time::Duration;

use crate::config::kind::{Secret, UpTo, one_of};
use crate::config::schema::section;

section! {
    /// `engine`.
    EngineSection {
        r#type: EngineType = "memory", "Where channels, history and presence are kept: memory of this process (one node), or redis (any number of nodes).";
        redis: RedisSection;
        memory: MemorySection;
    }
}

/// Where channels, history and presence are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineType {
    Memory,
    Redis,
}

one_of!(EngineType { "memory" => EngineType::Memory, "redis" => EngineType::Redis });

section! {
    /// `engine.redis`.
    RedisSection {
        address: Vec<String> = ["redis://127.0.0.1:6379"], "Addresses of Redis: [\"redis://user:password@host:6379/0\"], with rediss:// for TLS. Several addresses are independent servers; channels are distributed over them. redis+cluster://host,host connects to a Cluster, redis+sentinel://host,host?sentinel_master_name=NAME finds the master through Sentinels.";
        cluster_address: Vec<String> = [], "Addresses (host:port) of nodes of a Redis Cluster. Replaces engine.redis.address.";
        sentinel_address: Vec<String> = [], "Addresses (host:port) of Sentinels. Replaces engine.redis.address.";
        sentinel_master_name: String = "", "Name of the master that the Sentinels monitor.";
        user: String = "", "User, unless the address contains one.";
        password: Secret = "", "Password, unless the address contains one.";
        db: u32 = 0, "Number of the database, unless the address contains one. Must be 0 in a Cluster.";
        sentinel_user: String = "", "User to authenticate to the Sentinels.";
        sentinel_password: Secret = "", "Password to authenticate to the Sentinels.";
        prefix: String = "tidings", "Prefix of all keys and channels in Redis. Installations that share a Redis need different prefixes.";
        connect_timeout: Duration = "1s", "Timeout for connecting to Redis.";
        io_timeout: Duration = "3s", "Timeout for a reply of Redis. After it the request has failed.";
        presence_ttl: Duration = "60s", "Time after which presence entries of a failed node expire if no other node has removed them.";
        lease: Duration = "12s", "Time without a renewal of its lease after which a node counts as failed. Another node then removes its clients from presence and reports them as offline.";
        wait_at_start: bool = true, "If Redis cannot be reached at start, wait until it can. If false, exit with an error. Wrong settings always end the start.";
        tls: RedisTlsSection;
    }
}

section! {
    /// `engine.redis.tls`.
    RedisTlsSection {
        enabled: bool = false, "Use TLS for connections to Redis, as rediss:// does.";
        server_ca_pem: String = "", "CA certificates that are trusted instead of the public ones: PEM, PEM in base64, or the path of a PEM file.";
        server_name: String = "", "Host name that the certificate of Redis must have. Empty means the host of the address.";
        cert_pem: String = "", "Certificate chain that this node presents to Redis: PEM, PEM in base64, or the path of a PEM file. Empty presents none.";
        key_pem: Secret = "", "Private key of that certificate: PEM, PEM in base64, or the path of a PEM file.";
    }
}

section! {
    /// `engine.memory`.
    MemorySection {
        bytes_max: UpTo<{ u64::MAX >> 1 }> = 0, "Maximum memory in bytes for what the memory engine keeps: channels, history, presence and idempotency keys. Requests that need more are refused (error 111). 0 means half of the memory that the process may use.";
        channels_max: u32 = 0, "Maximum number of channels that the memory engine keeps (error 111). 0 limits only the bytes.";
    }
}

section! {
    /// `presence_manager`.
    PresenceManagerSection {
        enabled: bool = false, "Keep presence in the place of presence_manager.type, whatever carries publications.";
        r#type: EngineType = "memory", "Where presence is kept: redis, or memory of this process, which is accepted only for one node.";
        redis: RedisSection;
    }
}

section! {
    /// `broker`.
    BrokerSection {
        enabled: bool = false, "Use the broker of broker.type for publications instead of the engine.";
        r#type: BrokerType = "memory", "Broker of publications and of messages between nodes. Only nats is supported; with engine.type = redis, presence stays in Redis. memory is accepted with the memory engine and changes nothing.";
        nats: NatsSection;
    }
}

/// The broker that replaces the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokerType {
    Memory,
    Nats,
    /// A type of the compatible server that is not supported.
    Unsupported(&'static str),
}

one_of!(BrokerType {
    "memory" => BrokerType::Memory,
    "nats" => BrokerType::Nats,
    "redis" => BrokerType::Unsupported("redis"),
    "postgres" => BrokerType::Unsupported("postgres"),
    "redisnats" => BrokerType::Unsupported("redisnats"),
});

section! {
    /// `broker.nats`.
    NatsSection {
        url: Secret = "nats://localhost:4222", "Addresses of NATS servers, separated by commas. They may contain a user and password, or a token. tls:// requires TLS.";
        prefix: String = "tidings", "Prefix of all subjects in NATS. Installations that share a NATS need different prefixes.";
        dial_timeout: Duration = "1s", "Timeout for connecting to NATS.";
        tls: NatsTlsSection;
        jetstream: JetStreamSection;
    }
}

section! {
    /// `broker.nats.tls`.
    NatsTlsSection {
        enabled: bool = false, "Require TLS for connections to NATS.";
        server_ca_pem_file: String = "", "Path of a PEM file with CA certificates that are trusted in addition to those of the system.";
        server_ca_pem: String = "", "Same as server_ca_pem_file; the name that Centrifugo uses.";
        cert_pem: String = "", "Path of a PEM file with the certificate chain that this node presents to NATS. Empty presents none.";
        key_pem: Secret = "", "Path of a PEM file with the private key of that certificate.";
    }
}

section! {
    /// `broker.nats.jetstream`.
    JetStreamSection {
        replicas: UpTo<5> = 1, "Number of replicas of JetStream streams in a cluster of NATS servers.";
    }
}
