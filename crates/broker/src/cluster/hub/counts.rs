//! How many connected devices of all nodes a push would be for: each shard counts its own.

use super::{Hub, PEER_WAIT_MS};
use crate::{
    cluster::peer::{Answer, Imagined, LiveCount, PeerMessage, Question},
    ids::{Generation, Millis},
    mail::{ClusterMail, Mail},
};

/// A count under way.
#[derive(Debug)]
pub(super) struct Counting {
    asker: Asker,
    shards_left: u8,
    peers_left: Vec<Generation>,
    silent: Vec<Generation>,
    deadline: Millis,
    live: LiveCount,
}

#[derive(Clone, Copy, Debug)]
enum Asker {
    /// This node, under its ticket.
    Own(u64),
    /// A peer, under its ticket.
    Peer(Generation, u64),
}

/// What became of [`Hub::count`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Of the question.
    pub ticket: u64,
    /// The devices of the nodes that answered.
    pub live: LiveCount,
    /// Linked nodes that did not answer in time.
    pub silent: Vec<Generation>,
}

impl<H> Hub<H> {
    /// Asks how many connected devices a push would be for now. Answered in [`Effects::counted`](super::Effects::counted).
    pub fn count(&mut self, ticket: u64, imagined: &Imagined, now: Millis) {
        self.begin(now);
        let peers = self.peers.linked();
        let own = self.begin_count(Asker::Own(ticket), imagined, peers.clone());
        for peer in peers {
            let message = PeerMessage::Ask {
                ticket: own,
                question: Question::HowMany(imagined.clone()),
            };
            self.effects.peers.push((peer, message));
        }
    }

    /// A peer asks for those of this node.
    pub(super) fn count_for_peer(&mut self, peer: Generation, ticket: u64, imagined: &Imagined) {
        self.begin_count(Asker::Peer(peer, ticket), imagined, Vec::new());
    }

    fn begin_count(
        &mut self,
        asker: Asker,
        imagined: &Imagined,
        peers_left: Vec<Generation>,
    ) -> u64 {
        let own = self.waits.ticket();
        let counting = Counting {
            asker,
            shards_left: self.shards,
            peers_left,
            silent: Vec::new(),
            deadline: Millis(self.now.0 + PEER_WAIT_MS),
            live: LiveCount::default(),
        };
        self.counts.insert(own, counting);
        self.mail_all(Mail::Cluster(ClusterMail::HowMany {
            imagined: imagined.clone(),
            ticket: own,
        }));
        own
    }

    /// A shard has counted its own.
    pub(super) fn on_shard_counted(&mut self, ticket: u64, live: LiveCount) {
        if let Some(counting) = self.counts.get_mut(&ticket) {
            counting.shards_left = counting.shards_left.saturating_sub(1);
            counting.live += live;
            self.end_count(ticket);
        }
    }

    /// A peer has counted its own, or (`None`) is gone.
    pub(super) fn on_peer_counted(
        &mut self,
        ticket: u64,
        peer: Generation,
        live: Option<LiveCount>,
    ) {
        let Some(counting) = self.counts.get_mut(&ticket) else {
            return;
        };
        if !counting.peers_left.contains(&peer) {
            return;
        }
        counting.peers_left.retain(|left| *left != peer);
        match live {
            Some(live) => counting.live += live,
            None => counting.silent.push(peer),
        }
        self.end_count(ticket);
    }

    pub(super) fn peer_counts_no_more(&mut self, peer: Generation) {
        for ticket in self.counts.keys().copied().collect::<Vec<_>>() {
            self.on_peer_counted(ticket, peer, None);
        }
    }

    /// Whoever has not answered by now is silent.
    pub(super) fn end_late_counts(&mut self) {
        let late = self.counts.iter_mut().filter_map(|(ticket, counting)| {
            let is_late = counting.deadline <= self.now;
            is_late.then(|| {
                counting.silent.append(&mut counting.peers_left);
                counting.shards_left = 0;
                *ticket
            })
        });
        for ticket in late.collect::<Vec<_>>() {
            self.end_count(ticket);
        }
    }

    pub(super) fn next_late_count(&self) -> Option<Millis> {
        self.counts.values().map(|counting| counting.deadline).min()
    }

    fn end_count(&mut self, ticket: u64) {
        let is_over =
            |counting: &Counting| counting.shards_left == 0 && counting.peers_left.is_empty();
        if !self.counts.get(&ticket).is_some_and(is_over) {
            return;
        }
        let Some(counting) = self.counts.remove(&ticket) else {
            return;
        };
        match counting.asker {
            Asker::Own(ticket) => self.effects.counted.push(Counted {
                ticket,
                live: counting.live,
                silent: counting.silent,
            }),
            Asker::Peer(peer, ticket) => {
                let answer = Answer::ThisMany(counting.live);
                let message = PeerMessage::Answer { ticket, answer };
                self.effects.peers.push((peer, message));
            }
        }
    }
}
