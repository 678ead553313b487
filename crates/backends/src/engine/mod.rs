//! The rules of stored state, written once over an ordered key-value store.

mod at_device;
mod away;
mod cluster;
mod cohorts;
mod erase;
mod events;
mod inbox;
pub(crate) mod keys;
mod kv;
mod progress;
mod publish;
pub(crate) mod pushes;
mod read;
pub(crate) mod records;
mod recover;
mod rows;
mod series;
mod sessions;
mod state;
mod stored;
mod sweep;
pub(crate) mod told;
mod txn;
mod wills;

use std::sync::Arc;

use campanile_broker::{
    ids::Millis,
    store::{Command, Recovery, StoreError},
};

use campanile_push::event::What;

pub use self::kv::{Kv, KvError, Reads, Value, View, Writes};
use self::{cluster::no_cluster, read::EngineReader, state::State, txn::Txn};
use crate::{Backend, Committed, Config, Reader, Reply, Request};

/// A [`Backend`] over a key-value store.
#[derive(Debug)]
pub struct Engine<K> {
    kv: K,
    state: State,
    config: Config,
    /// Whether the sets of devices were read.
    devices_loaded: bool,
}

impl<K: Kv> Engine<K> {
    /// Takes over a store, empty or as an engine left it.
    pub fn open(kv: K, config: Config) -> Result<Engine<K>, KvError> {
        let state = recover::load(&kv)?;
        Ok(Engine {
            kv,
            state,
            config,
            devices_loaded: false,
        })
    }

    /// The store.
    pub fn kv(&self) -> &K {
        &self.kv
    }

    /// The store.
    pub fn kv_mut(&mut self) -> &mut K {
        &mut self.kv
    }

    /// The store, without the engine.
    pub fn into_kv(self) -> K {
        self.kv
    }

    /// The last sequence number that was given to an entry.
    pub fn sequence(&self) -> u64 {
        self.state.sequence
    }

    fn load_devices(&mut self) -> Result<(), KvError> {
        if !self.devices_loaded {
            recover::load_devices(&self.kv, &mut self.state)?;
            self.devices_loaded = true;
        }
        Ok(())
    }

    /// Carries out requests without making them durable.
    fn run(&mut self, batch: &[Request], read_only: Option<KvError>) -> (Committed, txn::Finished) {
        let mut txn = Txn::new(&self.kv, &mut self.state, &self.config, read_only);
        let replies = batch
            .iter()
            .enumerate()
            .map(|(place, request)| txn.execute(place, request))
            .collect();
        let mut finished = txn.finish();
        let committed = Committed {
            replies,
            notices: std::mem::take(&mut finished.notices),
            dropped: finished.dropped,
            writes: finished.writes.len() as u32,
            changed: std::mem::take(&mut finished.changed),
        };
        (committed, finished)
    }

    /// Changes the store beside any request.
    fn transact(
        &mut self,
        change: impl FnOnce(&mut Txn<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut txn = Txn::new(&self.kv, &mut self.state, &self.config, None);
        let outcome = change(&mut txn);
        let finished = txn.finish();
        let outcome = outcome.and_then(|()| match finished.writes.is_empty() {
            true => Ok(()),
            false => self.kv.commit(&finished.writes).map_err(StoreError::from),
        });
        if outcome.is_err() {
            self.undo(finished.undo);
        }
        outcome
    }

    fn undo(&mut self, changes: Vec<state::Undo>) {
        for change in changes.into_iter().rev() {
            self.state.undo(change);
        }
    }
}

impl<K: Kv> Backend for Engine<K> {
    fn commit(&mut self, batch: Vec<Request>) -> Committed {
        self.kv.prepare();
        if let Err(error) = self.load_devices() {
            let replies = batch.iter().map(|_| Err(error.clone().into())).collect();
            return Committed {
                replies,
                ..Committed::default()
            };
        }
        let (committed, finished) = self.run(&batch, None);
        if finished.writes.is_empty() {
            return committed;
        }
        match self.kv.commit(&finished.writes) {
            Ok(()) => committed,
            Err(error) => {
                self.undo(finished.undo);
                // Once more, so that what needs no disk is carried out and only the rest is refused.
                self.run(&batch, Some(error)).0
            }
        }
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(EngineReader {
            reads: self.kv.reads(),
            connected: self.state.connected.clone(),
            stored_sessions: self.state.stored_sessions.clone(),
            shared: self.config.shared.then(|| self.state.shared.clone()),
        })
    }

    fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        Engine::recover(self, now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(self.kv.close()?)
    }
}

impl Txn<'_> {
    /// Carries out the request at a place of the batch, or leaves no trace of it.
    fn execute(&mut self, place: usize, request: &Request) -> Result<Reply, StoreError> {
        self.begin(place);
        let start = self.savepoint();
        self.receive(request)
            .inspect_err(|_| self.roll_back(start))?;
        // A receipt is a fact, whoever brings it: what is refused from here on leaves it.
        let after_receipts = self.savepoint();
        let outcome = match request {
            Request::Broker(command) => self
                .broker_command(command)
                .and_then(|outcome| self.tell_of(command).map(|()| Reply::Broker(outcome))),
            Request::Push(command) => self.push_command(command).map(Reply::Push),
        };
        outcome.inspect_err(|error| {
            self.roll_back(if *error == StoreError::Fenced {
                after_receipts
            } else {
                start
            });
        })
    }

    /// Writes down what a command that was carried out means for a device's connection.
    fn tell_of(&mut self, command: &Command) -> Result<(), StoreError> {
        match command {
            Command::Claim(claim) => self.tell_of_connection(&claim.client, &What::DeviceConnected),
            Command::Release(release) => {
                let what = What::DeviceDisconnected { reason: None };
                self.tell_of_connection(&release.progress.client, &what)
            }
            _ => Ok(()),
        }
    }

    fn receive(&mut self, request: &Request) -> Result<(), StoreError> {
        let progress = match request {
            Request::Broker(Command::Progress(progress) | Command::HandOver(progress)) => progress,
            Request::Broker(Command::Release(release)) => &release.progress,
            _ => return Ok(()),
        };
        self.receive_receipts(progress)
    }

    fn broker_command(
        &mut self,
        command: &Command,
    ) -> Result<campanile_broker::store::Outcome, StoreError> {
        match command {
            Command::Claim(claim) => self.claim(claim),
            Command::Subscribe(subscribe) => self.subscribe(subscribe),
            Command::Progress(progress) => self.progress(progress),
            Command::HandOver(progress) => self.hand_over(progress),
            Command::Release(release) => self.release(release),
            Command::Publish(publish) => self.publish(publish),
            Command::ForgetReceived {
                client,
                epoch,
                packet_id,
            } => self.forget_received(client, *epoch, *packet_id),
            Command::Tell(tell) => self.tell(tell),
            Command::DropWill { client } => self.drop_will(client),
            Command::Sweep { now, limit } => self.sweep(*now, *limit),
            Command::Erase { app, now, limit } => self.erase(app, *now, *limit),
            Command::Restamp { .. } | Command::Void { .. } if !self.config.shared => {
                Err(no_cluster().into())
            }
            Command::Restamp {
                client,
                epoch,
                generation,
            } => self.restamp(client, *epoch, *generation),
            Command::Void {
                generation,
                now,
                limit,
            } => self.void(*generation, *now, *limit),
        }
    }
}
