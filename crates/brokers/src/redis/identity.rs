//! Which server answers at an address: the same one as before, a master, one that may drop keys.
//!
//! Invariant: what a server does not say of itself counts as unknown, never as different.

use super::connection::{Conversation, Dialer};
use super::resp::Frame;
use super::settings::Address;
use super::unavailable::UnavailableReason;
use tokio::time::timeout;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerIdentity {
    /// Changes whenever the server becomes a master: what it had before may have lost its end.
    pub(super) replication_id: String,
    /// Changes whenever the server starts; empty when it does not say.
    pub(super) run_id: String,
    pub(super) is_master: bool,
    pub(super) eviction: Eviction,
}

/// What a server does when its memory is full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Eviction {
    /// `maxmemory-policy`; empty when it does not say.
    pub(super) policy: String,
    /// Keys that it has dropped.
    pub(super) keys: u64,
}

impl ServerIdentity {
    /// Whether both are known, and are two servers or two runs of one.
    pub(super) fn is_another(&self, run_id: &str) -> bool {
        !self.run_id.is_empty() && !run_id.is_empty() && self.run_id != run_id
    }

    /// Whether both are known, and are one.
    pub(super) fn is_same(&self, run_id: &str) -> bool {
        !run_id.is_empty() && self.run_id == run_id
    }

    pub(super) async fn read(
        conversation: &mut Conversation,
    ) -> Result<ServerIdentity, UnavailableReason> {
        let address = conversation.address().clone();
        let mut identity = ServerIdentity::default();
        for section in ["replication", "server", "memory", "stats"] {
            let answer = conversation.ask(&[b"INFO", section.as_bytes()]).await?;
            match &answer {
                Frame::Error(text) => return Err(UnavailableReason::of_answer(&address, text)),
                frame => frame.str().unwrap_or_default().lines().for_each(|it| identity.note(it)),
            }
        }
        match identity.replication_id.is_empty() {
            true => Err(UnavailableReason::NotRedis(address)),
            false => Ok(identity),
        }
    }

    fn note(&mut self, line: &str) {
        let Some((name, value)) = line.split_once(':') else { return };
        let value = value.trim_end();
        match name {
            "master_replid" => value.clone_into(&mut self.replication_id),
            "run_id" => value.clone_into(&mut self.run_id),
            "role" => self.is_master = value == "master",
            "maxmemory_policy" => value.clone_into(&mut self.eviction.policy),
            "evicted_keys" => self.eviction.keys = value.parse().unwrap_or(0),
            _ => {}
        }
    }
}

impl Eviction {
    /// Whether keys can vanish that nobody has removed.
    pub(super) fn is_possible(&self) -> bool {
        !matches!(&*self.policy, "" | "noeviction")
    }

    /// What an operator should know of it.
    pub(super) fn warning(&self, address: &Address) -> Option<String> {
        self.is_possible().then(|| {
            format!(
                "Redis at {address} has maxmemory-policy {:?}: when its memory is full it drops histories, presence and \
                 what nodes know of each other, and clients miss messages; set it to \"noeviction\"",
                self.policy
            )
        })
    }
}

impl Dialer {
    /// Who answers at an address, asked over a connection of its own.
    pub(super) async fn identify(
        &self,
        address: &Address,
    ) -> Result<ServerIdentity, UnavailableReason> {
        let ask = async {
            let mut conversation = self.connect(address).await?;
            conversation.authenticate(&self.settings.login).await?;
            ServerIdentity::read(&mut conversation).await
        };
        let limit = self.settings.connect_timeout + self.settings.io_timeout;
        timeout(limit, ask).await.unwrap_or(Err(UnavailableReason::Silent(address.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_does_not_say_is_not_different() {
        let mut identity = ServerIdentity::default();
        assert!(!identity.is_another("b") && !identity.is_same(""));
        for line in ["role:master\r", "run_id:a\r", "maxmemory_policy:volatile-lru\r"] {
            identity.note(line);
        }
        assert!(identity.is_master && identity.is_another("b") && !identity.is_another("a"));
        assert!(identity.is_same("a") && !identity.is_same("b"));
        assert!(!identity.is_another("") && identity.eviction.is_possible());
        identity.note("maxmemory_policy:noeviction\r");
        assert!(!identity.eviction.is_possible());
    }
}
