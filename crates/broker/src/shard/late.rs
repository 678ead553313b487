//! QoS 2 messages that live subscribers get once they are kept: each publisher's in the order in which they came.
//!
//! Their answers need not come in that order: in a cluster that of a retained message is held back until all nodes know of it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{Shard, groups::Chosen, routing::Incoming};
use crate::{effects::Ticket, message::Message};

/// A message that live subscribers get once it is kept.
pub(super) struct Late {
    pub app: u16,
    pub message: Arc<Message>,
    pub chosen: Vec<Chosen>,
}

type Publisher = (u16, Arc<str>);

/// One in its publisher's queue.
enum Turn {
    Waits(Ticket, Late),
    /// It is kept, and those before it are not yet.
    Kept(Late),
    /// It was refused.
    Refused,
}

/// The messages that wait, by publisher. Bounded by the requests that may wait for the store.
#[derive(Default)]
pub(super) struct LateMessages {
    waiting: BTreeMap<Publisher, VecDeque<Turn>>,
    publishers: BTreeMap<Ticket, Publisher>,
}

impl LateMessages {
    /// Whether something of a client waits.
    pub fn has(&self, app: u16, publisher: &Arc<str>) -> bool {
        !self.waiting.is_empty() && self.waiting.contains_key(&(app, publisher.clone()))
    }

    /// Takes a message of a client that the store was asked to keep.
    pub fn wait(&mut self, ticket: Ticket, late: Late) {
        let publisher = late.message.publisher.clone().unwrap_or_default();
        let publisher = (late.app, publisher);
        self.publishers.insert(ticket, publisher.clone());
        let queue = self.waiting.entry(publisher).or_default();
        queue.push_back(Turn::Waits(ticket, late));
    }

    /// The store has answered. Whose turn it is now.
    pub fn settle(&mut self, ticket: Ticket, is_kept: bool) -> Vec<Late> {
        let mut due = Vec::new();
        let Some(publisher) = self.publishers.remove(&ticket) else {
            return due;
        };
        let queue = self.waiting.get_mut(&publisher).expect("it waits there");
        for turn in queue.iter_mut() {
            if !matches!(turn, Turn::Waits(waiting, _) if *waiting == ticket) {
                continue;
            }
            if let (Turn::Waits(_, late), true) = (std::mem::replace(turn, Turn::Refused), is_kept)
            {
                *turn = Turn::Kept(late);
            }
            break;
        }
        while let Some(turn) = queue.pop_front() {
            match turn {
                Turn::Kept(late) => due.push(late),
                Turn::Refused => {}
                Turn::Waits(..) => {
                    queue.push_front(turn);
                    break;
                }
            }
        }
        if queue.is_empty() {
            self.waiting.remove(&publisher);
        }
        due
    }
}

impl Shard {
    /// Live subscribers get a message that is kept now.
    pub(super) fn route_late(&mut self, late: &Late) {
        let mut incoming = Incoming::of(&late.message);
        self.route_live(late.app, &mut incoming, &late.chosen);
    }
}
