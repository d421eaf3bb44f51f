//! What the Redis broker is told at start, and why it may refuse to start.

/// Options of the Redis broker. The names are those of the configuration below `broker.redis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisOptions {
    /// `redis://user:password@host:port/database`; all but the host may be left out.
    pub address: String,
    /// Separates installations that share a server.
    pub prefix: String,
    /// Milliseconds until a connection attempt has failed.
    pub connect_timeout_ms: u64,
}

impl Default for RedisOptions {
    fn default() -> RedisOptions {
        RedisOptions {
            address: "redis://localhost:6379".into(),
            prefix: "tidings".into(),
            connect_timeout_ms: 1000,
        }
    }
}

/// Why the Redis broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// Keys cannot be made of it.
    #[error("broker.redis.prefix {0:?} is not made of letters, digits, `.`, `-` and `_`")]
    Prefix(String),
    /// It cannot be read.
    #[error(
        "broker.redis.address is not redis://user:password@host:port/database, where all but the host may be left out"
    )]
    Address,
    /// Nobody is there, or nobody who speaks our protocol.
    #[error("no Redis can be reached at broker.redis.address ({address}): {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What went wrong, in the words of the system or of Redis.
        reason: String,
    },
    /// It does not want us.
    #[error("Redis refuses the user or password in broker.redis.address ({address}): {reason}")]
    Credentials {
        /// Host and port.
        address: String,
        /// The server's own text.
        reason: String,
    },
    /// It takes no writes.
    #[error("broker.redis.address ({address}) is a replica: give the address of its master")]
    Replica {
        /// Host and port.
        address: String,
    },
    /// It lacks what we use.
    #[error(
        "Redis {version} at broker.redis.address ({address}) is too old: 6.2 is the oldest that will do"
    )]
    TooOld {
        /// Host and port.
        address: String,
        /// Its version, or `before 6`.
        version: String,
    },
    /// It is part of a cluster, or a sentinel.
    #[error(
        "broker.redis.address ({address}) runs in {mode} mode: only a server of its own will do"
    )]
    Mode {
        /// Host and port.
        address: String,
        /// In the words of Redis.
        mode: String,
    },
    /// The database in the address does not exist, or we may not do there what we must.
    #[error("Redis at broker.redis.address ({address}) refuses {command}: {reason}")]
    Refused {
        /// Host and port.
        address: String,
        /// What was asked.
        command: &'static str,
        /// The server's own text.
        reason: String,
    },
    /// The system gives us no thread.
    #[error("the thread of the Redis broker cannot be started")]
    Thread(#[from] std::io::Error),
}

/// An address, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) user: String,
    pub(super) password: String,
    /// Host and port.
    pub(super) host: String,
    pub(super) database: u32,
}

impl Address {
    pub(super) fn parse(text: &str) -> Option<Address> {
        let text = text.strip_prefix("redis://")?;
        let (secrets, place) = text.rsplit_once('@').unwrap_or(("", text));
        let (user, password) = secrets.split_once(':').unwrap_or((secrets, ""));
        let (host, database) = place.split_once('/').unwrap_or((place, ""));
        let has_port = host.rsplit_once(':').is_some_and(|(before, port)| {
            port.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'))
        });
        if host.is_empty()
            || host.starts_with(':')
            || (!has_port && host.contains(':') && !host.ends_with(']'))
        {
            return None;
        }
        Some(Address {
            user: decoded(user)?,
            password: decoded(password)?,
            host: if has_port { host.into() } else { format!("{host}:6379") },
            database: if database.is_empty() { 0 } else { database.parse().ok()? },
        })
    }
}

/// Text in which `%` and two hexadecimal digits stand for a byte.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address =
            |text: &str| Address::parse(text).map(|a| (a.user, a.password, a.host, a.database));
        let read = |user: &str, password: &str, host: &str, database| {
            Some((user.to_owned(), password.to_owned(), host.to_owned(), database))
        };
        assert_eq!(address("redis://h"), read("", "", "h:6379", 0));
        assert_eq!(address("redis://h:1/3"), read("", "", "h:1", 3));
        assert_eq!(address("redis://:p%40@h/"), read("", "p@", "h:6379", 0));
        assert_eq!(address("redis://u:p@[::1]:7"), read("u", "p", "[::1]:7", 0));
        assert_eq!(address("redis://[::1]"), read("", "", "[::1]:6379", 0));
        for wrong in
            ["", "h", "http://h", "redis://", "redis://h/x", "redis://h:x", "redis://%zz@h"]
        {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}
