//! Sentinels: finds the master that at least half of the configured Sentinels name, and watches for
//! switches.
//!
//! Invariant: an answer of fewer than half of the Sentinels neither moves a link nor confirms it.
//! So a Sentinel with stale data, one that monitors another master under the same name, and a
//! minority partition are outvoted.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connection::Dialer;
use super::request_connection::RequestConnection;
use super::resp::Frame;
use super::settings::{Address, Login};
use super::unavailable::{UnavailableReason, show};

/// The master that one Sentinel names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MasterReport {
    address: Address,
    /// Increases with every failover.
    config_epoch: u64,
}

/// Number of Sentinels that name a server, and their highest config epoch.
#[derive(Default)]
struct Votes {
    count: usize,
    config_epoch: u64,
}

/// The server that most Sentinels name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) address: Address,
    /// Why the answer is not certain: fewer than half agree.
    pub(super) doubt: Option<UnavailableReason>,
}

/// Time for the remaining Sentinels after a majority has answered.
const GRACE: Duration = Duration::from_millis(100);

/// Delay before a reconnect to a Sentinel to watch for switches.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

impl Dialer {
    /// Queries all Sentinels at once.
    pub(super) async fn find_master(
        &self,
        master: &str,
        sentinels: &[Address],
        login: &Login,
    ) -> Result<Master, UnavailableReason> {
        let ask = |sentinel| self.ask_sentinel(sentinel, master, login);
        let mut asked: FuturesUnordered<_> = sentinels.iter().map(ask).collect();
        let mut answers = Vec::new();
        let mut until = Instant::now() + 3 * self.settings.connect_timeout;
        while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
            answers.push(answer);
            if answers.iter().filter(|answer| answer.is_ok()).count() == sentinels.len() / 2 + 1 {
                until = until.min(Instant::now() + GRACE);
            }
        }
        choose(answers, sentinels.len(), master)
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Address,
        master: &str,
        login: &Login,
    ) -> Result<MasterReport, UnavailableReason> {
        let ask = async {
            let mut connection = self.connect_sentinel(sentinel, login).await?;
            let name = master.as_bytes();
            let reply = connection.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name]).await?;
            let address = match reply {
                Frame::List(reply) => address(&reply),
                Frame::Null => None,
                Frame::Error(text) => return Err(refusal(sentinel, &text)),
                _ => return Err(UnavailableReason::IsNoSentinel(sentinel.clone())),
            };
            let unknown = || UnavailableReason::UnknownMaster(master.to_owned());
            let address = address.ok_or_else(unknown)?;
            let facts = connection.ask(&[b"SENTINEL", b"MASTER", name]).await?;
            Ok(MasterReport { address, config_epoch: config_epoch(&facts) })
        };
        let limit = self.settings.connect_timeout + self.settings.connect_timeout;
        timeout(limit, ask).await.unwrap_or(Err(UnavailableReason::Silent(sentinel.clone())))
    }

    async fn connect_sentinel(
        &self,
        sentinel: &Address,
        login: &Login,
    ) -> Result<RequestConnection, UnavailableReason> {
        let mut connection = self.connect(sentinel).await?;
        match connection.authenticate(login).await {
            Err(UnavailableReason::Login(address, text)) => {
                Err(UnavailableReason::SentinelLogin(address, text))
            }
            entered => entered.map(|()| connection),
        }
    }

    /// Notifies `switched` whenever one Sentinel announces another master, until dropped.
    pub(super) async fn listen_for_switches(
        &self,
        sentinel: &Address,
        login: &Login,
        switched: &Notify,
    ) {
        loop {
            let watched = async {
                let mut connection = self.connect_sentinel(sentinel, login).await?;
                connection.ask(&[b"SUBSCRIBE", b"+switch-master"]).await?;
                loop {
                    connection.next_frame().await?;
                    switched.notify_one();
                }
            };
            let Err(reason): Result<std::convert::Infallible, UnavailableReason> = watched.await;
            tracing::debug!(%sentinel, %reason, "Sentinel: connection lost; switches of the master are not received until it is back");
            sleep(RECONNECT_DELAY).await;
        }
    }
}

impl Master {
    /// The address; an error when it is not certain.
    pub(super) fn certain(self) -> Result<Address, UnavailableReason> {
        self.doubt.map_or(Ok(self.address), Err)
    }
}

/// The server with most votes; without any, the failure that an operator can resolve first.
fn choose(
    answers: Vec<Result<MasterReport, UnavailableReason>>,
    sentinels: usize,
    master: &str,
) -> Result<Master, UnavailableReason> {
    let (named, failures): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let mut votes: HashMap<Address, Votes> = HashMap::new();
    for MasterReport { address, config_epoch } in named.into_iter().flatten() {
        let votes = votes.entry(address).or_default();
        votes.count += 1;
        votes.config_epoch = votes.config_epoch.max(config_epoch);
    }
    // Two halves of an even number may name different servers: the newer configuration wins.
    let first = votes.into_iter().max_by_key(|(_, votes)| (votes.count, votes.config_epoch));
    if let Some((address, Votes { count, .. })) = first {
        // A failover needs a majority, which includes one of these.
        let is_certain = 2 * count >= sentinels;
        let few = || UnavailableReason::FewSentinels {
            master: master.to_owned(),
            agree: count,
            all: sentinels,
        };
        return Ok(Master { address, doubt: (!is_certain).then(few) });
    }
    let rank = |reason: &UnavailableReason| match reason {
        UnavailableReason::SentinelLogin(..) => 0,
        UnavailableReason::IsNoSentinel(_) => 1,
        UnavailableReason::UnknownMaster(_) => 2,
        _ => 3,
    };
    let first = failures.into_iter().filter_map(Result::err).min_by_key(rank);
    Err(first.unwrap_or_else(|| UnavailableReason::NoSentinel(master.to_owned())))
}

fn address(reply: &[Frame]) -> Option<Address> {
    let [host, port] = reply else { return None };
    let (host, port) = (host.str()?.to_owned(), u16::try_from(port.u64()?).ok()?);
    Some(Address { host, port })
}

/// The config epoch in alternating names and values.
fn config_epoch(facts: &Frame) -> u64 {
    let mut pairs = facts.list().unwrap_or_default().chunks_exact(2);
    let pair = pairs.find(|pair| pair[0].str() == Some("config-epoch"));
    pair.and_then(|pair| pair[1].u64()).unwrap_or(0)
}

/// The reason for a Sentinel's error reply.
fn refusal(sentinel: &Address, text: &[u8]) -> UnavailableReason {
    let begins = |names: &[&[u8]]| names.iter().any(|name| text.starts_with(name));
    match () {
        () if begins(&[b"NOAUTH", b"NOPERM", b"WRONGPASS"]) => {
            UnavailableReason::SentinelLogin(sentinel.clone(), show(text))
        }
        () if begins(&[b"ERR unknown command"]) => {
            UnavailableReason::IsNoSentinel(sentinel.clone())
        }
        () => UnavailableReason::of_answer(sentinel, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "h".into(), port }
    }

    fn named(port: u16, config_epoch: u64) -> Result<MasterReport, UnavailableReason> {
        Ok(MasterReport { address: at(port), config_epoch })
    }

    fn chosen(
        answers: Vec<Result<MasterReport, UnavailableReason>>,
    ) -> Result<Address, UnavailableReason> {
        let all = answers.len();
        choose(answers, all, "m").and_then(Master::certain)
    }

    #[test]
    fn at_least_half_must_name_the_same_server() {
        let lost = Err(UnavailableReason::Silent(at(9)));
        let few =
            |agree, all| Err(UnavailableReason::FewSentinels { master: "m".into(), agree, all });
        // A Sentinel that monitors another master, or that alone knows of a failover, is outvoted.
        assert_eq!(chosen(vec![named(1, 3), named(2, 9), named(1, 3)]), Ok(at(1)));
        assert_eq!(chosen(vec![named(1, 3), named(2, 4), named(2, 4)]), Ok(at(2)));
        assert_eq!(chosen(vec![named(1, 3), named(2, 4), lost.clone()]), few(1, 3));
        assert_eq!(chosen(vec![named(1, 3), named(2, 4), named(3, 5)]), few(1, 3));
        // Two halves: the newer configuration wins.
        assert_eq!(chosen(vec![named(1, 3), named(2, 4)]), Ok(at(2)));
        assert_eq!(chosen(vec![named(2, 4), named(1, 3), named(2, 2), named(1, 3)]), Ok(at(2)));
        let unknown = || UnavailableReason::UnknownMaster("m".into());
        let login = || UnavailableReason::SentinelLogin(at(1), "x".into());
        assert_eq!(chosen(vec![lost.clone(), Err(unknown())]), Err(unknown()));
        assert_eq!(chosen(vec![Err(unknown()), Err(login())]), Err(login()));
        assert_eq!(chosen(vec![]), Err(UnavailableReason::NoSentinel("m".into())));
    }

    #[test]
    fn an_answer_of_fewer_than_half_is_not_certain() {
        let lost = || Err(UnavailableReason::Silent(at(9)));
        for (answered, all, is_certain) in
            [(1, 1, true), (1, 2, true), (1, 3, false), (2, 3, true), (2, 4, true), (2, 5, false)]
        {
            let mut answers: Vec<_> = (0..answered).map(|_| named(1, 3)).collect();
            answers.extend((answered..all).map(|_| lost()));
            let master = choose(answers, all, "m").unwrap();
            assert_eq!(master.address, at(1), "the server is named nevertheless");
            let few = UnavailableReason::FewSentinels { master: "m".into(), agree: answered, all };
            assert_eq!(master.certain(), if is_certain { Ok(at(1)) } else { Err(few) });
        }
        // Sentinels that did not answer in time are missing as well.
        assert!(choose(vec![named(1, 3)], 3, "m").unwrap().doubt.is_some());
    }
}
