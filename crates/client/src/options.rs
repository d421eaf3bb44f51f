//! What an application chooses for a [`Client`](crate::Client): the session's options, TLS, and
//! where tokens come from.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rustls::ClientConfig;
use wire::protocol::Codec;

use crate::error::TokenError;
use crate::session::{SessionOptions, TokenSource, TokenSubject};

/// Options of a [`Client`](crate::Client). Everything has a default.
///
/// ```
/// use client::{ClientOptions, Codec};
///
/// let options = ClientOptions::default().with_codec(Codec::Protobuf).with_token("a token");
/// assert_eq!(options.session.codec, Codec::Protobuf);
/// ```
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// Options of the session.
    pub session: SessionOptions,
    /// TLS of `wss://` addresses; by default with the public root certificates of Mozilla.
    pub tls: Option<Arc<ClientConfig>>,
    pub(crate) tokens: Option<TokenCallback>,
}

/// Asks the application for a token.
pub(crate) type TokenCallback = Arc<dyn Fn(TokenSubject) -> TokenFuture + Send + Sync>;

/// A token, later.
pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

impl ClientOptions {
    /// JSON or Protobuf.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> ClientOptions {
        self.session.codec = codec;
        self
    }

    /// A connection token that is not renewed.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> ClientOptions {
        self.session.token = TokenSource::Fixed(token.into());
        self
    }

    /// Where tokens come from: the function is called whenever the connection needs a token, and
    /// before one expires; and likewise for each subscription whose [`TokenSource`] is
    /// [`TokenSource::Asked`].
    ///
    /// ```
    /// use client::{ClientOptions, TokenError, TokenSubject};
    ///
    /// let options = ClientOptions::default().with_token_source(|subject| async move {
    ///     match subject {
    ///         // Ask your backend here.
    ///         TokenSubject::Connection => Ok("a connection token".to_owned()),
    ///         TokenSubject::Subscription(channel) => Ok(format!("a token for {channel}")),
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn with_token_source<F, T>(mut self, source: F) -> ClientOptions
    where
        F: Fn(TokenSubject) -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        self.session.token = TokenSource::Asked { first: String::new() };
        self.tokens = Some(Arc::new(move |subject| Box::pin(source(subject))));
        self
    }

    /// TLS with certificates or roots of your own.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ClientConfig>) -> ClientOptions {
        self.tls = Some(config);
        self
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientOptions").finish_non_exhaustive()
    }
}
