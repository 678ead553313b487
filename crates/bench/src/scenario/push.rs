//! Pushes to single devices through the HTTP API.

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use campanile_mqtt::Publish;
use clap::Args;

use super::storm::forget;
use crate::{
    Common, Metric, Outcome, Target,
    account::{Account, Arrival},
    api::{self, INBOX_TOPIC, PushStamp},
    fleet::{Crew, Ended, Fleet, LinkId, Links, Member},
    meter::{Latencies, Meter, Spent},
};

/// Pushes to connected devices, one device each.
#[derive(Args, Clone, Debug)]
pub struct Push {
    /// Devices
    #[arg(long, default_value_t = 100)]
    pub devices: usize,
    /// Pushes of all devices together
    #[arg(long, default_value_t = 50_000)]
    pub pushes: u64,
    /// HTTP connections, each with one request under way
    #[arg(long, default_value_t = 16)]
    pub callers: usize,
    /// Pushes a second of all callers together; latency counts from when each was due [default: each caller's next one when its last is answered]
    #[arg(long)]
    pub rate: Option<NonZeroU64>,
    /// App that the devices belong to
    #[arg(long, default_value = "default")]
    pub app: String,
}

impl Push {
    pub(super) fn label(&self) -> String {
        let (devices, callers) = (self.devices, self.callers());
        let rate = self.rate.map(|rate| format!(", {rate} a second"));
        let rate = rate.unwrap_or_default();
        format!("pushes to {devices} devices over {callers} HTTP connections{rate}")
    }

    /// A device's pushes all go through the same connection, so that their order means something.
    fn callers(&self) -> usize {
        self.callers.clamp(1, self.devices.max(1))
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let key = common.key.clone().or_else(|| target.key());
        let key = key.context("the HTTP API needs a key: --key, or CAMPANILE_KEY")?;
        let mut fleet = Fleet::new(common.fleet(target))?;
        let mut crew = Pushes::new(self, key, &mut fleet);
        let links = self.devices + self.callers();
        fleet.connect(&mut crew, (0..links).map(LinkId))?;
        fleet.settle(&mut crew, Duration::from_millis(300))?;

        let meter = Meter::start(&target.nodes);
        crew.start_ns = fleet.links.tick();
        let ended = fleet.drive(&mut crew, |crew, links| {
            crew.call_who_are_due(links);
            crew.is_done()
        })?;
        let work_ended = Instant::now();
        fleet.settle(&mut crew, Duration::from_millis(500))?;
        let spent = meter.stop(work_ended);
        let outcome = crew.outcome(target, &spent, ended, &fleet.links);
        forget(&mut fleet, self.devices)?;
        Ok(outcome)
    }
}

/// Devices have the first links, callers those after them. Caller c serves devices c, c + callers, and so on, in turn.
struct Pushes<'a> {
    plan: &'a Push,
    api: api::Caller,
    run: u32,
    each: u64,
    callers: Vec<Caller>,
    /// Those with no request under way, the longest idle first.
    idle: VecDeque<usize>,
    start_ns: u64,
    called: u64,
    accepted: u64,
    delivered: u64,
    account: Account,
    to_accepted: Latencies,
    to_device: Latencies,
}

#[derive(Clone, Default)]
struct Caller {
    calls: u64,
    /// When the request under way was due.
    due_ns: u64,
}

impl Pushes<'_> {
    fn new<'a>(plan: &'a Push, key: String, fleet: &mut Fleet) -> Pushes<'a> {
        let run = fleet.links.options().run;
        for device in 0..plan.devices {
            // Pushes come without a subscription, to whoever has a session.
            fleet.links.add(Member {
                clean_start: false,
                ..Member::new(client_id(run, device))
            });
        }
        for _ in 0..plan.callers() {
            fleet.links.add_http();
        }
        let each = plan.pushes.div_ceil(plan.devices.max(1) as u64);
        Pushes {
            plan,
            api: api::Caller {
                app: plan.app.clone(),
                key,
                host: "bench".into(),
            },
            run,
            each,
            callers: vec![Caller::default(); plan.callers()],
            idle: (0..plan.callers()).collect(),
            start_ns: 0,
            called: 0,
            accepted: 0,
            delivered: 0,
            account: Account::new(plan.devices, each),
            to_accepted: Latencies::default(),
            to_device: Latencies::default(),
        }
    }

    fn is_done(&self) -> bool {
        let all = self.each * self.plan.devices as u64;
        self.accepted >= all && self.delivered >= all
    }

    /// Has idle callers send their next requests, as many as are due.
    fn call_who_are_due(&mut self, links: &mut Links) {
        let now_ns = links.tick();
        while !self.idle.is_empty() {
            let due_ns = match self.plan.rate {
                None => now_ns,
                Some(rate) => self.start_ns + self.called * 1_000_000_000 / rate,
            };
            if due_ns > now_ns {
                return links.wake_at(due_ns);
            }
            let Some(caller) = self.idle.pop_front() else {
                return;
            };
            self.call(links, caller, due_ns);
        }
    }

    /// Sends the caller's next request, if one is left.
    fn call(&mut self, links: &mut Links, caller: usize, due_ns: u64) {
        let callers = self.callers.len();
        let served = (self.plan.devices - caller).div_ceil(callers) as u64;
        let calls = self.callers[caller].calls;
        let (sequence, turn) = (calls / served, calls % served);
        if sequence == self.each {
            return;
        }
        let device = caller + turn as usize * callers;
        self.called += 1;
        self.callers[caller] = Caller {
            calls: calls + 1,
            due_ns,
        };
        let stamp = PushStamp {
            run: self.run,
            device,
            sequence,
            sent_ns: due_ns,
        };
        let id = client_id(self.run, device);
        let link = LinkId(self.plan.devices + caller);
        links.send(link, |out| self.api.write(Some(&id), stamp, None, out));
    }

    fn outcome(&self, target: &Target, spent: &Spent, ended: Ended, links: &Links) -> Outcome {
        let tally = self.account.tally();
        let mut metrics = spent.server_metrics("push", tally.delivered);
        metrics.push(Metric::new("pushes", spent.rate(tally.delivered), "/s"));
        metrics.extend(self.to_device.metrics());
        for metric in self.to_accepted.metrics() {
            let name = format!("{} to 202", metric.name);
            metrics.push(Metric { name, ..metric });
        }
        metrics.extend(spent.other_metrics("push", tally.delivered));
        Outcome {
            scenario: self.plan.label(),
            target: target.name.clone(),
            metrics,
            tally: Some(tally),
            problems: links.problems(ended),
        }
    }
}

fn client_id(run: u32, device: usize) -> String {
    format!("bench-{run:08x}-d{device}")
}

impl Crew for Pushes<'_> {
    fn on_response(&mut self, links: &mut Links, link: LinkId, status: u16, body: &[u8]) {
        let caller = link.0 - self.plan.devices;
        if status == 202 {
            self.accepted += 1;
            let due_ns = self.callers[caller].due_ns;
            self.to_accepted
                .record(links.now_ns().saturating_sub(due_ns));
        } else {
            let body = String::from_utf8_lossy(body);
            links.fault(format!("push answered with {status}: {body}"));
        }
        self.idle.push_back(caller);
        self.call_who_are_due(links);
    }

    fn on_message(&mut self, links: &mut Links, link: LinkId, message: &Publish<'_>) {
        if message.topic != INBOX_TOPIC {
            self.account.stray();
            return;
        }
        let Some(stamp) = PushStamp::read(message.payload) else {
            return self.account.corrupted();
        };
        let PushStamp {
            run,
            device,
            sequence,
            sent_ns,
        } = stamp;
        if run != self.run || device != link.0 {
            self.account.stray();
            return;
        }
        if let Arrival::New | Arrival::Late = self.account.arrived(device, sequence) {
            self.delivered += 1;
            self.to_device
                .record(links.now_ns().saturating_sub(sent_ns));
        }
    }
}
