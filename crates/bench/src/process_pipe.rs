//! Lines of JSON between the command and its processes, on standard input and output.

use std::io::{BufRead as _, Write as _};
use std::sync::mpsc::{Receiver, channel};

use anyhow::Context as _;
use mio::Waker;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{GeneratorCommand, ProcessEvent};

/// The next message of the command; `None` when it is gone.
pub(crate) fn receive<T: DeserializeOwned>() -> anyhow::Result<Option<T>> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line).context("the command speaks wrong")?)),
    }
}

/// What the command sends, each of which wakes the poller; they end when the command is gone.
pub(crate) fn commands(waker: Waker) -> Receiver<GeneratorCommand> {
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(command) = serde_json::from_str(&line) else { break };
            let _ended = sender.send(command);
            let _ended = waker.wake();
        }
        drop(sender);
        let _ended = waker.wake();
    });
    commands
}

/// Reports an event to the command. When that is gone, its next message will be missing.
pub(crate) fn send(event: &ProcessEvent) {
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{}", line(event)).and_then(|()| out.flush());
}

pub(crate) fn line(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("plans and events are JSON")
}
