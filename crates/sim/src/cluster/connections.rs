//! Connections of clients to any of the nodes.

use super::World;
use crate::{
    model::{Held, Violation},
    world::is_welcome,
};

/// A connection whose client is gone without the node knowing.
#[derive(Debug)]
pub struct Orphan {
    pub node: usize,
    pub wire: usize,
    pub client: usize,
    pub welcomed: bool,
    pub will: Option<usize>,
}

impl World {
    /// Some bytes of one direction of one connection arrive.
    pub(super) fn move_network(&mut self) -> Held {
        let mut ways = Vec::new();
        for (at, client) in self.ends.clients.iter().enumerate() {
            let Some(link) = &client.link else { continue };
            if !link.to_node.is_empty() && !link.node_closed {
                ways.push((at, true));
            }
            if !link.to_client.is_empty() && !link.slow {
                ways.push((at, false));
            }
        }
        if ways.is_empty() {
            return Ok(());
        }
        let &(at, to_node) = self.ends.rng.pick(&ways);
        let link = self.ends.clients[at].link.as_ref().expect("just seen");
        let waiting = if to_node {
            link.to_node.len()
        } else {
            link.to_client.len()
        };
        let len = if self.ends.rng.chance(700) {
            waiting
        } else {
            self.ends.rng.range(1, waiting as u64) as usize
        };
        self.carry(at, to_node, len)
    }

    /// So many bytes of one direction arrive.
    pub(super) fn carry(&mut self, at: usize, to_node: bool, len: usize) -> Held {
        let link = self.ends.clients[at]
            .link
            .as_mut()
            .expect("the caller looked");
        let bytes: Vec<u8> = if to_node {
            link.to_node.drain(..len).collect()
        } else {
            link.to_client.drain(..len).collect()
        };
        self.ends.trace.mix(at as u64);
        self.ends.trace.mix_bytes(&bytes);
        let (node, wire) = (link.node, link.wire);
        if to_node {
            self.ends
                .trace
                .note(|| format!("{} c{at} -> n{node}: {len} bytes", self.ends.steps));
            if let Some(member) = self.fleet.member(node) {
                member.shards.send(wire, &bytes);
            }
            return Ok(());
        }
        let unblocks = link.blocked && link.to_client.is_empty() && !link.node_closed;
        link.blocked &= !unblocks;
        self.ends
            .trace
            .note(|| format!("{} n{node} -> c{at}: {len} bytes", self.ends.steps));
        if unblocks {
            self.fleet.set_blocked(node, wire, false);
        }
        let is_first = !self.ends.clients[at].machine.is_connected();
        if is_first {
            self.look_for_late_claims(at);
        }
        let client = &mut self.ends.clients[at];
        client.machine.handle_bytes(&bytes, self.ends.now.0);
        if is_first && client.machine.is_connected() {
            client.claims.1 = Some(client.claims.0);
        }
        self.ends.take_events(at)?;
        self.observe(None)
    }

    /// A CONNECT that a client has given up may be carried out much later, by a node that stood still. Then the session that it finds is that one's.
    fn look_for_late_claims(&mut self, at: usize) {
        let client = &mut self.ends.clients[at];
        let (own, before) = match client.claims.1 {
            Some(before) => (2, before),
            None => (1, 0),
        };
        client.doubtful |= self.fleet.claims(&client.plan.name) - before > own;
    }

    /// A CONNECT that a client has given up may have taken the session from its connection, for nobody: what was not saved comes again.
    fn look_for_lost_hand_overs(&mut self, at: usize) {
        let client = &self.ends.clients[at];
        if self.fleet.claims(&client.plan.name) > client.claims.0 + 1 {
            self.ends.model.disturb();
        }
    }

    /// Takes what the nodes wrote, and sees which connections they have closed. `by_input`: whose bytes one has just looked at.
    pub(super) fn observe(&mut self, by_input: Option<(usize, usize)>) -> Held {
        for at in 0..self.ends.clients.len() {
            self.doubt_wills_of_late_claims(at);
            self.observe_client(at, by_input)?;
        }
        self.observe_orphans()?;
        self.drop_ended();
        Ok(())
    }

    /// A CONNECT that a client has given up ends the connections that it has made since.
    fn doubt_wills_of_late_claims(&mut self, at: usize) {
        let client = &self.ends.clients[at];
        if self.fleet.claims(&client.plan.name) <= client.claims.0 + 1 {
            return;
        }
        let orphans = self.orphans.iter().filter(|orphan| orphan.client == at);
        let wills = orphans.filter_map(|orphan| orphan.will);
        let own = client.link.as_ref().and_then(|link| link.will);
        let is_news = |will: &usize| {
            let will = &self.ends.model.wills[*will];
            will.lost.is_none() || !will.unsure
        };
        for will in wills.chain(own).filter(is_news).collect::<Vec<_>>() {
            self.ends.model.will_loses(will, self.ends.now);
            self.ends.model.wills[will].unsure = true;
        }
    }

    fn observe_client(&mut self, at: usize, by_input: Option<(usize, usize)>) -> Held {
        let client = &mut self.ends.clients[at];
        let expired = client.may_have_expired(self.ends.now);
        let Some(link) = client.link.as_mut().filter(|link| !link.node_closed) else {
            return Ok(());
        };
        let (node, wire) = (link.node, link.wire);
        let Some(member) = self.fleet.member(node) else {
            return Ok(());
        };
        let output = member.shards.take_output(wire);
        let is_closed = member.shards.is_closed(wire);
        let says_welcome = !link.welcomed && is_welcome(&output, client.plan.version);
        if says_welcome {
            self.look_for_lost_hand_overs(at);
        }
        let client = &mut self.ends.clients[at];
        let link = client.link.as_mut().expect("just seen");
        link.to_client.extend_from_slice(&output);
        if link.slow && link.to_client.len() > 100 && !link.blocked {
            link.blocked = true;
            self.fleet.set_blocked(node, wire, true);
        }
        if !output.is_empty() {
            self.ends.on_written(at, &output)?;
        }
        let client = &mut self.ends.clients[at];
        let link = client.link.as_mut().expect("just seen");
        if says_welcome {
            link.welcomed = true;
            link.era = self.ends.model.disturbances;
            client.doubtful |= expired;
        }
        if is_closed {
            link.node_closed = true;
            // Only a node that has just read something can have read the DISCONNECT; and one whose client was claimed elsewhere may have closed before.
            if link.goodbye && (by_input != Some((node, wire)) || self.ends.was_full) {
                self.ends.doubt_goodbye(at);
            }
            self.ends.on_lost(at);
            self.ends.trace.note(|| format!("  n{node} closes c{at}"));
        }
        match says_welcome {
            true => self.check_one_owner(at, node, wire),
            false => Ok(()),
        }
    }

    fn observe_orphans(&mut self) -> Held {
        let mut closed = Vec::new();
        let mut welcomed = Vec::new();
        for orphan in &mut self.orphans {
            let Some(member) = self.fleet.member(orphan.node) else {
                continue;
            };
            let output = member.shards.take_output(orphan.wire);
            let version = self.ends.clients[orphan.client].plan.version;
            if !orphan.welcomed && is_welcome(&output, version) {
                orphan.welcomed = true;
                welcomed.push((orphan.client, orphan.node, orphan.wire));
            }
            if member.shards.is_closed(orphan.wire) {
                member.shards.forget(orphan.wire);
                closed.push((orphan.node, orphan.wire, orphan.will));
            }
        }
        self.orphans.retain(|orphan| {
            closed
                .iter()
                .all(|(node, wire, _)| (*node, *wire) != (orphan.node, orphan.wire))
        });
        for (_, _, will) in closed {
            if let Some(will) = will {
                self.ends.model.will_loses(will, self.ends.now);
            }
        }
        for (client, node, wire) in welcomed {
            self.check_one_owner(client, node, wire)?;
        }
        Ok(())
    }

    /// A client has just been welcomed on a wire: no other of its wires at this node may be open. One at another node may be for a while.
    fn check_one_owner(&self, at: usize, node: usize, wire: usize) -> Held {
        let Some(member) = self.fleet.look_at(node) else {
            return Ok(());
        };
        let link = self.ends.clients[at].link.iter();
        let link = link.filter(|link| link.welcomed && !link.node_closed);
        let orphans = self.orphans.iter();
        let orphans = orphans.filter(|orphan| orphan.client == at && orphan.welcomed);
        let mut wires = link
            .map(|link| (link.node, link.wire))
            .chain(orphans.map(|orphan| (orphan.node, orphan.wire)))
            .filter(|&(of, other)| of == node && other != wire);
        match wires.any(|(_, other)| !member.shards.is_closed(other)) {
            false => Ok(()),
            true => Err(Violation(format!(
                "client {at} has two connections to node {node}"
            ))),
        }
    }

    /// Connections that are over at both ends, or that the client has ended.
    fn drop_ended(&mut self) {
        for at in 0..self.ends.clients.len() {
            let client = &self.ends.clients[at];
            let Some(link) = &client.link else { continue };
            if link.node_closed {
                if link.to_client.is_empty() || client.machine.is_closing() {
                    self.drop_link(at);
                }
                continue;
            }
            let (node, wire) = (link.node, link.wire);
            let Some(member) = self.fleet.look_at(node) else {
                continue;
            };
            let is_heard = link.to_node.is_empty() && !member.shards.has_input(wire);
            if client.machine.is_closing() && is_heard {
                if link.goodbye {
                    self.ends.doubt_goodbye(at);
                }
                self.fleet.cut(node, wire);
                self.ends.on_lost(at);
                self.drop_link(at);
            }
        }
    }

    /// The connection breaks; what is under way is lost, in one direction or both.
    pub(super) fn cut(&mut self, at: usize) -> Held {
        let Some(link) = &self.ends.clients[at].link else {
            return Ok(());
        };
        let (node, wire) = (link.node, link.wire);
        if self.fleet.is_paused(node) {
            return self.vanish(at);
        }
        let (node_closed, goodbye) = (link.node_closed, link.goodbye);
        self.ends
            .trace
            .note(|| format!("{} c{at}: cut", self.ends.steps));
        if !node_closed {
            if goodbye {
                self.ends.doubt_goodbye(at);
            }
            self.fleet.cut(node, wire);
            self.ends.on_lost(at);
        }
        self.drop_link(at);
        self.observe(None)
    }

    /// The client is gone; the node does not know.
    pub(super) fn vanish(&mut self, at: usize) -> Held {
        let Some(link) = &self.ends.clients[at].link else {
            return Ok(());
        };
        if link.node_closed || self.fleet.look_at(link.node).is_none() {
            return Ok(());
        }
        self.ends
            .trace
            .note(|| format!("{} c{at}: vanishes", self.ends.steps));
        let orphan = Orphan {
            node: link.node,
            wire: link.wire,
            client: at,
            welcomed: link.welcomed,
            will: link.will,
        };
        let welcomed = link.welcomed;
        if link.goodbye {
            self.ends.doubt_goodbye(at);
        }
        self.orphans.push(orphan);
        if welcomed {
            self.ends.clients[at].last_up = self.ends.now;
        }
        self.ends.end_fleeting_session(at);
        let link = self.ends.clients[at].link.as_mut().expect("just seen");
        link.node_closed = true;
        link.wire = usize::MAX;
        self.drop_link(at);
        Ok(())
    }

    /// The client learns that its connection is over.
    fn drop_link(&mut self, at: usize) {
        if let Some(link) = self.ends.drop_link(at)
            && link.wire != usize::MAX
            && let Some(member) = self.fleet.member(link.node)
        {
            member.shards.forget(link.wire);
        }
    }

    /// A new connection to any node: CONNECT.
    pub(super) fn open(&mut self, at: usize, clean: bool) -> Held {
        let Some(node) = self.choose_node() else {
            return Ok(());
        };
        let shard = self.ends.rng.below(u64::from(self.plan.fleet.shards)) as u8;
        let wire = self.fleet.connect(node, shard);
        self.ends.model.next_connection(at);
        // The claim ends what is still open.
        for orphan in self.orphans.iter().filter(|orphan| orphan.client == at) {
            if let Some(will) = orphan.will {
                self.ends.model.will_loses(will, self.ends.now);
            }
        }
        self.look_for_lost_hand_overs(at);
        let client = &mut self.ends.clients[at];
        client.claims.0 = self.fleet.claims(&client.plan.name);
        self.ends.connect(at, node, wire, clean)?;
        if self.is_shaky(node) {
            self.doubt_wills_of(node);
        }
        Ok(())
    }

    /// A node is gone, with its connections.
    pub(super) fn node_is_gone(&mut self, node: usize) {
        for at in 0..self.ends.clients.len() {
            let Some(link) = &mut self.ends.clients[at].link else {
                continue;
            };
            if link.node != node {
                continue;
            }
            link.wire = usize::MAX;
            // What the kernel has taken may still arrive.
            if self.ends.rng.chance(500) {
                link.to_client.clear();
            }
            if !link.node_closed {
                link.node_closed = true;
                if link.goodbye {
                    self.ends.doubt_goodbye(at);
                }
                self.ends.on_lost(at);
            }
        }
        for orphan in self.orphans.extract_if(.., |orphan| orphan.node == node) {
            if let Some(will) = orphan.will {
                self.ends.model.will_loses(will, self.ends.now);
            }
        }
        let fleet = &self.fleet;
        self.ends
            .forget_push_answers(|number| fleet.node_of_push(number) == node);
    }
}
