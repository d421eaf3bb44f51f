//! A request of an endpoint on its way to a reply.

use engine::broker::RequestId;

use super::clock::MonotonicTime;
use super::command_request::CommandRequest;
use super::page_progress::PageProgress;
use crate::Endpoint;

/// A request of an endpoint that has no reply yet.
pub(super) struct OpenRequest {
    pub(super) endpoint: Endpoint,
    pub(super) request: CommandRequest,
    pub(super) deadline: MonotonicTime,
    /// Pages read so far of an incomplete reply.
    pub(super) progress: Option<Box<PageProgress>>,
}

/// The endpoint that waits for a reply, and the id of its request.
#[derive(Debug)]
pub(super) struct Asker<T> {
    pub(super) endpoint: Endpoint,
    pub(super) id: RequestId<T>,
}

impl OpenRequest {
    pub(super) fn new(
        endpoint: Endpoint,
        request: CommandRequest,
        deadline: MonotonicTime,
    ) -> OpenRequest {
        OpenRequest { endpoint, request, deadline, progress: None }
    }

    /// Bytes that it holds while it waits.
    pub(super) fn length(&self) -> usize {
        size_of::<OpenRequest>() + self.request.payload_length()
    }
}
