//! The network: connections come, carry bytes in pieces, and break.

use campanile_mqtt::{Packet, Reason};

use super::{World, client::Link};
use crate::model::{Held, Violation};

/// A connection whose client is gone without the node knowing.
#[derive(Debug)]
pub struct Orphan {
    pub wire: usize,
    pub client: usize,
    pub welcomed: bool,
    pub will: Option<usize>,
}

impl World {
    /// Some bytes of one direction of one connection arrive.
    pub(super) fn move_network(&mut self) -> Held {
        let mut ways = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
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
        let &(at, to_node) = self.rng.pick(&ways);
        let link = self.clients[at].link.as_ref().expect("just seen");
        let waiting = if to_node {
            link.to_node.len()
        } else {
            link.to_client.len()
        };
        let len = if self.rng.chance(700) {
            waiting
        } else {
            self.rng.range(1, waiting as u64) as usize
        };
        self.carry(at, to_node, len)
    }

    /// So many bytes of one direction arrive.
    pub(super) fn carry(&mut self, at: usize, to_node: bool, len: usize) -> Held {
        let link = self.clients[at].link.as_mut().expect("the caller looked");
        let bytes: Vec<u8> = if to_node {
            link.to_node.drain(..len).collect()
        } else {
            link.to_client.drain(..len).collect()
        };
        self.trace.mix(at as u64);
        self.trace.mix_bytes(&bytes);
        if to_node {
            let wire = link.wire;
            self.trace
                .note(|| format!("{} c{at} -> node: {len} bytes", self.steps));
            if let Some(node) = &mut self.node {
                node.send(wire, &bytes);
            }
            return Ok(());
        }
        let unblocks = link.blocked && link.to_client.is_empty() && !link.node_closed;
        link.blocked &= !unblocks;
        let wire = link.wire;
        self.trace
            .note(|| format!("{} node -> c{at}: {len} bytes", self.steps));
        if let (true, Some(node)) = (unblocks, &mut self.node) {
            node.set_blocked(wire, false);
        }
        self.clients[at].machine.handle_bytes(&bytes, self.now.0);
        self.take_events(at)?;
        self.observe(None)
    }

    /// Takes what the node wrote, and sees which connections it has closed. `by_input`: whose bytes it has just looked at.
    pub(super) fn observe(&mut self, by_input: Option<usize>) -> Held {
        for at in 0..self.clients.len() {
            self.observe_client(at, by_input)?;
        }
        self.observe_orphans()?;
        self.drop_ended()
    }

    fn observe_client(&mut self, at: usize, by_input: Option<usize>) -> Held {
        let client = &mut self.clients[at];
        let expired = client.may_have_expired(self.now);
        let (Some(link), Some(node)) = (&mut client.link, &mut self.node) else {
            return Ok(());
        };
        if link.node_closed {
            return Ok(());
        }
        let output = node.take_output(link.wire);
        let says_welcome = !link.welcomed && is_welcome(&output, client.plan.version);
        link.to_client.extend_from_slice(&output);
        if link.slow && link.to_client.len() > 100 && !link.blocked {
            link.blocked = true;
            node.set_blocked(link.wire, true);
        }
        if says_welcome {
            link.welcomed = true;
            link.era = self.model.disturbances;
            client.doubtful |= expired;
        }
        let wire = link.wire;
        if node.is_closed(wire) {
            link.node_closed = true;
            // Only a node that has just read something can have read the DISCONNECT; and one that refuses may have closed before.
            let refuses = self.was_full || self.plan.node.broker.max_pending_requests < 1000;
            let unheard = link.goodbye && (by_input != Some(wire) || refuses);
            if unheard {
                self.doubt_goodbye(at);
            }
            self.on_lost(at);
            self.trace.note(|| format!("  node closes c{at}"));
        }
        if says_welcome {
            self.check_one_owner(at, wire)
        } else {
            Ok(())
        }
    }

    fn observe_orphans(&mut self) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let mut closed = Vec::new();
        let mut welcomed = Vec::new();
        for orphan in &mut self.orphans {
            let output = node.take_output(orphan.wire);
            if !orphan.welcomed && is_welcome(&output, self.clients[orphan.client].plan.version) {
                orphan.welcomed = true;
                welcomed.push((orphan.client, orphan.wire));
            }
            if node.is_closed(orphan.wire) {
                node.forget(orphan.wire);
                closed.push((orphan.wire, orphan.will));
            }
        }
        self.orphans
            .retain(|orphan| closed.iter().all(|(wire, _)| *wire != orphan.wire));
        for (_, will) in closed {
            if let Some(will) = will {
                self.model.will_loses(will, self.now);
            }
        }
        for (client, wire) in welcomed {
            self.check_one_owner(client, wire)?;
        }
        Ok(())
    }

    /// A client has just been welcomed on a wire: no other of its wires may be open.
    fn check_one_owner(&self, at: usize, wire: usize) -> Held {
        let Some(node) = &self.node else {
            return Ok(());
        };
        let link = self.clients[at]
            .link
            .iter()
            .filter(|link| link.welcomed && !link.node_closed);
        let orphans = self
            .orphans
            .iter()
            .filter(|orphan| orphan.client == at && orphan.welcomed);
        let wires = link
            .map(|link| link.wire)
            .chain(orphans.map(|orphan| orphan.wire));
        match wires
            .filter(|&other| other != wire && !node.is_closed(other))
            .count()
        {
            0 => Ok(()),
            _ => Err(Violation(format!("client {at} has two connections"))),
        }
    }

    /// Connections that are over at both ends, or that the client has ended.
    fn drop_ended(&mut self) -> Held {
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            let Some(link) = &client.link else { continue };
            if link.node_closed {
                if link.to_client.is_empty() || client.machine.is_closing() {
                    self.drop_link(at)?;
                }
                continue;
            }
            let Some(node) = &mut self.node else { continue };
            if client.machine.is_closing() && link.to_node.is_empty() && !node.has_input(link.wire)
            {
                let wire = link.wire;
                if link.goodbye {
                    self.doubt_goodbye(at);
                }
                node_cut(self, wire);
                self.on_lost(at);
                self.drop_link(at)?;
            }
        }
        Ok(())
    }

    /// The connection breaks; what is under way is lost, in one direction or both.
    pub(super) fn cut(&mut self, at: usize) -> Held {
        let Some(link) = &self.clients[at].link else {
            return Ok(());
        };
        let (wire, node_closed, goodbye) = (link.wire, link.node_closed, link.goodbye);
        self.trace.note(|| format!("{} c{at}: cut", self.steps));
        if !node_closed {
            if goodbye {
                self.doubt_goodbye(at);
            }
            node_cut(self, wire);
            self.on_lost(at);
        }
        self.drop_link(at)?;
        self.observe(None)
    }

    /// The client is gone; the node does not know.
    pub(super) fn vanish(&mut self, at: usize) -> Held {
        let Some(link) = &self.clients[at].link else {
            return Ok(());
        };
        if link.node_closed || self.node.is_none() {
            return Ok(());
        }
        self.trace
            .note(|| format!("{} c{at}: vanishes", self.steps));
        let orphan = Orphan {
            wire: link.wire,
            client: at,
            welcomed: link.welcomed,
            will: link.will,
        };
        let welcomed = link.welcomed;
        if link.goodbye {
            self.doubt_goodbye(at);
        }
        self.orphans.push(orphan);
        if welcomed {
            self.clients[at].last_up = self.now;
        }
        self.end_fleeting_session(at);
        self.clients[at]
            .link
            .as_mut()
            .expect("just seen")
            .node_closed = true;
        self.clients[at].link.as_mut().expect("just seen").wire = usize::MAX;
        self.drop_link(at)
    }

    /// It is not known whether the node has seen the DISCONNECT.
    pub(super) fn doubt_goodbye(&mut self, at: usize) {
        let will = self.clients[at].link.as_ref().and_then(|link| link.will);
        if let Some(will) = will {
            self.model.wills[will].unsure = true;
        }
    }

    /// The node has lost a connection, or the network has.
    pub(super) fn on_lost(&mut self, at: usize) {
        let now = self.now;
        let client = &mut self.clients[at];
        let welcomed = client.link.as_ref().is_some_and(|link| link.welcomed);
        if welcomed {
            client.last_up = now;
        } else if client.may_have_expired(now) {
            // It may have been claimed just then, and found expired.
            client.doubtful = true;
        }
        let will = client.link.as_ref().and_then(|link| link.will);
        if let Some(will) = will {
            self.model.will_loses(will, now);
        }
        self.end_fleeting_session(at);
    }

    fn end_fleeting_session(&mut self, at: usize) {
        if let Some(session) = self.clients[at].session
            && !self.model.sessions[session].durable
        {
            self.model.end_session(session);
        }
    }

    /// The client learns that its connection is over.
    fn drop_link(&mut self, at: usize) -> Held {
        let client = &mut self.clients[at];
        let Some(link) = client.link.take() else {
            return Ok(());
        };
        self.trace.mix(0xD0 + at as u64);
        if let (Some(node), true) = (&mut self.node, link.wire != usize::MAX) {
            node.forget(link.wire);
        }
        client.machine.on_closed();
        client.must_start_clean |= client.doubtful;
        client.subscribing.clear();
        client.unsubscribing.clear();
        if client
            .session
            .is_some_and(|session| !self.model.sessions[session].durable)
        {
            client.session = None;
        }
        Ok(())
    }

    /// A new connection: CONNECT.
    pub(super) fn open(&mut self, at: usize, clean: bool) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let shard = self.rng.below(u64::from(self.plan.node.shards)) as u8;
        let wire = node.connect(shard);
        let will = self.choose_will(at);
        self.doubt_wills(at, clean);
        let tick = self.model.next_tick();
        let client = &mut self.clients[at];
        client.known_since.get_or_insert(tick);
        client.doubtful |= client.may_have_expired(self.now) || client.may_have_ended;
        // A client that does not hear the answer cannot know whose session the next one goes on with.
        client.must_start_clean |= clean || client.session.is_none() || client.doubtful;
        if let (true, Some(session)) = (clean, client.session) {
            self.model.end_session(session);
        }
        client
            .machine
            .connect(clean, self.now.0)
            .expect("the options are right, and there is no connection");
        client.link = Some(Link::new(wire, self.model.disturbances, clean, will));
        self.trace.note(|| {
            format!(
                "{} c{at}: connects, clean {clean}, will {will:?}, wire {wire}",
                self.steps
            )
        });
        self.take_events(at)
    }

    /// A client that is about to connect may void its wills, or make them due.
    fn doubt_wills(&mut self, at: usize, clean: bool) {
        let now = self.now;
        for will in 0..self.model.wills.len() {
            if self.model.messages[self.model.wills[will].message].publisher != at {
                continue;
            }
            let will = &mut self.model.wills[will];
            will.due_now |= clean;
            if will.delay_ms > 0 && !will.goodbye && (will.lost.is_none() || now < will.due_by) {
                will.unsure = true;
            }
        }
    }
}

/// The network tells the node that a connection is over.
fn node_cut(world: &mut World, wire: usize) {
    if let Some(node) = &mut world.node {
        node.cut(wire);
    }
}

/// Whether the node's first output is a CONNACK that welcomes.
fn is_welcome(output: &[u8], version: campanile_mqtt::Version) -> bool {
    let Ok(campanile_mqtt::Split::Packet { total_len, .. }) =
        campanile_mqtt::split(output, u32::MAX)
    else {
        return false;
    };
    matches!(
        Packet::decode(&output[..total_len], version),
        Ok(Packet::ConnAck(connack)) if connack.reason == Reason::Success
    )
}
