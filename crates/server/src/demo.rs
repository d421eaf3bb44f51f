//! The demo: a page that uses `tidings.js` to connect to this server, and a stock ticker.
//!
//! Invariant: the page loads nothing from other origins; its Content-Security-Policy forbids it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;
use engine::random::Random;
use serde::Serialize;
use tracing::warn;

use crate::clock::ServerClock;
use crate::service::Service;
use crate::service::caller::ApiCaller;
use crate::service::error::ApiError;
use crate::service::publications::PublicationOptions;

const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("../../../web/index.html")),
    ("/demo.css", "text/css; charset=utf-8", include_str!("../../../web/demo.css")),
    ("/demo.js", SCRIPT, include_str!("../../../web/demo.js")),
    ("/demo/chat.js", SCRIPT, include_str!("../../../web/demo/chat.js")),
    ("/demo/page.js", SCRIPT, include_str!("../../../web/demo/page.js")),
    ("/demo/people.js", SCRIPT, include_str!("../../../web/demo/people.js")),
    ("/demo/ticker.js", SCRIPT, include_str!("../../../web/demo/ticker.js")),
    ("/tidings.js", SCRIPT, include_str!("../../../web/tidings.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page and its files.
pub(crate) fn routes() -> Router {
    FILES.iter().fold(Router::new(), |router, (path, kind, text)| {
        let headers = [
            (CONTENT_TYPE, *kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (CACHE_CONTROL, "no-cache"),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        router.route(path, get(async move || (headers, *text).into_response()))
    })
}

/// Paths of [`routes`].
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, ..)| *path)
}

const CHANNEL: &str = "demo:ticker";
const INTERVAL: Duration = Duration::from_millis(700);

/// Symbols and their initial prices in cents.
const STOCKS: &[(&str, i64)] =
    &[("ACME", 12_050), ("GLOBEX", 4_310), ("INITECH", 870), ("HOOLI", 33_900)];

/// Payload of a publication of the ticker.
#[derive(Serialize)]
struct Quote {
    symbol: &'static str,
    price: f64,
    change: f64,
    time: i64,
}

/// Publishes quotes. Does not return.
pub(crate) async fn run_ticker(service: Arc<Service>, clock: ServerClock, seed: u64) {
    let (caller, options) = (ApiCaller::internal("demo"), PublicationOptions::default());
    let mut last_error = None;
    let mut random = Random::new(seed);
    let mut prices: Vec<i64> = STOCKS.iter().map(|(_, start)| *start).collect();
    let mut interval = tokio::time::interval(INTERVAL);
    for turn in 0.. {
        // One quote of each symbol at once, so that the list is complete from the start.
        let index = match turn {
            first if first < STOCKS.len() => first,
            _ => {
                interval.tick().await;
                random.below(STOCKS.len() as u64) as usize
            }
        };
        let (symbol, start) = STOCKS[index];
        prices[index] = step(prices[index], start, random.below(2001) as i64 - 1000);
        let quote = Quote {
            symbol,
            price: cents(prices[index]),
            change: cents(prices[index] - start),
            time: clock.unix_ms(),
        };
        let data = serde_json::to_vec(&quote).expect("numbers and texts are JSON").into();
        let publishing = service.publications.publish(&caller, CHANNEL, data, &options);
        let error = publishing.await.err();
        // The next quotes may fail in the same way.
        if let Some(ApiError { code, message }) = &error
            && error != last_error
        {
            warn!(code, %message, "demo publication failed");
        }
        last_error = error;
    }
}

/// A random walk with steps of at most 0.4 % and a drift back to the initial price; `dice` is −1000
/// to 1000.
fn step(price: i64, start: i64, dice: i64) -> i64 {
    let noise = price * dice / 250_000;
    let pull = (start - price) / 100;
    (price + noise + pull).max(1)
}

fn cents(cents: i64) -> f64 {
    cents as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_wander_and_come_back() {
        let mut random = Random::new(1);
        let mut price = 10_000;
        let mut seen = Vec::new();
        for _ in 0..10_000 {
            price = step(price, 10_000, random.below(2001) as i64 - 1000);
            seen.push(price);
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!((5_000..9_990).contains(least) && (10_010..20_000).contains(most));
    }
}
