//! Devices and senders of a failover, and what they keep account of.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use campanile_mqtt::{PacketId, Publish, QoS, Reason};

use super::{
    Failover,
    lane::{Errand, Lane},
};
use crate::{
    Metric,
    account::{Account, Arrival, Tally},
    api::{Caller, INBOX_TOPIC, PushStamp},
    fleet::{Crew, Fleet, LinkId, Links, Member, Welcome},
    meter::Latencies,
    publisher::write_publish,
    stamp::Stamp,
};

/// Bytes of a published message.
const PAYLOAD: usize = 128;
/// How long a sender waits before it tries again.
const SENDER_PAUSE_NS: u64 = 50_000_000;

/// A message: the stream that it belongs to, and its number in it.
type Message = (usize, u64);

/// Devices have the first links, publishers those after them, callers of the API the last.
pub struct Devices<'a> {
    plan: &'a Failover,
    run: u32,
    api: Caller,
    publishers: Vec<Lane>,
    callers: Vec<Lane>,
    start_ns: u64,
    killed_ns: Option<u64>,
    /// Attempts to connect since the last success, by device.
    attempts: Vec<u32>,
    lost_ns: Vec<u64>,
    is_victim: Vec<bool>,
    victims_away: usize,
    bystanders_lost: u64,
    sessions_lost: u64,
    reconnected_ns: Option<u64>,
    drained_ns: Option<u64>,
    /// Accepted, and not arrived.
    waiting: HashSet<Message>,
    /// Of those, the ones that were accepted before all were connected again.
    backlog: HashSet<Message>,
    /// Sent over nodes that live, to devices of nodes that live: when.
    undisturbed: HashMap<Message, u64>,
    pushed: u64,
    accepted: u64,
    repeated: u64,
    account: Account,
    before: Latencies,
    during: Latencies,
    away: Latencies,
    dice: u64,
    scratch: Vec<u8>,
}

impl Devices<'_> {
    /// Adds everybody to the fleet.
    pub fn muster<'a>(plan: &'a Failover, key: String, fleet: &mut Fleet) -> Result<Devices<'a>> {
        let links = &mut fleet.links;
        let run = links.options().run;
        let devices = plan.devices as usize;
        let lanes = (plan.senders as usize).min(devices);
        for device in 0..devices {
            let member = Member {
                clean_start: false,
                ..Member::new(client_id(run, device))
            };
            links.add(member.subscribe(topic(run, device), QoS::AtLeastOnce));
        }
        let lane = |link, number| Lane::new(link, number, lanes, devices, plan.rounds);
        let publishers = (0..lanes)
            .map(|number| {
                lane(
                    links.add(Member::new(format!("bench-{run:08x}-p{number}"))),
                    number,
                )
            })
            .collect();
        let callers = (0..lanes)
            .map(|number| lane(links.add_http(), number))
            .collect();
        Ok(Devices {
            plan,
            run,
            api: Caller {
                app: plan.app.clone(),
                key,
                host: "bench".into(),
            },
            publishers,
            callers,
            start_ns: 0,
            killed_ns: None,
            attempts: vec![0; devices],
            lost_ns: vec![0; devices],
            is_victim: vec![false; devices],
            victims_away: 0,
            bystanders_lost: 0,
            sessions_lost: 0,
            reconnected_ns: None,
            drained_ns: None,
            waiting: HashSet::new(),
            backlog: HashSet::new(),
            undisturbed: HashMap::new(),
            pushed: 0,
            accepted: 0,
            repeated: 0,
            account: Account::new(2 * devices, plan.rounds),
            before: Latencies::default(),
            during: Latencies::default(),
            away: Latencies::default(),
            dice: u64::from(run) | 1,
            scratch: Vec::new(),
        })
    }

    /// From now on messages are sent.
    pub fn start(&mut self, links: &mut Links) {
        self.start_ns = links.tick();
    }

    /// Pushes accepted.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The first node is dead.
    pub fn on_killed(&mut self, links: &mut Links) {
        self.killed_ns = Some(links.tick());
        for device in 0..self.is_victim.len() {
            self.is_victim[device] = links.server(LinkId(device)) == 0;
            self.victims_away += usize::from(self.is_victim[device]);
        }
        let is_victim = &self.is_victim;
        self.undisturbed
            .retain(|(stream, _), _| !is_victim[stream / 2]);
    }

    /// Whether everything was sent and has arrived, and everybody is back.
    pub fn is_done(&self) -> bool {
        let all = 2 * self.plan.rounds * u64::from(self.plan.devices);
        self.accepted == all && self.waiting.is_empty() && self.drained_ns.is_some()
    }

    /// Whether a device has been waiting for so long that nothing is to be hoped for.
    pub fn has_tried_for(&self, now_ns: u64, seconds: u64) -> bool {
        let since = self.killed_ns.unwrap_or(now_ns);
        now_ns.saturating_sub(since) > 6 * seconds * 1_000_000_000
    }

    /// Sends what is due.
    pub fn pump(&mut self, links: &mut Links) {
        let now_ns = links.tick();
        let (start_ns, rate) = (self.start_ns, self.plan.rate);
        for is_push in [false, true] {
            for number in 0..self.lanes(is_push).len() {
                let lane = &mut self.lanes(is_push)[number];
                let link = lane.link;
                if !links.is_ready(link) {
                    continue;
                }
                if let Some(errand) = lane.again(now_ns) {
                    self.repeated += 1;
                    self.send(links, link, errand, is_push);
                    continue;
                }
                if let Some(errand) = lane.begin(now_ns, start_ns, rate) {
                    let is_undisturbed = self.killed_ns.is_none()
                        || (links.server(link) != 0 && !self.is_victim[errand.device]);
                    if is_undisturbed {
                        let message = message(errand, is_push);
                        self.undisturbed.insert(message, now_ns);
                    }
                    self.send(links, link, errand, is_push);
                }
            }
        }
    }

    fn lanes(&mut self, is_push: bool) -> &mut Vec<Lane> {
        match is_push {
            true => &mut self.callers,
            false => &mut self.publishers,
        }
    }

    fn send(&mut self, links: &mut Links, link: LinkId, errand: Errand, is_push: bool) {
        let Errand {
            device,
            sequence,
            sent_ns,
        } = errand;
        let (run, version) = (self.run, links.options().version);
        if is_push {
            let stamp = PushStamp {
                run,
                device,
                sequence,
                sent_ns,
            };
            let once = format!("{run:08x}-{device}-{sequence}");
            let id = client_id(run, device);
            return links.send(link, |out| {
                self.api.write(Some(&id), stamp, Some(&once), out)
            });
        }
        let stamp = Stamp {
            run,
            source: device as u32,
            sequence,
            sent_ns,
        };
        stamp.write(PAYLOAD, &mut self.scratch);
        let (topic, payload) = (topic(run, device), &self.scratch);
        links.send(link, |out| {
            write_publish(&topic, payload, QoS::AtLeastOnce, sequence, version, out);
        });
    }

    /// The lane's message was accepted.
    fn on_accepted(&mut self, number: usize, is_push: bool) {
        let lane = &mut self.lanes(is_push)[number];
        lane.again_at_ns = None;
        let Some(errand) = lane.errand.take() else {
            return;
        };
        self.accepted += 1;
        self.pushed += u64::from(is_push);
        let (stream, sequence) = message(errand, is_push);
        if !self.account.has(stream, sequence) {
            self.waiting.insert((stream, sequence));
        }
    }

    /// The lane's message has to be sent again.
    fn repeat(&mut self, number: usize, is_push: bool, now_ns: u64) {
        let lane = &mut self.lanes(is_push)[number];
        let Some(errand) = lane.errand else { return };
        lane.again_at_ns = Some(now_ns + SENDER_PAUSE_NS);
        self.undisturbed.remove(&message(errand, is_push));
    }

    fn on_arrived(&mut self, links: &Links, stream: usize, sequence: u64) {
        match self.account.arrived(stream, sequence) {
            Arrival::New | Arrival::Late => {}
            Arrival::Duplicate | Arrival::Stray => return,
        }
        let now_ns = links.now_ns();
        self.waiting.remove(&(stream, sequence));
        if let Some(sent_ns) = self.undisturbed.remove(&(stream, sequence)) {
            let latency = now_ns.saturating_sub(sent_ns);
            match (self.killed_ns, self.drained_ns) {
                (None, _) => self.before.record(latency),
                (Some(_), None) => self.during.record(latency),
                (Some(_), Some(_)) => {}
            }
        }
        if self.backlog.remove(&(stream, sequence)) {
            self.note_drained(now_ns);
        }
    }

    fn note_drained(&mut self, now_ns: u64) {
        if self.reconnected_ns.is_some() && self.backlog.is_empty() && self.drained_ns.is_none() {
            self.drained_ns = Some(now_ns);
        }
    }

    /// When a device tries again, and where.
    fn come_back(&mut self, links: &mut Links, link: LinkId) {
        let servers = links.options().mqtt.len();
        let attempt = self.attempts[link.0];
        self.attempts[link.0] += 1;
        if servers > 1 {
            // Devices of one node spread over the others.
            let skip = 1 + (link.0 / servers + attempt as usize) % (servers - 1);
            links.set_server(link, links.server(link) + skip);
        }
        let most_ms = match (self.plan.backoff, attempt) {
            (0, 0) => 0,
            (0, _) => 100,
            (backoff, attempt) => backoff << attempt.min(3),
        };
        let now_ns = links.tick();
        links.dial_at(link, now_ns + self.roll(most_ms * 1_000_000));
    }

    /// A number below `most`, the same ones in each run of the same number. xorshift64.
    fn roll(&mut self, most: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % most.max(1)
    }

    /// The lane behind a link, and whether it pushes.
    fn lane_of(&self, link: LinkId) -> Option<(usize, bool)> {
        let number = link.0.checked_sub(self.is_victim.len())?;
        let is_push = number >= self.publishers.len();
        Some((number % self.publishers.len(), is_push))
    }

    pub fn tally(&self) -> Tally {
        self.account.tally()
    }

    pub fn metrics(&self) -> Vec<Metric> {
        let seconds = |ns: Option<u64>| {
            let since = ns?.saturating_sub(self.killed_ns?);
            Some(since as f64 / 1e9)
        };
        let mut metrics = Vec::new();
        for (name, ns) in [
            ("until all have what was accepted", self.drained_ns),
            ("until all are connected", self.reconnected_ns),
        ] {
            metrics.extend(seconds(ns).map(|seconds| Metric::new(name, seconds, "s")));
        }
        for (when, latencies) in [
            ("time away", &self.away),
            ("others before", &self.before),
            ("others meanwhile", &self.during),
        ] {
            for metric in latencies.metrics() {
                let name = format!("{when}, {}", metric.name);
                metrics.push(Metric { name, ..metric });
            }
        }
        metrics.push(Metric::new(
            "connections that others lost",
            self.bystanders_lost as f64,
            "",
        ));
        metrics.push(Metric::new("messages sent again", self.repeated as f64, ""));
        metrics
    }

    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.sessions_lost > 0 {
            problems.push(format!(
                "{} sessions were not found again",
                self.sessions_lost
            ));
        }
        if self.victims_away > 0 {
            problems.push(format!("{} devices did not come back", self.victims_away));
        }
        problems
    }
}

fn client_id(run: u32, device: usize) -> String {
    format!("bench-{run:08x}-d{device}")
}

fn topic(run: u32, device: usize) -> String {
    format!("bench/{run:08x}/{device}")
}

/// Pushes and publishes to a device are streams of their own.
fn message(errand: Errand, is_push: bool) -> Message {
    (2 * errand.device + usize::from(is_push), errand.sequence)
}

impl Crew for Devices<'_> {
    fn on_ready(&mut self, links: &mut Links, link: LinkId, welcome: Welcome) {
        if link.0 >= self.is_victim.len() {
            return;
        }
        // Its session knows them from now on.
        links.member_mut(link).subscriptions.clear();
        if self.killed_ns.is_none() {
            return;
        }
        self.attempts[link.0] = 0;
        self.sessions_lost += u64::from(!welcome.session_present);
        let now_ns = links.now_ns();
        self.away
            .record(now_ns.saturating_sub(self.lost_ns[link.0]));
        if self.is_victim[link.0] && self.victims_away > 0 {
            self.victims_away -= 1;
            if self.victims_away == 0 && self.reconnected_ns.is_none() {
                self.reconnected_ns = Some(now_ns);
                self.backlog.clone_from(&self.waiting);
                self.note_drained(now_ns);
            }
        }
    }

    fn on_lost(&mut self, links: &mut Links, link: LinkId, why: String) {
        if self.killed_ns.is_none() {
            return links.fault(why);
        }
        let now_ns = links.tick();
        if let Some((number, is_push)) = self.lane_of(link) {
            self.repeat(number, is_push, now_ns);
            links.set_server(link, links.server(link) + 1);
            return links.dial_at(link, now_ns + SENDER_PAUSE_NS);
        }
        if self.attempts[link.0] == 0 {
            self.lost_ns[link.0] = now_ns;
            self.bystanders_lost += u64::from(!self.is_victim[link.0]);
        }
        self.come_back(links, link);
    }

    fn on_message(&mut self, links: &mut Links, link: LinkId, message: &Publish<'_>) {
        if message.topic == INBOX_TOPIC {
            match PushStamp::read(message.payload) {
                None => self.account.corrupted(),
                Some(stamp) if stamp.run == self.run && stamp.device == link.0 => {
                    self.on_arrived(links, 2 * link.0 + 1, stamp.sequence);
                }
                Some(_) => drop(self.account.stray()),
            }
            return;
        }
        match Stamp::read(message.payload, PAYLOAD) {
            None => self.account.corrupted(),
            Some(stamp) if stamp.run == self.run && stamp.source as usize == link.0 => {
                self.on_arrived(links, 2 * link.0, stamp.sequence);
            }
            Some(_) => drop(self.account.stray()),
        }
    }

    fn on_acknowledged(&mut self, _: &mut Links, link: LinkId, _: PacketId, _: Reason) {
        if let Some((number, false)) = self.lane_of(link) {
            self.on_accepted(number, false);
        }
    }

    fn on_response(&mut self, links: &mut Links, link: LinkId, status: u16, body: &[u8]) {
        let Some((number, true)) = self.lane_of(link) else {
            return;
        };
        match status {
            200..=299 => self.on_accepted(number, true),
            409 | 425 | 429 | 500..=599 if self.killed_ns.is_some() => {
                let now_ns = links.tick();
                self.repeat(number, true, now_ns);
            }
            _ => {
                let body = String::from_utf8_lossy(body);
                links.fault(format!("push answered with {status}: {body}"));
            }
        }
    }
}
