//! Publishers on every node: each sends one publication after another through the server API, at
//! its beat, and keeps what it was promised. What is refused, or not answered, is not sent again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wire::protocol::StreamPosition;

use crate::api::Api;
use crate::scale::{Scale, channel_name};

/// All of them; they stop when it is dropped.
pub(crate) struct Publishers {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Published>>,
}

/// What one publisher did.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// Refused as temporary, or the node was not there, or it went while it was asked.
    pub(crate) refused: u64,
    /// Other answers, and answers that did not come.
    pub(crate) failures: Vec<String>,
}

/// A promise to a publisher.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) channel: usize,
    pub(crate) id: u64,
    pub(crate) position: StreamPosition,
}

/// What is published: no two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) id: u64,
    /// When it was sent, since the world began.
    pub(crate) at: Duration,
}

impl Publishers {
    pub(crate) fn start(nodes: &[SocketAddr], scale: Scale, began: Instant) -> Publishers {
        let is_over = Arc::new(AtomicBool::new(false));
        let count = u32::try_from(nodes.len() * scale.publishers).unwrap();
        let beat = Duration::from_secs(1) * count / scale.rate;
        let addresses = nodes.iter().cycle().take(count as usize).zip(0..);
        let threads = addresses.map(|(&address, number)| {
            let is_over = is_over.clone();
            let first = number * scale.channels as u64 / u64::from(count);
            let publisher =
                Publisher { number, first, beat, began, scale, published: Published::default() };
            std::thread::spawn(move || publisher.run(Api::new(address), &is_over))
        });
        let threads = threads.collect();
        Publishers { is_over, threads }
    }

    pub(crate) fn stop(mut self) -> Published {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Published::default();
        for thread in self.threads.drain(..) {
            let published = thread.join().expect("a publisher that does not panic");
            all.acknowledged.extend(published.acknowledged);
            all.refused += published.refused;
            all.failures.extend(published.failures);
        }
        all
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

struct Publisher {
    number: u64,
    /// The channel that it begins with.
    first: u64,
    beat: Duration,
    began: Instant,
    scale: Scale,
    published: Published,
}

impl Publisher {
    fn run(mut self, mut api: Api, is_over: &AtomicBool) -> Published {
        let mut next = Instant::now();
        for count in 0.. {
            next += self.beat;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            // What was missed in an outage is not made up for.
            next = next.max(Instant::now() - self.beat);
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            // Each goes through all channels, and all of them through other ones at a time.
            let channel = ((count + self.first) % self.scale.channels as u64) as usize;
            self.publish(&mut api, channel, (self.number << 32) | count);
        }
        self.published
    }

    fn publish(&mut self, api: &mut Api, channel: usize, id: u64) {
        let data = Payload { id, at: self.began.elapsed() }.encode();
        let body = format!(r#"{{"channel":"{}","data":{data}}}"#, channel_name(channel));
        let asked = Instant::now();
        let answer = api.call("publish", &body);
        if asked.elapsed() > ANSWERED_WITHIN {
            self.published.failures.push(format!("answered after {:?}", asked.elapsed()));
        }
        match answer {
            Ok(answer) => match answer.position() {
                Some(position) => {
                    self.published.acknowledged.push(Acknowledged { channel, id, position });
                }
                None if answer.is_temporary_error() => self.published.refused += 1,
                None => self.published.failures.push(format!("publish: {answer:?}")),
            },
            Err(_) => self.published.refused += 1,
        }
    }
}

impl Payload {
    pub(crate) fn encode(self) -> String {
        format!("[{},{}]", self.id, self.at.as_micros())
    }

    pub(crate) fn decode(data: &[u8]) -> Option<Payload> {
        let text = std::str::from_utf8(data).ok()?;
        let (id, at) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
        Some(Payload { id: id.parse().ok()?, at: Duration::from_micros(at.parse().ok()?) })
    }
}

/// A node answers within 3 s, come what may; the rest is for a machine that has others to serve.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);
