//! A model ensemble: who is registered, until when, and what each node makes of it.

use std::{collections::BTreeMap, sync::Arc};

use campanile_broker::{
    cluster::{
        belief::Belief,
        membership::{Drain, Membership, NodeInfo, Registered},
        peer::Load,
    },
    ids::{Generation, Millis},
};

use super::Cut;

/// How long the ensemble waits for a sign of a node's life.
pub const SESSION_MS: u64 = 4000;
/// How long a loss of most other nodes is doubted.
pub const CONFIRMATION_MS: u64 = 10_000;

#[derive(Debug)]
struct Session {
    heard: Millis,
    node: Registered,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ensemble {
    /// No server of it answers. Sessions do not end meanwhile.
    pub is_down: bool,
    last_generation: u64,
    sessions: BTreeMap<Arc<str>, Session>,
    drains: BTreeMap<Arc<str>, Drain>,
}

impl Ensemble {
    /// Registers a run of a node in the place of any other of that name.
    pub fn register(&mut self, name: &Arc<str>, started: Millis, now: Millis) -> Generation {
        self.last_generation += 1;
        let generation = Generation(self.last_generation);
        let info = NodeInfo {
            name: name.clone(),
            peer_address: ([127, 0, 0, 1], 1).into(),
            addresses: Vec::new(),
            http_address: "".into(),
            version: "".into(),
            started_ms: started.0,
            load: Load::default(),
            draining: false,
        };
        let node = Registered { generation, info };
        self.sessions
            .insert(name.clone(), Session { heard: now, node });
        generation
    }

    /// A sign of life. `false`: that run is not registered any more.
    pub fn hear(&mut self, name: &Arc<str>, generation: Generation, now: Millis) -> bool {
        match self.sessions.get_mut(name) {
            Some(session) if session.node.generation == generation => {
                session.heard = now;
                true
            }
            _ => false,
        }
    }

    /// A run of a node says goodbye.
    pub fn forget(&mut self, name: &Arc<str>, generation: Generation) {
        self.sessions
            .retain(|known, session| known != name || session.node.generation != generation);
    }

    /// Time passes: who was not heard is gone. After an outage everybody has the whole time anew.
    pub fn on_time(&mut self, now: Millis) {
        if self.is_down {
            for session in self.sessions.values_mut() {
                session.heard = now;
            }
        }
        self.sessions
            .retain(|_, session| now.since(session.heard) < SESSION_MS);
    }

    /// All that are registered.
    pub fn list(&self) -> BTreeMap<Arc<str>, Registered> {
        let sessions = self.sessions.iter();
        sessions
            .map(|(name, session)| (name.clone(), session.node.clone()))
            .collect()
    }

    /// Orders that a node moves its devices away, or takes the order back.
    pub fn order_drain(&mut self, name: &Arc<str>, drain: Option<Drain>) {
        match drain {
            Some(drain) => self.drains.insert(name.clone(), drain),
            None => self.drains.remove(name),
        };
    }
}

/// What a node makes of the ensemble.
#[derive(Debug)]
pub struct Agent {
    name: Arc<str>,
    started: Millis,
    belief: Belief,
    own: Option<Generation>,
    last: Arc<Membership>,
}

impl Agent {
    /// Of a node that has just registered.
    pub fn new(name: Arc<str>, own: Generation, started: Millis) -> Agent {
        Agent {
            name,
            started,
            belief: Belief::new(CONFIRMATION_MS),
            own: Some(own),
            last: Arc::default(),
        }
    }

    /// Keeps the registration alive and reads who else is there. What the node agrees to from now on, if that is something else than before.
    pub fn look(
        &mut self,
        ensemble: &mut Ensemble,
        cut: Option<Cut>,
        is_link_down: impl Fn(Generation) -> bool,
        now: Millis,
    ) -> Option<Arc<Membership>> {
        let reachable = cut.is_none() && !ensemble.is_down;
        if let (Some(Cut::In), Some(own), false) = (cut, self.own, ensemble.is_down) {
            // It is heard, and does not know it.
            ensemble.hear(&self.name, own, now);
        }
        let mut next = Membership::clone(&self.last);
        next.reachable = reachable;
        if reachable {
            match self.own {
                Some(own) if !ensemble.hear(&self.name, own, now) => self.own = None,
                Some(_) => {}
                None => self.own = Some(ensemble.register(&self.name, self.started, now)),
            }
            let read = ensemble.list();
            self.belief.on_read(&self.name, &read, is_link_down, now);
            next.own = self.own;
            next.nodes = self.belief.nodes().clone();
            next.doubted = self.belief.doubted();
            let oldest = read.values().min_by_key(|node| node.generation);
            next.leader = oldest.map(|node| node.info.name.clone());
            next.drains = ensemble.drains.clone();
        } else {
            self.belief.on_outage();
        }
        if next == *self.last {
            return None;
        }
        self.last = Arc::new(next);
        Some(self.last.clone())
    }

    /// What the node agrees to.
    pub fn membership(&self) -> &Membership {
        &self.last
    }
}
