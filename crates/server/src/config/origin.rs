//! Origins of web pages that may connect (`client.allowed_origins`).
//!
//! Invariant: patterns have the form that browsers send: scheme, host, and a port that is not the
//! default port of the scheme, in lower case. An entry in another form is converted or refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of allowed origins. Without any pattern, only requests without an `Origin` header are
/// allowed, which browsers do not send for WebSocket connections.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy {
    patterns: GlobSet,
}

impl OriginPolicy {
    /// A policy with these patterns: `*` matches any text, `?` one character, `{a,b}` either text.
    ///
    /// # Errors
    /// One message per invalid pattern.
    pub fn new(patterns: &[String]) -> Result<OriginPolicy, Vec<String>> {
        let mut faults = Vec::new();
        let mut builder = GlobSetBuilder::new();
        for written in patterns {
            let globs = Origin::read(written).and_then(|origin| {
                let glob = |pattern: &String| GlobBuilder::new(pattern).build();
                origin
                    .patterns
                    .iter()
                    .map(glob)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| "is not a valid pattern".to_owned())
            });
            match globs {
                Ok(globs) => {
                    for glob in globs {
                        builder.add(glob);
                    }
                }
                Err(fault) => faults.push(format!("{written:?} {fault}")),
            }
        }
        match builder.build() {
            Ok(patterns) if faults.is_empty() => Ok(OriginPolicy { patterns }),
            Ok(_) => Err(faults),
            Err(_) => Err(vec!["the patterns are too large together: use fewer".to_owned()]),
        }
    }

    /// Whether a request with this `Origin` header may connect.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>) -> bool {
        origin.is_none_or(|origin| self.patterns.is_match(origin.to_ascii_lowercase()))
    }
}

/// One entry of the list, converted to the form that browsers send.
#[derive(Debug)]
pub(super) struct Origin {
    patterns: Vec<String>,
    /// How the entry was converted, if it was. Follows "an origin".
    pub(super) adapted: Option<&'static str>,
}

/// The sites that a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Only the listed sites.
    Named,
    /// Also sites whose names begin or end in the same way.
    Lookalikes,
    /// Sandboxed frames and local files, whose origin is `null`.
    Opaque,
    /// All sites.
    Everywhere,
}

/// Characters with a special meaning in patterns.
const GLOB: [char; 6] = ['*', '?', '[', ']', '{', '}'];

impl Origin {
    /// Parses an entry.
    ///
    /// # Errors
    /// Why no origin of a browser can match, and what to write.
    pub(super) fn read(written: &str) -> Result<Origin, String> {
        let text = written.trim().to_ascii_lowercase();
        if !text.is_ascii() {
            return Err(
                "has a host that is not ASCII: write the form that begins with xn--, which \
                        browsers send"
                    .to_owned(),
            );
        }
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err("is not an origin: write one as https://example.com".to_owned());
        }
        if text.matches("://").count() > 1 && !text.contains('{') {
            return Err("contains more than one origin: make each an item of its own".to_owned());
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Origin::with_scheme(scheme, rest),
            None => Origin::without_scheme(text),
        }
    }

    fn with_scheme(scheme: &str, rest: &str) -> Result<Origin, String> {
        let (scheme, by_socket) = match scheme {
            "ws" => ("http", Some("is the address of a page, whose scheme is http")),
            "wss" => ("https", Some("is the address of a page, whose scheme is https")),
            scheme => (scheme, None),
        };
        let is_scheme =
            |c: char| c.is_ascii_alphanumeric() || "+-.,".contains(c) || GLOB.contains(&c);
        if scheme.is_empty() || !scheme.chars().all(is_scheme) {
            return Err("has no scheme: write one as https://example.com".to_owned());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() && !matches!(scheme, "http" | "https") {
            // Some web views send file:// for local files.
            return Ok(Origin { patterns: vec![format!("{scheme}://")], adapted: None });
        }
        let has_path = !path.trim_matches('/').is_empty();
        let adapted = by_socket.or(has_path.then_some("has no path, so that the path is ignored"));
        let authority = authority.split_once('#').map_or(authority, |(authority, _)| authority);
        let patterns = of_authority(scheme, authority)?;
        Ok(Origin { patterns, adapted })
    }

    /// Parses an entry without a scheme. It means `https`, and for the local machine also `http`.
    fn without_scheme(text: String) -> Result<Origin, String> {
        let is_address = text.starts_with('[') && text.contains("::");
        let is_any_scheme = ["http", "https"]
            .iter()
            .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| rest.starts_with(GLOB)));
        if text == "null" || is_any_scheme || (text.starts_with(GLOB) && !is_address) {
            return Ok(Origin { patterns: vec![text], adapted: None });
        }
        if text.contains('/') {
            return Err("is not an origin: write one as https://example.com".to_owned());
        }
        let host = text.rsplit_once(':').map_or(&*text, |(host, _)| host);
        let mut patterns = of_authority("https", &text)?;
        if !is_loopback(host) && !is_loopback(&text) {
            return Ok(Origin { patterns, adapted: Some("has a scheme; https is assumed") });
        }
        patterns.extend(of_authority("http", &text)?);
        Ok(Origin { patterns, adapted: Some("has a scheme; http and https are assumed") })
    }

    /// Which sites the patterns match.
    pub(super) fn reach(&self) -> Reach {
        let glob =
            |pattern: &String| Some(GlobBuilder::new(pattern).build().ok()?.compile_matcher());
        let matchers: Vec<_> = self.patterns.iter().filter_map(glob).collect();
        let admits = |origin: &str| matchers.iter().any(|matcher| matcher.is_match(origin));
        let admits_all = |origins: &[&str]| origins.iter().all(|origin| admits(origin));
        // Two arbitrary sites that have only the scheme in common.
        if ["http", "https"].iter().any(|scheme| {
            admits_all(&[&format!("{scheme}://a7c.example"), &format!("{scheme}://q.0x9d.test")])
        }) {
            return Reach::Everywhere;
        }
        if admits("null") {
            return Reach::Opaque;
        }
        let is_loose = |pattern: &String| {
            let host = pattern.split_once("://").map_or(&**pattern, |(_, host)| host);
            let (host, port) = host.split_once(':').unwrap_or((host, ""));
            let behind = host.strip_prefix('*').and_then(|rest| rest.chars().next());
            behind.is_some_and(|c| c.is_ascii_alphanumeric())
                || (host.ends_with('*') && port.is_empty())
        };
        if self.patterns.iter().any(is_loose) { Reach::Lookalikes } else { Reach::Named }
    }
}

fn of_authority(scheme: &str, authority: &str) -> Result<Vec<String>, String> {
    if authority.is_empty() {
        return Err("has no host: write it as https://example.com".to_owned());
    }
    if authority.contains('@') {
        return Err("contains a user, which an origin does not have: remove it".to_owned());
    }
    let (host, port) = split_port(authority)?;
    let port = match port {
        Some(port) if port.contains(GLOB) => Some(port.to_owned()),
        None | Some("") => None,
        Some(port) => match port.parse::<u16>() {
            Ok(0) | Err(_) => {
                return Err(format!("has the port {port}: a port is a number from 1 to 65535"));
            }
            Ok(port) => Some(port.to_string()),
        },
    };
    let with = |port: Option<&str>| match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    Ok(match (scheme, port.as_deref()) {
        ("http", Some("80")) | ("https", Some("443")) => vec![with(None)],
        // A pattern that matches several schemes.
        (scheme, Some(port @ ("80" | "443"))) if scheme.contains(GLOB) => {
            vec![with(None), with(Some(port))]
        }
        (_, port) => vec![with(port)],
    })
}

/// Splits an authority into a pattern of the host, and the port.
fn split_port(authority: &str) -> Result<(String, Option<&str>), String> {
    if let Some(address) = authority.strip_prefix('[')
        && let Some((address, rest)) = address.split_once(']')
        && address.contains(':')
    {
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| format!("has the address [{address}], which is not an IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err("has text between its address and its port: remove it".to_owned()),
        };
        // Brackets are escaped, because they enclose a class of characters in a pattern.
        return Ok((format!("[[]{}[]]", as_browsers_write(address)), port));
    }
    if authority.parse::<Ipv6Addr>().is_ok() || authority.matches(':').count() > 1 {
        let is_pattern = authority.contains(GLOB);
        return match is_pattern {
            true => Ok((authority.to_owned(), None)),
            false => Err("has an IPv6 address without brackets: write [::1]:3000".to_owned()),
        };
    }
    Ok(match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(['}', ',', ']']) => (host.to_owned(), Some(port)),
        _ => (authority.to_owned(), None),
    })
}

/// Formats an address as browsers do: a mapped IPv4 address in hexadecimal.
fn as_browsers_write(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(mapped) => {
            let [a, b, c, d] = mapped.octets();
            let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
            format!("::ffff:{:x}:{:x}", pair(a, b), pair(c, d))
        }
        None => address.to_string(),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(patterns: &[&str]) -> Result<OriginPolicy, Vec<String>> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        OriginPolicy::new(&patterns)
    }

    #[test]
    fn patterns_decide_and_no_pattern_means_no_browser() {
        let policy = |patterns: &[&str]| policy(patterns).unwrap();
        assert!(policy(&[]).allows(None) && !policy(&[]).allows(Some("https://a.example")));
        assert!(policy(&["*"]).allows(Some("https://a.example:8443")));
        let one = policy(&["https://*.example.com"]);
        assert!(one.allows(Some("HTTPS://shop.Example.com")));
        assert!(!one.allows(Some("https://example.com.evil.org")));
        assert!(!one.allows(Some("http://shop.example.com")));
        assert!(!one.allows(Some("null")));
    }

    #[test]
    fn every_accepted_form_matches_the_origin_of_a_browser() {
        for (pattern, origin) in [
            ("http://x.com/", "http://x.com"),
            ("http://x.com//", "http://x.com"),
            ("https://x.com/app/index.html", "https://x.com"),
            ("https://x.com/*", "https://x.com"),
            ("https://a.com:443", "https://a.com"),
            ("https://a.com:443/", "https://a.com"),
            ("http://a.com:80", "http://a.com"),
            ("http://a.com:0080", "http://a.com"),
            ("http://a.com:443", "http://a.com:443"),
            ("https://a.com:", "https://a.com"),
            ("HTTPS://Shop.Example.COM", "https://shop.example.com"),
            (" https://a.com ", "https://a.com"),
            ("localhost:3000", "http://localhost:3000"),
            ("localhost", "https://localhost"),
            ("127.0.0.1:5173", "http://127.0.0.1:5173"),
            ("[::1]:3000", "http://[::1]:3000"),
            ("example.com", "https://example.com"),
            ("example.com:8443", "https://example.com:8443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]"),
            ("http://[2001:DB8::0:1]", "http://[2001:db8::1]"),
            ("http://[::ffff:127.0.0.1]:1", "http://[::ffff:7f00:1]:1"),
            ("wss://a.com", "https://a.com"),
            ("https://{app,www}.example.com", "https://www.example.com"),
            ("https://app[12].example.com", "https://app2.example.com"),
            ("http://localhost:*", "http://localhost:5173"),
            ("http://[::1]:*", "http://[::1]:8080"),
            ("http://localhost:{3000,5173}", "http://localhost:5173"),
            ("*.example.com", "https://shop.example.com"),
            ("*://a.com:443", "https://a.com"),
            ("http?://a.com", "https://a.com"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef/", "chrome-extension://abcdef"),
            ("file://", "file://"),
            ("file:///", "file://"),
            ("null", "null"),
        ] {
            let policy =
                policy(&[pattern]).unwrap_or_else(|faults| panic!("{pattern}: {faults:?}"));
            assert!(policy.allows(Some(origin)), "{pattern} does not admit {origin}");
        }
        assert!(!policy(&["example.com"]).unwrap().allows(Some("http://example.com")));
        assert!(!policy(&["http://[::1]:3000"]).unwrap().allows(Some("http://1:3000")));
        let loopback = policy(&["http://[::1]:*"]).unwrap();
        assert!(!loopback.allows(Some("http://[::2]:80")) && !loopback.allows(Some("http://:80")));
    }

    #[test]
    fn origins_that_no_browser_sends_are_refused_with_the_reason() {
        for (pattern, reason) in [
            ("", "is not an origin"),
            ("https://", "no host"),
            ("://a.com", "no scheme"),
            ("https:/a.com", "is not an origin"),
            ("a.com/app", "is not an origin"),
            ("https://a.com https://b.com", "is not an origin"),
            ("https://bücher.example", "xn--"),
            ("https://user:p@a.com", "contains a user"),
            ("https://a.com:99999", "port 99999"),
            ("https://a.com:http", "port http"),
            ("http://::1:3000", "brackets"),
            ("http://[::zz]:3000", "not an IPv6 address"),
            ("https://[a", "not a valid pattern"),
        ] {
            let faults = policy(&[pattern]).unwrap_err();
            assert!(faults[0].contains(reason), "{pattern}: {faults:?}");
        }
        assert_eq!(policy(&["https://", "https://a.com", "a.com/b"]).unwrap_err().len(), 2);
    }

    #[test]
    fn patterns_that_match_other_sites_are_detected() {
        for (pattern, reach) in [
            ("*", Reach::Everywhere),
            ("https://*", Reach::Everywhere),
            ("http*", Reach::Everywhere),
            ("*://*", Reach::Everywhere),
            ("https://*.*", Reach::Everywhere),
            ("null", Reach::Opaque),
            ("https://*example.com", Reach::Lookalikes),
            ("*example.com", Reach::Lookalikes),
            ("https://example.*", Reach::Lookalikes),
            ("https://example.com*", Reach::Lookalikes),
            ("https://*.example.com", Reach::Named),
            ("http://localhost:*", Reach::Named),
            ("https://example.com", Reach::Named),
            ("http://[::1]:3000", Reach::Named),
        ] {
            assert_eq!(Origin::read(pattern).unwrap().reach(), reach, "{pattern}");
        }
    }
}
