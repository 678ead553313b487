//! Messages for sessions that are away, and their return.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use campanile_mqtt::{PacketId, Publish, QoS, Reason};
use clap::Args;

use super::{
    parse_payload,
    storm::{forget, leave, wave},
};
use crate::{
    Common, Metric, Outcome, Target,
    account::{Account, Arrival},
    fleet::{Crew, Ended, Fleet, LinkId, Links, Member, Welcome},
    meter::{Latencies, Meter, Spent},
    publisher::write_publish,
    stamp::Stamp,
};

/// Persistent sessions that leave, miss messages, and come back for them.
#[derive(Args, Clone, Debug)]
pub struct Offline {
    /// Sessions
    #[arg(long, default_value_t = 5_000)]
    pub sessions: usize,
    /// Messages for each session alone, and as many for all of them, QoS 1
    #[arg(long, default_value_t = 10)]
    pub messages: u64,
    /// Messages that the publisher may have under way
    #[arg(long, default_value_t = 32)]
    pub window: u64,
    /// Bytes
    #[arg(long, default_value = "256", value_parser = parse_payload)]
    pub payload: usize,
}

impl Offline {
    pub(super) fn label(&self) -> String {
        let (sessions, k) = (self.sessions, self.messages);
        format!("{sessions} offline sessions, {k} own + {k} common")
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let mut fleet = Fleet::new(common.fleet(target))?;
        let mut crew = Absence::new(self, &mut fleet);
        let quiet = Duration::from_millis(500);
        fleet.connect(&mut crew, (0..self.sessions).map(LinkId))?;
        if leave(&mut fleet, &mut crew)? == Ended::Stalled {
            bail!("the server does not close after DISCONNECT");
        }
        crew.forget_arrivals();

        let publisher = crew.publisher;
        fleet.connect(&mut crew, [publisher])?;
        fleet.settle(&mut crew, quiet)?;
        let meter = Meter::start(&target.nodes);
        crew.publish(&mut fleet.links);
        let stored = fleet.drive(&mut crew, |crew, _| crew.acknowledged >= crew.total())?;
        let store_ended = Instant::now();
        fleet.settle(&mut crew, quiet)?;
        let store = meter.stop(store_ended);
        leave(&mut fleet, &mut crew)?;

        // They know their subscriptions; the session has them.
        for link in (0..self.sessions).map(LinkId) {
            fleet.links.member_mut(link).subscriptions.clear();
        }
        let meter = Meter::start(&target.nodes);
        wave(&mut fleet, &mut crew, self.sessions)?;
        let copies = crew.account.tally().expected;
        let drained = fleet.drive(&mut crew, |crew, _| crew.delivered >= copies)?;
        let drain_ended = Instant::now();
        fleet.settle(&mut crew, quiet)?;
        let drain = meter.stop(drain_ended);

        let outcome = self.outcome(target, &crew, &store, &drain, &fleet.links, stored, drained);
        forget(&mut fleet, self.sessions)?;
        Ok(outcome)
    }

    #[allow(clippy::too_many_arguments)] // Two phases, side by side.
    fn outcome(
        &self,
        target: &Target,
        crew: &Absence<'_>,
        store: &Spent,
        drain: &Spent,
        links: &Links,
        stored: Ended,
        drained: Ended,
    ) -> Outcome {
        let tally = crew.account.tally();
        let copies = tally.expected;
        let mut metrics = store.server_metrics("copy stored", copies);
        metrics.extend(drain.server_metrics("copy drained", copies));
        metrics.push(Metric::new("copies stored", store.rate(copies), "/s"));
        metrics.push(Metric::new("publishes", store.rate(crew.total()), "/s"));
        metrics.push(Metric::new(
            "copies drained",
            drain.rate(tally.delivered),
            "/s",
        ));
        metrics.extend(crew.publish_latencies.metrics());
        metrics.extend(drain.other_metrics("copy drained", copies));
        let ended = if stored == Ended::Done {
            drained
        } else {
            stored
        };
        let mut problems = links.problems(ended);
        if crew.with_session != self.sessions {
            let found = crew.with_session;
            problems.push(format!("{found} of {} sessions found", self.sessions));
        }
        if crew.too_early > 0 {
            problems.push(format!("{} messages before they were sent", crew.too_early));
        }
        Outcome {
            scenario: self.label(),
            target: target.name.clone(),
            metrics,
            tally: Some(tally),
            problems,
        }
    }
}

/// Sessions have the first links, the publisher the last. Source n is session n's own topic, the last source the common one.
struct Absence<'a> {
    plan: &'a Offline,
    publisher: LinkId,
    run: u32,
    sent: u64,
    acknowledged: u64,
    delivered: u64,
    too_early: u64,
    with_session: usize,
    account: Account,
    publish_latencies: Latencies,
    /// When each message under way was sent, by its number modulo the window.
    sent_ns: Vec<u64>,
    bytes: Vec<u8>,
}

impl Absence<'_> {
    fn new<'a>(plan: &'a Offline, fleet: &mut Fleet) -> Absence<'a> {
        let run = fleet.links.options().run;
        for session in 0..plan.sessions {
            let member = Member {
                clean_start: false,
                ..Member::new(format!("bench-{run:08x}-s{session}"))
            };
            let own = topic(run, session);
            let common = topic(run, plan.sessions);
            let member = member
                .subscribe(own, QoS::AtLeastOnce)
                .subscribe(common, QoS::AtLeastOnce);
            fleet.links.add(member);
        }
        Absence {
            plan,
            publisher: fleet.links.add(Member::new(format!("bench-{run:08x}-p"))),
            run,
            sent: 0,
            acknowledged: 0,
            delivered: 0,
            too_early: 0,
            with_session: 0,
            account: Account::new(2 * plan.sessions, plan.messages),
            publish_latencies: Latencies::default(),
            sent_ns: vec![0; plan.window.max(1) as usize],
            bytes: Vec::new(),
        }
    }

    /// Publishes altogether.
    fn total(&self) -> u64 {
        self.plan.messages * (self.plan.sessions as u64 + 1)
    }

    /// The first connections found no sessions.
    fn forget_arrivals(&mut self) {
        self.with_session = 0;
    }

    /// Rounds of one message to each topic, the common one last.
    fn publish(&mut self, links: &mut Links) {
        let (run, version) = (self.run, links.options().version);
        let topics = self.plan.sessions as u64 + 1;
        let window = self.sent_ns.len() as u64;
        let allowed = window.min(links.receive_maximum());
        let until = (self.acknowledged + allowed).min(self.total());
        let sent_ns = links.tick();
        links.send(self.publisher, |out| {
            while self.sent < until {
                let source = self.sent % topics;
                let stamp = Stamp {
                    run,
                    source: source as u32,
                    sequence: self.sent / topics,
                    sent_ns,
                };
                stamp.write(self.plan.payload, &mut self.bytes);
                let topic = topic(run, source as usize);
                let (qos, number) = (QoS::AtLeastOnce, self.sent);
                write_publish(&topic, &self.bytes, qos, number, version, out);
                self.sent_ns[(number % window) as usize] = sent_ns;
                self.sent += 1;
            }
        });
    }
}

fn topic(run: u32, source: usize) -> String {
    format!("bench/{run:08x}/{source}")
}

impl Crew for Absence<'_> {
    fn on_ready(&mut self, _: &mut Links, _: LinkId, welcome: Welcome) {
        self.with_session += usize::from(welcome.session_present);
    }

    fn on_message(&mut self, _: &mut Links, link: LinkId, message: &Publish<'_>) {
        let Some(stamp) = Stamp::read(message.payload, self.plan.payload) else {
            return self.account.corrupted();
        };
        let source = stamp.source as usize;
        let stream = match source {
            _ if stamp.run != self.run => None,
            source if source == self.plan.sessions => Some(2 * link.0 + 1),
            source => (source == link.0).then_some(2 * link.0),
        };
        let Some(stream) = stream else {
            self.account.stray();
            return;
        };
        let topics = self.plan.sessions as u64 + 1;
        let number = stamp.sequence * topics + stamp.source as u64;
        self.too_early += u64::from(number >= self.sent);
        if let Arrival::New | Arrival::Late = self.account.arrived(stream, stamp.sequence) {
            self.delivered += 1;
        }
    }

    fn on_acknowledged(&mut self, links: &mut Links, _: LinkId, _: PacketId, _: Reason) {
        let window = self.sent_ns.len() as u64;
        let sent_ns = self.sent_ns[(self.acknowledged % window) as usize];
        self.publish_latencies
            .record(links.now_ns().saturating_sub(sent_ns));
        self.acknowledged += 1;
        self.publish(links);
    }
}
