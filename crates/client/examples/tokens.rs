//! Connects with tokens of a backend, which is asked again before one expires.
//!
//! The backend here is a command that prints a token, such as `tidings token -c tidings.toml --user
//! ann --expires-in 1m`; in an application it is a request to a server that knows the user.
//!
//! ```sh
//! cargo run -p client --example tokens -- ws://127.0.0.1:8000 tidings token -c tidings.toml --user ann
//! ```

#![expect(clippy::disallowed_macros, reason = "a program prints")]

use client::{Client, ClientOptions, TokenError, TokenSubject};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:8000".to_owned());
    let backend: Vec<String> = arguments.collect();
    let options = ClientOptions::default().with_token_source(move |subject| {
        let backend = backend.clone();
        async move {
            match subject {
                TokenSubject::Connection => ask(backend).await,
                // This user may subscribe without tokens, or not at all.
                TokenSubject::Subscription(_) => Err(TokenError::Unauthorized),
            }
        }
    });
    let (_client, mut events) = Client::connect(&url, options)?;
    while let Some(event) = events.next().await {
        println!("{event:?}");
    }
    Ok(())
}

async fn ask(backend: Vec<String>) -> Result<String, TokenError> {
    let unavailable = |error: String| TokenError::Unavailable(error);
    let Some((program, arguments)) = backend.split_first() else {
        return Err(TokenError::Unauthorized);
    };
    let (program, arguments) = (program.clone(), arguments.to_vec());
    let asked = tokio::task::spawn_blocking(move || {
        std::process::Command::new(program).args(arguments).output()
    });
    let output = asked.await.map_err(|error| unavailable(error.to_string()))?;
    let output = output.map_err(|error| unavailable(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(unavailable(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}
