//! The store that all nodes share, and each node's way to it.
//!
//! Every node has one batch under way. It is carried out once at most: what is sent again after a broken connection is the same batch, and one that arrives
//! after a later one of its node is refused. An answer is on its way only when the batch is safe from the loss of the primary, and so is what was read.

use std::{
    collections::{BTreeMap, VecDeque},
    mem::take,
    sync::Arc,
};

use campanile_backends::{
    Backend, Committed, Config as StoreConfig, Reader, Reply, Request,
    lasting::up_to,
    memory::{Disk, Memory},
    order::{Admitted, Broken},
};
use campanile_broker::{
    ids::{AppId, Millis, Offset},
    store::{Command, Notice, Page, Query, StoreError},
};

use super::{Asker, Cut, sabotage::Sabotage};

/// The store. See the module.
pub struct SharedStore {
    memory: Option<Memory>,
    reader: Arc<dyn Reader>,
    config: StoreConfig,
    /// It does not answer anybody.
    pub is_down: bool,
    /// Commits since the last sync.
    commits: usize,
    /// The last place that is safe.
    safe: Offset,
    /// Claims that it has carried out, by client.
    claims: BTreeMap<Box<str>, u64>,
    sabotage: Option<Sabotage>,
}

impl SharedStore {
    /// An empty one.
    pub fn new(mut config: StoreConfig, sabotage: Option<Sabotage>) -> SharedStore {
        config.shared = true;
        let memory = open(Disk::default(), &config);
        SharedStore {
            reader: memory.reader(),
            safe: memory.place(),
            memory: Some(memory),
            config,
            is_down: false,
            commits: 0,
            claims: BTreeMap::new(),
            sabotage,
        }
    }

    fn memory(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("put back after a failover")
    }

    /// Carries out a batch.
    fn commit(&mut self, mut batch: Vec<Request>) -> Committed {
        if let Some(sabotage) = self.sabotage {
            sabotage.on_batch(&mut batch, &*self.reader);
        }
        self.commits += 1;
        for request in &batch {
            if let Request::Broker(Command::Claim(claim)) = request {
                let client = claim.client.client_id.as_ref().into();
                *self.claims.entry(client).or_default() += 1;
            }
        }
        self.memory().commit(batch)
    }

    /// How often a client was claimed, by whatever connection.
    pub fn claims(&self, client_id: &str) -> u64 {
        self.claims.get(client_id).copied().unwrap_or(0)
    }

    /// Whether commits could be lost.
    pub fn has_unsynced(&self) -> bool {
        self.commits > 0
    }

    /// Makes all commits safe.
    pub fn sync(&mut self) {
        self.commits = 0;
        self.memory().sync();
        self.safe = self.memory().place();
    }

    /// The primary is lost; of the commits that were not synced the replica has the first `keep` in a thousand.
    pub fn fail_over(&mut self, keep: u64) {
        let memory = self.memory.take().expect("put back after a failover");
        let keep = memory.unsynced() * keep as usize / 1000;
        let memory = open(memory.crash(keep), &self.config);
        (self.reader, self.safe) = (memory.reader(), memory.place());
        self.memory = Some(memory);
        self.commits = 0;
    }

    /// Answers a query, and says whether what it tells of could be lost.
    fn read(&self, query: &Query) -> (Result<Page, StoreError>, bool) {
        let page = match self.reader.read(query) {
            Ok(page) if self.has_unsynced() => page,
            other => return (other, false),
        };
        // Epochs of this store come from another sequence than places.
        let part = match page {
            Page::Session(_) => Err(page),
            page => up_to(self.safe, query, page),
        };
        let is_unsafe = part.is_err() && self.sabotage != Some(Sabotage::TellUnsafe);
        (Ok(part.unwrap_or_else(|page| page)), is_unsafe)
    }

    /// Reads of it.
    pub fn reader(&self) -> Arc<dyn Reader> {
        self.reader.clone()
    }

    /// What is in it.
    pub fn disk(&mut self) -> Disk {
        self.memory().disk()
    }
}

fn open(disk: Disk, config: &StoreConfig) -> Memory {
    let mut memory = Memory::open(disk, config.clone()).expect("the model's disk is readable");
    memory
        .recover(Millis(0))
        .expect("the model's disk is readable");
    memory.hold_syncs();
    memory
}

/// A batch under way.
enum Flight {
    /// To the store.
    Going(Admitted<Asker>),
    /// Carried out, and not safe yet.
    Unsafe(Admitted<Asker>, Committed),
    /// On the way back.
    Back(Admitted<Asker>, Committed),
}

/// What a batch came to for its node.
pub struct Returned {
    /// The answers, and who asked.
    pub replies: Vec<(Asker, Result<Reply, StoreError>)>,
    /// What the store announces; nothing if it did not answer.
    pub notices: Vec<Notice>,
    /// Answers that wait until all nodes know what they changed.
    pub changed: Vec<(usize, AppId, Offset)>,
}

/// What a read came to.
pub struct ReadBack {
    /// Who asked.
    pub asker: Asker,
    /// The answer.
    pub page: Result<Page, StoreError>,
    /// What it tells of could be lost: it is not passed on before it is safe.
    is_unsafe: bool,
}

/// A node's way to the store.
#[derive(Default)]
pub struct StoreLink {
    requests: VecDeque<(Asker, Request)>,
    broken: Broken,
    flight: Option<Flight>,
    /// One that the node has given up, and that may still arrive.
    late: Option<Vec<Request>>,
    queries: Vec<(Asker, Query)>,
    pages: Vec<ReadBack>,
    /// What does not get through.
    pub cut: Option<Cut>,
}

impl StoreLink {
    /// Asks the store to write.
    pub fn write(&mut self, asker: Asker, request: Request) {
        self.requests.push_back((asker, request));
    }

    /// Asks the store.
    pub fn read(&mut self, asker: Asker, query: Query) {
        self.queries.push((asker, query));
    }

    /// Whether a batch could leave.
    pub fn can_send(&self) -> bool {
        self.flight.is_none() && !self.requests.is_empty()
    }

    /// The first requests leave as a batch.
    pub fn send(&mut self, limit: usize) {
        let count = self.requests.len().min(limit);
        let admitted = self.broken.admit(self.requests.drain(..count));
        self.flight = Some(Flight::Going(admitted));
    }

    /// Whether a batch could reach the store.
    pub fn can_arrive(&self) -> bool {
        matches!(self.flight, Some(Flight::Going(_)))
    }

    /// The batch reaches the store.
    pub fn arrive(&mut self, store: &mut SharedStore, trace: bool) {
        match self.flight.take() {
            Some(Flight::Going(mut admitted)) => {
                self.late = None;
                let batch = take(&mut admitted.batch);
                let asked = trace.then(|| batch.clone());
                let committed = store.commit(batch);
                for (request, reply) in asked.iter().flatten().zip(&committed.replies) {
                    println!("    {request:?} => {reply:?}");
                }
                self.flight = Some(match store.sabotage {
                    Some(Sabotage::AnswerBeforeSync) => Flight::Back(admitted, committed),
                    _ => Flight::Unsafe(admitted, committed),
                });
            }
            other => self.flight = other,
        }
    }

    /// Whether a batch that the node gave up may still arrive.
    pub fn can_arrive_late(&self) -> bool {
        self.late.is_some() && !self.can_arrive()
    }

    /// It does, or is lost for ever.
    pub fn arrive_late(&mut self, store: Option<&mut SharedStore>) {
        if let (Some(batch), Some(store)) = (self.late.take(), store) {
            store.commit(batch);
        }
    }

    /// What was carried out is safe, and what was read of it.
    pub fn on_synced(&mut self) {
        for back in &mut self.pages {
            back.is_unsafe = false;
        }
        self.flight = match self.flight.take() {
            Some(Flight::Unsafe(admitted, committed)) => Some(Flight::Back(admitted, committed)),
            other => other,
        };
    }

    /// Whether an answer is on its way back.
    pub fn can_return(&self) -> bool {
        matches!(self.flight, Some(Flight::Back(..)))
    }

    /// It arrives.
    pub fn take_returned(&mut self) -> Option<Returned> {
        match self.flight.take() {
            Some(Flight::Back(admitted, committed)) => Some(Returned {
                replies: self.broken.settle(admitted, committed.replies),
                notices: committed.notices,
                changed: committed.changed,
            }),
            other => {
                self.flight = other;
                None
            }
        }
    }

    /// Whether the node waits for the store to write.
    pub fn is_waiting(&self) -> bool {
        self.flight.is_some() || !self.requests.is_empty()
    }

    /// The node has waited for long enough. `may_be_late`: what was sent and has not arrived still may. What it makes of its requests, if any are under way.
    pub fn give_up(&mut self, is_unsent: bool, may_be_late: bool) -> Option<Returned> {
        let unknown = StoreError::Unknown("no answer in time".into());
        let unsent = StoreError::Unavailable("not connected".into());
        let (admitted, count, error) = match self.flight.take() {
            None => {
                let admitted = self.broken.admit(self.requests.drain(..));
                let count = admitted.batch.len();
                (admitted, count, unsent)
            }
            Some(Flight::Going(admitted)) if is_unsent => {
                let count = admitted.batch.len();
                (admitted, count, unsent)
            }
            Some(Flight::Going(mut admitted)) => {
                let batch = take(&mut admitted.batch);
                let count = batch.len();
                self.late = may_be_late.then_some(batch);
                (admitted, count, unknown)
            }
            Some(Flight::Unsafe(admitted, committed) | Flight::Back(admitted, committed)) => {
                (admitted, committed.replies.len(), unknown)
            }
        };
        let replies = vec![Err(error); count];
        let replies = self.broken.settle(admitted, replies);
        (!replies.is_empty()).then_some(Returned {
            replies,
            notices: Vec::new(),
            changed: Vec::new(),
        })
    }

    /// The primary is lost: nobody will answer for what was not safe.
    pub fn on_failover(&mut self) -> Option<Returned> {
        for back in self.pages.iter_mut().filter(|back| back.is_unsafe) {
            back.page = Err(StoreError::Unavailable("the primary was lost".into()));
            back.is_unsafe = false;
        }
        match &self.flight {
            Some(Flight::Unsafe(..)) => self.give_up(false, false),
            _ => None,
        }
    }

    /// The node dies. What is in its kernel's hands may still arrive.
    pub fn crash(&mut self, may_be_late: bool) {
        if let Some(Flight::Going(batch)) = self.flight.take().filter(|_| may_be_late) {
            self.late = Some(batch.batch);
        }
        self.broken = Broken::default();
        self.requests.clear();
        self.queries.clear();
        self.pages.clear();
    }

    /// Reads that wait.
    pub fn reads(&self) -> usize {
        self.queries.len()
    }

    /// Places of the pages that can arrive.
    pub fn pages(&self) -> impl Iterator<Item = usize> {
        let pages = self.pages.iter().enumerate();
        pages.filter(|(_, back)| !back.is_unsafe).map(|(at, _)| at)
    }

    /// A read is carried out.
    pub fn carry_out_read(&mut self, at: usize, store: &SharedStore, trace: bool) {
        let (asker, query) = self.queries.remove(at);
        let (page, is_unsafe) = match self.cut.is_some() || store.is_down {
            true => (Err(StoreError::Unavailable("not connected".into())), false),
            false => store.read(&query),
        };
        if trace {
            println!("    {query:?} => {page:?}");
        }
        self.pages.push(ReadBack {
            asker,
            page,
            is_unsafe,
        });
    }

    /// What was read arrives.
    pub fn take_page(&mut self, at: usize) -> ReadBack {
        self.pages.remove(at)
    }
}

/// An answer of the store and who waits for it.
pub type Answer = (Asker, Result<Reply, StoreError>);
