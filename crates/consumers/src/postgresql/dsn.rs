//! The address of a PostgreSQL database: a URL, or keys and values as libpq has them.
//!
//! Invariant: the password never appears in debug output or in an error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{POSTGRES_CONNECT_TIMEOUT, POSTGRES_HOSTS_MAX};

/// A parsed data source name (DSN) of PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct Dsn {
    /// Servers, tried in turn until one accepts.
    pub hosts: Vec<PostgresHost>,
    /// User name.
    pub user: String,
    /// Password; empty for none.
    pub password: String,
    /// Database name.
    pub database: String,
    /// How TLS is used.
    pub ssl_mode: SslMode,
    /// File of trusted certificates.
    pub ssl_root_cert: Option<PathBuf>,
    /// Files of the client's certificate and key.
    pub ssl_client: Option<(PathBuf, PathBuf)>,
    /// Time for connecting and logging in.
    pub connect_timeout: Duration,
    /// Settings of the session, such as `application_name` and `search_path`.
    pub session: BTreeMap<String, String>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresHost {
    /// Name, address, or the directory of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// `sslmode` of libpq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it, with any certificate.
    Prefer,
    /// TLS with any certificate.
    Require,
    /// TLS with a trusted certificate of any name.
    VerifyCa,
    /// TLS with a trusted certificate of the host's name.
    VerifyFull,
}

/// Why a DSN is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// There is nothing.
    #[error("is empty; it is an address such as postgres://user:password@host:5432/database")]
    Empty,
    /// Neither a URL nor keys and values.
    #[error("is neither postgres://user:password@host:5432/database nor \"host=… user=…\"")]
    Form,
    /// A port is no number.
    #[error("has a port that is not a number")]
    Port,
    /// Percent-encoding that is incomplete or no UTF-8.
    #[error("has a percent sign that is not part of valid percent-encoding")]
    Encoding,
    /// `sslmode` has an unknown value.
    #[error(
        "has an unknown sslmode; it is disable, allow, prefer, require, verify-ca or verify-full"
    )]
    SslMode,
    /// No user is given.
    #[error("names no user")]
    User,
    /// More servers than are tried.
    #[error("names more than {POSTGRES_HOSTS_MAX} servers")]
    Hosts,
    /// A key that would need files of libpq.
    #[error("has the key {0:?}, which is not supported")]
    Unsupported(String),
}

impl fmt::Debug for Dsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Dsn")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("ssl_mode", &self.ssl_mode)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PostgresHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Dsn {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Dsn, DsnError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(DsnError::Empty);
        }
        let url = text.strip_prefix("postgres://").or(text.strip_prefix("postgresql://"));
        let keys = match url {
            Some(url) => of_url(url)?,
            None => of_words(text)?,
        };
        resolve(keys)
    }
}

type Keys = BTreeMap<String, String>;

fn of_url(url: &str) -> Result<Keys, DsnError> {
    let (rest, query) = url.split_once('?').unwrap_or((url, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let mut keys = Keys::new();
    let mut set = |key: &str, value: &str| -> Result<(), DsnError> {
        if !value.is_empty() {
            keys.insert(key.to_owned(), unescape(value)?);
        }
        Ok(())
    };
    let (user, password) = login.map_or(("", ""), |it| it.split_once(':').unwrap_or((it, "")));
    set("user", user)?;
    set("password", password)?;
    set("dbname", database)?;
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',').filter(|host| !host.is_empty()) {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':')),
            None => match host.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host, None),
            },
        };
        names.push(name);
        ports.push(port.unwrap_or("5432"));
    }
    set("host", &names.join(","))?;
    set("port", &ports.join(","))?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or(DsnError::Form)?;
        keys.insert(unescape(key)?, unescape(value)?);
    }
    Ok(keys)
}

fn unescape(text: &str) -> Result<String, DsnError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(DsnError::Encoding)?;
        let digits = std::str::from_utf8(digits).map_err(|_| DsnError::Encoding)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| DsnError::Encoding)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| DsnError::Encoding)
}

/// `host=a user='b c'`; a backslash makes the next character plain.
fn of_words(text: &str) -> Result<Keys, DsnError> {
    let mut keys = Keys::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(DsnError::Form)?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(DsnError::Form);
        }
        let after = after.trim_start();
        let quoted = after.strip_prefix('\'');
        let mut value = String::new();
        let mut characters = quoted.unwrap_or(after).char_indices();
        let (from, mut end) = (quoted.unwrap_or(after), None);
        while let Some((index, character)) = characters.next() {
            match character {
                '\\' => value.push(characters.next().ok_or(DsnError::Form)?.1),
                '\'' if quoted.is_some() => {
                    end = Some(index + 1);
                    break;
                }
                character if quoted.is_none() && character.is_whitespace() => {
                    end = Some(index);
                    break;
                }
                character => value.push(character),
            }
        }
        if quoted.is_some() && end.is_none() {
            return Err(DsnError::Form);
        }
        keys.insert(key.to_owned(), value);
        rest = from[end.unwrap_or(from.len())..].trim_start();
    }
    Ok(keys)
}

fn resolve(mut keys: Keys) -> Result<Dsn, DsnError> {
    let mut take = |key: &str| keys.remove(key).filter(|value| !value.is_empty());
    let user = take("user").ok_or(DsnError::User)?;
    let ssl_root_cert = take("sslrootcert").map(PathBuf::from);
    let ssl_mode = match take("sslmode").as_deref() {
        Some("disable") => SslMode::Disable,
        None | Some("allow" | "prefer") => SslMode::Prefer,
        // As libpq: with trusted certificates, require verifies them.
        Some("require") if ssl_root_cert.is_some() => SslMode::VerifyCa,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => return Err(DsnError::SslMode),
    };
    let hosts = take("host").or_else(|| take("hostaddr")).unwrap_or_else(|| "localhost".to_owned());
    let ports = take("port").unwrap_or_else(|| "5432".to_owned());
    let ports: Vec<u16> = ports
        .split(',')
        .map(|port| port.trim().parse().map_err(|_| DsnError::Port))
        .collect::<Result<_, _>>()?;
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let hosts = hosts.split(',').enumerate();
    let hosts: Vec<PostgresHost> = hosts
        .map(|(index, host)| PostgresHost { host: host.trim().to_owned(), port: port(index) })
        .collect();
    if hosts.len() > POSTGRES_HOSTS_MAX {
        return Err(DsnError::Hosts);
    }
    let seconds = take("connect_timeout").and_then(|text| text.parse().ok()).filter(|it| *it > 0);
    let dsn = Dsn {
        hosts,
        password: take("password").unwrap_or_default(),
        database: take("dbname").or_else(|| take("database")).unwrap_or_else(|| user.clone()),
        ssl_mode,
        ssl_root_cert,
        ssl_client: take("sslcert").zip(take("sslkey")).map(|(c, k)| (c.into(), k.into())),
        connect_timeout: seconds.map_or(POSTGRES_CONNECT_TIMEOUT, Duration::from_secs),
        user,
        session: BTreeMap::new(),
    };
    for unsupported in ["service", "servicefile", "passfile", "sslpassword", "krbsrvname"] {
        if keys.remove(unsupported).is_some() {
            return Err(DsnError::Unsupported(unsupported.to_owned()));
        }
    }
    // Keys of libpq and of connection pools without a meaning here; the rest is for the session.
    keys.retain(|key, _| !key.starts_with("pool_") && !IGNORED_KEYS.contains(&key.as_str()));
    Ok(Dsn { session: keys, ..dsn })
}

const IGNORED_KEYS: [&str; 8] = [
    "target_session_attrs",
    "gssencmode",
    "channel_binding",
    "sslcrl",
    "sslsni",
    "default_query_exec_mode",
    "statement_cache_capacity",
    "description_cache_capacity",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dsn(text: &str) -> Dsn {
        text.parse().unwrap()
    }

    fn hosts(dsn: &Dsn) -> Vec<String> {
        dsn.hosts.iter().map(PostgresHost::to_string).collect()
    }

    #[test]
    fn a_url_and_words_say_the_same() {
        let url = dsn("postgres://jo%40x:p%3Aw@db1:6000,[::1]/shop?sslmode=require&search_path=a");
        let words = dsn(
            "host=db1,::1 port=6000,5432 user=jo@x password='p:w' dbname=shop sslmode=require \
             search_path=a",
        );
        assert!(url == words);
        assert_eq!(hosts(&url), ["db1:6000", "::1:5432"]);
        assert_eq!((&*url.user, &*url.password, &*url.database), ("jo@x", "p:w", "shop"));
        assert_eq!(url.session["search_path"], "a");
    }

    #[test]
    fn what_is_not_written_has_the_defaults_of_libpq() {
        let short = dsn("postgresql://jo@/?pool_max_conns=9&connect_timeout=2");
        assert_eq!(hosts(&short), ["localhost:5432"]);
        assert_eq!((&*short.database, short.ssl_mode), ("jo", SslMode::Prefer));
        assert!(short.session.is_empty());
        assert_eq!(short.connect_timeout, Duration::from_secs(2));
        let trusted = dsn("user=jo sslmode=require sslrootcert=/ca.pem");
        assert_eq!(trusted.ssl_mode, SslMode::VerifyCa);
    }

    #[test]
    fn mistakes_are_named_and_the_password_is_not() {
        let error = |text: &str| text.parse::<Dsn>().unwrap_err();
        assert_eq!(error(" "), DsnError::Empty);
        assert_eq!(error("mysql://x"), DsnError::Form);
        assert_eq!(error("postgres://db/x"), DsnError::User);
        assert_eq!(error("postgres://a@db:x/x"), DsnError::Port);
        assert_eq!(error("postgres://a:%zz@db/x"), DsnError::Encoding);
        assert_eq!(error("user=a sslmode=on"), DsnError::SslMode);
        assert_eq!(error("user=a password='x"), DsnError::Form);
        assert_eq!(error("user=a service=x"), DsnError::Unsupported("service".to_owned()));
        assert!(!format!("{:?}", dsn("postgres://a:secret@b/c")).contains("secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_dsn_or_a_mistake(text in "(postgres://)?[a-z:@/,\\[\\]?&=%'\\\\ 0-9é]{0,30}") {
            let _any = text.parse::<Dsn>();
        }
    }
}
