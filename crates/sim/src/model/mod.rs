//! What must hold, whatever happens: what clients were promised, and what they got.
//!
//! The model sees only what clients and app servers see: what they sent, what was acknowledged, what arrived. Moments are *ticks*: each thing that an end sees
//! is one.

mod campaigns;
mod messages;
mod pushes;
mod sessions;
mod wills;

pub use campaigns::{Campaign, Registered, Sending, Standing};
pub use messages::{Arrival, Fate, Message};
pub use pushes::{Audience, Push, PushFate};
pub use sessions::{Group, Session, Subscription};
pub use wills::Will;

use std::collections::BTreeMap;

use campanile_broker::ids::Millis;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// Whether all held.
pub type Held = Result<(), Violation>;

/// Counts what ends see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Model {
    /// Now.
    pub tick: Tick,
    /// Every message that a client published, or gave as a will.
    pub messages: Vec<Message>,
    /// Every session.
    pub sessions: Vec<Session>,
    /// Every will.
    pub wills: Vec<Will>,
    /// Every push.
    pub pushes: Vec<Push>,
    /// Registered devices, by client.
    pub registered: BTreeMap<usize, Registered>,
    /// Shared subscriptions.
    pub groups: Vec<Group>,
    /// Inboxes are so small that they drop what is in them.
    pub inboxes_drop: bool,
    /// Counts crashes and failed commits: what may be repeated was repeated for one of them.
    pub disturbances: u64,
    /// Several nodes serve the clients.
    pub many_nodes: bool,
    /// What several nodes suffered.
    pub faults: Faults,
    /// The disturbances before each client's first connection, and when that was.
    pub known_eras: BTreeMap<usize, (u64, Millis)>,
    /// How often each client has connected to one of several nodes.
    pub connections: BTreeMap<usize, u64>,
}

/// What several nodes suffered, as far as less is owed for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Nodes could not talk to each other, or were gone: what is not kept is lost.
    pub links: bool,
}

impl Model {
    /// Something is seen.
    pub fn next_tick(&mut self) -> Tick {
        self.tick.0 += 1;
        self.tick
    }

    /// The node died, or the store refused to write.
    pub fn disturb(&mut self) {
        self.disturbances += 1;
    }

    /// A client connects to one of several nodes: what it sent through another may still be under way.
    pub fn next_connection(&mut self, client: usize) {
        *self.connections.entry(client).or_default() += 1;
    }

    /// The store lost what was not safe: whatever was not accepted may have been seen, and comes again.
    pub fn on_failover(&mut self) {
        for message in self.messages.iter_mut().filter(|m| m.fate.is_none()) {
            message.was_undone = true;
        }
        for push in self.pushes.iter_mut().filter(|push| push.fate.is_none()) {
            push.was_undone = true;
        }
    }

    /// Everything is owed now: all faults are over, everybody is connected, nothing moves.
    pub fn check_all_arrived(&self, now: Millis, still_up: &[bool]) -> Held {
        self.check_messages(now, still_up)?;
        self.check_groups(now, still_up)?;
        self.check_wills(now)?;
        self.check_pushes(now)
    }
}
