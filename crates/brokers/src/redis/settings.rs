//! Settings of the Redis broker: servers, login, names, timeouts.
//!
//! Invariant: passwords never appear in debug output.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Settings of the Redis broker.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Servers to connect to.
    pub deployment: Deployment,
    /// User and password of the servers.
    pub login: Login,
    /// Database number; 0 in a cluster.
    pub database: u32,
    /// TLS settings; `None` for plain TCP.
    pub tls: Option<TlsSettings>,
    /// Prefix of all keys and pub/sub channels; separates installations.
    pub prefix: String,
    /// Id of this node; unique among nodes and starts, without a colon.
    pub node: String,
    /// Node name in lifecycle events.
    pub name: String,
    /// Lease duration: a node that does not renew for this time has failed.
    pub lease: Duration,
    /// Maximum length of the stream of lifecycle events.
    pub events_max: u32,
    /// Seed of epochs and jitter; must differ at every start.
    pub seed: u64,
    /// Connect timeout.
    pub connect_timeout: Duration,
    /// Reply timeout; then the request fails.
    pub io_timeout: Duration,
    /// TTL of a client's presence without renewal.
    pub presence_ttl: Duration,
    /// What Redis carries.
    pub parts: RedisParts,
}

/// What Redis carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisParts {
    /// All parts of a broker.
    #[default]
    All,
    /// Presence only; another broker carries publications, and with them join and leave messages.
    Presence,
}

impl RedisParts {
    /// The key of the section with the options of this broker, in messages to operators.
    #[must_use]
    pub fn options_key(self) -> &'static str {
        match self {
            RedisParts::All => "engine.redis",
            RedisParts::Presence => "presence_manager.redis",
        }
    }
}

impl RedisSettings {
    /// Prefix including the database, since pub/sub ignores databases.
    pub(super) fn root(&self) -> String {
        match self.database {
            0 => self.prefix.clone(),
            database => format!("{}/{database}", self.prefix),
        }
    }
}

/// How Redis is deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// Independent servers, over which channels are distributed; usually one.
    Servers(Vec<ServerLocation>),
    /// A Redis Cluster, discovered through these members.
    Cluster(Vec<Address>),
}

/// How to find one independent server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerLocation {
    /// A fixed address.
    At(Address),
    /// The master that Sentinels name.
    Sentinel {
        /// Name of the master at the Sentinels.
        master: String,
        /// Addresses of the Sentinels.
        sentinels: Vec<Address>,
        /// User and password of the Sentinels.
        login: Login,
    },
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Host name or IP address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// User and password; an empty password disables authentication.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// User name; empty for the default user.
    pub user: String,
    /// Password in plain text.
    pub password: String,
}

/// TLS settings of connections to Redis.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Trusted roots and client certificate.
    pub config: Arc<rustls::ClientConfig>,
    /// Server name to verify; `None` for the host.
    pub server_name: Option<String>,
}

/// Why TLS settings are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The trusted certificates cannot be read.
    #[error("contains no certificate in PEM")]
    Roots,
    /// The client certificate or its key cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Own(String),
}

/// PEM input of [`TlsSettings`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsPem<'p> {
    /// Trusted certificates instead of the public roots.
    pub roots: Option<&'p str>,
    /// Client certificate chain and private key.
    pub own: Option<(&'p str, &'p str)>,
}

impl TlsSettings {
    /// Builds settings from PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(pem: TlsPem<'_>, server_name: Option<String>) -> Result<TlsSettings, TlsError> {
        let mut roots = RootCertStore::empty();
        match pem.roots {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let certificate = certificate.map_err(|_| TlsError::Roots)?;
                    roots.add(certificate).map_err(|_| TlsError::Roots)?;
                }
            }
        }
        if roots.is_empty() {
            return Err(TlsError::Roots);
        }
        let own = |error: &dyn fmt::Display| TlsError::Own(error.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| own(&error))?
            .with_root_certificates(roots);
        let config = match pem.own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
                let chain = chain.collect::<Result<_, _>>().map_err(|error| own(&error))?;
                let key =
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| own(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| own(&error))?
            }
        };
        Ok(TlsSettings { config: Arc::new(config), server_name })
    }
}

/// Result of parsing addresses such as `redis://user:password@host:6379/0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedAddress {
    /// Servers that the addresses name.
    pub deployment: Deployment,
    /// User and password in the address, if any.
    pub login: Option<Login>,
    /// Database in the address, if any.
    pub database: Option<u32>,
    /// Whether the scheme requests TLS.
    pub has_tls: bool,
}

/// Why addresses are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No address is given.
    #[error("is needed, such as \"redis://127.0.0.1:6379\"")]
    Missing,
    /// The scheme is unknown.
    #[error(
        "must begin with redis://, rediss://, redis+cluster:// or redis+sentinel://, or be host:port"
    )]
    Scheme,
    /// Host or port are invalid.
    #[error("must be host:port; several are separated by commas")]
    Host,
    /// The database is not a number.
    #[error("has a database that is no number")]
    Database,
    /// A Sentinel address without the name of its master.
    #[error("needs ?sentinel_master_name=NAME with redis+sentinel://")]
    Master,
    /// The addresses differ in kind, user, database or TLS.
    #[error("must not mix clusters with others, or different users, databases or TLS")]
    Mixed,
    /// A server is named twice; it would get two shares of the channels.
    #[error("names one server twice")]
    Twice,
}

impl ParsedAddress {
    /// Parses addresses: several independent servers, or members of one cluster.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(addresses: &[String]) -> Result<ParsedAddress, AddressError> {
        // An environment variable separates list items by commas, as an address separates hosts.
        let mut whole: Vec<String> = Vec::new();
        for address in addresses.iter().map(|address| address.trim()) {
            match whole.last_mut() {
                Some(last) if last.contains("://") && !address.contains("://") => {
                    *last = format!("{last},{address}");
                }
                _ => whole.push(address.to_owned()),
            }
        }
        let mut all_parsed = whole.iter().map(|address| parse_one(address));
        let mut whole = all_parsed.next().ok_or(AddressError::Missing)??;
        for parsed in all_parsed {
            let parsed = parsed?;
            let is_alike = (&parsed.login, parsed.database, parsed.has_tls)
                == (&whole.login, whole.database, whole.has_tls);
            match (&mut whole.deployment, parsed.deployment) {
                (Deployment::Servers(all), Deployment::Servers(more)) if is_alike => {
                    if more.iter().any(|server| all.contains(server)) {
                        return Err(AddressError::Twice);
                    }
                    all.extend(more);
                }
                (Deployment::Cluster(all), Deployment::Cluster(more)) if is_alike => {
                    all.extend(more);
                }
                _ => return Err(AddressError::Mixed),
            }
        }
        Ok(whole)
    }
}

fn parse_one(address: &str) -> Result<ParsedAddress, AddressError> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("redis", address));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let (user, password) = login.split_once(':').unwrap_or(("", login));
            (Some(Login { user: unescape(user), password: unescape(password) }), hosts)
        }
        None => (None, authority),
    };
    let database = match path {
        "" => None,
        path => Some(path.parse().map_err(|_| AddressError::Database)?),
    };
    let hosts: Vec<&str> = hosts.split(',').collect();
    let addresses =
        |port| hosts.iter().map(|host| parse_host(host, port)).collect::<Result<Vec<_>, _>>();
    let (kind, has_tls) = match scheme.strip_prefix("rediss") {
        Some(kind) => (kind, true),
        None => (scheme.strip_prefix("redis").ok_or(AddressError::Scheme)?, false),
    };
    let deployment = match kind {
        "" => Deployment::Servers(addresses(6379)?.into_iter().map(ServerLocation::At).collect()),
        "+cluster" => Deployment::Cluster(addresses(6379)?),
        "+sentinel" => {
            let name = query.split('&').find_map(|pair| pair.strip_prefix("sentinel_master_name="));
            let master = name.filter(|name| !name.is_empty()).ok_or(AddressError::Master)?;
            Deployment::Servers(vec![ServerLocation::Sentinel {
                master: master.to_owned(),
                sentinels: addresses(26379)?,
                login: Login::default(),
            }])
        }
        _ => return Err(AddressError::Scheme),
    };
    Ok(ParsedAddress { deployment, login, database, has_tls })
}

fn parse_host(text: &str, port: u16) -> Result<Address, AddressError> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, Ok(port)),
        Some((host, rest)) => (host, rest.strip_prefix(':').ok_or(AddressError::Host)?.parse()),
        None => match text.split_once(':') {
            Some((host, port)) => (host, port.parse()),
            None => (text, Ok(port)),
        },
    };
    match port {
        Ok(port) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(Address { host: host.to_owned(), port })
        }
        _ => Err(AddressError::Host),
    }
}

/// Decodes percent-encoding.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let digits = text.get(index + 1..index + 3).filter(|_| bytes[index] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_empty() { "" } else { "***" };
        out.debug_struct("Login").field("user", &self.user).field("password", &password).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(addresses: &[&str]) -> Result<ParsedAddress, AddressError> {
        ParsedAddress::parse(&addresses.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn addresses_are_read() {
        let parsed = parse(&["rediss://ann:p%40ss@[::1]:7000/3"]).unwrap();
        let login = Login { user: "ann".into(), password: "p@ss".into() };
        let deployment = Deployment::Servers(vec![ServerLocation::At(at("::1", 7000))]);
        assert_eq!(
            parsed,
            ParsedAddress { deployment, login: Some(login), database: Some(3), has_tls: true }
        );
        let shards = parse(&["one", "two:7000"]).unwrap().deployment;
        let servers =
            vec![ServerLocation::At(at("one", 6379)), ServerLocation::At(at("two", 7000))];
        assert_eq!(shards, Deployment::Servers(servers));
        let cluster =
            parse(&["redis+cluster://a:1,b:2", "redis+cluster://c:3"]).unwrap().deployment;
        assert_eq!(cluster, Deployment::Cluster(vec![at("a", 1), at("b", 2), at("c", 3)]));
        let parted = ["redis+sentinel://a", "b:2?sentinel_master_name=main"];
        let sentinel = parse(&["redis+sentinel://a,b:2?sentinel_master_name=main"]).unwrap();
        assert_eq!(parse(&parted).as_ref(), Ok(&sentinel));
        let Deployment::Servers(servers) = sentinel.deployment else { panic!("no servers") };
        let sentinels = vec![at("a", 26379), at("b", 2)];
        let login = Login::default();
        assert_eq!(servers, [ServerLocation::Sentinel { master: "main".into(), sentinels, login }]);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert_eq!(parse(&[]), Err(AddressError::Missing));
        assert_eq!(parse(&["http://a"]), Err(AddressError::Scheme));
        assert_eq!(parse(&["redis+x://a"]), Err(AddressError::Scheme));
        assert_eq!(parse(&["a:b"]), Err(AddressError::Host));
        assert_eq!(parse(&[""]), Err(AddressError::Host));
        assert_eq!(parse(&["redis://a/b"]), Err(AddressError::Database));
        assert_eq!(parse(&["redis+sentinel://a"]), Err(AddressError::Master));
        assert_eq!(parse(&["a", "redis+cluster://b"]), Err(AddressError::Mixed));
        assert_eq!(parse(&["a", "rediss://b"]), Err(AddressError::Mixed));
    }

    #[test]
    fn a_password_is_not_shown() {
        let login = Login { user: "ann".into(), password: "secret".into() };
        assert!(!format!("{login:?}").contains("secret"));
    }
}
