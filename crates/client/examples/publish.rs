//! Publishes each line of standard input into a channel.
//!
//! ```sh
//! echo '{"text":"hello"}' | cargo run -p client --example publish -- ws://127.0.0.1:8000 demo:chat
//! ```

use client::{Client, ClientOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:8000".to_owned());
    let channel = arguments.next().unwrap_or_else(|| "demo:chat".to_owned());
    let mut options = ClientOptions::default();
    if let Ok(token) = std::env::var("TOKEN") {
        options = options.with_token(token);
    }
    let (client, events) = Client::connect(&url, options)?;
    // This program only publishes.
    drop(events);
    client.connected().await?;
    for line in std::io::stdin().lines() {
        client.publish(&channel, line?).await?;
    }
    client.disconnect().await;
    Ok(())
}
