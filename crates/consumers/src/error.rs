//! Why a consumer cannot run.

/// Why a consumer cannot run. It is started again after a delay.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The source is not reachable, or the connection to it was lost.
    #[error("{source_name} is not available: {reason}")]
    Unavailable {
        /// What is not reachable, without credentials.
        source_name: String,
        /// What the library says.
        reason: String,
    },
    /// The source refuses the credentials.
    #[error("{source_name} refuses the credentials: {reason}")]
    Unauthorized {
        /// Who refuses.
        source_name: String,
        /// What the library says.
        reason: String,
    },
    /// A topic, table, stream or slot does not exist.
    #[error("{missing} does not exist: create it, or correct the configuration")]
    Missing {
        /// Kind and name of what is missing.
        missing: String,
    },
    /// A task of the consumer has panicked.
    #[error("a task of the consumer has ended; this is a bug, please report it")]
    TaskEnded,
    /// The settings cannot work.
    #[error("the settings cannot be used: {reason}")]
    Settings {
        /// What is wrong.
        reason: String,
    },
}
