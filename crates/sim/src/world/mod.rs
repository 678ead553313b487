//! A node, its clients, its app servers and the network between them, moved one thing at a time by a scheduler that a seed decides.
//!
//! [`run`] plays a seed: a [`Plan`] is drawn, then one thing after the other is moved, and things go wrong. At the end all faults are
//! taken away, everybody comes back, and the [model](crate::model) says whether everything that was promised has arrived; then everybody leaves, and nothing may be left.

mod connections;
mod end;
pub mod plan;
mod trouble;

use std::panic::{AssertUnwindSafe, catch_unwind};

use campanile_backends::memory::Disk;
use campanile_broker::ids::Millis;
use campanile_push::id::PushId;

use crate::{
    ends::{AppServer, Desk, Ends, ServerAct, SimClient, Trace},
    model::{Held, Model, Violation},
    node::{Node, Queue},
    pair::START,
    rng::Rng,
    sabotage::Sabotage,
};
use connections::Orphan;
pub use connections::is_welcome;
use plan::Plan;

/// How a seed is played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print what happens.
    pub trace: bool,
    /// A bug to build in.
    pub sabotage: Option<Sabotage>,
    /// Play campaigns in every seed, not only in some.
    pub campaigns: bool,
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
            .map_err(|violation| format!("step {}: {}", world.ends.steps, violation.0))
    }));
    let result = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    result.map_err(|text| Failure { seed, text })
}

/// Whether campaigns are played in a seed: the others are those that tests know by what they have found.
pub fn has_campaigns(seed: u64) -> bool {
    seed % 4 == 2
}

struct World {
    ends: Ends,
    plan: Plan,
    node: Option<Node>,
    /// Of a node that is down.
    disk: Disk,
    orphans: Vec<Orphan>,
    /// Steps for which the disk stays full.
    full_for: u64,
    /// Steps for which the disk cannot be read.
    unreadable_for: u64,
    /// Steps for which the disk stays slow.
    slow_for: u64,
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
        let has_campaigns = options.campaigns || has_campaigns(seed);
        if has_campaigns {
            plan.pushes = plan.pushes.max(1) * 2;
        }
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
            node: Some(Node::start(plan.node.clone(), Disk::default(), START)),
            disk: Disk::default(),
            orphans: Vec::new(),
            full_for: 0,
            unreadable_for: 0,
            slow_for: 0,
            ends: Ends {
                rng,
                now: START,
                clients,
                servers: vec![AppServer::default(), AppServer::default()],
                desk: has_campaigns.then(|| Desk::new(seed)),
                has_lanes: true,
                model: Model {
                    inboxes_drop: plan.node.store.inbox_max_entries < 1000,
                    ..Model::default()
                },
                steps: 0,
                arrivals: 0,
                was_full: false,
                was_unreadable: false,
                trace,
            },
            plan,
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            hash: self.ends.trace.hash,
            steps: self.ends.steps,
            arrivals: self.ends.arrivals,
        }
    }

    fn play(&mut self) -> Held {
        self.register()?;
        while self.ends.steps < self.plan.steps {
            self.ends.steps += 1;
            self.make_trouble()?;
            self.step()?;
        }
        self.ends.trace.note(|| "-- all is healed".to_owned());
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
        let chosen = self.ends.rng.weighted(&weights).unwrap_or(4);
        self.ends.trace.mix(chosen as u64);
        match chosen {
            0 => self.move_node(),
            1 => self.move_network(),
            2 => {
                let at = self.ends.rng.index(self.ends.clients.len());
                self.act(at)
            }
            3 => self.act_as_server(),
            _ => {
                let ms = match self.ends.rng.below(10) {
                    0 => self.ends.rng.range(2000, 15_000),
                    1..=3 => self.ends.rng.range(100, 1500),
                    _ => self.ends.rng.range(1, 50),
                };
                self.pass(ms)
            }
        }
    }

    /// A client does something.
    fn act(&mut self, at: usize) -> Held {
        if self.ends.clients[at].link.is_some() {
            return self.ends.act(at);
        }
        match self.ends.comes(at) {
            Some(clean) => self.open(at, clean),
            None => Ok(()),
        }
    }

    /// An app server does something.
    fn act_as_server(&mut self) -> Held {
        if self.node.is_none() {
            return Ok(());
        }
        if self.ends.desk.as_mut().is_some_and(Desk::acts) {
            self.act_at_desk();
            return Ok(());
        }
        match self.ends.act_as_server() {
            Some(ServerAct::Report(push)) => self.check_report(push),
            Some(ServerAct::Submit(at)) => {
                self.submit(at);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Sends the push of an app server.
    fn submit(&mut self, at: usize) {
        let Some(node) = &mut self.node else { return };
        let id = PushId(node.ids().next(self.ends.now).0);
        let (clock, reader) = (self.ends.now, node.reader());
        if let Some((order, command)) = self.ends.submission(at, id, clock, &*reader) {
            if let Some(order) = order {
                node.push(order);
            }
            self.ends.submitted(at, node.push(command));
        }
    }

    /// Registers devices, if there are to be any.
    fn register(&mut self) -> Held {
        let Some(registration) = self.ends.registration() else {
            return Ok(());
        };
        self.node.as_mut().expect("it begins").push(registration);
        self.settle_node()
    }

    /// Whoever runs campaigns does something.
    fn act_at_desk(&mut self) {
        let Some(node) = &mut self.node else { return };
        let reader = node.reader();
        if let Some(command) = self.ends.act_at_desk(&*reader, self.ends.now) {
            self.ends.desk_asked(node.push(command));
        }
    }

    fn take_push_answers(&mut self) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        self.ends.on_push_answers(node.take_push_answers())
    }

    /// Compares the report of a push with what has arrived, if all is on disk.
    fn check_report(&mut self, push: usize) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        if node.store().unsynced() > 0 {
            return Ok(());
        }
        self.ends.check_report(push, &*node.reader())
    }

    /// One queue of the node moves.
    fn move_node(&mut self) -> Held {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let mut ready = node.ready();
        if self.slow_for > 0 && !self.ends.rng.chance(20) {
            ready.retain(|queue| !matches!(queue, Queue::Commit | Queue::Sync));
        }
        if ready.is_empty() {
            return Ok(());
        }
        let queue = *self.ends.rng.pick(&ready);
        self.ends
            .trace
            .note(|| format!("{} node: {queue:?}", self.ends.steps));
        if queue == Queue::Commit && self.ends.rng.chance(300) {
            let limit = self.ends.rng.range(1, 4) as usize;
            node.commit(limit);
        } else {
            node.step(queue);
        }
        self.after_node_step(queue)
    }

    fn after_node_step(&mut self, queue: Queue) -> Held {
        if queue == Queue::Commit && self.full_for > 0 {
            self.ends.model.disturb();
            self.ends.model.wills_are_unsure();
        }
        let node = self.node.as_ref().expect("it has just moved");
        let all_synced = node.is_all_synced();
        let node_rests = self.ends.desk.is_some() && node.ready().is_empty();
        let by_input = match queue {
            Queue::Input(wire) => Some(wire as usize),
            _ => None,
        };
        self.observe(by_input)?;
        if node_rests {
            self.ends.model.all_have_heard(self.ends.now);
        }
        if queue == Queue::Sync && all_synced {
            self.ends.model.on_all_synced();
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
        self.ends.now = Millis(self.ends.now.0 + ms);
        self.ends
            .trace
            .note(|| format!("{} clock: +{ms} ms = {}", self.ends.steps, self.ends.now.0));
        let sweeps = self.ends.rng.chance(400);
        if let Some(node) = &mut self.node {
            node.advance(ms);
            if sweeps {
                node.sweep();
            }
        }
        self.observe(None)?;
        for at in 0..self.ends.clients.len() {
            self.ends.clients[at].machine.on_tick(self.ends.now.0);
            self.ends.take_events(at)?;
        }
        Ok(())
    }
}
