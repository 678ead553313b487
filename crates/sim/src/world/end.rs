//! The end of a seed: all faults are taken away, everybody comes back and gets what is owed; then everybody leaves, and nothing is left.

use campanile_backends::Reader;
use campanile_push::store::Command;

use super::{World, plan::ClientPlan};
use crate::{
    ends::{Ends, SimClient},
    model::{Held, Violation},
};

const DAY_MS: u64 = 86_400_000;

/// Rounds until everything must have come to rest.
const ROUNDS: usize = 400;
/// Tables of the store that the audit log is in: rows, their counts, and when they expire.
const OF_AUDIT: [u8; 3] = [0x70, 0x71, 0x50];
/// Turns of campaigns that are waited for at the end.
const TURNS: usize = 60;

impl World {
    /// Everything that is owed arrives.
    pub(super) fn heal(&mut self) -> Held {
        if self.node.is_none() {
            self.start();
        }
        self.set_full(0);
        self.set_unreadable(0);
        self.slow_for = 0;
        // Whatever is half open is found out.
        let wires: Vec<usize> = self.orphans.iter().map(|orphan| orphan.wire).collect();
        for wire in wires {
            if let Some(node) = &mut self.node {
                node.cut(wire);
            }
        }
        self.observe(None)?;
        for client in &mut self.ends.clients {
            if let Some(link) = &mut client.link {
                link.slow = false;
            }
        }
        let still_up = self.ends.sessions_still_up();
        self.rest(true)?;
        let end = self.ends.now.0 + Ends::LONGEST_DELAY.0;
        while self.ends.now.0 < end {
            self.pass(1000)?;
            self.rest(true)?;
        }
        let still_up: Vec<bool> = self
            .ends
            .sessions_still_up()
            .iter()
            .zip(&still_up)
            .map(|(now, before)| *now && *before)
            .collect();
        self.finish_campaigns()?;
        for push in 0..self.ends.model.pushes.len() {
            self.check_report(push)?;
        }
        self.check_idle()?;
        self.ends
            .model
            .check_all_arrived(self.ends.now, &still_up)?;
        self.observe_retained()
    }

    /// Campaigns go on until all have had their turns; those that are paused stand still, and then go on, too.
    fn finish_campaigns(&mut self) -> Held {
        if self.ends.desk.is_none() {
            return Ok(());
        }
        self.give_turns()?;
        self.carry_out_all(|ends, reader| ends.resume_next(reader, ends.now))?;
        self.give_turns()
    }

    fn give_turns(&mut self) -> Held {
        for _ in 0..TURNS {
            self.carry_out_all(|ends, reader| ends.lead(reader, ends.now))?;
            self.rest(true)?;
            let reader = self.node.as_ref().expect("it is healed").reader();
            self.ends.check_campaigns(&*reader)?;
            let Some(ms) = self.ends.next_turn_ms(&*reader) else {
                break;
            };
            self.pass(ms)?;
        }
        Ok(())
    }

    /// Has everything written that is planned one after the other.
    fn carry_out_all(
        &mut self,
        mut plan: impl FnMut(&mut Ends, &dyn Reader) -> Option<Command>,
    ) -> Held {
        for _ in 0..ROUNDS {
            let node = self.node.as_mut().expect("it is healed");
            let reader = node.reader();
            let Some(command) = plan(&mut self.ends, &*reader) else {
                return Ok(());
            };
            self.ends.desk_asked(node.push(command));
            self.settle_node()?;
        }
        Err(Violation("the desk never comes to rest".to_owned()))
    }

    /// A client that was never here asks for what is retained.
    fn observe_retained(&mut self) -> Held {
        self.ends
            .clients
            .push(SimClient::new(ClientPlan::observer("observer")));
        let at = self.ends.clients.len() - 1;
        self.open(at, true)?;
        self.rest(true)?;
        self.ends.subscribe_to(at, "#")?;
        self.rest(true)?;
        let session = self.ends.clients[at].session.expect("it is connected");
        self.ends.model.check_retained(session)
    }

    /// Everything moves until nothing does. `reconnect`: clients that are not connected come.
    fn rest(&mut self, reconnect: bool) -> Held {
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            let before = (self.ends.trace.hash, self.ends.model.tick);
            self.settle_node()?;
            for server in self.ends.to_resubmit() {
                self.submit(server);
            }
            for at in 0..self.ends.clients.len() {
                self.exchange(at, reconnect)?;
            }
            self.settle_node()?;
            let moved = before != (self.ends.trace.hash, self.ends.model.tick);
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == 2 {
                return Ok(());
            }
            // Lazy saves are due after a while.
            self.pass(150)?;
        }
        Err(Violation("the world does not come to rest".to_owned()))
    }

    /// All bytes of a client's connection arrive.
    fn exchange(&mut self, at: usize, reconnect: bool) -> Held {
        if self.ends.clients[at].link.is_none() && reconnect {
            let clean = self.ends.clients[at].must_start_clean
                || !self.ends.clients[at].is_durable()
                    && !self.ends.clients[at].plan.version.is_v5();
            self.open(at, clean)?;
        }
        loop {
            let Some(link) = &self.ends.clients[at].link else {
                return Ok(());
            };
            let (to_node, to_client) = (link.to_node.len(), link.to_client.len());
            if to_node > 0 && !link.node_closed {
                self.carry(at, true, to_node)?;
                self.settle_node()?;
            } else if to_client > 0 {
                self.carry(at, false, to_client)?;
            } else {
                return self.observe(None);
            }
        }
    }

    /// Nothing is under way in the node.
    fn check_idle(&self) -> Held {
        let node = self.node.as_ref().expect("it is healed");
        for (at, shard) in node.shards().iter().enumerate() {
            let stats = shard.stats();
            if stats.pending_requests > 0 || stats.queued_messages > 0 || stats.queued_bytes > 0 {
                return Err(Violation(format!("shard {at} is not idle: {stats:?}")));
            }
        }
        Ok(())
    }

    /// Everybody leaves for good; nothing is left of them.
    pub(super) fn part(&mut self) -> Held {
        for at in 0..self.ends.clients.len() {
            // Sessions that never expire are ended by the client.
            if self.ends.clients[at].plan.expiry_seconds == u32::MAX {
                let client = &mut self.ends.clients[at];
                if client.machine.is_connected() {
                    self.ends.disconnect(at, false, true)?;
                }
            } else if self.ends.clients[at].machine.is_connected() {
                self.ends.disconnect(at, false, false)?;
            }
        }
        self.carry_out_once(Ends::deregistration)?;
        self.rest(false)?;
        self.sweep_after(3 * DAY_MS)?;
        self.check_idle()?;
        let node = self.node.as_ref().expect("it is healed");
        for (at, shard) in node.shards().iter().enumerate() {
            let stats = shard.stats();
            let left = stats.connections
                + stats.durable_sessions_live
                + stats.subscriptions
                + stats.subscriptions_filters;
            if left > 0 {
                return Err(Violation(format!(
                    "everybody has left, and shard {at} still has something: {stats:?}"
                )));
            }
        }
        self.sweep_after(30 * DAY_MS)?;
        self.check_disk()
    }

    fn carry_out_once(&mut self, plan: impl FnOnce(&mut Ends) -> Option<Command>) -> Held {
        if let Some(command) = plan(&mut self.ends) {
            self.node.as_mut().expect("it is healed").push(command);
        }
        self.settle_node()
    }

    /// Time passes, and what has expired is removed.
    fn sweep_after(&mut self, ms: u64) -> Held {
        self.pass(ms)?;
        let rounds = if self.plan.node.sweep_limit < 100 {
            600
        } else {
            5
        };
        for _ in 0..rounds {
            if let Some(node) = &mut self.node {
                node.sweep();
            }
            self.settle_node()?;
        }
        self.rest(false)
    }

    /// Only what is kept for ever is on disk: retained messages, and a few numbers.
    fn check_disk(&mut self) -> Held {
        let node = self.node.as_mut().expect("it is healed");
        let retained = node
            .shards()
            .first()
            .map_or(0, |shard| shard.stats().retained_messages);
        let records = match self.ends.desk {
            None => node.store().disk().records(),
            // The audit log is kept for longer.
            Some(_) => {
                let disk = node.store().disk();
                let tables = disk.entries().map(|(key, _)| key[0]);
                tables.filter(|table| !OF_AUDIT.contains(table)).count()
            }
        } as u64;
        // The sequence number, the device numbers of the app, and the end of each log.
        let numbers = 3 + u64::from(self.plan.node.broker.topic_partitions);
        if records > retained + numbers {
            return Err(Violation(format!(
                "everybody has left, and {records} records are on disk, of which {retained} are retained messages"
            )));
        }
        Ok(())
    }
}
