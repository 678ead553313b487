//! Nodes that are gone: what they left is put in order by those that remain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    cluster::membership::Membership,
    ids::{Generation, Millis},
};

/// How long a node must be gone before its connections are: one that is only cut off from the ensemble comes back with another generation, and
/// takes them with it.
const GRACE_MS: u64 = 5000;
/// The same for a node that has come back already.
const BACK_GRACE_MS: u64 = 30_000;
/// Between a request that the store could not carry out and the next.
const RETRY_MS: u64 = 1000;

#[derive(Debug)]
struct Gone {
    since: Millis,
    next: Millis,
    asked: bool,
}

/// Generations that own connections in the store and are no member's.
#[derive(Debug, Default)]
pub struct Graveyard {
    gone: BTreeMap<Generation, Gone>,
    /// When the nodes started, by generation, as far as they were seen.
    seen: BTreeMap<Generation, (Arc<str>, u64)>,
}

impl Graveyard {
    /// Compares what the store says with who is there. `is_linked`: a node that answers is alive, whatever the ensemble says.
    pub fn note(
        &mut self,
        owners: &BTreeSet<Generation>,
        membership: &Membership,
        own: Generation,
        is_linked: impl Fn(Generation) -> bool,
        now: Millis,
    ) {
        for node in membership.nodes.values() {
            let run = (node.info.name.clone(), node.info.started_ms);
            self.seen.insert(node.generation, run);
        }
        let is_there = |generation: Generation| {
            let mut nodes = membership.nodes.values();
            generation == Generation::ALONE
                || generation == own
                || nodes.any(|node| node.generation == generation)
                || is_linked(generation)
        };
        self.gone
            .retain(|generation, _| owners.contains(generation) && !is_there(*generation));
        for &generation in owners.iter().filter(|owner| !is_there(**owner)) {
            self.gone.entry(generation).or_insert(Gone {
                since: now,
                next: now,
                asked: false,
            });
        }
        let gone = &self.gone;
        self.seen.retain(|generation, _| {
            gone.contains_key(generation)
                || membership
                    .nodes
                    .values()
                    .any(|node| node.generation == *generation)
        });
    }

    /// Generations whose turn it is to be voided now.
    pub fn due(&mut self, membership: &Membership, now: Millis) -> Vec<Generation> {
        let seen = &self.seen;
        let is_back = |generation: &Generation| {
            seen.get(generation).is_some_and(|(name, started_ms)| {
                let node = membership.nodes.get(name);
                node.is_some_and(|node| node.info.started_ms == *started_ms)
            })
        };
        let mut due = Vec::new();
        for (generation, gone) in &mut self.gone {
            let grace = match is_back(generation) {
                true => BACK_GRACE_MS,
                false => GRACE_MS,
            };
            if !gone.asked && now.since(gone.since) >= grace && gone.next <= now {
                gone.asked = true;
                due.push(*generation);
            }
        }
        due
    }

    /// The store has answered.
    pub fn on_voided(&mut self, generation: Generation, outcome: Result<bool, ()>, now: Millis) {
        let Some(gone) = self.gone.get_mut(&generation) else {
            return;
        };
        gone.asked = false;
        gone.next = match outcome {
            Ok(true) => now,
            // Whatever else it owns will be listed again.
            Ok(false) | Err(()) => Millis(now.0 + RETRY_MS),
        };
    }

    /// Whether anything is to be done.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty()
    }
}
