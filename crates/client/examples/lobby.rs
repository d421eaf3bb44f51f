//! The program of the README's tour: it joins a lobby, says hello, and prints what comes.

#![expect(clippy::disallowed_macros, reason = "a program prints")]

use client::{Client, ClientOptions, Event, SubscriptionOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = ClientOptions::default().with_token(std::env::var("TOKEN")?);
    let (client, mut events) = Client::connect("ws://127.0.0.1:8000", options)?;
    let recoverable = SubscriptionOptions { recoverable: true, ..Default::default() };
    client.subscribe("chat:lobby", recoverable).await?;
    client.publish("chat:lobby", r#"{"text":"hello from Rust"}"#).await?;
    while let Some(event) = events.next().await {
        if let Event::Publication { publication, .. } = event {
            println!("{}", String::from_utf8_lossy(&publication.data));
        }
    }
    Ok(())
}
