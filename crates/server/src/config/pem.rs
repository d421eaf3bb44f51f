//! Options that contain PEM: inline, in base64, or as the path of a file.
//!
//! Invariant: an error quotes a value only if it looks like a path, and never a private key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::kind::Kind;

/// Maximum length in bytes of a path that an error quotes.
const PATH_SHOWN_MAX: usize = 255;

/// Returns the PEM of an option of this kind.
pub(crate) fn read_pem(kind: Kind, value: &str) -> Result<String, String> {
    let pem = find_pem(kind, value)?;
    if ENCRYPTED.iter().any(|mark| pem.contains(mark)) {
        let file = file_of(kind, value).map_or(String::new(), |file| format!("{file} "));
        return Err(format!(
            "{file}is encrypted with a passphrase, which the server does not have: decrypt it with \
             openssl pkey -in key.pem -out plain.pem"
        ));
    }
    Ok(pem)
}

/// Marks of an encrypted key: PKCS #8 (RFC 5958), and the older form (RFC 1421).
const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];

fn find_pem(kind: Kind, value: &str) -> Result<String, String> {
    if value.contains("-----BEGIN") {
        // Many tools write variables in one line, with \n instead of line breaks.
        return Ok(match value.contains('\n') {
            true => value.to_owned(),
            false => value.replace("\\r", "").replace("\\n", "\n"),
        });
    }
    // Some tools break base64 into lines.
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

/// The path in a value, if the file exists and an error may quote the path.
pub(crate) fn file_of(kind: Kind, value: &str) -> Option<&str> {
    (is_path(kind, value) && std::fs::exists(value).unwrap_or(false)).then_some(value)
}

/// Whether an error may quote the value as a path. DER in base64 has no dot and begins without a
/// slash.
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
    fn lines_may_end_with_a_backslash_and_n_and_a_passphrase_is_reported() {
        assert_eq!(read_pem(Kind::Secret, &PEM.replace('\n', "\\n")).as_deref(), Ok(PEM));
        assert_eq!(read_pem(Kind::Secret, &PEM.replace('\n', "\\r\\n")).as_deref(), Ok(PEM));
        let encrypted = PEM.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAA==\n";
        for value in [&encrypted, older] {
            let error = read_pem(Kind::Secret, value).unwrap_err();
            assert!(error.contains("passphrase") && !error.contains("MC4C"), "{error}");
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
