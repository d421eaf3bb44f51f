//! Reads about the nodes and their clients.
//!
//! Invariant: a node that does not answer is counted, never left out silently.

use super::ServiceContext;
use super::caller::ApiCaller;
use super::error::ApiError;
use crate::cluster::members::Answers;
use crate::cluster::questions::{ClientList, ClientPlace, NodeInfo, Question};

/// Methods that read about nodes and their clients.
pub(crate) struct NodeService {
    context: ServiceContext,
}

/// Clients on all nodes.
pub(crate) struct ConnectedClients {
    pub(crate) clients: Vec<ClientPlace>,
    /// Number of nodes that did not answer.
    pub(crate) missing_nodes: usize,
    /// Whether a node has more clients than its answer could hold.
    pub(crate) is_cut: bool,
}

impl NodeService {
    pub(super) fn new(context: ServiceContext) -> NodeService {
        NodeService { context }
    }

    /// Describes all nodes.
    pub(crate) async fn info(&self) -> Result<Answers<NodeInfo>, ApiError> {
        Ok(self.context.members.ask(&Question::Info).await?)
    }

    /// Lists the clients of a user or the client of an id, with the channels that the caller may
    /// see.
    pub(crate) async fn clients(
        &self,
        caller: &ApiCaller,
        user: Option<String>,
        client: Option<String>,
    ) -> Result<ConnectedClients, ApiError> {
        if user.is_none() && client.is_none() {
            return Err(ApiError::bad("user or client is required"));
        }
        let question = Question::Clients { user, client };
        let Answers { answers, missing } =
            self.context.members.ask::<ClientList>(&question).await?;
        let is_cut = answers.iter().any(|present| present.is_cut);
        let mut clients: Vec<_> = answers.into_iter().flat_map(|present| present.clients).collect();
        clients.iter_mut().for_each(|client| {
            client.channels.retain(|channel| caller.allows_channel(channel));
        });
        Ok(ConnectedClients { clients, missing_nodes: missing, is_cut })
    }
}
