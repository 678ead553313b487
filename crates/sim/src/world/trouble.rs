//! What goes wrong.

use super::World;
use crate::{
    model::{Held, Violation},
    node::Node,
};

impl World {
    /// Something may go wrong now.
    pub(super) fn make_trouble(&mut self) -> Held {
        if self.full_for > 0 {
            self.full_for -= 1;
            if self.full_for == 0 {
                self.set_full(0);
            }
        }
        if self.unreadable_for > 0 {
            self.unreadable_for -= 1;
            if self.unreadable_for == 0 {
                self.set_unreadable(0);
            }
        }
        self.slow_for = self.slow_for.saturating_sub(1);
        if self.node.is_none() {
            if self.ends.rng.chance(100) {
                self.start();
            }
            return Ok(());
        }
        let trouble = self.plan.trouble.clone();
        let weights = [
            trouble.crash,
            trouble.stop,
            trouble.cut,
            trouble.vanish,
            trouble.full,
            trouble.slow_disk,
            trouble.slow_reader,
            trouble.unreadable,
            trouble.jump,
        ];
        let none = 10_000 - weights.iter().sum::<u64>();
        let at = self.ends.rng.index(self.ends.clients.len());
        let chosen = self.ends.rng.weighted(&[&weights[..], &[none]].concat());
        match chosen {
            Some(0) => {
                self.crash();
                Ok(())
            }
            Some(1) => self.stop(),
            Some(2) => self.cut(at),
            Some(3) => self.vanish(at),
            Some(4) => {
                let steps = self.ends.rng.range(5, 120);
                self.set_full(steps);
                Ok(())
            }
            Some(5) => {
                self.slow_for = self.ends.rng.range(20, 200);
                Ok(())
            }
            Some(6) => {
                self.toggle_reader(at);
                Ok(())
            }
            Some(7) => {
                let steps = self.ends.rng.range(5, 120);
                self.set_unreadable(steps);
                Ok(())
            }
            Some(8) => {
                let minutes = self.ends.rng.range(1, 40);
                self.pass(minutes * 60_000)
            }
            _ => Ok(()),
        }
    }

    /// The disk is full for so many steps; 0: it has room again.
    pub(super) fn set_full(&mut self, steps: u64) {
        self.full_for = steps;
        self.ends.was_full |= steps > 0;
        self.ends
            .trace
            .note(|| format!("{} disk full for {steps}", self.ends.steps));
        if let Some(node) = &mut self.node {
            node.store()
                .fail_commits((steps > 0).then_some("the disk is full"));
        }
    }

    /// The disk cannot be read for so many steps; 0: it can again.
    pub(super) fn set_unreadable(&mut self, steps: u64) {
        self.unreadable_for = steps;
        self.ends.was_unreadable |= steps > 0;
        self.ends
            .trace
            .note(|| format!("{} disk unreadable for {steps}", self.ends.steps));
        if let Some(node) = &mut self.node {
            node.fail_reads(steps > 0);
        }
    }

    fn toggle_reader(&mut self, at: usize) {
        if let Some(link) = &mut self.ends.clients[at].link {
            link.slow = !link.slow;
            self.ends.trace.note(|| {
                format!(
                    "{} c{at}: reads: {}",
                    self.ends.steps,
                    !self.ends.clients[at].link.as_ref().is_some_and(|l| l.slow)
                )
            });
        }
    }

    /// The node dies. Of what it wrote, the first commits may have reached the disk.
    fn crash(&mut self) {
        let Some(mut node) = self.node.take() else {
            return;
        };
        let keep = self.ends.rng.below(node.store().unsynced() as u64 + 1) as usize;
        self.ends.trace.note(|| {
            format!(
                "{} crash, {keep} of {} commits survive",
                self.ends.steps,
                node.store().unsynced()
            )
        });
        self.disk = node.crash(keep);
        self.ends.model.disturb();
        for will in &mut self.ends.model.wills {
            // The goodbye may not have reached the disk.
            will.unsure |= will.goodbye && !will.void;
        }
        self.node_is_gone();
    }

    /// The node is stopped in an orderly way.
    fn stop(&mut self) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        self.ends.trace.note(|| format!("{} stop", self.ends.steps));
        node.begin_stop();
        if self.full_for > 0 {
            self.ends.model.disturb();
            self.ends.model.wills_are_unsure();
        }
        self.observe(None)?;
        self.settle_node()?;
        let node = self.node.as_mut().expect("just seen");
        let pending: usize = node
            .shards()
            .iter()
            .map(|shard| shard.pending_requests())
            .sum();
        if pending > 0 {
            return Err(Violation(format!(
                "{pending} requests are pending after a stop"
            )));
        }
        self.ends.model.on_all_synced();
        let node = self.node.take().expect("just seen");
        self.disk = node.into_disk();
        self.node_is_gone();
        Ok(())
    }

    fn node_is_gone(&mut self) {
        for at in 0..self.ends.clients.len() {
            let Some(link) = &mut self.ends.clients[at].link else {
                continue;
            };
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
        for orphan in std::mem::take(&mut self.orphans) {
            if let Some(will) = orphan.will {
                self.ends.model.will_loses(will, self.ends.now);
            }
        }
        self.ends.forget_push_answers(|_| true);
        (self.full_for, self.unreadable_for, self.slow_for) = (0, 0, 0);
    }

    /// The node starts again on what is on its disk.
    pub(super) fn start(&mut self) {
        self.ends
            .trace
            .note(|| format!("{} start", self.ends.steps));
        let disk = std::mem::take(&mut self.disk);
        // Another run makes other ids.
        self.plan.node.seed = self.ends.rng.draw();
        self.node = Some(Node::start(self.plan.node.clone(), disk, self.ends.now));
        self.ends.model.on_restart(self.ends.now);
        self.ends.model.all_have_heard(self.ends.now);
    }
}
