//! Which backend answers an RPC method: namespaces of methods, as resolved from the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::protocol::ErrorCode;

/// Backends of RPC methods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcRules {
    /// Separates the namespace from the rest of a method's name; empty turns namespaces off.
    pub namespace_boundary: String,
    /// Name of the proxy for methods without a namespace; `None` for none.
    pub without_namespace: Option<Arc<str>>,
    /// Names of the proxies by namespace.
    pub namespaces: BTreeMap<String, Option<Arc<str>>>,
    /// The method that the server answers by itself; `None` turns the feature off.
    pub ping_method: Option<String>,
}

impl RpcRules {
    /// Returns the name of the proxy for a method.
    ///
    /// # Errors
    /// 104 for an unknown namespace; 108 for a namespace without a proxy, and for every method if
    /// there are neither proxies nor a ping.
    pub(crate) fn proxy(&self, method: &str) -> Result<&Arc<str>, ErrorCode> {
        let mut proxies = self.namespaces.values().chain([&self.without_namespace]);
        if !proxies.any(Option::is_some) {
            return Err(match self.ping_method {
                Some(_) => ErrorCode::MethodNotFound,
                None => ErrorCode::NotAvailable,
            });
        }
        let boundary = Some(&*self.namespace_boundary).filter(|boundary| !boundary.is_empty());
        let proxy = match boundary.and_then(|boundary| method.split_once(boundary)) {
            Some((name, _)) => self.namespaces.get(name).ok_or(ErrorCode::MethodNotFound)?,
            None => &self.without_namespace,
        };
        proxy.as_ref().ok_or(ErrorCode::NotAvailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_the_proxy_of_its_namespace() {
        let proxy = |name: &str| Some(Arc::from(name));
        let mut rules = RpcRules { namespace_boundary: ":".to_owned(), ..RpcRules::default() };
        assert_eq!(rules.proxy("sum"), Err(ErrorCode::NotAvailable));
        rules.ping_method = Some("ping".to_owned());
        assert_eq!(rules.proxy("sum"), Err(ErrorCode::MethodNotFound));
        rules.namespaces = [("a".to_owned(), proxy("one")), ("b".to_owned(), None)].into();
        assert_eq!(rules.proxy("a:sum").map(|name| &**name), Ok("one"));
        assert_eq!(rules.proxy("b:sum"), Err(ErrorCode::NotAvailable));
        assert_eq!(rules.proxy("sum"), Err(ErrorCode::NotAvailable));
        assert_eq!(rules.proxy("c:sum"), Err(ErrorCode::MethodNotFound));
        rules.without_namespace = proxy("two");
        assert_eq!(rules.proxy("sum").map(|name| &**name), Ok("two"));
    }
}
