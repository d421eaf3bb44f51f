//! Names of keys and channels in Redis: see the table in [`super`].
//!
//! Invariant: all keys of a channel stand in one slot of a Redis cluster: the channel is their hash tag.

/// Names of one installation and one node.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
    /// This process, without blanks.
    pub(super) node: String,
}

impl Names {
    pub(super) fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    pub(super) fn message(&self, channel: &str) -> String {
        self.of("message", channel)
    }

    /// The channel of which a message came in.
    pub(super) fn channel_of<'a>(&self, message: &'a str) -> Option<&'a str> {
        message.strip_prefix(&*self.prefix)?.strip_prefix(".message.{")?.strip_suffix('}')
    }

    pub(super) fn meta(&self, channel: &str) -> String {
        self.of("meta", channel)
    }

    pub(super) fn stream(&self, channel: &str) -> String {
        self.of("stream", channel)
    }

    /// Of what an idempotency key was accepted for.
    pub(super) fn accepted(&self, channel: &str, key: &str) -> String {
        self.of("accepted", channel) + "." + key
    }

    /// Clients, ends and users of presence.
    pub(super) fn presence(&self, channel: &str) -> [String; 3] {
        ["clients", "ends", "users"].map(|kind| self.of(kind, channel))
    }

    fn of(&self, kind: &str, channel: &str) -> String {
        format!("{}.{kind}.{{{channel}}}", self.prefix)
    }
}

/// Whether keys can be made of it: nothing in it is a hash tag.
pub(super) fn is_prefix(prefix: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !prefix.is_empty() && prefix.bytes().all(is_fine)
}
