//! Logs and metrics.
//!
//! Invariant: no token, key or payload reaches a log or a metric, and every metric is listed in
//! [`METRICS`].

mod close_counts;
mod consumer_list;
pub(crate) mod http_counts;
mod log_queue;
mod logging;
mod metrics;
mod process;
mod refusals;
mod visible;

pub use self::close_counts::CloseCounts;
pub(crate) use self::consumer_list::ConsumerList;
pub use self::http_counts::HttpCounts;
pub use self::log_queue::flush_logs;
pub use self::logging::start_logging;
pub use self::metrics::{METRICS, Metric, MetricKind, NodeReport, Totals, reference, render};
pub(crate) use self::refusals::RefusalSubject;
pub(crate) use self::visible::shown;
pub use self::visible::{visible, visible_json};
