//! A process full of clients: one thread, one poller. Commands are lines on standard
//! input, results are lines on standard output.
//!
//! | line in | what it does |
//! |---|---|
//! | `go` | from now on clients die, each about as often as planned |
//! | `cut` | all die at once and come back at once |
//! | `end n` | connections are no longer closed; ends when all have `n` publications |

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::BufRead as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use crate::client::{Client, Outcome};
use crate::dice::Dice;
use crate::plan::{PLAN, Plan};

const WAKE: Token = Token(usize::MAX);

/// Time before dialling again after the server or the kernel refused.
const REFUSED: Duration = Duration::from_millis(100);

/// After `end`, a client without all publications by then never gets them.
const LAST_WAIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "a part of the storms, which start it as a process"]
fn clients() {
    // Without a plan, all ignored tests were requested, and this is not a test.
    if let Ok(plan) = std::env::var(PLAN) {
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        Load::new(Plan::read(&plan)).run();
    }
}

struct Load {
    plan: Plan,
    poll: Poll,
    orders: Receiver<String>,
    clients: Vec<Client>,
    dice: Vec<Dice>,
    /// What is due when, for which client.
    due: BinaryHeap<Reverse<(Instant, usize, Due)>>,
    /// Times from dialling to live, since the first round.
    caught_up: Vec<Duration>,
    deaths: u64,
    /// Since when the test waits to hear that all are live.
    gathering: Option<Instant>,
    is_stormy: bool,
    end: Option<(u64, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Death,
    Return,
}

impl Load {
    fn new(plan: Plan) -> Load {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WAKE).unwrap();
        let (sender, orders) = channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let _ended = sender.send(line);
                let _ended = waker.wake();
            }
        });
        let numbers = plan.first..plan.first + plan.clients as u64;
        let clients = numbers.clone().map(Client::new).collect();
        let dice = numbers.map(|number| Dice(plan.seed ^ (number << 20))).collect();
        Load {
            plan,
            poll,
            orders,
            clients,
            dice,
            due: BinaryHeap::new(),
            caught_up: Vec::new(),
            deaths: 0,
            gathering: Some(Instant::now()),
            is_stormy: false,
            end: None,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        (0..self.clients.len()).for_each(|index| self.dial(index));
        while !self.is_over() {
            let timeout = self
                .due
                .peek()
                .map(|Reverse((at, ..))| at.saturating_duration_since(Instant::now()).min(REFUSED));
            match self.poll.poll(&mut events, Some(timeout.unwrap_or(REFUSED))) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                let index = event.token().0;
                match self.clients[index].handle(&mut buffer) {
                    Outcome::Nothing => {}
                    Outcome::Live(after) => self.handle_live(index, after),
                    Outcome::Cut => self.put(REFUSED, index, Due::Return),
                }
            }
            self.handle_orders();
            self.handle_due();
            if let Some(since) = self.gathering
                && self.clients.iter().all(Client::is_live)
            {
                self.gathering = None;
                println!("@live {}", since.elapsed().as_micros());
            }
        }
        self.report();
    }

    fn is_over(&self) -> bool {
        let Some((count, until)) = self.end else { return false };
        until <= Instant::now() || self.clients.iter().all(|client| client.received == count)
    }

    fn dial(&mut self, index: usize) {
        let dialled =
            self.clients[index].dial(self.plan.address, self.poll.registry(), Token(index));
        if let Err(error) = dialled {
            self.clients[index].failures.push(format!("cannot dial: {error}"));
            self.put(REFUSED, index, Due::Return);
        }
    }

    fn put(&mut self, after: Duration, index: usize, due: Due) {
        self.due.push(Reverse((Instant::now() + after, index, due)));
    }

    fn handle_live(&mut self, index: usize, after: Duration) {
        if self.deaths > 0 {
            self.caught_up.push(after);
        }
        if self.is_stormy {
            let connected_for = self.dice[index].about(self.plan.connected_for);
            self.put(connected_for, index, Due::Death);
        }
    }

    fn handle_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order.split_once(' ') {
                None if order == "go" => {
                    self.is_stormy = true;
                    for index in 0..self.clients.len() {
                        // The first death of each is spread over a whole life.
                        let connected_for = self.dice[index].about(self.plan.connected_for);
                        self.put(
                            connected_for.saturating_sub(self.plan.connected_for / 2),
                            index,
                            Due::Death,
                        );
                    }
                }
                None if order == "cut" => {
                    self.gathering = Some(Instant::now());
                    (0..self.clients.len()).for_each(|index| self.kill(index));
                    (0..self.clients.len()).for_each(|index| self.dial(index));
                }
                Some(("end", count)) => {
                    self.is_stormy = false;
                    self.end = Some((count.parse().unwrap(), Instant::now() + LAST_WAIT));
                }
                _ => panic!("what is {order}?"),
            }
        }
    }

    fn kill(&mut self, index: usize) {
        self.deaths += 1;
        let by_reset = self.dice[index].next().is_multiple_of(2);
        self.clients[index].die(by_reset);
    }

    fn handle_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, index, due))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            match due {
                Due::Death if self.is_stormy => {
                    self.kill(index);
                    let away = self.dice[index].about(self.plan.away);
                    self.put(away, index, Due::Return);
                }
                Due::Death => {}
                Due::Return => self.dial(index),
            }
        }
    }

    /// One line of numbers, one line of times, and the first failures.
    fn report(&self) {
        let (count, _) = self.end.expect("it is over");
        let complete = self.clients.iter().filter(|client| client.received == count).count();
        let failures = self.clients.iter().flat_map(|client| &client.failures);
        for failure in failures.clone().take(5) {
            println!("@failure {failure}");
        }
        let times: Vec<String> =
            self.caught_up.iter().map(|time| time.as_micros().to_string()).collect();
        let superfluous: u64 = self.clients.iter().map(Client::superfluous).sum();
        if superfluous > 0 {
            println!("@failure {superfluous} publications came twice or too early");
        }
        println!("@times {}", times.join(" "));
        println!("@done {complete} {} {}", self.deaths, failures.count() as u64 + superfluous);
    }
}
