//! A cluster, a fleet, and faults that a seed draws: after each, everything that was accepted must have arrived.

mod ground;
mod kind;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use self::ground::Ground;
pub use self::{
    ground::{Hosts, RedisMode},
    kind::Fault,
};
use crate::{
    fleet::{Fleet, FleetOptions, account::Figures},
    rng::Rng,
};

/// How long everything may take to arrive after a fault.
const SETTLE: Duration = Duration::from_secs(60);
/// Traffic before each fault.
const TRAFFIC: u64 = 100;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Draws the faults.
    pub seed: u64,
    /// No fault begins after this time.
    pub time: Duration,
    /// How many nodes.
    pub nodes: usize,
    /// What keeps the state.
    pub redis: RedisMode,
    /// What servers and nodes run on.
    pub network: Hosts,
    /// The program.
    pub binary: PathBuf,
}

/// What a run has held.
#[derive(Clone, Debug)]
pub struct Held {
    /// The fleet's totals.
    pub figures: Figures,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u32>,
}

/// Plays a run; `say` is told what happens. Fails at the first promise that is broken.
pub fn play(run: &Run, mut say: impl FnMut(&str)) -> anyhow::Result<Held> {
    say("starting servers and nodes");
    let mut ground = Ground::start(run)?;
    let options = FleetOptions {
        seed: run.seed,
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(ground.nodes.addresses(), &options)?;
    let mut rng = Rng::new(run.seed);
    let mut faults = BTreeMap::new();
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < run.time {
        round += 1;
        fleet.resume();
        let held = fleet.wait_accepted(TRAFFIC, PATIENCE).and_then(|()| {
            let fault = Fault::draw(&mut rng, run);
            let hold = Duration::from_millis(rng.between(200, 6000));
            say(&format!("{round:4}  {fault} for {hold:?}"));
            fleet.note(&fault.to_string());
            *faults.entry(fault.kind()).or_insert(0) += 1;
            suffer(&mut ground, &fleet, &fault, hold)?;
            fleet.note("mended");
            fleet.settle(SETTLE)
        });
        match held {
            Ok(figures) => say(&format!(
                "      accepted {}, received {}, refused {}",
                figures.accepted, figures.received, figures.refused
            )),
            Err(error) => {
                ground.keep_logs()?;
                return Err(error.context(format!(
                    "round {round}; the nodes' logs: {}",
                    ground.logs_kept_at().display()
                )));
            }
        }
    }
    let figures = fleet.account().figures();
    Ok(Held { figures, faults })
}

/// Breaks, waits, mends.
fn suffer(ground: &mut Ground, fleet: &Fleet, fault: &Fault, hold: Duration) -> anyhow::Result<()> {
    fleet.account().fault_begins();
    ground.break_with(fault)?;
    thread::sleep(hold);
    ground
        .mend(fault)
        .with_context(|| format!("mending: {fault}"))?;
    fleet.account().fault_ends();
    Ok(())
}
