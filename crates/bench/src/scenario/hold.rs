//! Connections that are held for as long as somebody wants to look at the server.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use campanile_mqtt::QoS;
use clap::Args;

use super::storm::{leave, wave};
use crate::{
    Common, Metric, Outcome, Target,
    fleet::{Crew, Ended, Fleet, Member},
    meter::Meter,
};

/// Connections with a subscription each, held until standard input ends. A process may hold some 20,000; several share the rest.
#[derive(Args, Clone, Debug)]
pub struct Hold {
    /// Connections
    #[arg(long, default_value_t = 18_000)]
    pub connections: usize,
    /// Sessions outlive their connections
    #[arg(long)]
    pub persistent: bool,
}

/// What is printed, on a line of its own, once all are connected.
pub const ALL_CONNECTED: &str = "all connected";

struct Sleepers;

impl Crew for Sleepers {}

impl Hold {
    pub(super) fn label(&self) -> String {
        let sessions = if self.persistent {
            "persistent"
        } else {
            "clean"
        };
        format!("{} held connections, {sessions} sessions", self.connections)
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let mut fleet = Fleet::new(common.fleet(target))?;
        let run = fleet.links.options().run;
        for index in 0..self.connections {
            let member = Member {
                clean_start: !self.persistent,
                ..Member::new(format!("bench-{run:08x}-{index}"))
            };
            let filter = format!("bench/{run:08x}/{index}");
            fleet.links.add(member.subscribe(filter, QoS::AtLeastOnce));
        }
        let meter = Meter::start(&target.nodes);
        let ended = wave(&mut fleet, &mut Sleepers, self.connections)?;
        let spent = meter.stop(Instant::now());
        let connected = fleet.links.ready();
        ensure!(
            ended == Ended::Done,
            "{connected} of {} connected: {}",
            self.connections,
            fleet.links.problems(ended).join("; ")
        );
        writeln!(io::stdout(), "{ALL_CONNECTED}")?;
        io::stdout().flush()?;
        let is_over = watch_input();
        while !is_over.load(Ordering::Relaxed) {
            fleet.turn(&mut Sleepers, Duration::from_millis(100))?;
        }
        let held = fleet.links.ready();
        let mut problems = fleet.links.problems(Ended::Done);
        if held != connected {
            problems.push(format!("{held} of {connected} were still connected"));
        }
        leave(&mut fleet, &mut Sleepers)?;
        let mut metrics = spent.server_metrics("connect", connected as u64);
        metrics.push(Metric::new("connects", spent.rate(connected as u64), "/s"));
        metrics.push(Metric::new(
            "connect time",
            spent.elapsed.as_secs_f64(),
            "s",
        ));
        metrics.extend(spent.other_metrics("connect", connected as u64));
        Ok(Outcome {
            scenario: self.label(),
            target: target.name.clone(),
            metrics,
            tally: None,
            problems,
        })
    }
}

/// True once standard input has ended.
fn watch_input() -> Arc<AtomicBool> {
    let is_over = Arc::new(AtomicBool::new(false));
    let told = is_over.clone();
    // Ends with the process: nothing else ends a read.
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    is_over
}
