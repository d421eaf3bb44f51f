//! Unauthenticated peers that hold idle connections: other clients are not locked out.

use std::time::{Duration, Instant};

use crate::case::Case;
use crate::peer::{Peer, Received, upgrade};
use server::limits::HTTP_CONNECTIONS_MAX;

/// Memory of a TCP connection that has sent nothing.
const KB_PER_CONNECTION_MAX: u64 = 16;

/// Kilobytes that a further crowd may add to what earlier ones left. A crowd that is not forgotten
/// adds 63 MB. The allocator keeps 0 to 30 MB of any single crowd, without growth over 25 crowds.
const NEXT_CROWD_KB_MAX: u64 = 32 * 1024;
/// Crowds until the allocator has all its room.
const CROWDS_MAX: usize = 5;

/// A client gets in within this time, whatever silent peers hold.
const ENTRY_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

/// How long the handshake and the connect command of another client took.
fn entry(case: &Case) -> Duration {
    let began = Instant::now();
    drop(Peer::admitted(case.server.address));
    began.elapsed()
}

/// So many connections from many addresses, so that no bound of one address ends it earlier. Gives
/// how long another client waited at most meanwhile.
fn silent_crowd(case: &Case, connections: usize) -> Duration {
    let mut silent = Vec::with_capacity(connections);
    let mut longest = Duration::ZERO;
    for index in 0..connections {
        silent.push(Peer::dial_as(case.server.address, index));
        if index % 1000 == 999 {
            longest = longest.max(entry(case));
        }
    }
    // Metrics and the server API answer on the same port.
    case.server.publish("open:x", "1");
    longest.max(entry(case))
}

#[test]
fn more_silent_connections_than_a_listener_takes_lock_nobody_out() {
    let connections = HTTP_CONNECTIONS_MAX + 800;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let mut case = Case::busy("silent connections", &[]);
    let mut longest = silent_crowd(&case, connections);
    let growth_kb = case.growth_kb();
    assert!(growth_kb <= KB_PER_CONNECTION_MAX * connections as u64, "{growth_kb} kB");
    // What the allocator keeps of one crowd is room for the next. Connections that are not
    // forgotten need more every time.
    let mut crowds = 1;
    while crowds < CROWDS_MAX {
        case.begin_again(NEXT_CROWD_KB_MAX);
        longest = longest.max(silent_crowd(&case, connections));
        crowds += 1;
        if case.left_over_kb() <= NEXT_CROWD_KB_MAX {
            break;
        }
    }
    assert!(longest <= ENTRY_MAX, "a client waited {longest:?}");
    case.finish(format!(
        "{crowds} times {connections} connections that say nothing, +{growth_kb} kB; another client was in \
         after {longest:.1?} at most"
    ));
}

#[test]
fn sockets_that_never_connect_take_no_place_of_those_that_do() {
    const LIMIT: usize = 100;
    let settings = [("client.connection_limit", "100")];
    let case = Case::busy("sockets without a name", &settings);
    let mut silent: Vec<Peer> = (0..3 * LIMIT)
        .map(|index| {
            let mut peer = Peer::dial_as(case.server.address, index);
            peer.send(upgrade("").as_bytes());
            peer.accepted();
            peer
        })
        .collect();
    let longest = entry(&case);
    assert!(longest <= ENTRY_MAX, "a client waited {longest:?}");
    let ends: Vec<Received> = silent.iter_mut().map(Peer::end).collect();
    assert!(ends.iter().all(|end| *end == Received::Closed(3502)), "{ends:?}");
    drop(silent);
    case.finish(format!(
        "{} sockets without a name at a limit of {LIMIT} connections; a client was in after {longest:.1?}",
        3 * LIMIT
    ));
}
