//! The network: connections come, carry bytes in pieces, and break.

use campanile_mqtt::{Packet, Reason};

use super::World;
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
        if to_node {
            let wire = link.wire;
            self.ends
                .trace
                .note(|| format!("{} c{at} -> node: {len} bytes", self.ends.steps));
            if let Some(node) = &mut self.node {
                node.send(wire, &bytes);
            }
            return Ok(());
        }
        let unblocks = link.blocked && link.to_client.is_empty() && !link.node_closed;
        link.blocked &= !unblocks;
        let wire = link.wire;
        self.ends
            .trace
            .note(|| format!("{} node -> c{at}: {len} bytes", self.ends.steps));
        if let (true, Some(node)) = (unblocks, &mut self.node) {
            node.set_blocked(wire, false);
        }
        self.ends.clients[at]
            .machine
            .handle_bytes(&bytes, self.ends.now.0);
        self.ends.take_events(at)?;
        self.observe(None)
    }

    /// Takes what the node wrote, and sees which connections it has closed. `by_input`: whose bytes it has just looked at.
    pub(super) fn observe(&mut self, by_input: Option<usize>) -> Held {
        for at in 0..self.ends.clients.len() {
            self.observe_client(at, by_input)?;
        }
        self.observe_orphans()?;
        self.drop_ended()
    }

    fn observe_client(&mut self, at: usize, by_input: Option<usize>) -> Held {
        let client = &mut self.ends.clients[at];
        let expired = client.may_have_expired(self.ends.now);
        let (Some(link), Some(node)) = (&mut client.link, &mut self.node) else {
            return Ok(());
        };
        if link.node_closed {
            return Ok(());
        }
        let output = node.take_output(link.wire);
        let is_silent = output.is_empty();
        let says_welcome = !link.welcomed && is_welcome(&output, client.plan.version);
        link.to_client.extend_from_slice(&output);
        if link.slow && link.to_client.len() > 100 && !link.blocked {
            link.blocked = true;
            node.set_blocked(link.wire, true);
        }
        if says_welcome {
            link.welcomed = true;
            link.era = self.ends.model.disturbances;
            client.doubtful |= expired;
        }
        let wire = link.wire;
        let is_closed = node.is_closed(wire);
        if !is_silent {
            self.ends.on_written(at, &output)?;
        }
        let client = &mut self.ends.clients[at];
        let link = client.link.as_mut().expect("just seen");
        if is_closed {
            link.node_closed = true;
            // Only a node that has just read something can have read the DISCONNECT; and one that refuses may have closed before.
            let refuses = self.ends.was_full || self.plan.node.broker.max_pending_requests < 1000;
            let unheard = link.goodbye && (by_input != Some(wire) || refuses);
            if unheard {
                self.ends.doubt_goodbye(at);
            }
            self.ends.on_lost(at);
            self.ends.trace.note(|| format!("  node closes c{at}"));
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
            if !orphan.welcomed
                && is_welcome(&output, self.ends.clients[orphan.client].plan.version)
            {
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
                self.ends.model.will_loses(will, self.ends.now);
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
        let link = self.ends.clients[at]
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
        for at in 0..self.ends.clients.len() {
            let client = &self.ends.clients[at];
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
                    self.ends.doubt_goodbye(at);
                }
                node_cut(self, wire);
                self.ends.on_lost(at);
                self.drop_link(at)?;
            }
        }
        Ok(())
    }

    /// The connection breaks; what is under way is lost, in one direction or both.
    pub(super) fn cut(&mut self, at: usize) -> Held {
        let Some(link) = &self.ends.clients[at].link else {
            return Ok(());
        };
        let (wire, node_closed, goodbye) = (link.wire, link.node_closed, link.goodbye);
        self.ends
            .trace
            .note(|| format!("{} c{at}: cut", self.ends.steps));
        if !node_closed {
            if goodbye {
                self.ends.doubt_goodbye(at);
            }
            node_cut(self, wire);
            self.ends.on_lost(at);
        }
        self.drop_link(at)?;
        self.observe(None)
    }

    /// The client is gone; the node does not know.
    pub(super) fn vanish(&mut self, at: usize) -> Held {
        let Some(link) = &self.ends.clients[at].link else {
            return Ok(());
        };
        if link.node_closed || self.node.is_none() {
            return Ok(());
        }
        self.ends
            .trace
            .note(|| format!("{} c{at}: vanishes", self.ends.steps));
        let orphan = Orphan {
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
        self.ends.clients[at]
            .link
            .as_mut()
            .expect("just seen")
            .node_closed = true;
        self.ends.clients[at].link.as_mut().expect("just seen").wire = usize::MAX;
        self.drop_link(at)
    }

    /// The client learns that its connection is over.
    fn drop_link(&mut self, at: usize) -> Held {
        if let (Some(link), Some(node)) = (self.ends.drop_link(at), &mut self.node)
            && link.wire != usize::MAX
        {
            node.forget(link.wire);
        }
        Ok(())
    }

    /// A new connection: CONNECT.
    pub(super) fn open(&mut self, at: usize, clean: bool) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let shard = self.ends.rng.below(u64::from(self.plan.node.shards)) as u8;
        let wire = node.connect(shard);
        self.ends.connect(at, 0, wire, clean)
    }
}

/// The network tells the node that a connection is over.
fn node_cut(world: &mut World, wire: usize) {
    if let Some(node) = &mut world.node {
        node.cut(wire);
    }
}

/// Whether the node's first output is a CONNACK that welcomes.
pub fn is_welcome(output: &[u8], version: campanile_mqtt::Version) -> bool {
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
