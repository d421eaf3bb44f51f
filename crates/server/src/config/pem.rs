//! Settings that hold PEM: as it is, in base64, or in a file.
//!
//! Invariant: an error names a file only when the value looks like a path; a key that was written instead of one is never
//! shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::Kind;

/// Longest path that is named in an error.
const PATH_SHOWN_MAX: usize = 255;

/// The PEM behind a value of this kind.
pub(crate) fn read_pem(kind: Kind, value: &str) -> Result<String, String> {
    if value.contains("-----BEGIN") {
        return Ok(value.to_owned());
    }
    // Tools break base64 into lines.
    let joined: String = value.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(joined);
    if let Some(text) = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok())
        && text.contains("-----BEGIN")
    {
        return Ok(text);
    }
    std::fs::read_to_string(value).map_err(|error| match is_path(kind, value) {
        true => format!("cannot be read from {value}: {error}"),
        false => "is neither PEM, nor PEM in base64, nor the path of a readable file".to_owned(),
    })
}

/// The file behind a value, when that is where the PEM is and an error may say so.
pub(crate) fn file_of(kind: Kind, value: &str) -> Option<&str> {
    (is_path(kind, value) && std::fs::exists(value).unwrap_or(false)).then_some(value)
}

/// Whether an error may show the value. DER in base64 has neither a dot nor a slash in front.
fn is_path(kind: Kind, value: &str) -> bool {
    let is_short_line = value.len() <= PATH_SHOWN_MAX && !value.contains(char::is_control);
    is_short_line && (kind != Kind::Secret || value.starts_with('/') || value.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n";

    #[test]
    fn base64_may_be_broken_into_lines() {
        let encoded = STANDARD.encode(PEM);
        let (begun, rest) = encoded.split_at(40);
        let broken = format!(" {begun}\n  {rest}\r\n");
        for value in [PEM, &encoded, &broken] {
            assert_eq!(read_pem(Kind::Secret, value).as_deref(), Ok(PEM));
        }
    }

    #[test]
    fn an_error_shows_paths_and_never_a_key() {
        let path = read_pem(Kind::Secret, "/nowhere/key.pem").unwrap_err();
        assert!(path.contains("/nowhere/key.pem"), "{path}");
        let der = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
        let inline = ["hidden\nin/lines.pem", der, &format!("/{}", "hidden".repeat(50))];
        for value in inline {
            let error = read_pem(Kind::Secret, value).unwrap_err();
            assert!(!error.contains(&value[..value.len().min(6)]), "{error}");
        }
    }
}
