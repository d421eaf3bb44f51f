//! One client of the fleet: its connection, and where it stands in its channels. When a connection or a subscription
//! ends it comes back, to the next node, from where it was.
//!
//! Invariant: everything that is said about a channel goes to [`Truth`] in the order in which it came.

use std::net::SocketAddr;
use std::time::Instant;

use mio::{Registry, Token};
use wire::protocol::{
    Command, ErrorReply, Push, PushEvent, Reply, ReplyBody, Request, StreamPosition,
    SubscribeRequest, SubscribeResult,
};
use wire::websocket::deflate::Inflater;

use crate::link::{Link, Said};
use crate::scale::channel_name;
use crate::truth::Truth;

/// See the module.
pub(crate) struct Client {
    number: usize,
    link: Option<Link>,
    is_open: bool,
    /// Its name on the connection that it has.
    pub(crate) id: Option<String>,
    pub(crate) places: Vec<Place>,
}

/// Where a client stands in one of its channels.
pub(crate) struct Place {
    pub(crate) channel: usize,
    stage: Stage,
    pub(crate) position: Option<StreamPosition>,
    /// When it was told of a loss or was shown to be up to date, first after the mark.
    pub(crate) settled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Away,
    Asked,
    Live,
}

/// What the client wants after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    Dial,
    Join(usize),
}

impl Client {
    pub(crate) fn new(number: usize, channels: &[usize]) -> Client {
        let places = channels.iter().map(|&channel| Place::new(channel)).collect();
        Client { number, link: None, is_open: false, id: None, places }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.places.iter().all(|place| place.stage == Stage::Live)
    }

    pub(crate) fn dial(&mut self, address: SocketAddr, registry: &Registry) -> std::io::Result<()> {
        if self.link.is_none() {
            let number = self.number;
            self.link = Some(Link::dial(address, number as u64, registry, Token(number))?);
        }
        Ok(())
    }

    /// Subscribes again, after the server has ended one subscription.
    pub(crate) fn join(&mut self, index: usize) -> Option<Wish> {
        let link = self.link.as_mut().filter(|_| self.is_open)?;
        let place = &mut self.places[index];
        if place.stage != Stage::Away {
            return None;
        }
        place.stage = Stage::Asked;
        let sent = link.send(&[place.subscribe(index)]);
        sent.is_err().then(|| self.leave())
    }

    /// The socket may be written or read.
    pub(crate) fn handle(
        &mut self,
        buffer: &mut [u8],
        inflater: &mut Inflater,
        truth: &mut Truth,
    ) -> Vec<Wish> {
        let Some(link) = &mut self.link else { return Vec::new() };
        let said = link.read(buffer, inflater);
        said.into_iter().filter_map(|said| self.handle_said(said, truth)).collect()
    }

    fn handle_said(&mut self, said: Said, truth: &mut Truth) -> Option<Wish> {
        // What a dead link still said is of no interest to the next one.
        let link = self.link.as_mut()?;
        match said {
            Said::Open => {
                self.is_open = true;
                let mut commands =
                    vec![Command { id: CONNECT, request: Request::Connect(Box::default()) }];
                for (index, place) in self.places.iter_mut().enumerate() {
                    place.stage = Stage::Asked;
                    commands.push(place.subscribe(index));
                }
                link.send(&commands).is_err().then(|| self.leave())
            }
            Said::Reply(reply) => self.handle_reply(reply, truth),
            Said::Ended { code, reason } => {
                let is_told = TOLD_BY_DISCONNECT.contains(&code);
                if code >= DISCONNECT_FOR_GOOD {
                    truth.fail(format!("client {}: disconnected, {code} {reason}", self.number));
                }
                for place in self.places.iter_mut().filter(|_| is_told) {
                    truth.told(place);
                }
                Some(self.leave())
            }
        }
    }

    fn leave(&mut self) -> Wish {
        (self.link, self.is_open, self.id) = (None, false, None);
        self.places.iter_mut().for_each(|place| place.stage = Stage::Away);
        Wish::Dial
    }

    fn handle_reply(&mut self, reply: Reply, truth: &mut Truth) -> Option<Wish> {
        let id = reply.id;
        match reply.body {
            ReplyBody::Ping => {
                let pong = Command { id: 0, request: Request::Pong };
                let sent = self.link.as_mut()?.send(&[pong]);
                sent.is_err().then(|| self.leave())
            }
            ReplyBody::Connect(result) => {
                truth.admitted.push(result.client.clone());
                self.id = Some(result.client);
                None
            }
            ReplyBody::Subscribe(result) => self.handle_joined(place_of(id), &result, truth),
            ReplyBody::Error(error) => self.handle_refused(id, &error, truth),
            ReplyBody::Push(push) => self.handle_push(&push, truth),
            other => {
                truth.fail(format!("client {}: it was told {other:?}", self.number));
                None
            }
        }
    }

    fn handle_joined(
        &mut self,
        index: usize,
        result: &SubscribeResult,
        truth: &mut Truth,
    ) -> Option<Wish> {
        let place = &mut self.places[index];
        place.stage = Stage::Live;
        truth.begin(place, result);
        None
    }

    fn handle_refused(&mut self, id: u32, error: &ErrorReply, truth: &mut Truth) -> Option<Wish> {
        if !error.temporary {
            let (number, ErrorReply { code, message, .. }) = (self.number, error);
            truth.fail(format!("client {number}: refused, {code} {message}"));
        }
        if id == CONNECT {
            return Some(self.leave());
        }
        let index = place_of(id);
        self.places[index].stage = Stage::Away;
        Some(Wish::Join(index))
    }

    fn handle_push(&mut self, push: &Push, truth: &mut Truth) -> Option<Wish> {
        let is_it = |place: &Place| *push.channel == *channel_name(place.channel);
        let index = self.places.iter().position(is_it);
        match (index, &push.event) {
            (Some(index), PushEvent::Publication(publication))
                if self.places[index].stage == Stage::Live =>
            {
                truth.take(&mut self.places[index], publication);
                None
            }
            (Some(index), PushEvent::Unsubscribe { code, .. }) if TOLD.contains(code) => {
                truth.told(&mut self.places[index]);
                self.places[index].stage = Stage::Away;
                Some(Wish::Join(index))
            }
            (_, event) => {
                truth.fail(format!("client {}: pushed {event:?}", self.number));
                None
            }
        }
    }
}

impl Place {
    pub(crate) fn new(channel: usize) -> Place {
        Place { channel, stage: Stage::Away, position: None, settled: None }
    }

    /// The command to join, from where the client was.
    fn subscribe(&self, index: usize) -> Command {
        let StreamPosition { offset, epoch } = self.position.clone().unwrap_or_default();
        let subscribe = SubscribeRequest {
            channel: channel_name(self.channel),
            recover: self.position.is_some(),
            recoverable: true,
            epoch,
            offset,
            ..SubscribeRequest::default()
        };
        let id = FIRST_PLACE + u32::try_from(index).unwrap();
        Command { id, request: Request::Subscribe(Box::new(subscribe)) }
    }
}

/// Which place a command was about.
fn place_of(id: u32) -> usize {
    (id - FIRST_PLACE) as usize
}

/// Ids of commands.
const CONNECT: u32 = 1;
const FIRST_PLACE: u32 = 2;

/// Codes that say: something may be missing, come back and recover.
const TOLD: std::ops::Range<u32> = 2500..2600;
const TOLD_BY_DISCONNECT: [u16; 2] = [3010, 3014];

/// From here on a client must not come back.
const DISCONNECT_FOR_GOOD: u16 = 3500;
