//! Options of clients and their tokens.

use std::time::Duration;

use crate::config::kind::Secret;
use crate::config::options::proxy::ClientProxySection;
use crate::config::schema::section;

section! {
    /// `client`.
    ClientSection {
        allowed_origins: Vec<String> = [], "Origins of web pages that may connect, such as \"https://*.example.com\". \"*\" allows all. Empty allows only clients that send no Origin header.";
        ping_interval: Duration = "25s", "Interval between pings to a client. 0 sends no pings.";
        pong_timeout: Duration = "8s", "Time in which a client must answer a ping, otherwise it is disconnected (3012). Must be less than ping_interval. 0 expects no answers.";
        channel_limit: u32 = 128, "Maximum number of subscriptions of one connection (error 106). 0 means the default.";
        concurrency: u32 = 64, "Maximum number of tokens and questions to backends in progress for one connection; further commands of the client wait. Commands about one channel keep their order, those about other channels do not wait for them. 1 handles one after the other. 0 means the default.";
        connection_limit: u32 = 0, "Maximum number of connections of this node whose connect command was accepted (HTTP status 503 at the handshake, code 3011 at the connect command). 0 means no limit.";
        unauthenticated_connection_limit: u32 = 16384, "Maximum number of connections of this node that have not completed the connect command. One address (IPv6: one /64) may hold half of them. At the limit, the oldest connection of the address with the most connections is closed (3011). 0 means no limit.";
        connection_rate_limit: u32 = 0, "Maximum number of WebSocket handshakes of this node per second (HTTP status 503). 0 means no limit.";
        user_connection_limit: u32 = 0, "Maximum number of connections of one user on this node (3504). 0 means no limit.";
        queue_max_size: u32 = 1048576, "Maximum number of bytes queued for one client. A client that exceeds it is disconnected as slow (3008).";
        stale_close_delay: Duration = "10s", "Time in which a new connection must send the connect command (3502). 0 means the default.";
        expired_close_delay: Duration = "25s", "Time after the expiration of a connection in which the client may refresh it, before it is disconnected (3005).";
        expired_sub_close_delay: Duration = "25s", "Time after the expiration of a subscription in which the client may refresh it, before it is unsubscribed (2501).";
        channel_position_check_delay: Duration = "40s", "Idle time of a channel after which the positions of its subscribers are compared with the broker.";
        history_max_publication_limit: u32 = 300, "Maximum number of publications in one history reply. 0 means no limit.";
        recovery_max_publication_limit: u32 = 300, "Maximum number of publications in one recovery. 0 means no limit.";
        leave_grace: Duration = "0s", "Time for which a disconnected client stays in presence before its leave is sent. A client that reconnects within this time joins again before its old connection leaves. A node that shuts down does not wait.";
        connect_include_server_time: bool = false, "Include the time of the server in the connect reply.";
        insecure: bool = false, "Allow every client every operation, without tokens and without expiration. For development only.";
        insecure_skip_token_signature_verify: bool = false, "Accept tokens without verifying their signatures. For development only.";
        allow_anonymous_connect_without_token: bool = false, "Accept clients without a token as anonymous users.";
        disallow_anonymous_connection_tokens: bool = false, "Refuse connection tokens without a user (3507).";
        trusted_proxies: Vec<String> = [], "Proxies whose statements of a client's address are accepted (client.trusted_proxies_header, PROXY protocol): networks such as \"10.0.0.0/8\", addresses, or \"unix:\" for peers on a Unix socket. Limits per address then apply to the address of the client.";
        trusted_proxies_header: String = "X-Forwarded-For", "The only header in which trusted proxies send the address of the client, such as X-Forwarded-For, Forwarded or X-Real-IP. The proxy must write it itself on every request. All other headers are ignored.";
        user_id_http_header: String = "", "Header in which a reverse proxy sends the id of the user that it has authenticated. Empty ignores such headers.";
        proxy: ClientProxySection;
        token: TokenSection;
        subscribe_to_user_personal_channel: PersonalChannelSection;
        subscription_token: SubscriptionTokenSection;
    }
}

section! {
    /// `client.subscribe_to_user_personal_channel`.
    PersonalChannelSection {
        enabled: bool = false, "Subscribe each user to a personal channel on the server side.";
        personal_channel_namespace: String = "", "Namespace of the personal channels. Empty means channels without a namespace.";
        single_connection: bool = false, "Keep only the newest connection of each user; older ones are disconnected (3504).";
    }
}

section! {
    /// `client.subscription_token`.
    SubscriptionTokenSection {
        enabled: bool = false, "Verify subscription tokens with the keys of client.subscription_token instead of those of client.token.";
        ..token: TokenSection;
    }
}

section! {
    /// Verification of tokens.
    TokenSection titled "Tokens: `client.token` and `client.subscription_token`" {
        hmac_secret_key: Secret = "", "Secret for HS256, HS384 and HS512 tokens. Empty refuses them.";
        hmac_previous_secret_key: Secret = "", "Previous secret, which is still accepted while tokens signed with it are in use.";
        hmac_previous_secret_key_valid_until: i64 = 0, "Unix time in seconds until which the previous secret is accepted. 0 means forever.";
        rsa_public_key: String = "", "Public key for RS256, RS384 and RS512 tokens: PEM, PEM in base64, or the path of a PEM file.";
        ecdsa_public_key: String = "", "Public key for ES256, ES384 and ES512 tokens: PEM, PEM in base64, or the path of a PEM file.";
        jwks_public_endpoint: String = "", "URL of a JSON Web Key Set. If set, the other keys are not used.";
        audience: String = "", "Value that claim aud must contain. Empty does not check it.";
        audience_regex: String = "", "Regular expression that a value of claim aud must match. Empty does not check it.";
        issuer: String = "", "Value of claim iss. Empty does not check it.";
        issuer_regex: String = "", "Regular expression that claim iss must match. Empty does not check it.";
        user_id_claim: String = "", "Claim that holds the user id. Empty means sub.";
        role_claim: String = "role", "Claim of connection tokens that holds the roles of the user, as a text or a list of texts; see docs/permissions.md. Empty disables roles.";
    }
}
