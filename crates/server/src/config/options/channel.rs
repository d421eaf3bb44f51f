//! Options of channels and namespaces.

use std::time::Duration;

use engine::rules::{DataFormat, RecoveryMode};

use crate::config::kind::{UpTo, one_of};
use crate::config::options::proxy::ChannelProxySection;
use crate::config::schema::{ListItem, section};

section! {
    /// `channel`.
    ChannelSection {
        max_length: UpTo<4096> = 255, "Maximum length of a channel name in bytes (error 107).";
        private_prefix: String = "$", "Channels whose names begin with this prefix require a subscription token.";
        namespace_boundary: String = ":", "Separator between the namespace and the rest of a channel name.";
        user_boundary: String = "#", "Separator between a channel name and the list of users that it is limited to.";
        user_separator: String = ",", "Separator between the users in that list.";
        publication_data_format: DataFormat = "", "Required format of payloads in namespaces that set none: \"\" (any payload that is not empty), json, json_object, or binary (any payload). Clients of the JSON protocol do not receive payloads that are not JSON.";
        history_meta_ttl: Duration = "720h", "Time for which offset and epoch of a channel are kept after its last publication.";
        proxy: ChannelProxySection;
        without_namespace: NamespaceSection;
        namespaces: Vec<NamedNamespaceSection>;
    }
}

section! {
    /// One of `channel.namespaces`.
    NamedNamespaceSection {
        name: String = "", "";
        ..options: NamespaceSection;
    }
}

impl ListItem for NamedNamespaceSection {
    const EXPECTED_LIST: &'static str =
        "a list of namespaces with a name each, such as [{\"name\": \"chat\"}]";
    const EXPECTED_ITEM: &'static str = "a namespace with a name and options";
    const EXAMPLE: &'static str = "Each namespace has the options of channel.without_namespace.
name = \"chat\"
presence = true";
}

section! {
    /// Options of a namespace, and of channels without one.
    NamespaceSection titled "Namespaces: `channel.namespaces[]` and `channel.without_namespace`" {
        presence: bool = false, "Keep the list of subscribed clients of each channel.";
        join_leave: bool = false, "Publish join and leave events when clients subscribe and unsubscribe.";
        force_push_join_leave: bool = false, "Send join and leave events to all subscribers. If false, only to those that request them.";
        history_size: u32 = 0, "Number of publications to keep per channel. Needs history_ttl. 0 keeps none.";
        history_ttl: Duration = "0s", "Time for which publications are kept. Needs history_size.";
        history_meta_ttl: Duration = "0s", "Time for which offset and epoch of a channel are kept after its last publication. 0 means channel.history_meta_ttl.";
        channel_ttl: Duration = "0s", "Lifetime of a channel from its first subscriber. At its end all subscribers are unsubscribed (2100) and the data of the channel is removed. 0 means forever.";
        force_positioning: bool = false, "Detect gaps for all subscribers.";
        allow_positioning: bool = false, "Detect gaps for subscribers that request it.";
        force_recovery: bool = false, "Recover missed publications for all subscribers.";
        allow_recovery: bool = false, "Recover missed publications for subscribers that request it.";
        force_recovery_mode: RecoveryMode = "", "Publications that a recovery sends: stream sends all missed ones, cache sends only the newest one. Empty means stream.";
        auto_cache_recover: bool = false, "In cache mode, send the newest publication to every new subscriber.";
        allow_subscribe_for_client: bool = false, "Authenticated users may subscribe without a subscription token.";
        allow_subscribe_for_anonymous: bool = false, "Anonymous users may subscribe too. Needs allow_subscribe_for_client.";
        allow_subscribe_for_roles: Vec<String> = [], "Roles whose holders may subscribe without a subscription token.";
        allow_publish_for_client: bool = false, "Authenticated users may publish.";
        allow_publish_for_subscriber: bool = false, "Subscribers of a channel may publish to it.";
        allow_publish_for_anonymous: bool = false, "Anonymous users may publish too. Needs one of the two options above.";
        allow_publish_for_roles: Vec<String> = [], "Roles whose holders may publish.";
        allow_presence_for_client: bool = false, "Authenticated users may read presence.";
        allow_presence_for_subscriber: bool = false, "Subscribers of a channel may read its presence.";
        allow_presence_for_anonymous: bool = false, "Anonymous users may read presence too. Needs one of the two options above.";
        allow_presence_for_roles: Vec<String> = [], "Roles whose holders may read presence.";
        allow_history_for_client: bool = false, "Authenticated users may read history.";
        allow_history_for_subscriber: bool = false, "Subscribers of a channel may read its history.";
        allow_history_for_anonymous: bool = false, "Anonymous users may read history too. Needs one of the two options above.";
        allow_history_for_roles: Vec<String> = [], "Roles whose holders may read history.";
        allow_user_limited_channels: bool = false, "Allow channels that are limited to users by their names: name#user1,user2 admits these two users.";
        channel_regex: String = "", "Regular expression that the part of a channel name after the namespace must match. Empty allows any ASCII name.";
        publication_data_format: DataFormat = "", "Required format of payloads, as channel.publication_data_format. Empty means the value of that option.";
        subscribe_proxy_enabled: bool = false, "Ask the backend whether a client without a subscription token may subscribe.";
        subscribe_proxy_name: String = "default", "Name of the proxy to ask: one of proxies, or default for channel.proxy.subscribe.";
        publish_proxy_enabled: bool = false, "Ask the backend whether a client may publish.";
        publish_proxy_name: String = "default", "Name of the proxy to ask: one of proxies, or default for channel.proxy.publish.";
        sub_refresh_proxy_enabled: bool = false, "Ask the backend whether subscriptions that expire continue.";
        sub_refresh_proxy_name: String = "default", "Name of the proxy to ask: one of proxies, or default for channel.proxy.sub_refresh.";
    }
}

one_of!(DataFormat {
    "" => DataFormat::NonEmpty,
    "json" => DataFormat::Json,
    "json_object" => DataFormat::JsonObject,
    "binary" => DataFormat::Binary,
});

one_of!(RecoveryMode {
    "" => RecoveryMode::Stream,
    "stream" => RecoveryMode::Stream,
    "cache" => RecoveryMode::Cache,
});
