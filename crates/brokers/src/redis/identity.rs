//! Identity of the server at an address: its run, its role, its eviction policy.
//!
//! Invariant: a missing field counts as unknown, never as different.

use super::request_connection::RequestConnection;
use super::resp::Frame;
use super::settings::Address;
use super::unavailable::UnavailableReason;

/// Identity of a server, from INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerIdentity {
    /// Changes when the server becomes a master, and may then lack recent publications.
    pub(super) replication_id: String,
    /// Changes when the server starts; empty if unknown.
    pub(super) run_id: String,
    pub(super) is_master: bool,
    pub(super) eviction: Eviction,
}

/// Eviction of keys at `maxmemory`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Eviction {
    /// `maxmemory-policy`; empty if unknown.
    pub(super) policy: String,
    /// Number of evicted keys since the server's start.
    pub(super) keys: u64,
}

impl ServerIdentity {
    /// Whether both run ids are known and differ.
    pub(super) fn is_another(&self, run_id: &str) -> bool {
        !self.run_id.is_empty() && !run_id.is_empty() && self.run_id != run_id
    }

    /// Whether both run ids are known and equal.
    pub(super) fn is_same(&self, run_id: &str) -> bool {
        !run_id.is_empty() && self.run_id == run_id
    }

    pub(super) async fn read(
        connection: &mut RequestConnection,
    ) -> Result<ServerIdentity, UnavailableReason> {
        let address = connection.address().clone();
        let mut identity = ServerIdentity::default();
        for section in ["replication", "server", "memory", "stats"] {
            let answer = connection.ask(&[b"INFO", section.as_bytes()]).await?;
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
    /// Whether the server may evict keys.
    pub(super) fn is_possible(&self) -> bool {
        !matches!(&*self.policy, "" | "noeviction")
    }

    /// The warning for operators, when keys may be evicted.
    pub(super) fn warning(&self, address: &Address) -> Option<String> {
        self.is_possible().then(|| {
            format!(
                "Redis at {address} has maxmemory-policy {:?}: when its memory is full it evicts histories, presence and \
                 node registrations, and clients miss messages; set it to \"noeviction\"",
                self.policy
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_identity_is_neither_same_nor_different() {
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
