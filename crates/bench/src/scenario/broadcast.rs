//! Pushes to all devices through the HTTP API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use campanile_mqtt::Publish;
use clap::Args;

use super::storm::forget;
use crate::{
    Common, Metric, Outcome, Target,
    account::{Account, Arrival},
    api::{Caller, INBOX_TOPIC, PushStamp},
    fleet::{Crew, Fleet, LinkId, Links, Member},
    meter::{Latencies, Meter},
};

/// Pushes to all, the next one when every device has the last.
#[derive(Args, Clone, Debug)]
pub struct Broadcast {
    /// Devices, whose sessions outlive their connections
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub devices: u32,
    /// Pushes
    #[arg(long, default_value_t = 20)]
    pub pushes: u64,
    /// App that the devices belong to
    #[arg(long, default_value = "default")]
    pub app: String,
}

impl Broadcast {
    pub(super) fn label(&self) -> String {
        format!("pushes to all of {} devices", self.devices)
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let key = common.key.clone().or_else(|| target.key());
        let key = key.context("the HTTP API needs a key: --key, or CAMPANILE_KEY")?;
        let mut fleet = Fleet::new(common.fleet(target))?;
        let devices = self.devices as usize;
        let run = fleet.links.options().run;
        for device in 0..devices {
            fleet.links.add(Member {
                clean_start: false,
                ..Member::new(format!("bench-{run:08x}-d{device}"))
            });
        }
        let mut crew = Pushes {
            run,
            devices,
            caller: Caller {
                app: self.app.clone(),
                key,
                host: "bench".into(),
            },
            link: fleet.links.add_http(),
            pushes: self.pushes,
            accepted: 0,
            delivered: 0,
            account: Account::new(devices, self.pushes),
            to_device: Latencies::default(),
        };
        fleet.connect(&mut crew, (0..=devices).map(LinkId))?;
        fleet.settle(&mut crew, Duration::from_millis(1500))?;

        let meter = Meter::start(&target.nodes);
        crew.push(&mut fleet.links);
        let ended = fleet.drive(&mut crew, |crew, _| {
            crew.accepted == crew.pushes && crew.all_have()
        })?;
        let work_ended = Instant::now();
        // Acknowledgements move cursors, which are saved about a second later.
        fleet.settle(&mut crew, Duration::from_millis(1500))?;
        let spent = meter.stop(work_ended);

        let tally = crew.account.tally();
        let mut metrics = spent.server_metrics("delivery", tally.delivered);
        metrics.push(Metric::new("deliveries", spent.rate(tally.delivered), "/s"));
        metrics.extend(crew.to_device.metrics());
        metrics.extend(spent.other_metrics("delivery", tally.delivered));
        let problems = fleet.links.problems(ended);
        forget(&mut fleet, devices)?;
        Ok(Outcome {
            scenario: self.label(),
            target: target.name.clone(),
            metrics,
            tally: Some(tally),
            problems,
        })
    }
}

/// Devices have the first links, the caller of the API the last.
struct Pushes {
    run: u32,
    devices: usize,
    caller: Caller,
    link: LinkId,
    pushes: u64,
    accepted: u64,
    delivered: u64,
    account: Account,
    to_device: Latencies,
}

impl Pushes {
    /// Whether every device has what was accepted so far.
    fn all_have(&self) -> bool {
        self.delivered >= self.accepted * self.devices as u64
    }

    fn push(&self, links: &mut Links) {
        let stamp = PushStamp {
            run: self.run,
            device: 0,
            sequence: self.accepted,
            sent_ns: links.tick(),
        };
        links.send(self.link, |out| self.caller.write(None, stamp, None, out));
    }

    fn go_on(&self, links: &mut Links) {
        if self.all_have() && self.accepted < self.pushes {
            self.push(links);
        }
    }
}

impl Crew for Pushes {
    fn on_response(&mut self, links: &mut Links, _: LinkId, status: u16, body: &[u8]) {
        if status != 202 {
            let body = String::from_utf8_lossy(body);
            return links.fault(format!("push answered with {status}: {body}"));
        }
        self.accepted += 1;
        self.go_on(links);
    }

    fn on_message(&mut self, links: &mut Links, link: LinkId, message: &Publish<'_>) {
        if message.topic != INBOX_TOPIC {
            self.account.stray();
            return;
        }
        let Some(stamp) = PushStamp::read(message.payload) else {
            return self.account.corrupted();
        };
        if stamp.run != self.run {
            self.account.stray();
            return;
        }
        if let Arrival::New | Arrival::Late = self.account.arrived(link.0, stamp.sequence) {
            self.delivered += 1;
            let now_ns = links.now_ns();
            self.to_device.record(now_ns.saturating_sub(stamp.sent_ns));
            // It may reach all before it is accepted.
            if stamp.sequence < self.accepted {
                self.go_on(links);
            }
        }
    }
}
