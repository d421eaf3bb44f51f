//! Resolves the options that all listeners have: address, and certificate.

use super::Tls;
use super::address;
use super::mistakes::KeyedMistakes;
use super::options::http::ServerTlsSection;
use super::schema::Setting;

/// Certificate and key of a listener; `None` without TLS.
pub(super) fn resolve_tls(tls: &ServerTlsSection, mistakes: &mut KeyedMistakes) -> Option<Tls> {
    if !*tls.enabled {
        return None;
    }
    let needed = format!("is required when {} is true", tls.enabled.key);
    mistakes.extend(tls.cert_pem.is_empty().then(|| tls.cert_pem.fault(&*needed)));
    mistakes.extend(tls.key_pem.is_empty().then(|| tls.key_pem.fault(&*needed)));
    Some(Tls { cert_pem: tls.cert_pem.clone(), key_pem: tls.key_pem.to_string() })
}

pub(super) fn resolve_address(
    address: &Setting<String>,
    port: &Setting<u16>,
    mistakes: &mut KeyedMistakes,
) -> String {
    let text = address.trim();
    if let Some(fault) = address::fault(text, &port.key) {
        mistakes.push(address.fault(format!("{text:?} {fault}")));
    }
    text.to_owned()
}
