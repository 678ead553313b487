//! Answers that wait for others: shards, peers, or the end of a time.

use std::collections::BTreeMap;

use crate::ids::{AppId, Generation, Millis, Offset, ShardId};

/// What follows when everybody has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// A shard gets [`Mail::InterestKnown`](crate::mail::Mail::InterestKnown).
    InterestKnown(ShardId, u64),
    /// A peer gets [`PeerMessage::InterestKnown`](super::PeerMessage::InterestKnown).
    PeerInterestKnown(Generation, u64),
    /// A shard may take up a client that was connected elsewhere.
    Released(ShardId, u64),
    /// All shards route by the changes of an app up to a place.
    Synced(AppId, Offset),
}

#[derive(Debug)]
struct Wait {
    shards: u32,
    peers: Vec<Generation>,
    deadline: Option<Millis>,
    then: Then,
}

/// Answers that wait, by ticket.
#[derive(Debug, Default)]
pub struct Waits {
    waiting: BTreeMap<u64, Wait>,
    last_ticket: u64,
}

impl Waits {
    /// How many.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A ticket that was never used.
    pub fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Waits under a ticket for a number of shards and for peers, until a deadline. With nobody to wait for, what follows is returned at once.
    pub fn begin(
        &mut self,
        ticket: u64,
        shards: u32,
        peers: Vec<Generation>,
        deadline: Option<Millis>,
        then: Then,
    ) -> Option<Then> {
        if shards == 0 && peers.is_empty() {
            return Some(then);
        }
        self.waiting.insert(
            ticket,
            Wait {
                shards,
                peers,
                deadline,
                then,
            },
        );
        None
    }

    /// A shard has answered.
    pub fn on_shard(&mut self, ticket: u64) -> Option<Then> {
        let wait = self.waiting.get_mut(&ticket)?;
        wait.shards = wait.shards.saturating_sub(1);
        self.settle(ticket)
    }

    /// A peer has answered.
    pub fn on_peer(&mut self, ticket: u64, peer: Generation) -> Option<Then> {
        self.waiting
            .get_mut(&ticket)?
            .peers
            .retain(|known| *known != peer);
        self.settle(ticket)
    }

    /// A peer will not answer.
    pub fn on_peer_gone(&mut self, peer: Generation) -> Vec<Then> {
        let tickets: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, wait)| wait.peers.contains(&peer))
            .map(|(ticket, _)| *ticket)
            .collect();
        tickets
            .into_iter()
            .filter_map(|ticket| self.on_peer(ticket, peer))
            .collect()
    }

    /// What has waited for long enough.
    pub fn on_time(&mut self, now: Millis) -> Vec<Then> {
        let is_over = |wait: &Wait| wait.deadline.is_some_and(|deadline| deadline <= now);
        let over: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, wait)| is_over(wait))
            .map(|(ticket, _)| *ticket)
            .collect();
        over.into_iter()
            .filter_map(|ticket| self.waiting.remove(&ticket))
            .map(|wait| wait.then)
            .collect()
    }

    /// When the next one has waited for long enough.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.waiting.values().filter_map(|wait| wait.deadline).min()
    }

    fn settle(&mut self, ticket: u64) -> Option<Then> {
        let wait = self.waiting.get(&ticket)?;
        if wait.shards > 0 || !wait.peers.is_empty() {
            return None;
        }
        self.waiting.remove(&ticket).map(|wait| wait.then)
    }
}
