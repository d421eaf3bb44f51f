//! A well-behaved client beside the others: publishes into its channel, and measures how long until
//! it hears of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::peer::Peer;

/// Time between its publications.
const PACE: Duration = Duration::from_millis(5);

/// See the module.
pub(crate) struct Neighbour {
    is_over: Arc<AtomicBool>,
    /// Microseconds that one of its publications took at most.
    longest: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Duration>>,
}

/// How long its publications took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) count: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) most: Duration,
}

impl Neighbour {
    pub(crate) fn start(address: SocketAddr) -> Neighbour {
        let mut peer = Peer::admitted(address);
        peer.subscribe("open:neighbours");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let longest = Arc::new(AtomicU64::new(0));
        let most = longest.clone();
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let took = exchange(&mut peer, times.len());
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                most.fetch_max(micros, Ordering::Relaxed);
                times.push(took);
                std::thread::sleep(PACE);
            }
            times
        });
        Neighbour { is_over, longest, thread }
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    pub(crate) fn stop(self) -> Latency {
        self.is_over.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().expect("the neighbour is served all the time");
        times.sort_unstable();
        // One may be later than the percentile, however few there are.
        let at = |part: f64| times[((times.len() - 1) as f64 * part).floor() as usize];
        Latency { count: times.len(), p50: at(0.5), p99: at(0.99), most: at(1.0) }
    }
}

/// Publishes, and waits for the publication and for the answer.
fn exchange(peer: &mut Peer, number: usize) -> Duration {
    let began = Instant::now();
    peer.say(&format!(
        r#"{{"id":9,"publish":{{"channel":"open:neighbours","data":{{"n":{number}}}}}}}"#
    ));
    let mut missing = 2;
    while missing > 0 {
        for line in peer.receive().lines() {
            match line {
                r#"{"id":9,"publish":{}}"# => missing -= 1,
                "{}" => peer.say("{}"),
                push => {
                    assert!(push.contains(&format!(r#"{{"n":{number}}}"#)), "{push}");
                    missing -= 1;
                }
            }
        }
    }
    began.elapsed()
}
