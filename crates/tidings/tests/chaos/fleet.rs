//! All clients: one thread, one poller. The test asks it by sending it questions, which it answers
//! between two turns.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use wire::protocol::StreamPosition;

use crate::client::{Client, Wish};
use crate::dice::Dice;
use crate::scale::Scale;
use crate::truth::Truth;
use crate::world::NODES;

/// The handle of the thread, which ends with it.
pub(crate) struct Fleet {
    questions: Option<Sender<Question>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

type Question = Box<dyn FnOnce(&mut Crowd) + Send>;

/// What the thread has.
pub(crate) struct Crowd {
    poll: Poll,
    nodes: Vec<SocketAddr>,
    pub(crate) clients: Vec<Client>,
    /// The node that each client tries next.
    targets: Vec<usize>,
    pub(crate) truth: Truth,
    dice: Dice,
    due: BinaryHeap<Reverse<(Instant, usize, Wish)>>,
}

impl Fleet {
    pub(crate) fn start(nodes: Vec<SocketAddr>, scale: Scale, began: Instant) -> Fleet {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WAKE).unwrap();
        let clients =
            (0..scale.clients).map(|number| Client::new(number, &channels(number, scale)));
        let clients: Vec<Client> = clients.collect();
        let crowd = Crowd {
            poll,
            targets: (0..clients.len()).map(|number| number % nodes.len()).collect(),
            nodes,
            clients,
            truth: Truth::new(began, scale.channels),
            dice: Dice(SEED),
            due: BinaryHeap::new(),
        };
        let (questions, asked) = channel();
        let thread = std::thread::spawn(move || crowd.run(&asked));
        Fleet { questions: Some(questions), waker, thread: Some(thread) }
    }

    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Crowd) -> T + Send + 'static,
    ) -> T {
        let (sender, answer) = channel();
        let question: Question = Box::new(move |crowd| {
            let _nobody_waits = sender.send(question(crowd));
        });
        self.questions.as_ref().unwrap().send(question).expect("the fleet runs");
        self.waker.wake().unwrap();
        answer.recv().expect("the fleet answers")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.questions = None;
        // A fleet that has panicked has said so itself.
        let _ended = self.waker.wake();
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

impl Crowd {
    fn run(mut self, asked: &Receiver<Question>) {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        (0..self.clients.len()).for_each(|index| self.dial(index));
        loop {
            let next = self.due.peek().map(|Reverse((at, ..))| *at);
            let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                let index = event.token().0;
                let client = &mut self.clients[index];
                let wish = client.handle(&mut buffer, &mut self.truth);
                self.put(index, wish);
            }
            self.handle_due(&mut buffer);
            loop {
                match asked.try_recv() {
                    Ok(question) => question(&mut self),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    fn put(&mut self, index: usize, wish: Option<Wish>) {
        let Some(wish) = wish else { return };
        let at = match wish {
            Wish::Dial => Instant::now() + self.dice.about(AWAY),
            Wish::Timer(at) => at,
        };
        self.due.push(Reverse((at, index, wish)));
    }

    fn handle_due(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        while let Some(Reverse((at, index, wish))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            match wish {
                Wish::Dial => self.dial(index),
                Wish::Timer(_) => {
                    let wish = self.clients[index].handle(buffer, &mut self.truth);
                    self.put(index, wish);
                }
            }
        }
    }

    /// To the next node each time, so that one that is gone is left.
    fn dial(&mut self, index: usize) {
        let target = &mut self.targets[index];
        let node = self.nodes[*target];
        *target = (*target + 1) % self.nodes.len();
        if self.clients[index].dial(node, self.poll.registry()).is_err() {
            self.put(index, Some(Wish::Dial));
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.clients.iter().all(Client::is_live)
    }

    /// From now on every subscription is to be notified, or shown to be up to date.
    pub(crate) fn mark(&mut self, at: Instant) {
        self.truth.mark = Some(at);
        let places = self.clients.iter_mut().flat_map(|client| &mut client.places);
        places.for_each(|place| place.settled = None);
    }

    /// How long the last of all places took, once all have.
    pub(crate) fn settled(&self) -> Option<Duration> {
        let mark = self.truth.mark?;
        let places = self.clients.iter().flat_map(|client| &client.places);
        let times: Option<Vec<Duration>> =
            places.map(|place| Some(place.settled?.saturating_duration_since(mark))).collect();
        times?.into_iter().max()
    }

    /// Places that are elsewhere than at the top, in words.
    pub(crate) fn stragglers(&self, tops: &[StreamPosition]) -> Vec<String> {
        let places = self.clients.iter().flat_map(|client| &client.places);
        let behind = places.filter(|place| place.position.as_ref() != Some(&tops[place.channel]));
        let words = |place: &crate::client::Place| {
            let (channel, position) = (place.channel, &place.position);
            format!("channel {channel}: {position:?} of {:?}", tops[channel])
        };
        behind.map(words).collect()
    }

    /// Publications that clients got twice, or before the reply to a subscribe command.
    pub(crate) fn superfluous(&self) -> u64 {
        self.clients.iter().map(Client::superfluous).sum()
    }

    /// How many clients are in each channel when all are live.
    pub(crate) fn crowds(&self, channels: usize) -> Vec<u64> {
        let mut counts = vec![0; channels];
        let places = self.clients.iter().flat_map(|client| &client.places);
        places.for_each(|place| counts[place.channel] += 1);
        counts
    }
}

/// The channels of a client: one, or every second time two. Every channel has clients on all nodes.
fn channels(number: usize, scale: Scale) -> Vec<usize> {
    let first = number / NODES % scale.channels;
    let second = (number * 7 + 3) % scale.channels;
    if number.is_multiple_of(2) || first == second { vec![first] } else { vec![first, second] }
}

const WAKE: Token = Token(usize::MAX);

/// Mean time before a client comes back.
const AWAY: Duration = Duration::from_millis(100);

const SEED: u64 = 0x7469_6469_6e67_7303;
