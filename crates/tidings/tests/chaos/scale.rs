//! How large a world is: short with all other tests, long by `make chaos`.

use std::time::Duration;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) clients: usize,
    pub(crate) channels: usize,
    /// Publications a second, on all nodes together.
    pub(crate) rate: u32,
    /// Connections that publish, on each node.
    pub(crate) publishers: usize,
    /// Load without a fault.
    pub(crate) calm: Duration,
    /// Load before a fault, and after.
    pub(crate) around: Duration,
    /// How long a server stands still.
    pub(crate) pause: Duration,
    /// How long a network is cut.
    pub(crate) cut: Duration,
}

impl Scale {
    pub(crate) fn wanted() -> Scale {
        if std::env::var("CHAOS").is_ok_and(|form| form == "long") { LONG } else { SHORT }
    }
}

pub(crate) fn channel_name(channel: usize) -> String {
    format!("chaos:{channel}")
}

const SHORT: Scale = Scale {
    clients: 200,
    channels: 30,
    rate: 200,
    publishers: 1,
    calm: Duration::from_secs(3),
    around: Duration::from_millis(700),
    pause: Duration::from_secs(2),
    cut: Duration::from_secs(2),
};

const LONG: Scale = Scale {
    clients: 3_000,
    channels: 300,
    rate: 2_000,
    publishers: 4,
    calm: Duration::from_secs(60),
    around: Duration::from_secs(5),
    pause: Duration::from_secs(5),
    cut: Duration::from_secs(10),
};
