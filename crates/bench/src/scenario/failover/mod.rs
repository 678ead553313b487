//! What devices see when a node is killed: how long until all are connected elsewhere and have what was accepted for them, and what
//! those on the other nodes notice.

mod crew;
mod lane;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use self::crew::Devices;
use crate::{
    Common, Metric, Outcome, Target,
    account::Tally,
    fleet::{Ended, Fleet, LinkId},
    process,
};

/// Devices get pushes and QoS 1 publishes while the process of the first node (`--pid`) is killed with SIGKILL. Its devices go to the
/// other nodes; without others, somebody else starts it again. Whoever sends repeats what was not accepted.
#[derive(Args, Clone, Debug)]
pub struct Failover {
    /// Devices, with persistent sessions and a subscription each
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub devices: u32,
    /// Pushes to each device, and publishes to each
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Pushes per second, and publishes per second
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Connections that push, and connections that publish, each with one message under way
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub senders: u32,
    /// A device comes back at a random moment of this time, and of twice that when it failed, and so on up to eight times; 0: at once
    #[arg(long, default_value_t = 1_000, value_name = "MILLISECONDS")]
    pub backoff: u64,
    /// App that the devices belong to
    #[arg(long, default_value = "default")]
    pub app: String,
}

impl Failover {
    pub(super) fn label(&self) -> String {
        let wait = match self.backoff {
            0 => "at once".into(),
            milliseconds => format!("within {milliseconds} ms"),
        };
        format!(
            "a node of {} devices killed, which return {wait}",
            self.devices
        )
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let victim = target
            .nodes
            .pids
            .first()
            .context("--pid must say which process to kill")?;
        let victim = i32::try_from(*victim)
            .ok()
            .and_then(Pid::from_raw)
            .context("--pid must be a process")?;
        let key = common
            .key
            .clone()
            .context("the HTTP API needs a key: --key, or CAMPANILE_KEY")?;
        let mut fleet = Fleet::new(common.fleet(target))?;
        let mut crew = Devices::muster(self, key, &mut fleet)?;
        let all = fleet.links.len();
        fleet.connect(&mut crew, (0..all).map(LinkId))?;
        fleet.settle(&mut crew, Duration::from_millis(1000))?;
        ensure!(
            fleet.links.faults().count() == 0,
            "{:?}",
            fleet.links.faults().examples()
        );

        crew.start(&mut fleet.links);
        let quarter = self.rounds * u64::from(self.devices) / 4;
        fleet.drive(&mut crew, |crew, links| {
            crew.pump(links);
            crew.pushed() >= quarter
        })?;
        kill_process(victim, Signal::KILL).context("cannot kill the node")?;
        crew.on_killed(&mut fleet.links);
        let mut ended = Ended::Stalled;
        // A restart may take longer than anything else that has to come.
        while !process::interrupted() {
            ended = fleet.drive(&mut crew, |crew, links| {
                crew.pump(links);
                crew.is_done()
            })?;
            if ended == Ended::Done || crew.has_tried_for(links_ns(&fleet), common.stall) {
                break;
            }
        }
        fleet.settle(&mut crew, Duration::from_millis(1000))?;
        Ok(self.outcome(&crew, target, &fleet, ended))
    }

    fn outcome(&self, crew: &Devices<'_>, target: &Target, fleet: &Fleet, ended: Ended) -> Outcome {
        let tally = crew.tally();
        let mut metrics = crew.metrics();
        metrics.push(Metric::new("duplicates", tally.duplicated as f64, ""));
        let mut problems = fleet.links.problems(ended);
        problems.extend(crew.problems());
        Outcome {
            scenario: self.label(),
            target: target.name.clone(),
            metrics,
            // At least once: whoever does not get the answer sends again.
            tally: Some(Tally {
                duplicated: 0,
                ..tally
            }),
            problems,
        }
    }
}

fn links_ns(fleet: &Fleet) -> u64 {
    fleet.links.now_ns()
}
