//! The call of the script that publishes: its words, and the positions in its reply.
//!
//! Invariant: the reply has one item for each run, in the order in which the runs were written.

use engine::limits::IDEMPOTENCY_TTL_MS;
use wire::protocol::StreamPosition;

use super::command_request::PublishCommand;
use super::driver_messages::Opened;
use super::keys::Keys;
use super::payload;
use super::resp::{Frame, encode_length, encode_word};
use super::scripts::Script;
use crate::limits::PARTITIONS;

/// A call of the script, run by run.
pub(super) struct PublishScriptCall {
    keys: Vec<u8>,
    arguments: Vec<u8>,
    key_count: usize,
    argument_count: usize,
    payload: Vec<u8>,
}

/// Consecutive publications of a channel with the same options.
pub(super) struct PublishRun<'r> {
    pub(super) partition: usize,
    /// The first publication, with the options of all.
    pub(super) first: &'r PublishCommand,
    pub(super) length: usize,
}

/// Why a publication has no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishFailure<'f> {
    Refused(&'f [u8]),
    /// The reply has an unexpected shape.
    Malformed,
}

impl PublishScriptCall {
    /// A call without runs. The epoch was never used; it is given to streams that begin.
    pub(super) fn new(opened: &Opened, unused_epoch: u64) -> PublishScriptCall {
        let mut call = PublishScriptCall {
            keys: Vec::new(),
            arguments: Vec::new(),
            key_count: 0,
            argument_count: 0,
            payload: Vec::new(),
        };
        call.argument(opened.publish_command());
        call.argument(opened.identity.replication_id.as_bytes());
        call.argument(epoch_name(unused_epoch).as_bytes());
        call.argument(IDEMPOTENCY_TTL_MS.to_string().as_bytes());
        call
    }

    /// Begins a run; its payloads follow.
    pub(super) fn begin_run(&mut self, keys: &Keys, run: &PublishRun<'_>) {
        let PublishRun { partition, first: PublishCommand { channel, options, .. }, length } = run;
        let tag = partition % PARTITIONS;
        let (key, mut number) = (&options.idempotency_key, itoa::Buffer::new());
        self.key(&keys.key(tag, "meta", channel));
        self.key(&keys.key(tag, "stream", channel));
        if !key.is_empty() {
            self.key(&keys.once(tag, channel, key));
        }
        self.argument(keys.key(tag, "c", channel).as_bytes());
        self.argument(number.format(options.history_size).as_bytes());
        self.argument(number.format(options.history_ttl_ms).as_bytes());
        self.argument(number.format(options.history_meta_ttl_ms).as_bytes());
        self.argument(number.format(options.version).as_bytes());
        self.argument(options.version_epoch.as_bytes());
        self.argument(if key.is_empty() { b"0" } else { b"1" });
        self.argument(number.format(*length).as_bytes());
    }

    /// Adds the payload of a publication to the run.
    pub(super) fn add(&mut self, command: &PublishCommand) {
        self.payload.clear();
        payload::publication(&command.publication, &mut self.payload);
        encode_word(&mut self.arguments, &self.payload);
        self.argument_count += 1;
    }

    /// Writes the command.
    pub(super) fn write(self, opened: &Opened, out: &mut Vec<u8>) {
        let digest = &opened.digests[Script::Publish as usize];
        encode_length(out, 3 + self.key_count + self.argument_count);
        encode_word(out, b"EVALSHA");
        encode_word(out, digest);
        encode_word(out, itoa::Buffer::new().format(self.key_count).as_bytes());
        out.extend_from_slice(&self.keys);
        out.extend_from_slice(&self.arguments);
    }

    fn key(&mut self, key: &str) {
        encode_word(&mut self.keys, key.as_bytes());
        self.key_count += 1;
    }

    fn argument(&mut self, word: &[u8]) {
        encode_word(&mut self.arguments, word);
        self.argument_count += 1;
    }
}

/// The runs in the reply to a call; `None` if their number is not this one.
pub(super) fn runs(frame: &Frame, count: usize) -> Option<&[Frame]> {
    frame.list().filter(|runs| runs.len() == count)
}

/// The position of a run's first publication; offset 0 without history.
pub(super) fn first_position(run: &Frame) -> Result<StreamPosition, PublishFailure<'_>> {
    if let Frame::Error(text) = run {
        return Err(PublishFailure::Refused(text));
    }
    let position = || {
        let [offset, epoch] = run.list()? else { return None };
        Some(StreamPosition { offset: offset.u64()?, epoch: epoch.str()?.to_owned() })
    };
    position().ok_or(PublishFailure::Malformed)
}

/// An epoch as Redis stores it.
pub(super) fn epoch_name(epoch: u64) -> String {
    format!("{epoch:016x}")
}
