//! A TCP connection to one of a host's addresses, as RFC 8305 ("Happy Eyeballs") describes it: the
//! attempts overlap, the families alternate, and the first connection wins.
//!
//! Invariant: an address that does not answer delays the next one by at most [`ATTEMPT_DELAY`], and
//! one that refuses by nothing. At most [`ADDRESSES_MAX`] are tried. Dropping the future ends all
//! attempts.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::limits::{ADDRESSES_MAX, ATTEMPT_DELAY};

/// Connects to the first address that answers. `None` when there is no address; otherwise the error
/// of the last attempt that failed, with its address.
pub(super) async fn connect(
    addresses: impl Iterator<Item = SocketAddr>,
) -> Result<TcpStream, Option<(SocketAddr, io::Error)>> {
    let mut waiting = interleaved(addresses).into_iter().take(ADDRESSES_MAX);
    let mut attempts = JoinSet::new();
    let mut last = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move {
                TcpStream::connect(address).await.map_err(|error| (address, error))
            });
        }
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(failed)) => last = Some(failed),
                // The runtime is being shut down.
                Err(_ended) => {}
            },
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
            else => return Err(last),
        }
    }
}

/// Alternates between the two families, beginning with the family that the resolver put first; the
/// resolver's order is kept within each (RFC 8305 §4).
fn interleaved(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.peekable();
    let is_v6_first = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv6() == is_v6_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        ordered.extend(first.next());
        ordered.extend(second.next());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    /// An address that answers nothing: its queue of connections is full, so that the system drops
    /// every further SYN. It does so while the returned values live.
    async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            queued.push(stream.unwrap());
        }
        (address, listener, queued)
    }

    async fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_delays_the_others_only_a_little() {
        let (silent, ..) = &black_hole().await;
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = live.local_addr().unwrap();
        let began = Instant::now();
        let stream = connect([*silent, *silent, address].into_iter()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let passed = began.elapsed();
        assert!(passed >= 2 * ATTEMPT_DELAY && passed < Duration::from_secs(4), "{passed:?}");
    }

    #[tokio::test]
    async fn an_address_that_refuses_delays_nothing() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = live.local_addr().unwrap();
        let refused = refusing().await;
        let began = Instant::now();
        let all = std::iter::repeat_n(refused, ADDRESSES_MAX - 1).chain([address]);
        assert_eq!(connect(all).await.unwrap().peer_addr().unwrap(), address);
        let one_by_one = ATTEMPT_DELAY * (ADDRESSES_MAX as u32 - 1);
        assert!(began.elapsed() < one_by_one, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn the_last_error_is_told_and_addresses_are_bounded() {
        assert!(matches!(connect(std::iter::empty()).await, Err(None)));
        let refused = refusing().await;
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let beyond = live.local_addr().unwrap();
        let all = std::iter::repeat_n(refused, ADDRESSES_MAX).chain([beyond]);
        let (address, error) = connect(all).await.unwrap_err().unwrap();
        assert_eq!((address, error.kind()), (refused, io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn families_alternate_in_the_resolver_s_order() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let wanted = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleaved(given.into_iter()), wanted);
        let given = parse(&["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"]);
        let wanted = parse(&["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]);
        assert_eq!(interleaved(given.into_iter()), wanted);
    }
}
