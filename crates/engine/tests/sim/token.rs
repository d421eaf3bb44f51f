//! Tokens of the simulation: their claims and their verification.

use engine::claims::{Overrides, SubscriptionGrant, TokenRefusal};

/// A token of the simulation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Token {
    pub(crate) user: String,
    pub(crate) expire_at: Option<i64>,
    pub(crate) channel: String,
    pub(crate) server_side: Vec<(String, SubscriptionGrant)>,
    pub(crate) refusal: Option<TokenRefusal>,
}

impl Token {
    pub(crate) fn text(&self) -> String {
        let refusal = match self.refusal {
            None => "",
            Some(TokenRefusal::Expired) => "expired",
            Some(TokenRefusal::Invalid) => "invalid",
            Some(TokenRefusal::Unavailable) => "unavailable",
        };
        let expire_at = self.expire_at.map_or(String::new(), |at| at.to_string());
        let names: Vec<&str> = self.server_side.iter().map(|(name, _)| &**name).collect();
        [&self.user, &expire_at, &self.channel, &names.join(" "), refusal].join("|")
    }

    pub(crate) fn parse(text: &str) -> Token {
        let mut parts = text.split('|');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (user, expire_at, channel, names, refusal) = (next(), next(), next(), next(), next());
        let grant = SubscriptionGrant { overrides: Overrides::default(), ..Default::default() };
        Token {
            user,
            expire_at: expire_at.parse().ok(),
            channel,
            server_side: names.split_whitespace().map(|n| (n.to_owned(), grant.clone())).collect(),
            refusal: match &*refusal {
                "expired" => Some(TokenRefusal::Expired),
                "invalid" => Some(TokenRefusal::Invalid),
                "unavailable" => Some(TokenRefusal::Unavailable),
                _ => None,
            },
        }
    }
}
