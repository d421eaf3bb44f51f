//! The processes of the generator: started, read from, commanded, and ended.
//!
//! Invariant: none of them outlives the command, since each ends with its standard input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::plan::{GeneratorCommand, ProcessEvent};
use super::process_pipe;

/// The hidden command with which the load tool starts its processes; its argument is a
/// [`ProcessKind`].
pub const PROCESS_COMMAND: &str = "bench-process";

/// What a process of the load tool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProcessKind {
    /// Holds clients, publishes, and checks every delivery.
    Worker,
    /// Sends without a server.
    Raw,
    /// Publishes and receives through a bare Redis.
    Relay,
    /// Connects clients that recover and leave.
    Storm,
}

impl ProcessKind {
    fn name(self) -> &'static str {
        match self {
            ProcessKind::Worker => "worker",
            ProcessKind::Raw => "raw",
            ProcessKind::Relay => "relay",
            ProcessKind::Storm => "storm",
        }
    }
}

/// The worker processes of the load generator.
pub(crate) struct Processes {
    children: Vec<Child>,
    sender: Sender<(usize, ProcessEvent)>,
    events: Receiver<(usize, ProcessEvent)>,
}

impl Processes {
    pub(crate) fn new() -> Processes {
        let (sender, events) = channel();
        Processes { children: Vec::new(), sender, events }
    }

    /// Starts a process of this kind with its plan.
    pub(crate) fn start(
        &mut self,
        kind: ProcessKind,
        plan: &impl Serialize,
    ) -> anyhow::Result<u32> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([PROCESS_COMMAND, kind.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a process of the generator cannot be started")?;
        let (index, process) = (self.children.len(), child.id());
        let out = child.stdout.take().expect("it is a pipe");
        let sender = self.sender.clone();
        self.children.push(child);
        std::thread::spawn(move || {
            let mut is_done = false;
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { break };
                is_done |= matches!(event, ProcessEvent::Result(_));
                let _ended = sender.send((index, event));
            }
            if !is_done {
                let failure = "a process of the generator ended early".to_owned();
                let _ended = sender.send((index, ProcessEvent::Failed(failure)));
                let _ended = sender.send((index, ProcessEvent::Result(Box::default())));
            }
        });
        self.send(index, plan);
        Ok(process)
    }

    pub(crate) fn count(&self) -> usize {
        self.children.len()
    }

    fn send(&mut self, index: usize, message: &impl Serialize) {
        if let Some(pipe) = &mut self.children[index].stdin {
            // The end of a process is reported by its reader.
            let _gone = writeln!(pipe, "{}", process_pipe::line(message));
        }
    }

    pub(crate) fn send_all(&mut self, command: &GeneratorCommand) {
        (0..self.children.len()).for_each(|index| self.send(index, command));
    }

    /// The next event, if there is one soon.
    pub(crate) fn receive(&self, patience: Duration) -> Option<(usize, ProcessEvent)> {
        self.events.recv_timeout(patience).ok()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
            // It may be in the middle of something, or have ended by itself.
            let _ended = child.kill();
            let _waited = child.wait();
        }
    }
}
