//! What must hold, whatever happens: what clients were promised, and what they got.
//!
//! The model sees only what clients and app servers see: what they sent, what was acknowledged, what arrived. Moments are *ticks*: each thing that an end sees
//! is one.

mod messages;
mod pushes;
mod sessions;
mod wills;

pub use messages::{Arrival, Fate, Message};
pub use pushes::{Audience, Push, PushFate};
pub use sessions::{Group, Session, Subscription};
pub use wills::Will;

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
    /// Shared subscriptions.
    pub groups: Vec<Group>,
    /// Inboxes are so small that they drop what is in them.
    pub inboxes_drop: bool,
    /// Counts crashes and failed commits: what may be repeated was repeated for one of them.
    pub disturbances: u64,
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

    /// Everything is owed now: all faults are over, everybody is connected, nothing moves.
    pub fn check_all_arrived(&self, now: Millis, still_up: &[bool]) -> Held {
        self.check_messages(now, still_up)?;
        self.check_groups(now)?;
        self.check_wills(now)?;
        self.check_pushes(now)
    }
}
