//! Connects as fast as possible.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::{
    Common, Metric, Outcome, Target,
    fleet::{Crew, Ended, Fleet, LinkId, Links, Member, Welcome},
    meter::{Latencies, Meter, Spent},
};

/// A storm of connects.
#[derive(Args, Clone, Debug)]
pub struct Storm {
    /// Clients
    #[arg(long, default_value_t = 10_000)]
    pub clients: usize,
    /// Sessions outlive their connections: all connect, leave and come back, and the return is measured
    #[arg(long)]
    pub persistent: bool,
    /// Of such sessions, the first connect is measured instead of the return
    #[arg(long, requires = "persistent")]
    pub first: bool,
}

#[derive(Default)]
struct Arrivals {
    latencies: Latencies,
    with_session: usize,
}

impl Crew for Arrivals {
    fn on_ready(&mut self, _: &mut Links, _: LinkId, welcome: Welcome) {
        self.latencies.record(welcome.elapsed.as_nanos() as u64);
        self.with_session += usize::from(welcome.session_present);
    }
}

impl Storm {
    pub(super) fn label(&self) -> String {
        let n = self.clients;
        if self.first {
            format!("storm of {n} new persistent sessions")
        } else if self.persistent {
            format!("storm of {n} returning sessions")
        } else {
            format!("storm of {n} connects, clean sessions")
        }
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let mut fleet = Fleet::new(common.fleet(target))?;
        let run = fleet.links.options().run;
        for index in 0..self.clients {
            let member = Member::new(format!("bench-{run:08x}-{index}"));
            fleet.links.add(Member {
                clean_start: !self.persistent,
                ..member
            });
        }
        let mut expect_sessions = 0;
        if self.persistent && !self.first {
            wave(&mut fleet, &mut Arrivals::default(), self.clients)?;
            leave(&mut fleet, &mut Arrivals::default())?;
            fleet.settle(&mut Arrivals::default(), Duration::from_millis(500))?;
            expect_sessions = self.clients;
        }

        let mut crew = Arrivals::default();
        let meter = Meter::start(&target.nodes);
        let ended = wave(&mut fleet, &mut crew, self.clients)?;
        let connected_at = Instant::now();
        fleet.settle(&mut crew, Duration::from_millis(500))?;
        let spent = meter.stop(connected_at);
        let mut problems = fleet.links.problems(ended);
        let (found, connected) = (crew.with_session, fleet.links.ready());
        if connected != self.clients {
            problems.push(format!("{connected} of {} connected", self.clients));
        }
        if found != expect_sessions {
            problems.push(format!(
                "{found} sessions found, {expect_sessions} expected"
            ));
        }
        if self.persistent {
            forget(&mut fleet, self.clients)?;
        }
        Ok(Outcome {
            scenario: self.label(),
            target: target.name.clone(),
            metrics: metrics(&crew, &spent, connected as u64),
            tally: None,
            problems,
        })
    }
}

fn metrics(crew: &Arrivals, spent: &Spent, connects: u64) -> Vec<Metric> {
    let mut metrics = spent.server_metrics("connect", connects);
    metrics.push(Metric::new("connects", spent.rate(connects), "/s"));
    metrics.extend(crew.latencies.metrics());
    metrics.extend(spent.other_metrics("connect", connects));
    metrics
}

/// Connects everybody and waits for all.
pub(super) fn wave<C: Crew>(fleet: &mut Fleet, crew: &mut C, clients: usize) -> Result<Ended> {
    for link in 0..clients {
        fleet.links.dial(LinkId(link));
    }
    fleet.drive(crew, |_, links| links.ready() == clients)
}

/// Everybody who is connected says goodbye; waits until the server has closed all connections.
pub(super) fn leave<C: Crew>(fleet: &mut Fleet, crew: &mut C) -> Result<Ended> {
    for link in fleet.links.all_ready() {
        fleet.links.leave(link);
    }
    fleet.drive(crew, |_, links| links.connected() == 0)
}

/// Leaves no session behind: the first `clients` links come back once with a clean start.
pub(super) fn forget(fleet: &mut Fleet, clients: usize) -> Result<()> {
    let crew = &mut Arrivals::default();
    leave(fleet, crew)?;
    for link in (0..clients).map(LinkId) {
        let member = fleet.links.member_mut(link);
        member.clean_start = true;
        member.subscriptions.clear();
    }
    wave(fleet, crew, clients)?;
    leave(fleet, crew)?;
    Ok(())
}
