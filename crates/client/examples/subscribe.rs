//! Prints what is published into a channel, and goes on where it was after a lost connection.
//!
//! ```sh
//! cargo run -p client --example subscribe -- ws://127.0.0.1:8000 news
//! ```

#![expect(clippy::disallowed_macros, reason = "a program prints")]

use client::{Client, ClientOptions, Event, SubscriptionOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:8000".to_owned());
    let channel = arguments.next().unwrap_or_else(|| "demo:chat".to_owned());
    let mut options = ClientOptions::default();
    if let Ok(token) = std::env::var("TOKEN") {
        options = options.with_token(token);
    }
    let (client, mut events) = Client::connect(&url, options)?;
    let recoverable = SubscriptionOptions { recoverable: true, ..SubscriptionOptions::default() };
    client.subscribe(&channel, recoverable).await?;
    while let Some(event) = events.next().await {
        match event {
            Event::Publication { publication, .. } => {
                println!("{}", String::from_utf8_lossy(&publication.data));
            }
            Event::Subscribed { subscribed, .. } if subscribed.was_recovering => {
                match subscribed.recovered {
                    true => eprintln!("recovered {} publications", subscribed.missed),
                    false => eprintln!("something may be missing"),
                }
            }
            Event::Connecting(reason) => eprintln!("connecting: {reason}"),
            Event::Failed(failure) => eprintln!("{failure}; will try again"),
            Event::Unsubscribed { reason, .. } | Event::Disconnected(reason) => {
                return Err(reason.to_string().into());
            }
            _ => {}
        }
    }
    Ok(())
}
