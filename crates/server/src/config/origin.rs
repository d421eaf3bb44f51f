//! Which web pages may open a connection (`client.allowed_origins`).

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of origins. Without any, only requests without an `Origin` header pass: those that no browser sends for
/// another page.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy {
    patterns: GlobSet,
}

impl OriginPolicy {
    /// A policy of these patterns, in which `*` stands for anything. Brackets are those of an IPv6 address.
    ///
    /// # Errors
    /// The pattern that cannot be read.
    pub fn new(patterns: &[String]) -> Result<OriginPolicy, String> {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            let glob = GlobBuilder::new(&escape_brackets(&pattern.to_ascii_lowercase())).build();
            builder.add(glob.map_err(|_| pattern.clone())?);
        }
        let patterns = builder.build().map_err(|_| patterns.join(" "))?;
        Ok(OriginPolicy { patterns })
    }

    /// Whether a request with this `Origin` header may connect.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>) -> bool {
        origin.is_none_or(|origin| self.patterns.is_match(origin.to_ascii_lowercase()))
    }
}

/// Brackets open and close a class of characters in a glob; in an origin they hold an address: `http://[::1]:*`.
fn escape_brackets(pattern: &str) -> String {
    let mut escaped = String::with_capacity(pattern.len() + 4);
    for character in pattern.chars() {
        match character {
            '[' => escaped.push_str("[[]"),
            ']' => escaped.push_str("[]]"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::OriginPolicy;

    #[test]
    fn patterns_decide_and_no_pattern_means_no_browser() {
        let policy = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            OriginPolicy::new(&patterns).unwrap()
        };
        assert!(policy(&[]).allows(None) && !policy(&[]).allows(Some("https://a.example")));
        assert!(policy(&["*"]).allows(Some("https://a.example:8443")));
        let one = policy(&["https://*.example.com"]);
        assert!(one.allows(Some("HTTPS://shop.Example.com")));
        assert!(!one.allows(Some("https://example.com.evil.org")));
        assert!(!one.allows(Some("http://shop.example.com")));
        assert!(!one.allows(Some("null")));
        let loopback = policy(&["http://[::1]:*"]);
        assert!(loopback.allows(Some("http://[::1]:8080")));
        assert!(
            !loopback.allows(Some("http://[::2]:8080")) && !loopback.allows(Some("http://:8080"))
        );
    }
}
