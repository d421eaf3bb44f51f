//! Lines of JSON between the command and its processes, on standard input and output.

use std::io::{BufRead as _, Write as _};
use std::sync::mpsc::{Receiver, channel};

use anyhow::Context as _;
use mio::Waker;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{GeneratorCommand, Note};

/// The next word of the command; `None` when it is gone.
pub(crate) fn receive<T: DeserializeOwned>() -> anyhow::Result<Option<T>> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line).context("the command speaks wrong")?)),
    }
}

/// The orders of the command, each of which wakes the poller; they end when the command is gone.
pub(crate) fn orders(waker: Waker) -> Receiver<GeneratorCommand> {
    let (sender, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { break };
            let _ended = sender.send(order);
            let _ended = waker.wake();
        }
        drop(sender);
        let _ended = waker.wake();
    });
    orders
}

/// Says something to the command; when that is gone, its next word will be missing.
pub(crate) fn say(note: &Note) {
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{}", line(note)).and_then(|()| out.flush());
}

pub(crate) fn line(word: &impl Serialize) -> String {
    serde_json::to_string(word).expect("plans and notes are JSON")
}
