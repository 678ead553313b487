//! Publishers and subscribers that talk through the server as fast as their windows allow.

use std::time::{Duration, Instant};

use anyhow::Result;
use campanile_mqtt::{PacketId, Publish, QoS, Reason};

use crate::{
    Common, Metric, Outcome, Target,
    account::{Account, Arrival},
    fleet::{Crew, Ended, Fleet, LinkId, Links, Member},
    meter::{Latencies, Meter, Spent},
    publisher::{Plan, Publisher},
    stamp::Stamp,
};

/// Who publishes to whom.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Publisher n to subscriber n.
    Pairs {
        /// Pairs.
        count: usize,
    },
    /// One publisher to all.
    FanOut {
        /// Subscribers.
        subscribers: usize,
    },
    /// All publishers to one subscriber.
    FanIn {
        /// Publishers.
        publishers: usize,
    },
}

impl Shape {
    fn publishers(self) -> usize {
        match self {
            Shape::Pairs { count } => count,
            Shape::FanOut { .. } => 1,
            Shape::FanIn { publishers } => publishers,
        }
    }

    fn subscribers(self) -> usize {
        match self {
            Shape::Pairs { count } => count,
            Shape::FanOut { subscribers } => subscribers,
            Shape::FanIn { .. } => 1,
        }
    }

    /// Deliveries of each message.
    fn copies(self) -> u64 {
        (self.streams() / self.publishers()) as u64
    }

    fn streams(self) -> usize {
        self.publishers().max(self.subscribers())
    }

    /// The stream of messages from `source` to `subscriber`, if there is one.
    fn stream(self, source: usize, subscriber: usize) -> Option<usize> {
        match self {
            Shape::Pairs { .. } => (source == subscriber).then_some(source),
            Shape::FanOut { .. } => (source == 0).then_some(subscriber),
            Shape::FanIn { publishers } => (source < publishers).then_some(source),
        }
    }

    /// The topic of publisher `source`; `run` keeps runs apart.
    fn topic(self, source: usize, run: u32) -> String {
        format!("bench/{run:08x}/{source}")
    }

    fn filter(self, subscriber: usize, run: u32) -> String {
        match self {
            Shape::Pairs { .. } => self.topic(subscriber, run),
            Shape::FanOut { .. } => self.topic(0, run),
            Shape::FanIn { .. } => format!("bench/{run:08x}/+"),
        }
    }
}

/// Runs an exchange of `plan.messages` by each publisher.
pub fn run(
    label: String,
    shape: Shape,
    plan: Plan,
    target: &Target,
    common: &Common,
) -> Result<Outcome> {
    let mut fleet = Fleet::new(common.fleet(target))?;
    let mut crew = Exchange::muster(shape, plan, &mut fleet)?;
    let meter = Meter::start(&target.nodes);
    crew.start(&mut fleet.links);
    let ended = fleet.drive(&mut crew, |crew, _| crew.is_done())?;
    let work_ended = Instant::now();
    fleet.settle(&mut crew, Duration::from_millis(300))?;
    let spent = meter.stop(work_ended);
    Ok(crew.outcome(label, target, &spent, ended, &fleet.links))
}

struct Exchange {
    shape: Shape,
    plan: Plan,
    /// Subscribers have the first links, publishers those after them.
    publishers: Vec<Publisher>,
    /// Deliveries of each publisher's messages.
    copies: Vec<u64>,
    delivered: u64,
    expected: u64,
    account: Account,
    latencies: Latencies,
}

impl Exchange {
    /// Connects and subscribes everybody.
    fn muster(shape: Shape, plan: Plan, fleet: &mut Fleet) -> Result<Exchange> {
        let run = fleet.links.options().run;
        for subscriber in 0..shape.subscribers() {
            let member = Member::new(format!("bench-{run:08x}-s{subscriber}"))
                .subscribe(shape.filter(subscriber, run), plan.qos);
            fleet.links.add(member);
        }
        let publishers = (0..shape.publishers())
            .map(|source| {
                let member = Member::new(format!("bench-{run:08x}-p{source}"));
                let link = fleet.links.add(member);
                Publisher::new(link, source as u32, shape.topic(source, run), plan)
            })
            .collect();
        let mut crew = Exchange {
            shape,
            plan,
            publishers,
            copies: vec![0; shape.publishers()],
            delivered: 0,
            expected: shape.streams() as u64 * plan.messages,
            account: Account::new(shape.streams(), plan.messages),
            latencies: Latencies::default(),
        };
        let links = shape.subscribers() + shape.publishers();
        fleet.connect(&mut crew, (0..links).map(LinkId))?;
        fleet.settle(&mut crew, Duration::from_millis(200))?;
        Ok(crew)
    }

    fn start(&mut self, links: &mut Links) {
        for publisher in &mut self.publishers {
            publisher.pump(links);
        }
    }

    fn is_done(&self) -> bool {
        self.delivered >= self.expected && self.publishers.iter().all(Publisher::is_done)
    }

    fn outcome(
        &self,
        scenario: String,
        target: &Target,
        spent: &Spent,
        ended: Ended,
        links: &Links,
    ) -> Outcome {
        let tally = self.account.tally();
        let mut metrics = spent.server_metrics("delivery", tally.delivered);
        metrics.push(Metric::new("deliveries", spent.rate(tally.delivered), "/s"));
        metrics.extend(self.latencies.metrics());
        metrics.extend(spent.other_metrics("delivery", tally.delivered));
        let granted = links.receive_maximum();
        if self.plan.qos != QoS::AtMostOnce && granted < self.plan.window {
            metrics.push(Metric::new(
                "window that the server granted",
                granted as f64,
                "",
            ));
        }
        Outcome {
            scenario,
            target: target.name.clone(),
            metrics,
            tally: Some(tally),
            problems: links.problems(ended),
        }
    }
}

impl Crew for Exchange {
    #[inline]
    fn on_message(&mut self, links: &mut Links, link: LinkId, message: &Publish<'_>) {
        let Some(stamp) = Stamp::read(message.payload, self.plan.payload) else {
            return self.account.corrupted();
        };
        let source = stamp.source as usize;
        let stream = self.shape.stream(source, link.0);
        let Some(stream) = stream.filter(|_| stamp.run == links.options().run) else {
            self.account.stray();
            return;
        };
        match self.account.arrived(stream, stamp.sequence) {
            Arrival::New | Arrival::Late => {}
            Arrival::Duplicate | Arrival::Stray => return,
        }
        self.latencies
            .record(links.now_ns().saturating_sub(stamp.sent_ns));
        self.delivered += 1;
        self.copies[source] += 1;
        if self.copies[source].is_multiple_of(self.shape.copies()) {
            self.publishers[source].on_arrived();
            self.publishers[source].pump(links);
        }
    }

    #[inline]
    fn on_acknowledged(&mut self, links: &mut Links, link: LinkId, _: PacketId, _: Reason) {
        let source = link.0.checked_sub(self.shape.subscribers());
        if let Some(publisher) = source.and_then(|source| self.publishers.get_mut(source)) {
            publisher.on_acknowledged();
            publisher.pump(links);
        }
    }
}

/// The number of a quality of service, for labels.
pub fn qos_name(qos: QoS) -> String {
    format!("QoS {}", qos as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_reach_exactly_those_who_asked() {
        let pairs = Shape::Pairs { count: 3 };
        assert_eq!((pairs.stream(2, 2), pairs.stream(2, 1)), (Some(2), None));
        let fan_out = Shape::FanOut { subscribers: 5 };
        assert_eq!(
            (fan_out.stream(0, 4), fan_out.stream(1, 4)),
            (Some(4), None)
        );
        assert_eq!((fan_out.copies(), fan_out.streams()), (5, 5));
        let fan_in = Shape::FanIn { publishers: 4 };
        assert_eq!((fan_in.stream(3, 0), fan_in.stream(4, 0)), (Some(3), None));
        assert_eq!((fan_in.copies(), fan_in.streams()), (1, 4));
    }
}
