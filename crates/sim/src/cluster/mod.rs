//! Several nodes, their clients, their app servers and everything between them, moved one thing at a time by a scheduler that a seed decides.
//!
//! [`run`] plays a seed as [`world`](crate::world) does for one node: a [`Plan`] is drawn, one thing after the other is moved, and things go wrong; then all
//! is healed, and the [model](crate::model) says whether everything that was promised has arrived.

mod connections;
mod end;
pub mod plan;
mod trouble;

use std::panic::{AssertUnwindSafe, catch_unwind};

use campanile_broker::ids::Millis;
use campanile_push::id::PushId;

use crate::{
    ends::{AppServer, Desk, Ends, ServerAct, SimClient, Trace},
    fleet::{Fleet, Move, sabotage::Sabotage},
    model::{Held, Model, Violation},
    pair::START,
    rng::Rng,
    shards::Step,
    world::{Failure, Outcome, has_campaigns},
};
use connections::Orphan;
use plan::Plan;
use trouble::Ends as TroubleEnds;

/// How a seed is played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print what happens.
    pub trace: bool,
    /// A bug to build in.
    pub sabotage: Option<Sabotage>,
    /// How many nodes; `None`: the seed says.
    pub nodes: Option<usize>,
    /// Play campaigns in every seed, not only in some.
    pub campaigns: bool,
}

/// Plays a seed.
pub fn run(seed: u64, options: Options) -> Result<Outcome, Failure> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, options);
        let held = world.play();
        held.map(|()| Outcome {
            hash: world.ends.trace.hash,
            steps: world.ends.steps,
            arrivals: world.ends.arrivals,
        })
        .map_err(|violation| format!("step {}: {}", world.ends.steps, violation.0))
    }));
    let result = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    result.map_err(|text| Failure { seed, text })
}

struct World {
    ends: Ends,
    plan: Plan,
    fleet: Fleet,
    orphans: Vec<Orphan>,
    /// Faults that end by themselves, with when.
    troubles: Vec<(Millis, TroubleEnds)>,
    /// Doubts of the fleet that the model knows of.
    doubts: u64,
    /// Since when nothing keeps nodes from each other or the store.
    calm_since: Millis,
}

/// What may be moved next, with weights.
const NODES: u64 = 60;
const NETWORK: u64 = 24;
const CLOCK: u64 = 4;

/// Time passes in pieces of at most this: nobody's clock but that of a node that stands still jumps.
const PIECE_MS: u64 = 100;
/// Until all nodes have heard of what they were told of, if nothing is in the way: a link that is made anew, and a poll.
const HEARD_MS: u64 = 5000;

impl World {
    fn new(seed: u64, options: Options) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::of(&mut rng, seed, options);
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
                "plan: {} nodes, {} shards, skews {:?}, {:?} {:#?} {:?}",
                plan.fleet.nodes,
                plan.fleet.shards,
                plan.fleet.skews_ms,
                plan.fleet.broker,
                plan.clients,
                plan.trouble
            )
        });
        let clients = plan.clients.iter().cloned().map(SimClient::new).collect();
        World {
            fleet: Fleet::new(plan.fleet.clone(), START),
            orphans: Vec::new(),
            troubles: Vec::new(),
            doubts: 0,
            calm_since: START,
            ends: Ends {
                rng,
                now: START,
                clients,
                servers: vec![AppServer::default(), AppServer::default()],
                desk: has_campaigns.then(|| Desk::new(seed)),
                // Not those seeds that tests know by what they have found.
                has_lanes: seed.is_multiple_of(4),
                model: Model {
                    many_nodes: true,
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

    fn play(&mut self) -> Held {
        self.come_up()?;
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

    /// Nodes find each other and read what the store has.
    fn come_up(&mut self) -> Held {
        for _ in 0..20 {
            self.pass(PIECE_MS)?;
            self.settle()?;
        }
        match (0..self.fleet.count()).all(|node| self.fleet.serves(node)) {
            true => Ok(()),
            false => Err(Violation("a node does not come up".to_owned())),
        }
    }

    /// Registers devices, if there are to be any.
    fn register(&mut self) -> Held {
        let Some(registration) = self.ends.registration() else {
            return Ok(());
        };
        self.fleet.push(0, registration);
        self.settle()
    }

    /// Whoever runs campaigns does something, through any node.
    fn act_at_desk(&mut self) {
        let Some(node) = self.choose_node() else {
            return;
        };
        let (reader, clock) = (self.fleet.reader(), self.fleet.clock(node));
        if let Some(command) = self.ends.act_at_desk(&*reader, clock) {
            self.ends.desk_asked(self.fleet.push(node, command));
        }
    }

    /// Whoever serves has heard of what was answered a while ago, if nothing moves and nothing has kept it from anybody meanwhile.
    fn note_rest(&mut self) {
        if self.ends.desk.is_none() {
            return;
        }
        let is_calm = self.troubles.is_empty()
            && (0..self.fleet.count())
                .all(|node| self.fleet.look_at(node).is_none() || self.fleet.serves(node));
        if !is_calm {
            self.calm_since = self.ends.now;
        } else if self.calm_since.0 + HEARD_MS <= self.ends.now.0 && self.fleet.ready().is_empty() {
            let heard = Millis(self.ends.now.0 - HEARD_MS);
            self.ends.model.all_have_heard(heard);
        }
    }

    /// Moves one thing.
    fn step(&mut self) -> Held {
        let weights = [NODES, NETWORK, self.plan.busy, self.plan.pushes, CLOCK];
        let chosen = self.ends.rng.weighted(&weights).unwrap_or(4);
        match chosen {
            0 => self.move_fleet(),
            1 => self.move_network(),
            2 => {
                let at = self.ends.rng.index(self.ends.clients.len());
                self.act(at)
            }
            3 => self.act_as_server(),
            _ => {
                let ms = match self.ends.rng.below(20) {
                    0 => self.ends.rng.range(2000, 15_000),
                    1..=4 => self.ends.rng.range(100, 1500),
                    _ => self.ends.rng.range(1, 50),
                };
                self.pass_busily(ms)
            }
        }
    }

    /// One thing between or within the nodes moves.
    fn move_fleet(&mut self) -> Held {
        let ready = self.fleet.ready();
        if ready.is_empty() {
            return Ok(());
        }
        let next = *self.ends.rng.pick(&ready);
        self.ends
            .trace
            .note(|| format!("{} {next:?}", self.ends.steps));
        self.carry_out(next)
    }

    fn carry_out(&mut self, next: Move) -> Held {
        self.fleet.step(next);
        self.note_doubts();
        self.note_rest();
        let by_input = match next {
            Move::Shards(node, Step::Input(wire)) => Some((node, wire as usize)),
            _ => None,
        };
        self.observe(by_input)?;
        self.ends.on_push_answers(self.fleet.take_push_answers())
    }

    /// What was under way may be repeated, or may have failed.
    fn note_doubts(&mut self) {
        let doubts = self.fleet.doubts();
        if doubts != self.doubts {
            self.doubts = doubts;
            self.ends.model.disturb();
            self.ends.model.wills_are_unsure();
        }
    }

    /// Everything moves that can.
    fn settle(&mut self) -> Held {
        let mut bound = 500_000;
        loop {
            let ready = self.fleet.ready();
            let Some(&next) = ready.first() else {
                return Ok(());
            };
            self.carry_out(next)?;
            bound -= 1;
            if bound == 0 {
                return Err(Violation(format!("the nodes never come to rest: {next:?}")));
            }
        }
    }

    /// Time passes, and everybody does something meanwhile.
    fn pass_busily(&mut self, ms: u64) -> Held {
        let mut left = ms;
        while left > 0 {
            let piece = left.min(PIECE_MS);
            self.pass(piece)?;
            left -= piece;
            let moves = if left > 0 { self.ends.rng.below(40) } else { 0 };
            for _ in 0..moves {
                match self.ends.rng.chance(250) {
                    true => self.move_network()?,
                    false => self.move_fleet()?,
                }
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
        self.end_troubles();
        self.fleet.advance(ms);
        self.note_doubts();
        self.observe(None)?;
        for at in 0..self.ends.clients.len() {
            self.ends.clients[at].machine.on_tick(self.ends.now.0);
            self.ends.take_events(at)?;
        }
        self.ends.on_push_answers(self.fleet.take_push_answers())
    }

    /// A client does something.
    fn act(&mut self, at: usize) -> Held {
        let Some(link) = &self.ends.clients[at].link else {
            return match self.ends.comes(at) {
                Some(clean) => self.open(at, clean),
                None => Ok(()),
            };
        };
        // Who talks to a node that stands still tries another one at last.
        if !link.node_closed && self.fleet.is_paused(link.node) && self.ends.rng.chance(200) {
            return self.vanish(at);
        }
        self.ends.act(at)
    }

    /// An app server does something, through any node.
    fn act_as_server(&mut self) -> Held {
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

    /// Sends the push of an app server to any node that serves.
    fn submit(&mut self, at: usize) {
        let Some(node) = self.choose_node() else {
            return;
        };
        let clock = self.fleet.clock(node);
        let member = self.fleet.member(node).expect("it serves");
        let id = PushId(member.shards.ids().next(clock).0);
        let reader = self.fleet.reader();
        if let Some((order, command)) = self.ends.submission(at, id, clock, &*reader) {
            if let Some(order) = order {
                self.fleet.push(node, order);
            }
            let number = self.fleet.push(node, command);
            self.ends.submitted(at, number);
        }
    }

    /// A node that serves.
    fn choose_node(&mut self) -> Option<usize> {
        let serving: Vec<usize> = (0..self.fleet.count())
            .filter(|&node| self.fleet.serves(node))
            .collect();
        (!serving.is_empty()).then(|| *self.ends.rng.pick(&serving))
    }

    /// Compares the report of a push with what has arrived, if all is safe.
    fn check_report(&mut self, push: usize) -> Held {
        if self.fleet.has_unsynced() {
            return Ok(());
        }
        self.ends.check_report(push, &*self.fleet.reader())
    }
}
