//! Connections that only keep alive.

use std::time::{Duration, Instant};

use anyhow::Result;
use campanile_mqtt::{Packet, QoS};
use clap::Args;

use crate::{
    Common, Metric, Outcome, Target,
    fleet::{Crew, Ended, Fleet, LinkId, Links, Member},
    meter::{Meter, server_usage},
};

/// Idle connections with one subscription of their own each.
#[derive(Args, Clone, Debug)]
pub struct Idle {
    /// Connections
    #[arg(long, default_value_t = 15_000)]
    pub connections: usize,
    /// Keep-alive in seconds: each connection sends a PINGREQ in that time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub keep_alive: u16,
    /// Seconds to look on
    #[arg(long, default_value_t = 20)]
    pub hold: u64,
}

#[derive(Default)]
struct Sleepers {
    pings: u64,
    pongs: u64,
}

impl Crew for Sleepers {
    fn on_pong(&mut self, _: &mut Links, _: LinkId) {
        self.pongs += 1;
    }
}

impl Idle {
    pub(super) fn label(&self) -> String {
        let (n, keep_alive) = (self.connections, self.keep_alive);
        format!("{n} idle connections, keep-alive {keep_alive} s")
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let mut fleet = Fleet::new(common.fleet(target))?;
        let run = fleet.links.options().run;
        let mut crew = Sleepers::default();
        let before = server_usage(&target.nodes);
        for index in 0..self.connections {
            let member = Member {
                // Pings go out evenly, so that none is ever late by more than a turn.
                keep_alive: self.keep_alive.saturating_mul(2),
                ..Member::new(format!("bench-{run:08x}-{index}"))
            };
            let filter = format!("bench/{run:08x}/{index}");
            fleet.links.add(member.subscribe(filter, QoS::AtLeastOnce));
        }
        fleet.connect(&mut crew, (0..self.connections).map(LinkId))?;
        fleet.settle(&mut crew, Duration::from_millis(500))?;
        let after = server_usage(&target.nodes);

        let meter = Meter::start(&target.nodes);
        self.hold(&mut fleet, &mut crew)?;
        let held = Instant::now();
        let answered = fleet.drive(&mut crew, |crew, _| crew.pongs >= crew.pings)?;
        let spent = meter.stop(held);

        let mut metrics = Vec::new();
        if let (Some(before), Some(after)) = (before, after) {
            let kib = after.rss_kib.saturating_sub(before.rss_kib) as f64;
            let each = kib / self.connections.max(1) as f64;
            metrics.push(Metric::new("server RSS per connection", each, "KiB"));
        }
        metrics.extend(spent.server_metrics("ping", crew.pings));
        if let Some(cpu) = spent.server {
            let share = cpu.as_secs_f64() / spent.elapsed.as_secs_f64().max(1e-9);
            metrics.push(Metric::new(
                "server CPU while idle",
                100.0 * share,
                "% of a core",
            ));
        }
        metrics.extend(spent.other_metrics("ping", crew.pings));
        let mut problems = fleet.links.problems(answered);
        if crew.pongs != crew.pings {
            problems.push(format!("{} pings, {} answers", crew.pings, crew.pongs));
        }
        Ok(Outcome {
            scenario: self.label(),
            target: target.name.clone(),
            metrics,
            tally: None,
            problems,
        })
    }

    /// Sends each connection's pings, spread evenly over the keep-alive time.
    fn hold(&self, fleet: &mut Fleet, crew: &mut Sleepers) -> Result<Ended> {
        let started = Instant::now();
        let hold = Duration::from_secs(self.hold);
        let per_second = self.connections as f64 / f64::from(self.keep_alive);
        while started.elapsed() < hold {
            let due = (started.elapsed().as_secs_f64() * per_second) as u64;
            while crew.pings < due {
                let link = LinkId(crew.pings as usize % self.connections);
                fleet.links.send(link, |out| {
                    Packet::PingReq.encode(campanile_mqtt::Version::V311, out);
                });
                crew.pings += 1;
            }
            fleet.turn(crew, Duration::from_millis(20))?;
        }
        Ok(Ended::Done)
    }
}
