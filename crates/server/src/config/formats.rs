//! Warns of namespaces in which clients may publish payloads that other clients cannot receive.
//!
//! A client of the Protobuf protocol can publish any bytes. A client of the JSON protocol receives
//! only JSON.

use engine::rules::{ChannelRules, DataFormat, Namespace};

use super::mistakes::WarningKind;
use super::options::channel::ChannelSection;
use super::raw_config::RawConfig;

const TEXT: &str = "allows clients to publish payloads that are not JSON, which clients of the JSON protocol do not \
                    receive: set it to \"json\" or \"json_object\", or to \"binary\" if no client uses JSON";

pub(super) fn warn_of_formats(
    raw: &mut RawConfig,
    channel: &ChannelSection,
    channels: &ChannelRules,
) {
    let without = (&channel.without_namespace, Some(&channels.without_namespace));
    let named = channel.namespaces.iter();
    let named = named.map(|one| (&one.options, channels.namespaces.get(one.name.as_str())));
    for (options, namespace) in [without].into_iter().chain(named) {
        if namespace.is_some_and(is_open) {
            raw.warn(WarningKind::Contradiction, &options.publication_data_format.key, TEXT);
        }
    }
}

fn is_open(namespace: &Namespace) -> bool {
    let by_clients = namespace.publish.client
        || namespace.publish.subscriber
        || !namespace.roles.publish.is_empty();
    by_clients && namespace.publication_data_format == DataFormat::NonEmpty
}

#[cfg(test)]
mod tests {
    use crate::config::mistakes::WarningKind;
    use crate::config::{Source, load};

    fn warned(settings: &[(&str, &str)]) -> Vec<String> {
        let always = [("http_api.key", "k"), ("client.token.hmac_secret_key", "k")];
        let all = always.iter().chain(settings);
        let flags = all.map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let (_, warnings) = load(&Source { flags, ..Source::default() }).unwrap();
        let of_formats = warnings.into_iter().filter(|warning| {
            warning.kind == WarningKind::Contradiction && warning.key.ends_with("data_format")
        });
        of_formats.map(|warning| warning.key).collect()
    }

    #[test]
    fn namespaces_with_any_payloads_of_clients_cause_a_warning() {
        let open = ("channel.without_namespace.allow_publish_for_subscriber", "true");
        let key = "channel.without_namespace.publication_data_format";
        assert_eq!(warned(&[open]), [key]);
        for format in [("channel.publication_data_format", "json"), (key, "binary")] {
            assert_eq!(warned(&[open, format]), [""; 0]);
        }
        assert_eq!(warned(&[]), [""; 0], "backends alone");
        let list = r#"[{"name":"chat","allow_publish_for_client":true},{"name":"news"}]"#;
        let chat = "channel.namespaces[0].publication_data_format";
        assert_eq!(warned(&[("channel.namespaces", list)]), [chat]);
    }
}
