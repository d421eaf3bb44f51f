//! One client of the fleet: its session, and where it stands in its channels. When a connection
//! ends it comes back, to the next node, from where it was; the session itself subscribes again.
//!
//! Invariant: everything that is said about a channel goes to [`Truth`] in the order in which it
//! came.

use std::net::SocketAddr;
use std::time::Instant;

use ::client::{
    Event, Failure, Reason, StreamPosition, SubscriptionOptions, SubscriptionState, TransportError,
};
use mio::{Registry, Token};

use crate::link::Link;
use crate::scale::channel_name;
use crate::truth::Truth;

/// See the module.
pub(crate) struct Client {
    number: usize,
    link: Link,
    /// Its name on the connection that it has.
    pub(crate) id: Option<String>,
    pub(crate) places: Vec<Place>,
}

/// Where a client stands in one of its channels.
pub(crate) struct Place {
    pub(crate) channel: usize,
    pub(crate) position: Option<StreamPosition>,
    /// When it was notified of a loss or was shown to be up to date, first after the mark.
    pub(crate) settled: Option<Instant>,
}

/// What the client wants later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    Dial,
    /// The session has a timer for this time.
    Timer(Instant),
}

impl Client {
    pub(crate) fn new(number: usize, channels: &[usize]) -> Client {
        let mut link = Link::new(number as u64);
        for &channel in channels {
            let options =
                SubscriptionOptions { recoverable: true, ..SubscriptionOptions::default() };
            let begun = link.session.subscribe(Instant::now(), &channel_name(channel), options);
            begun.expect("one subscription for each channel");
        }
        let places = channels.iter().map(|&channel| Place::new(channel)).collect();
        Client { number, link, id: None, places }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.places.iter().all(|place| {
            let state = self.link.session.subscription_state(&channel_name(place.channel));
            state == Some(SubscriptionState::Subscribed)
        })
    }

    pub(crate) fn dial(&mut self, address: SocketAddr, registry: &Registry) -> std::io::Result<()> {
        self.link.dial(address, registry, Token(self.number))
    }

    /// The socket may be written or read, or the time of [`Wish::Timer`] has come.
    pub(crate) fn handle(&mut self, buffer: &mut [u8], truth: &mut Truth) -> Option<Wish> {
        if self.link.is_lost() {
            return None;
        }
        // The session subscribes again after a delay then.
        let mut is_waiting = false;
        for event in self.link.handle(buffer) {
            is_waiting |= matches!(
                event,
                Event::Failed(Failure::Subscribe { .. }) | Event::Subscribing { .. }
            );
            self.handle_event(event, truth);
        }
        if self.link.is_lost() {
            self.id = None;
            return Some(Wish::Dial);
        }
        let timer = self.link.session.poll_timeout().filter(|_| is_waiting);
        timer.map(Wish::Timer)
    }

    fn handle_event(&mut self, event: Event, truth: &mut Truth) {
        let Client { number, places, .. } = self;
        match event {
            Event::Connected(connected) => {
                truth.admitted.push(connected.client.clone());
                self.id = Some(connected.client);
            }
            Event::Connecting(reason) if REPORTED_BY_DISCONNECT.contains(&reason.code) => {
                places.iter_mut().for_each(|place| truth.reported(place));
            }
            Event::Subscribed { channel, subscribed } => match place(places, &channel) {
                Some(place) => truth.begin(place, &subscribed),
                None => truth.fail(format!("client {number}: subscribed to {channel}")),
            },
            Event::Publication { channel, publication } => match place(places, &channel) {
                Some(place) => truth.take(place, &publication),
                None => truth.fail(format!("client {number}: a publication of {channel}")),
            },
            Event::Subscribing { channel, reason: Reason { code, .. } } => {
                if let Some(place) = place(places, &channel).filter(|_| REPORTED.contains(&code)) {
                    truth.reported(place);
                }
            }
            Event::Failed(
                Failure::Subscribe { .. }
                | Failure::Connect(_)
                | Failure::Closed(_)
                | Failure::Transport(
                    TransportError::Io(_) | TransportError::Closed | TransportError::Refused { .. },
                ),
            )
            | Event::Connecting(_) => {}
            other => truth.fail(format!("client {number}: {other:?}")),
        }
    }

    /// Publications that the server sent twice, or before the reply to a subscribe command.
    pub(crate) fn superfluous(&self) -> u64 {
        self.link.session.duplicates() + self.link.session.strays()
    }
}

impl Place {
    pub(crate) fn new(channel: usize) -> Place {
        Place { channel, position: None, settled: None }
    }
}

fn place<'a>(places: &'a mut [Place], channel: &str) -> Option<&'a mut Place> {
    places.iter_mut().find(|place| *channel == *channel_name(place.channel))
}

/// Codes that say: something may be missing, come back and recover.
const REPORTED: std::ops::Range<u32> = 2500..2600;
const REPORTED_BY_DISCONNECT: [u32; 2] = [3010, 3014];
