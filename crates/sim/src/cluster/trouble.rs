//! What goes wrong between and within nodes.

use campanile_broker::ids::Millis;

use super::World;
use crate::{
    fleet::Cut,
    model::{Held, Violation},
};

/// A fault that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// A node that does not run starts.
    Start(usize),
    /// A node stands still no longer.
    Pause(usize),
    /// A node reaches the store again.
    StoreCut(usize),
    /// A node reaches the ensemble again.
    EnsembleCut(usize),
    /// Two nodes reach each other again.
    LinkCut(usize, usize),
    /// The store answers again.
    StoreDown,
    /// The ensemble answers again.
    EnsembleDown,
    /// A node that stops is gone at the latest.
    Stop(usize),
    /// A node takes clients again.
    Drain(usize),
}

impl World {
    /// Something may go wrong now.
    pub(super) fn make_trouble(&mut self) -> Held {
        self.finish_stops();
        let trouble = self.plan.trouble.clone();
        let weights = [
            trouble.crash,
            trouble.stop,
            trouble.pause,
            trouble.store_cut,
            trouble.ensemble_cut,
            trouble.link_cut,
            trouble.link_break,
            trouble.store_down,
            trouble.ensemble_down,
            trouble.failover,
            trouble.relief,
            trouble.cut,
            trouble.vanish,
            trouble.slow_reader,
        ];
        let none = 10_000 - weights.iter().sum::<u64>();
        let chosen = self.ends.rng.weighted(&[&weights[..], &[none]].concat());
        let Some(chosen) = chosen.filter(|&chosen| chosen < weights.len()) else {
            return Ok(());
        };
        let node = self.ends.rng.index(self.fleet.count());
        let other = (node + 1 + self.ends.rng.index(self.fleet.count() - 1)) % self.fleet.count();
        let at = self.ends.rng.index(self.ends.clients.len());
        let ms = match self.ends.rng.below(3) {
            0 => self.ends.rng.range(50, 1500),
            1 => self.ends.rng.range(1500, 8000),
            _ => self.ends.rng.range(8000, 30_000),
        };
        if chosen < 11 {
            self.ends.model.disturb();
            self.calm_since = self.ends.now;
            self.ends.trace.note(|| {
                let names = [
                    "crash",
                    "stop",
                    "pause",
                    "store cut",
                    "ensemble cut",
                    "link cut",
                    "link break",
                    "store down",
                    "ensemble down",
                    "failover",
                    "relief",
                ];
                format!(
                    "{} TROUBLE: {} n{node} n{other} {ms} ms",
                    self.ends.steps, names[chosen]
                )
            });
        }
        match chosen {
            0 => self.crash(node, ms),
            1 => self.stop(node, ms),
            2 => {
                if self.fleet.serves(node) {
                    self.doubt_wills_of(node);
                    self.ends.model.faults.links = true;
                    self.fleet.set_paused(node, true);
                    self.end_later(ms, Ends::Pause(node));
                }
            }
            3 => {
                self.store_is_away();
                let cut = self.choose_cut();
                self.fleet.set_store_cut(node, Some(cut));
                self.end_later(ms, Ends::StoreCut(node));
            }
            4 => {
                let cut = self.choose_cut();
                self.fleet.set_ensemble_cut(node, Some(cut));
                self.ends.model.faults.links = true;
                self.doubt_wills_of(node);
                self.end_later(ms, Ends::EnsembleCut(node));
            }
            5 => {
                self.ends.model.faults.links = true;
                let cut = self.choose_cut();
                self.fleet.set_link_cut(node, other, Some(cut));
                self.end_later(ms, Ends::LinkCut(node, other));
            }
            6 => {
                self.ends.model.faults.links = true;
                self.fleet.break_link(node, other);
            }
            7 => {
                self.store_is_away();
                self.fleet.set_store_down(true);
                self.end_later(ms, Ends::StoreDown);
            }
            8 => {
                self.fleet.set_ensemble_down(true);
                self.end_later(ms, Ends::EnsembleDown);
            }
            9 => self.fail_over()?,
            10 => self.relieve(node, ms),
            11 => return self.cut(at),
            12 => return self.vanish(at),
            _ => self.toggle_reader(at),
        }
        self.observe(None)
    }

    /// Which ways are cut.
    fn choose_cut(&mut self) -> Cut {
        let cut = match self.ends.rng.chance(self.plan.trouble.one_way) {
            true => *self.ends.rng.pick(&[Cut::Out, Cut::In]),
            false => Cut::Both,
        };
        self.ends.trace.note(|| format!("  cut: {cut:?}"));
        cut
    }

    fn end_later(&mut self, ms: u64, ends: Ends) {
        self.troubles.push((Millis(self.ends.now.0 + ms), ends));
    }

    /// Faults whose time is over end.
    pub(super) fn end_troubles(&mut self) {
        let now = self.ends.now;
        let over: Vec<Ends> = self
            .troubles
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, ends)| ends)
            .collect();
        for ends in over {
            self.end_trouble(ends);
        }
    }

    /// All faults end.
    pub(super) fn end_all_troubles(&mut self) {
        for (_, ends) in std::mem::take(&mut self.troubles) {
            self.end_trouble(ends);
        }
    }

    fn end_trouble(&mut self, ends: Ends) {
        // Another of the kind may have begun meanwhile.
        let goes_on = self.troubles.iter().any(|(_, other)| *other == ends);
        if goes_on {
            return;
        }
        self.ends
            .trace
            .note(|| format!("{} over: {ends:?}", self.ends.steps));
        match ends {
            Ends::Start(node) => {
                if self.fleet.look_at(node).is_none() && !self.fleet.start(node) {
                    self.end_later(500, ends);
                }
            }
            Ends::Pause(node) => self.fleet.set_paused(node, false),
            Ends::StoreCut(node) => self.fleet.set_store_cut(node, None),
            Ends::EnsembleCut(node) => self.fleet.set_ensemble_cut(node, None),
            Ends::LinkCut(one, other) => self.fleet.set_link_cut(one, other, None),
            Ends::StoreDown => self.fleet.set_store_down(false),
            Ends::EnsembleDown => self.fleet.set_ensemble_down(false),
            Ends::Stop(node) => self.end_stop(node),
            Ends::Drain(node) => self.fleet.order_drain(node, false),
        }
    }

    fn crash(&mut self, node: usize, ms: u64) {
        if self.fleet.look_at(node).is_none() {
            return;
        }
        self.ends.model.faults.links = true;
        for will in &mut self.ends.model.wills {
            // The goodbye may not have reached the store.
            will.unsure |= will.goodbye && !will.void;
        }
        self.fleet.crash(node);
        self.node_is_gone(node);
        self.end_later(ms, Ends::Start(node));
    }

    fn stop(&mut self, node: usize, ms: u64) {
        if self.fleet.serves(node) {
            self.ends.model.faults.links = true;
            self.fleet.begin_stop(node);
            self.end_later(ms.max(1000), Ends::Stop(node));
        }
    }

    /// Nodes that have saved everything are gone.
    fn finish_stops(&mut self) {
        let stopped: Vec<usize> = self
            .troubles
            .iter()
            .filter_map(|(_, ends)| match ends {
                Ends::Stop(node) if self.fleet.is_stopped(*node) => Some(*node),
                _ => None,
            })
            .collect();
        for node in stopped {
            self.troubles.retain(|(_, ends)| *ends != Ends::Stop(node));
            self.end_stop(node);
        }
    }

    fn end_stop(&mut self, node: usize) {
        if self.fleet.look_at(node).is_none() {
            return;
        }
        if self.fleet.is_stopped(node) {
            self.fleet.finish_stop(node);
        } else {
            self.fleet.crash(node);
        }
        self.node_is_gone(node);
        let ms = self.ends.rng.range(100, 10_000);
        self.end_later(ms, Ends::Start(node));
    }

    fn store_is_away(&mut self) {
        self.ends.was_full = true;
        self.ends.was_unreadable = true;
    }

    fn fail_over(&mut self) -> Held {
        self.store_is_away();
        let keep = self.ends.rng.below(1001);
        self.ends.model.on_failover();
        self.ends.model.wills_are_unsure();
        self.fleet.fail_over(keep);
        self.note_doubts();
        self.ends.on_push_answers(self.fleet.take_push_answers())?;
        self.pass(PIECE_AFTER_FAILOVER_MS)
    }

    fn relieve(&mut self, node: usize, ms: u64) {
        match self.ends.rng.chance(500) {
            true => self.fleet.move_away(node, 2),
            false => {
                self.fleet.order_drain(node, true);
                self.end_later(ms, Ends::Drain(node));
            }
        }
    }

    fn toggle_reader(&mut self, at: usize) {
        if let Some(link) = &mut self.ends.clients[at].link {
            link.slow = !link.slow;
            let reads = !link.slow;
            self.ends
                .trace
                .note(|| format!("{} c{at}: reads: {reads}", self.ends.steps));
        }
    }

    /// A node that others may take for dead while it lives.
    pub(super) fn is_shaky(&self, node: usize) -> bool {
        self.fleet.is_unlisted(node)
            || self
                .troubles
                .iter()
                .any(|(_, ends)| *ends == Ends::EnsembleCut(node) || *ends == Ends::Pause(node))
    }

    /// Connections of a node may be taken for lost: wills of its clients may be published although they are connected.
    pub(super) fn doubt_wills_of(&mut self, node: usize) {
        let now = self.ends.now;
        let links = self.ends.clients.iter().filter_map(|c| c.link.as_ref());
        let links = links.filter(|link| link.node == node);
        let orphans = self.orphans.iter().filter(|orphan| orphan.node == node);
        let wills: Vec<usize> = links
            .filter_map(|link| link.will)
            .chain(orphans.filter_map(|orphan| orphan.will))
            .collect();
        for will in wills {
            self.ends.model.will_loses(will, now);
            self.ends.model.wills[will].unsure = true;
        }
    }

    /// A node must not have vanished for good.
    pub(super) fn check_all_run(&self) -> Held {
        match (0..self.fleet.count()).find(|&node| !self.fleet.serves(node)) {
            None => Ok(()),
            Some(node) => Err(Violation(format!("node {node} does not serve"))),
        }
    }
}

const PIECE_AFTER_FAILOVER_MS: u64 = 100;
