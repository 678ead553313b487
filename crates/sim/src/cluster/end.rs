//! The end of a seed: all faults are taken away, everybody comes back and gets what is owed; then everybody leaves, and nothing is left.

use campanile_backends::Reader;
use campanile_push::store::Command;

use super::{PIECE_MS, World};
use crate::{
    ends::{Ends, SimClient},
    model::{Held, Violation},
    world::plan::ClientPlan,
};

const DAY_MS: u64 = 86_400_000;

/// Rounds until everything must have come to rest.
const ROUNDS: usize = 600;
/// Tables of the store that the audit log is in: rows, their counts, and when they expire.
const OF_AUDIT: [u8; 3] = [0x70, 0x71, 0x50];
/// Turns of campaigns that are waited for at the end.
const TURNS: usize = 60;
/// How long a round takes.
const ROUND_MS: u64 = 100;
/// Quiet rounds after which nothing more is expected: longer than a poll and a lease.
const QUIET: usize = 15;
/// Until wills are published, dead nodes given up, and older connections closed.
const HEALED_MS: u64 = 80_000;

impl World {
    /// Everything that is owed arrives.
    pub(super) fn heal(&mut self) -> Held {
        self.end_all_troubles();
        self.end_all_troubles();
        for client in &mut self.ends.clients {
            if let Some(link) = &mut client.link {
                link.slow = false;
            }
        }
        for node in 0..self.fleet.count() {
            self.fleet.order_drain(node, false);
            if self.fleet.look_at(node).is_none() {
                self.fleet.start(node);
            }
        }
        let still_up = self.ends.sessions_still_up();
        self.rest(true)?;
        let end = self.ends.now.0 + HEALED_MS;
        while self.ends.now.0 < end {
            self.pass(500)?;
            self.exchange_all(true)?;
        }
        self.check_all_run()?;
        self.check_no_orphans()?;
        self.rest(true)?;
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
            let reader = self.fleet.reader();
            self.ends.check_campaigns(&*reader)?;
            let Some(ms) = self.ends.next_turn_ms(&*reader) else {
                break;
            };
            let mut left = ms;
            while left > 0 {
                let piece = left.min(500);
                self.pass(piece)?;
                self.exchange_all(true)?;
                left -= piece;
            }
        }
        Ok(())
    }

    /// Has everything written that is planned one after the other.
    fn carry_out_all(
        &mut self,
        mut plan: impl FnMut(&mut Ends, &dyn Reader) -> Option<Command>,
    ) -> Held {
        for _ in 0..ROUNDS {
            let reader = self.fleet.reader();
            let Some(command) = plan(&mut self.ends, &*reader) else {
                return Ok(());
            };
            self.ends.desk_asked(self.fleet.push(0, command));
            self.settle()?;
            self.pass(PIECE_MS)?;
            self.settle()?;
        }
        Err(Violation("the desk never comes to rest".to_owned()))
    }

    /// Clients that were never here ask each node for what is retained.
    fn observe_retained(&mut self) -> Held {
        for node in 0..self.fleet.count() {
            let plan = ClientPlan::observer(&format!("observer{node}"));
            self.ends.clients.push(SimClient::new(plan));
            let at = self.ends.clients.len() - 1;
            let wire = self.fleet.connect(node, 0);
            self.ends.connect(at, node, wire, true)?;
            self.rest(true)?;
            self.ends.subscribe_to(at, "#")?;
            self.rest(true)?;
            let session = self.ends.clients[at].session.expect("it is connected");
            self.ends.model.check_retained(session)?;
        }
        Ok(())
    }

    /// Whoever has another connection has lost the older one.
    fn check_no_orphans(&self) -> Held {
        let mut orphans = self.orphans.iter().filter(|orphan| {
            let client = &self.ends.clients[orphan.client];
            orphan.welcomed && client.link.as_ref().is_some_and(|link| link.welcomed)
        });
        match orphans.next() {
            None => Ok(()),
            Some(orphan) => Err(Violation(format!(
                "client {} has a connection, and its older one to node {} is still open",
                orphan.client, orphan.node
            ))),
        }
    }

    /// Everything moves until nothing does. `reconnect`: clients that are not connected come.
    fn rest(&mut self, reconnect: bool) -> Held {
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            let before = (self.ends.trace.hash, self.ends.model.tick);
            self.exchange_all(reconnect)?;
            let moved = before != (self.ends.trace.hash, self.ends.model.tick);
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == QUIET {
                self.ends.model.on_all_synced();
                return Ok(());
            }
            self.pass(ROUND_MS)?;
        }
        Err(Violation("the world does not come to rest".to_owned()))
    }

    fn exchange_all(&mut self, reconnect: bool) -> Held {
        self.settle()?;
        for server in self.ends.to_resubmit() {
            self.submit(server);
        }
        for at in 0..self.ends.clients.len() {
            self.exchange(at, reconnect)?;
        }
        self.settle()
    }

    /// All bytes of a client's connection arrive.
    fn exchange(&mut self, at: usize, reconnect: bool) -> Held {
        let client = &self.ends.clients[at];
        if client.link.is_none() && reconnect {
            let clean =
                client.must_start_clean || !client.is_durable() && !client.plan.version.is_v5();
            self.open(at, clean)?;
        }
        loop {
            let Some(link) = &self.ends.clients[at].link else {
                return Ok(());
            };
            let (to_node, to_client) = (link.to_node.len(), link.to_client.len());
            if to_node > 0 && !link.node_closed {
                self.carry(at, true, to_node)?;
                self.settle()?;
            } else if to_client > 0 {
                self.carry(at, false, to_client)?;
            } else {
                return self.observe(None);
            }
        }
    }

    /// Nothing is under way in any node.
    fn check_idle(&self) -> Held {
        for node in 0..self.fleet.count() {
            let Some(member) = self.fleet.look_at(node) else {
                continue;
            };
            for (at, shard) in member.shards.machines().iter().enumerate() {
                let stats = shard.stats();
                if stats.pending_requests > 0 || stats.queued_messages > 0 || stats.queued_bytes > 0
                {
                    return Err(Violation(format!(
                        "shard {at} of node {node} is not idle: {stats:?}"
                    )));
                }
            }
            let left = member.hub.waiting();
            if left.answers > 0 || left.held > 0 || left.kept > 0 || left.asked > 0 {
                return Err(Violation(format!("the hub of node {node} waits: {left:?}")));
            }
        }
        Ok(())
    }

    /// Everybody leaves for good; nothing is left of them.
    pub(super) fn part(&mut self) -> Held {
        for at in 0..self.ends.clients.len() {
            // Sessions that never expire are ended by the client.
            let ends = self.ends.clients[at].plan.expiry_seconds == u32::MAX;
            if self.ends.clients[at].machine.is_connected() {
                self.ends.disconnect(at, false, ends)?;
            }
        }
        if let Some(command) = self.ends.deregistration() {
            self.fleet.push(0, command);
        }
        self.rest(false)?;
        // What is half open is cut.
        for orphan in std::mem::take(&mut self.orphans) {
            self.fleet.cut(orphan.node, orphan.wire);
        }
        self.rest(false)?;
        self.sweep_after(3 * DAY_MS)?;
        self.check_idle()?;
        self.check_nobody_is_left()?;
        self.sweep_after(30 * DAY_MS)?;
        self.check_disk()
    }

    fn check_nobody_is_left(&self) -> Held {
        for node in 0..self.fleet.count() {
            let Some(member) = self.fleet.look_at(node) else {
                continue;
            };
            for (at, shard) in member.shards.machines().iter().enumerate() {
                let stats = shard.stats();
                let left = stats.connections
                    + stats.durable_sessions_live
                    + stats.subscriptions
                    + stats.subscriptions_filters;
                if left > 0 {
                    return Err(Violation(format!(
                        "everybody has left, and shard {at} of node {node} still has something: {stats:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Time passes, and what has expired is removed.
    fn sweep_after(&mut self, ms: u64) -> Held {
        self.fleet.sleep(ms);
        self.ends.now = self.fleet.now;
        let rounds = if self.plan.fleet.sweep_limit < 100 {
            300
        } else {
            10
        };
        for _ in 0..rounds {
            self.pass(1000)?;
            self.settle()?;
        }
        self.rest(false)
    }

    /// Only what is kept for ever is in the store: retained messages, the nodes' numbers, and the log of changes.
    fn check_disk(&mut self) -> Held {
        let mut left = self.fleet.leftovers();
        if self.ends.desk.is_some() {
            // The audit log is kept for longer.
            left.retain(|table, _| !OF_AUDIT.contains(table));
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(Violation(format!(
                "everybody has left, and the store still has {left:?}"
            ))),
        }
    }
}
