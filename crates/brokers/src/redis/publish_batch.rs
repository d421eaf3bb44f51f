//! Publications that one command makes, in the order of submission.
//!
//! Invariant: a batch is bounded in publications and bytes, so that Redis does nothing else for a
//! millisecond at most; each publication has a result of its own.

use wire::protocol::StreamPosition;

use super::clock::MonotonicTime;
use super::command_request::{CommandRequest, PublishCommand};
use super::driver_messages::Opened;
use super::keys::Keys;
use super::open_request::OpenRequest;
use super::publish_call::{PublishFailure, PublishRun, PublishScriptCall, first_position, runs};
use super::resp::Frame;
use crate::Endpoint;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MAX};

/// Publications that wait for the end of the turn, or for a command that must follow them.
pub(super) struct PublishBatch {
    /// Deadline of the command.
    deadline: MonotonicTime,
    /// An epoch that was never used, for streams that begin.
    unused_epoch: u64,
    /// The first publication; a batch is never empty.
    first: BatchedPublication,
    others: Vec<BatchedPublication>,
    bytes: usize,
}

/// A publication in a batch.
pub(super) struct BatchedPublication {
    pub(super) partition: usize,
    pub(super) endpoint: Endpoint,
    /// Deadline of the request.
    pub(super) deadline: MonotonicTime,
    pub(super) command: PublishCommand,
}

/// Whether publications of several partitions may be in one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchScope {
    /// In a cluster the keys of a command must have one slot.
    Partition,
    Server,
}

/// A batch that was sent.
pub(super) struct SentBatch {
    pub(super) publications: Vec<SentPublication>,
    /// Number of publications in each run.
    runs: Vec<usize>,
}

/// A publication of a batch that was sent.
pub(super) struct SentPublication {
    pub(super) partition: usize,
    /// `None` after the request has failed at its deadline.
    pub(super) request: Option<OpenRequest>,
}

impl PublishBatch {
    pub(super) fn new(
        deadline: MonotonicTime,
        unused_epoch: u64,
        first: BatchedPublication,
    ) -> PublishBatch {
        let bytes = first.command.publication.weight();
        PublishBatch { deadline, unused_epoch, first, others: Vec::new(), bytes }
    }

    /// Adds a publication, or returns it if it does not fit.
    pub(super) fn add(
        &mut self,
        publication: BatchedPublication,
        scope: BatchScope,
    ) -> Option<BatchedPublication> {
        let bytes = self.bytes + publication.command.publication.weight();
        let is_of_scope =
            scope == BatchScope::Server || self.first.partition == publication.partition;
        if self.others.len() + 1 >= BATCH_MAX || bytes > BATCH_BYTES_MAX || !is_of_scope {
            return Some(publication);
        }
        self.bytes = bytes;
        self.others.push(publication);
        None
    }

    /// Partition of the first publication, and deadline of the command.
    pub(super) fn place(&self) -> (usize, MonotonicTime) {
        (self.first.partition, self.deadline)
    }

    /// The requests, which were not sent.
    pub(super) fn into_requests(self) -> Vec<OpenRequest> {
        let publications = std::iter::once(self.first).chain(self.others);
        publications.filter_map(|one| one.into_sent().request).collect()
    }

    /// Writes the command.
    pub(super) fn write(self, keys: &Keys, opened: &Opened, out: &mut Vec<u8>) -> SentBatch {
        let mut call = PublishScriptCall::new(opened, self.unused_epoch);
        let mut publications = vec![self.first];
        publications.extend(self.others);
        let mut lengths = Vec::new();
        for run in publications.chunk_by(|one, next| is_run(&one.command, &next.command)) {
            let (first, length) = (&run[0], run.len());
            lengths.push(length);
            let head = PublishRun { partition: first.partition, first: &first.command, length };
            call.begin_run(keys, &head);
            run.iter().for_each(|one| call.add(&one.command));
        }
        call.write(opened, out);
        let publications = publications.into_iter().map(BatchedPublication::into_sent).collect();
        SentBatch { publications, runs: lengths }
    }
}

impl BatchedPublication {
    fn into_sent(self) -> SentPublication {
        let BatchedPublication { partition, endpoint, deadline, command } = self;
        let request = OpenRequest::new(endpoint, CommandRequest::Publish(command), deadline);
        SentPublication { partition, request: Some(request) }
    }
}

impl SentBatch {
    /// Takes the requests, which have no result; their publications remain counted.
    pub(super) fn take_requests(&mut self) -> impl Iterator<Item = OpenRequest> {
        self.publications.iter_mut().filter_map(|one| one.request.take())
    }

    /// The result of each publication, in order.
    pub(super) fn results<'f>(
        &self,
        frame: &'f Frame,
    ) -> Vec<Result<StreamPosition, PublishFailure<'f>>> {
        let Some(runs) = runs(frame, self.runs.len()) else {
            return vec![Err(PublishFailure::Malformed); self.publications.len()];
        };
        let mut results = Vec::with_capacity(self.publications.len());
        for (run, length) in runs.iter().zip(&self.runs) {
            let first = first_position(run);
            results.extend((0..*length as u64).map(|index| match &first {
                Ok(none) if none.offset == 0 => Ok(none.clone()),
                Ok(StreamPosition { offset, epoch }) => {
                    Ok(StreamPosition { offset: offset + index, epoch: epoch.clone() })
                }
                Err(failure) => Err(*failure),
            }));
        }
        results
    }
}

/// Whether a publication continues the run of the one before it.
fn is_run(last: &PublishCommand, next: &PublishCommand) -> bool {
    // Each of these looks up what is known of it.
    let is_single =
        |it: &PublishCommand| it.options.version != 0 || !it.options.idempotency_key.is_empty();
    last.channel == next.channel
        && last.options == next.options
        && !is_single(last)
        && !is_single(next)
}
