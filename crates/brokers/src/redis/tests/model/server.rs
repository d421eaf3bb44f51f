//! A model server: connections, the script cache, pub/sub and faults around the keys.
//!
//! Invariant: commands of a connection are executed in order, each at once, and answered once.
//! Messages stand in a connection's output in the order in which they were published.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::reply::Reply;
use super::scripts::Interpreter;
use super::store::{Published, Store};
use crate::redis::resp::{Frame, RespDecoder};

/// A server without a network.
pub(in crate::redis::tests) struct ModelServer {
    pub(in crate::redis::tests) store: Store,
    interpreter: Rc<Interpreter>,
    /// Loaded scripts by digest.
    scripts: BTreeMap<Vec<u8>, String>,
    clients: BTreeMap<ClientId, Client>,
    /// Whether a message to the connection that publishes it follows the reply (7.2) or precedes it
    /// (before).
    pub(in crate::redis::tests) defers_own_messages: bool,
    /// Error that the next command is answered with, without being executed.
    pub(in crate::redis::tests) next_error: Option<&'static str>,
    /// Channels that connections have subscribed to, in order, with the length of the log before.
    pub(in crate::redis::tests) subscribes: Vec<(usize, ClientId, Vec<u8>)>,
    /// Everything that was published, in order.
    pub(in crate::redis::tests) log: Vec<Published>,
}

/// Identifies a connection of a server.
pub(in crate::redis::tests) type ClientId = u64;

#[derive(Default)]
struct Client {
    decoder: RespDecoder,
    out: Vec<u8>,
    /// Subscribed channels, and whether they are sharded.
    subscribed: BTreeSet<(Vec<u8>, bool)>,
}

impl ModelServer {
    pub(in crate::redis::tests) fn new(interpreter: Rc<Interpreter>) -> ModelServer {
        ModelServer {
            store: Store::default(),
            interpreter,
            scripts: BTreeMap::new(),
            clients: BTreeMap::new(),
            defers_own_messages: false,
            next_error: None,
            subscribes: Vec::new(),
            log: Vec::new(),
        }
    }

    /// The digest under which a script is loaded.
    pub(in crate::redis::tests) fn load(&mut self, text: &str) -> Vec<u8> {
        let digest = text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        let digest = format!("{digest:040x}").into_bytes();
        self.scripts.insert(digest.clone(), text.to_owned());
        digest
    }

    /// Forgets all scripts, as after SCRIPT FLUSH.
    pub(in crate::redis::tests) fn flush_scripts(&mut self) {
        self.scripts.clear();
    }

    pub(in crate::redis::tests) fn connect(&mut self, id: ClientId) {
        self.clients.insert(id, Client::default());
    }

    pub(in crate::redis::tests) fn disconnect(&mut self, id: ClientId) {
        self.clients.remove(&id);
    }

    /// Receives bytes of a connection and executes the commands that they complete.
    pub(in crate::redis::tests) fn receive(&mut self, id: ClientId, bytes: &[u8], now_us: i64) {
        self.store.now_us = now_us;
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.decoder.buffer().extend_from_slice(bytes);
        while let Some(client) = self.clients.get_mut(&id)
            && let Some(frame) = client.decoder.next().expect("the broker speaks RESP")
        {
            let Frame::List(words) = frame else { panic!("{frame:?} is no command") };
            let words: Vec<Vec<u8>> =
                words.iter().map(|word| word.text().expect("words are texts").to_vec()).collect();
            let replies = self.execute(id, &words);
            self.answer(id, &replies);
        }
    }

    /// Takes the bytes that are written to a connection.
    pub(in crate::redis::tests) fn take_output(&mut self, id: ClientId) -> Vec<u8> {
        self.clients.get_mut(&id).map(|client| std::mem::take(&mut client.out)).unwrap_or_default()
    }

    /// Whether any connection is subscribed to the channel.
    pub(in crate::redis::tests) fn is_subscribed(&self, id: ClientId, channel: &[u8]) -> bool {
        let client = self.clients.get(&id);
        client.is_some_and(|client| client.subscribed.iter().any(|(name, _)| name == channel))
    }

    /// Writes messages to their subscribers, and the replies to the connection.
    fn answer(&mut self, id: ClientId, replies: &[Reply]) {
        let published = std::mem::take(&mut self.store.published);
        let mut behind = Vec::new();
        for message in &published {
            let kind = if message.is_sharded { "smessage" } else { "message" };
            let texts = [kind.as_bytes(), &message.channel, &message.payload];
            let push = Reply::Push(texts.map(Reply::bulk).to_vec());
            let name = (message.channel.clone(), message.is_sharded);
            for (one, client) in &mut self.clients {
                if client.subscribed.contains(&name) {
                    let is_own = *one == id && self.defers_own_messages;
                    push.encode(if is_own { &mut behind } else { &mut client.out });
                }
            }
        }
        self.log.extend(published);
        if let Some(client) = self.clients.get_mut(&id) {
            replies.iter().for_each(|reply| reply.encode(&mut client.out));
            client.out.append(&mut behind);
        }
    }

    fn execute(&mut self, id: ClientId, words: &[Vec<u8>]) -> Vec<Reply> {
        if let Some(error) = self.next_error.take() {
            return vec![Reply::error(error)];
        }
        let name = String::from_utf8_lossy(&words[0]).to_uppercase();
        vec![match &*name {
            "ECHO" => Reply::bulk(&words[1]),
            "SCRIPT" => Reply::Bulk(self.load(&String::from_utf8_lossy(&words[2]))),
            "EVALSHA" => self.run_script(&words[1..]),
            "SUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "SUNSUBSCRIBE" => {
                return self.subscribe(id, &name, &words[1..]);
            }
            _ => self.store.execute(words),
        }]
    }

    fn run_script(&mut self, words: &[Vec<u8>]) -> Reply {
        let Some(text) = self.scripts.get(&words[0]) else {
            return Reply::error("NOSCRIPT No matching script. Please use EVAL.");
        };
        let count: usize = String::from_utf8_lossy(&words[1]).parse().expect("a number of keys");
        let (keys, arguments) = words[2..].split_at(count);
        self.interpreter.run(&mut self.store, text, keys, arguments)
    }

    /// Changes the subscriptions of a connection; one push for each channel.
    fn subscribe(&mut self, id: ClientId, name: &str, channels: &[Vec<u8>]) -> Vec<Reply> {
        let Some(client) = self.clients.get_mut(&id) else { return Vec::new() };
        let is_sharded = name.starts_with("SS") || name.starts_with("SU") && name != "SUBSCRIBE";
        let mut pushes = Vec::new();
        for channel in channels {
            let key = (channel.clone(), is_sharded);
            match name.contains("UNSUB") {
                true => client.subscribed.remove(&key),
                false => {
                    self.subscribes.push((self.log.len(), id, channel.clone()));
                    client.subscribed.insert(key)
                }
            };
            let count = client.subscribed.len().try_into().unwrap_or(0);
            let name = name.to_lowercase().into_bytes();
            pushes.push(Reply::Push(vec![
                Reply::Bulk(name),
                Reply::bulk(channel),
                Reply::Integer(count),
            ]));
        }
        pushes
    }
}
