//! Links between nodes: each direction is messages that were sent and have not arrived.

use std::collections::{BTreeMap, VecDeque};

use campanile_broker::{cluster::peer::PeerMessage, ids::Generation};

use super::Cut;

/// What a node learns of a link, in order.
#[derive(Debug)]
pub enum LinkEvent {
    /// It is up.
    Up(Generation),
    /// The other end says something.
    Message(Generation, PeerMessage),
    /// It is lost.
    Down(Generation),
}

/// The links of two nodes, by place, of which the first is the smaller.
#[derive(Debug)]
struct Link {
    /// Under which generations it was made.
    generations: [Generation; 2],
    /// From the first to the second and back.
    ways: [VecDeque<PeerMessage>; 2],
}

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    links: BTreeMap<(usize, usize), Link>,
    /// What does not get through between pairs, seen from the first.
    cut: BTreeMap<(usize, usize), Cut>,
    /// What each node has not learned.
    events: BTreeMap<usize, VecDeque<LinkEvent>>,
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl Links {
    /// Whether two nodes are linked under their generations.
    pub fn is_up(&self, one: usize, other: usize) -> bool {
        self.links.contains_key(&pair(one, other))
    }

    /// The generations that a link was made under: of `one`, of `other`.
    pub fn generations(&self, one: usize, other: usize) -> Option<(Generation, Generation)> {
        let [first, second] = self.links.get(&pair(one, other))?.generations;
        Some(match one < other {
            true => (first, second),
            false => (second, first),
        })
    }

    /// Whether something keeps two nodes apart.
    pub fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.contains_key(&pair(one, other))
    }

    /// Keeps two nodes apart, seen from `one`, or does not any more.
    pub fn set_cut(&mut self, one: usize, other: usize, cut: Option<Cut>) {
        match cut {
            Some(cut) if one < other => self.cut.insert((one, other), cut),
            Some(cut) => self.cut.insert((other, one), cut.turned()),
            None => self.cut.remove(&pair(one, other)),
        };
    }

    /// A link comes up.
    pub fn connect(&mut self, one: (usize, Generation), other: (usize, Generation)) {
        let (first, second) = match one.0 < other.0 {
            true => (one, other),
            false => (other, one),
        };
        self.links.insert(
            (first.0, second.0),
            Link {
                generations: [first.1, second.1],
                ways: Default::default(),
            },
        );
        self.learn(first.0, LinkEvent::Up(second.1));
        self.learn(second.0, LinkEvent::Up(first.1));
    }

    /// A link breaks; what is under way is lost.
    pub fn disconnect(&mut self, one: usize, other: usize) {
        let (first, second) = pair(one, other);
        if let Some(link) = self.links.remove(&(first, second)) {
            self.learn(first, LinkEvent::Down(link.generations[1]));
            self.learn(second, LinkEvent::Down(link.generations[0]));
        }
    }

    fn learn(&mut self, node: usize, event: LinkEvent) {
        self.events.entry(node).or_default().push_back(event);
    }

    /// A node dies.
    pub fn crash(&mut self, node: usize) {
        let pairs: Vec<(usize, usize)> = self
            .links
            .keys()
            .filter(|(one, other)| *one == node || *other == node)
            .copied()
            .collect();
        for (one, other) in pairs {
            self.disconnect(one, other);
        }
        self.events.remove(&node);
    }

    /// A node says something to a peer that it knows by its generation; lost if there is no such link.
    pub fn send(&mut self, from: usize, to: Generation, message: PeerMessage) {
        for (&(first, second), link) in &mut self.links {
            let way = match (first == from, second == from) {
                (true, _) if link.generations[1] == to => 0,
                (_, true) if link.generations[0] == to => 1,
                _ => continue,
            };
            link.ways[way].push_back(message);
            return;
        }
    }

    /// Ways on which something is under way: from, to.
    pub fn under_way(&self) -> Vec<(usize, usize)> {
        let mut ways = Vec::new();
        for (&(first, second), link) in &self.links {
            let cut = self.cut.get(&(first, second)).copied();
            if Cut::lets_out(cut) && !link.ways[0].is_empty() {
                ways.push((first, second));
            }
            if Cut::lets_in(cut) && !link.ways[1].is_empty() {
                ways.push((second, first));
            }
        }
        ways
    }

    /// The first message of a way arrives.
    pub fn carry(&mut self, from: usize, to: usize) {
        let Some(link) = self.links.get_mut(&pair(from, to)) else {
            return;
        };
        let way = usize::from(from > to);
        let sender = link.generations[way];
        if let Some(message) = link.ways[way].pop_front() {
            self.learn(to, LinkEvent::Message(sender, message));
        }
    }

    /// Whether a node has something to learn.
    pub fn has_event(&self, node: usize) -> bool {
        self.events
            .get(&node)
            .is_some_and(|events| !events.is_empty())
    }

    /// What a node learns next.
    pub fn take_event(&mut self, node: usize) -> Option<LinkEvent> {
        self.events.get_mut(&node)?.pop_front()
    }
}
