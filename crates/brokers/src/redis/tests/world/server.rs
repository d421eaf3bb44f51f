//! A server of the simulated world: the model, its identity, and what it loses when it fails.
//!
//! Invariant: a server that may lack writes of its predecessor has another replication id.

use std::rc::Rc;

use crate::redis::driver_messages::Opened;
use crate::redis::identity::ServerIdentity;
use crate::redis::scripts;
use crate::redis::settings::Address;
use crate::redis::tests::model::scripts::Interpreter;
use crate::redis::tests::model::server::{ClientId, ModelServer};
use crate::redis::tests::model::store::{Store, Writes};

/// A server at an address.
pub(super) struct SimServer {
    pub(super) model: ModelServer,
    pub(super) address: Address,
    pub(super) identity: ServerIdentity,
    pub(super) is_running: bool,
    /// What it has on its disk, or what its replica has.
    saved: Store,
    starts: u32,
}

/// What a server holds after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Nothing,
    /// What it had when it was saved last.
    Saved,
}

impl SimServer {
    pub(super) fn new(index: usize, interpreter: &Rc<Interpreter>, small_hash: usize) -> SimServer {
        let mut model = ModelServer::new(interpreter.clone());
        model.store.small_hash = small_hash;
        model.defers_own_messages = index % 2 == 1;
        let host = format!("redis-{index}");
        let saved = model.store.clone();
        let mut server = SimServer {
            model,
            address: Address { host, port: 6379 },
            identity: ServerIdentity { is_master: true, ..ServerIdentity::default() },
            is_running: true,
            saved,
            starts: 0,
        };
        server.begin();
        server
    }

    /// A new run: connections and scripts are gone.
    fn begin(&mut self) {
        self.starts += 1;
        let name = format!("{}-{}", self.address.host, self.starts);
        self.identity.run_id.clone_from(&name);
        self.identity.replication_id = name;
        self.model.store.writes = Writes::Accepted;
        self.model.flush_scripts();
        self.is_running = true;
    }

    pub(super) fn save(&mut self) {
        self.saved = self.model.store.clone();
    }

    /// Starts the server after its end.
    pub(super) fn restart(&mut self, kept: Kept) {
        let small_hash = self.model.store.small_hash;
        self.model.store = match kept {
            Kept::Nothing => Store::default(),
            Kept::Saved => self.saved.clone(),
        };
        self.model.store.small_hash = small_hash;
        self.save();
        self.begin();
    }

    pub(super) fn saved(&self) -> Store {
        self.saved.clone()
    }

    /// Becomes the master with what a replica had.
    pub(super) fn promote(&mut self, store: Store) {
        self.saved = store;
        self.restart(Kept::Saved);
    }

    /// Accepts a connection, as after a handshake.
    pub(super) fn open(&mut self, client: ClientId) -> Opened {
        self.model.connect(client);
        let mut opened = Opened {
            address: self.address.clone(),
            digests: Default::default(),
            identity: self.identity.clone(),
            has_shards: false,
        };
        for (digest, script) in opened.digests.iter_mut().zip(scripts::ALL) {
            *digest = self.model.load(script.text()).into();
        }
        opened
    }
}
