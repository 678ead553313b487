//! A node, its clients, its app servers and the network between them, moved one thing at a time by a scheduler that a seed decides.
//!
//! [`run`] plays a seed: a [`Plan`] is drawn, then one thing after the other is moved, and things go wrong. At the end all faults are
//! taken away, everybody comes back, and the [model](crate::model) says whether everything that was promised has arrived; then everybody leaves, and nothing may be left.

mod api;
mod client;
mod connections;
mod end;
mod events;
pub mod plan;
mod requests;
mod trouble;

use std::panic::{AssertUnwindSafe, catch_unwind};

use campanile_backends::memory::Disk;
use campanile_broker::ids::Millis;

use crate::{
    model::{Held, Model, Violation},
    node::{Node, Queue},
    pair::START,
    rng::Rng,
    sabotage::Sabotage,
};
use api::AppServer;
use client::SimClient;
use connections::Orphan;
use plan::Plan;

/// How a seed is played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print what happens.
    pub trace: bool,
    /// A bug to build in.
    pub sabotage: Option<Sabotage>,
}

/// What a seed came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that happened, in order: equal for equal seeds.
    pub hash: u64,
    /// Things that were moved.
    pub steps: u64,
    /// Messages and pushes that arrived at clients.
    pub arrivals: u64,
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub text: String,
}

/// Plays a seed.
pub fn run(seed: u64, options: Options) -> Result<Outcome, Failure> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, options);
        let held = world.play();
        held.map(|()| world.outcome())
            .map_err(|violation| format!("step {}: {}", world.steps, violation.0))
    }));
    let result = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    result.map_err(|text| Failure { seed, text })
}

/// What happens, for a reader and as a hash.
struct Trace {
    on: bool,
    hash: u64,
}

impl Trace {
    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.on {
            println!("{}", text());
        }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for &byte in bytes {
            self.mix(byte.into());
        }
    }
}

struct World {
    rng: Rng,
    plan: Plan,
    now: Millis,
    node: Option<Node>,
    /// Of a node that is down.
    disk: Disk,
    clients: Vec<SimClient>,
    orphans: Vec<Orphan>,
    servers: Vec<AppServer>,
    model: Model,
    steps: u64,
    arrivals: u64,
    /// Steps for which the disk stays full.
    full_for: u64,
    was_full: bool,
    /// Steps for which the disk cannot be read.
    unreadable_for: u64,
    was_unreadable: bool,
    /// Steps for which the disk stays slow.
    slow_for: u64,
    trace: Trace,
}

/// What may be moved next, with weights.
const NODE: u64 = 30;
const NETWORK: u64 = 24;
const CLOCK: u64 = 4;

impl World {
    fn new(seed: u64, options: Options) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::of(&mut rng, seed, options.sabotage);
        plan.node.trace = options.trace;
        let mut trace = Trace {
            on: options.trace,
            hash: seed,
        };
        trace.note(|| {
            format!(
                "plan: {:?} {:#?} {:?}",
                plan.node.broker, plan.clients, plan.trouble
            )
        });
        let clients = plan.clients.iter().cloned().map(SimClient::new).collect();
        World {
            rng,
            now: START,
            node: Some(Node::start(plan.node.clone(), Disk::default(), START)),
            disk: Disk::default(),
            clients,
            orphans: Vec::new(),
            servers: vec![AppServer::default(), AppServer::default()],
            model: Model {
                inboxes_drop: plan.node.store.inbox_max_entries < 1000,
                ..Model::default()
            },
            steps: 0,
            arrivals: 0,
            full_for: 0,
            was_full: false,
            unreadable_for: 0,
            was_unreadable: false,
            slow_for: 0,
            trace,
            plan,
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            hash: self.trace.hash,
            steps: self.steps,
            arrivals: self.arrivals,
        }
    }

    fn play(&mut self) -> Held {
        while self.steps < self.plan.steps {
            self.steps += 1;
            self.make_trouble()?;
            self.step()?;
        }
        self.trace.note(|| "-- all is healed".to_owned());
        self.heal()?;
        self.part()
    }

    /// Moves one thing.
    fn step(&mut self) -> Held {
        let node_weight = if self
            .node
            .as_ref()
            .is_some_and(|node| !node.ready().is_empty())
        {
            NODE
        } else {
            0
        };
        let weights = [
            node_weight,
            NETWORK,
            self.plan.busy,
            self.plan.pushes,
            CLOCK,
        ];
        let chosen = self.rng.weighted(&weights).unwrap_or(4);
        self.trace.mix(chosen as u64);
        match chosen {
            0 => self.move_node(),
            1 => self.move_network(),
            2 => {
                let at = self.rng.index(self.clients.len());
                self.act(at)
            }
            3 => self.act_as_server(),
            _ => {
                let ms = match self.rng.below(10) {
                    0 => self.rng.range(2000, 15_000),
                    1..=3 => self.rng.range(100, 1500),
                    _ => self.rng.range(1, 50),
                };
                self.pass(ms)
            }
        }
    }

    /// One queue of the node moves.
    fn move_node(&mut self) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let mut ready = node.ready();
        if self.slow_for > 0 && !self.rng.chance(20) {
            ready.retain(|queue| !matches!(queue, Queue::Commit | Queue::Sync));
        }
        if ready.is_empty() {
            return Ok(());
        }
        let queue = *self.rng.pick(&ready);
        self.trace
            .note(|| format!("{} node: {queue:?}", self.steps));
        if queue == Queue::Commit && self.rng.chance(300) {
            let limit = self.rng.range(1, 4) as usize;
            node.commit(limit);
        } else {
            node.step(queue);
        }
        self.after_node_step(queue)
    }

    fn after_node_step(&mut self, queue: Queue) -> Held {
        if queue == Queue::Commit && self.full_for > 0 {
            self.model.disturb();
            self.model.wills_are_unsure();
        }
        let node = self.node.as_ref().expect("it has just moved");
        let all_synced = node.is_all_synced();
        let by_input = match queue {
            Queue::Input(wire) => Some(wire as usize),
            _ => None,
        };
        self.observe(by_input)?;
        if queue == Queue::Sync && all_synced {
            self.model.on_all_synced();
        }
        self.take_push_answers()
    }

    /// The node moves everything it can.
    fn settle_node(&mut self) -> Held {
        let mut bound = 200_000;
        while let Some(&queue) = self
            .node
            .as_ref()
            .and_then(|node| node.ready().first().copied())
            .as_ref()
        {
            self.node.as_mut().expect("just seen").step(queue);
            self.after_node_step(queue)?;
            bound -= 1;
            if bound == 0 {
                return Err(Violation(format!(
                    "the node never comes to rest: {queue:?}"
                )));
            }
        }
        Ok(())
    }

    /// Time passes.
    fn pass(&mut self, ms: u64) -> Held {
        self.now = Millis(self.now.0 + ms);
        self.trace
            .note(|| format!("{} clock: +{ms} ms = {}", self.steps, self.now.0));
        let sweeps = self.rng.chance(400);
        if let Some(node) = &mut self.node {
            node.advance(ms);
            if sweeps {
                node.sweep();
            }
        }
        self.observe(None)?;
        for at in 0..self.clients.len() {
            self.clients[at].machine.on_tick(self.now.0);
            self.take_events(at)?;
        }
        Ok(())
    }
}
