//! The handler of consumed messages.

use std::borrow::Cow;
use std::time::Duration;

use crate::message::ConsumedMessage;

/// Handles the messages of consumers.
pub trait Handler: Send + Sync + 'static {
    /// Handles a message. It may be called again with the same message: after
    /// [`Handled::Wait`], and after the process or its connection has failed.
    fn handle(&self, message: &ConsumedMessage) -> impl Future<Output = Handled> + Send;
}

/// The result of handling a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The message took effect, or it had taken effect before.
    Done,
    /// The message could not be handled now. The consumer waits, keeps the order, and tries again.
    Wait {
        /// Why, such as a broker that is not reachable.
        reason: Cow<'static, str>,
        /// When to try again; `None` leaves it to the consumer.
        retry_after: Option<Duration>,
    },
    /// The message can never be handled: it goes to the dead letters.
    Rejected {
        /// What is wrong with the message.
        reason: Cow<'static, str>,
    },
}

impl Handled {
    /// A message that can never be handled.
    pub fn rejected(reason: impl Into<Cow<'static, str>>) -> Handled {
        Handled::Rejected { reason: reason.into() }
    }

    /// A message that cannot be handled now.
    pub fn wait(reason: impl Into<Cow<'static, str>>) -> Handled {
        Handled::Wait { reason: reason.into(), retry_after: None }
    }
}
