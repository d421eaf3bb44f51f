//! A connection to Redis that is ready for work: RESP3 spoken, the server looked at, the scripts loaded.
//!
//! Invariant: what cannot do our work is refused here, with its reason.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::options::{Address, RedisError};
use super::resp::{self, Decoder, Value};
use super::scripts::{self, Script};
use crate::limits::ANSWER_TIMEOUT;

/// See the module.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) decoder: Decoder,
    pub(super) scripts: Scripts,
}

/// Under which names Redis knows the scripts.
pub(super) struct Scripts(Vec<Value>);

impl Scripts {
    pub(super) fn name(&self, script: Script) -> &[u8] {
        self.0.get(script as usize).and_then(Value::text).map_or(&[], |name| name)
    }
}

impl Connection {
    pub(super) async fn open(
        address: &Address,
        timeout: Duration,
    ) -> Result<Connection, RedisError> {
        let unreachable =
            |reason: String| RedisError::Unreachable { address: address.host.clone(), reason };
        let connecting = tokio::time::timeout(timeout, TcpStream::connect(&address.host));
        let stream = connecting
            .await
            .map_err(|_| unreachable("it does not answer in time".into()))?
            .map_err(|error| unreachable(error.to_string()))?;
        // Small writes must not wait for each other.
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let scripts = Scripts(Vec::new());
        let mut connection = Connection { stream, decoder: Decoder::default(), scripts };
        tokio::time::timeout(ANSWER_TIMEOUT, connection.prepare(address))
            .await
            .map_err(|_| unreachable("it does not answer in time".into()))??;
        Ok(connection)
    }

    async fn prepare(&mut self, address: &Address) -> Result<(), RedisError> {
        let host = || address.host.clone();
        let refused = |command: &'static str| {
            move |reason: String| RedisError::Refused {
                address: address.host.clone(),
                command,
                reason,
            }
        };
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if !address.password.is_empty() {
            let user = if address.user.is_empty() { "default" } else { &address.user };
            hello.extend([b"AUTH", user.as_bytes(), address.password.as_bytes()]);
        }
        let about = self.ask(address, &hello).await?.map_err(|reason| match &reason {
            text if text.starts_with("WRONGPASS") || text.starts_with("NOAUTH") => {
                RedisError::Credentials { address: host(), reason }
            }
            text if text.contains("unknown command") => {
                RedisError::TooOld { address: host(), version: "before 6".into() }
            }
            _ => refused("HELLO")(reason),
        })?;
        check(&about, address)?;
        if address.database > 0 {
            let database = address.database.to_string();
            let answer = self.ask(address, &[b"SELECT", database.as_bytes()]).await?;
            answer.map_err(refused("SELECT"))?;
        }
        for text in scripts::all() {
            let answer = self.ask(address, &[b"SCRIPT", b"LOAD", text.as_bytes()]).await?;
            self.scripts.0.push(answer.map_err(refused("SCRIPT LOAD"))?);
        }
        Ok(())
    }

    /// One command and its answer, or the text of the refusal.
    async fn ask(
        &mut self,
        address: &Address,
        words: &[&[u8]],
    ) -> Result<Result<Value, String>, RedisError> {
        let unreachable =
            |reason: String| RedisError::Unreachable { address: address.host.clone(), reason };
        let mut out = BytesMut::new();
        resp::write_command(&mut out, words);
        let written = self.stream.write_all(&out).await;
        written.map_err(|error| unreachable(error.to_string()))?;
        loop {
            let next = self.decoder.next().map_err(|error| unreachable(error.to_string()))?;
            match next {
                Some(Value::Error(text)) => {
                    return Ok(Err(String::from_utf8_lossy(&text).into_owned()));
                }
                Some(value) => return Ok(Ok(value)),
                None => {}
            }
            match self.stream.read_buf(&mut self.decoder.buffer).await {
                Ok(0) => return Err(unreachable("it closes the connection".into())),
                Ok(_) => {}
                Err(error) => return Err(unreachable(error.to_string())),
            }
        }
    }
}

/// Whether a server that says this of itself will do.
fn check(about: &Value, address: &Address) -> Result<(), RedisError> {
    let field = |name: &str| {
        let mut pairs = about.array().chunks_exact(2);
        let pair =
            pairs.find(|pair| pair[0].text().is_some_and(|text| &text[..] == name.as_bytes()));
        pair.and_then(|pair| pair[1].text())
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    };
    let (host, version) = (address.host.clone(), field("version"));
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(2)) {
        return Err(RedisError::TooOld { address: host, version });
    }
    match field("mode") {
        mode if mode == "standalone" => {}
        mode => return Err(RedisError::Mode { address: host, mode }),
    }
    if field("role") != "master" {
        return Err(RedisError::Replica { address: host });
    }
    Ok(())
}
