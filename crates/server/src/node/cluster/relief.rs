//! Moving devices away: because an operator ordered it, or because another node has more room.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use campanile_broker::{
    cluster::{
        balance::{self, Balancer, Standing},
        membership::{Drain, Membership, Registered},
    },
    ids::ShardId,
    mail::{ClusterMail, Mail},
};

use super::{Member, hub::load};
use crate::net::{driver::Shared, mailbox::Letter};

/// How often devices are sent away.
const STEP: Duration = Duration::from_millis(100);
/// How long a node that drains waits until nobody is sent to it any more.
const NOTICE: Duration = Duration::from_secs(2);
/// What the other nodes are told of this one, at most so often.
const TELL: Duration = Duration::from_secs(1);
/// How long figures take to show what a move has done.
const SETTLE: Duration = Duration::from_secs(5);
/// The setting that has the nodes rebalance once; its value is when it was ordered.
pub const REBALANCE: &str = "rebalance";

/// Sends devices away as it is ordered, and tells the others how full the node is. Ends when the node was drained and has no device any more.
pub async fn relieve(member: Arc<Member>, shared: Arc<Shared>, name: Arc<str>) {
    let tolerance = member.spec.rebalance_tolerance_percent;
    let mut relief = Relief {
        balancer: Balancer::new(tolerance, SETTLE.as_millis() as u64),
        shards: shared.mailboxes.len() as u8,
        member,
        shared,
        name,
        draining_since: None,
        allowance: 0.0,
        planned: VecDeque::new(),
        told: None,
        looked: Instant::now(),
        ordered: None,
        next_shard: 0,
        seed: 0,
    };
    relief.ordered = relief.order();
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        if relief.step() {
            return;
        }
    }
}

struct Relief {
    shards: u8,
    member: Arc<Member>,
    shared: Arc<Shared>,
    name: Arc<str>,
    draining_since: Option<Instant>,
    /// Devices that may be sent away now.
    allowance: f64,
    /// To whom, and how many.
    planned: VecDeque<(Arc<str>, u64)>,
    balancer: Balancer,
    told: Option<Instant>,
    looked: Instant,
    /// The last order to rebalance that was seen.
    ordered: Option<Arc<str>>,
    next_shard: u8,
    seed: u64,
}

impl Relief {
    /// Whether the node is drained.
    fn step(&mut self) -> bool {
        let membership = self.member.zookeeper.membership();
        let drain = membership.drains.get(&self.name).copied();
        self.note_drain(&membership, drain.is_some());
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            let (load, draining) = (load(&self.shared), drain.is_some());
            self.member.zookeeper.update(|info| {
                (info.load, info.draining) = (load, draining);
            });
        }
        match drain {
            Some(drain) => self.drain(&membership, drain),
            None => {
                self.rebalance(&membership);
                false
            }
        }
    }

    fn note_drain(&mut self, membership: &Membership, draining: bool) {
        if draining == self.draining_since.is_some() {
            return;
        }
        self.draining_since = draining.then(Instant::now);
        if !self.planned.is_empty() {
            self.planned.clear();
            self.balancer.finish(self.shared.clock.now().0);
        }
        let reference = draining.then(|| self.elsewhere(membership).unwrap_or_else(|| "".into()));
        tracing::info!(draining, "drain order");
        self.to_shards(ClusterMail::Draining(reference));
    }

    /// Whether nothing is left to send away.
    fn drain(&mut self, membership: &Membership, order: Drain) -> bool {
        if self
            .draining_since
            .is_none_or(|since| since.elapsed() < NOTICE)
        {
            return false;
        }
        let connections = load(&self.shared).connections;
        if connections == 0 {
            return true;
        }
        let is_late = order.deadline_ms != 0 && self.shared.clock.now().0 >= order.deadline_ms;
        let count = match is_late || order.rate == 0 {
            true => connections,
            false => self.allow(order.rate),
        };
        if count > 0 {
            let reference = self.elsewhere(membership).unwrap_or_else(|| "".into());
            self.send_away(count, &reference);
        }
        false
    }

    fn rebalance(&mut self, membership: &Membership) {
        let spec = &self.member.spec;
        let (rate, every) = (spec.drain_rate, spec.rebalance_every);
        let order = self.order();
        let is_ordered = order.is_some() && order != self.ordered;
        let is_time = spec.rebalance_automatically && self.looked.elapsed() >= every;
        if is_ordered || is_time {
            self.ordered = order;
            self.looked = Instant::now();
            self.plan(membership);
        }
        if self.planned.is_empty() {
            return;
        }
        let mut allowed = self.allow(rate);
        while let Some((reference, count)) = self.planned.pop_front() {
            let now = count.min(allowed);
            allowed -= now;
            self.send_away(now, &reference);
            if now < count {
                self.planned.push_front((reference, count - now));
                return;
            }
        }
        self.balancer.finish(self.shared.clock.now().0);
    }

    /// The order to rebalance, if one was ever given.
    fn order(&self) -> Option<Arc<str>> {
        self.member.zookeeper.setting(REBALANCE)
    }

    fn plan(&mut self, membership: &Membership) {
        if !membership.reachable {
            return;
        }
        let nodes: Vec<&Registered> = membership.nodes.values().collect();
        let standings: Vec<Standing<'_>> = nodes.iter().map(|node| standing(node)).collect();
        let now_ms = self.shared.clock.now().0;
        let Some(moves) = self.balancer.begin(&standings, &self.name, now_ms) else {
            return;
        };
        let devices: u64 = moves.iter().map(|(_, count)| count).sum();
        tracing::info!(devices, "moving devices to nodes with more room");
        let moves = moves
            .into_iter()
            .map(|(to, count)| (reference(nodes[to]), count));
        self.planned = moves.collect();
    }

    /// Where devices of this node may go.
    fn elsewhere(&mut self, membership: &Membership) -> Option<Arc<str>> {
        self.seed += 1;
        let nodes: Vec<&Registered> = membership
            .nodes
            .values()
            .filter(|node| node.info.name != self.name)
            .collect();
        let standings: Vec<Standing<'_>> = nodes.iter().map(|node| standing(node)).collect();
        let first = balance::order(&standings, self.seed).into_iter().next()?;
        Some(reference(nodes[first]))
    }

    fn allow(&mut self, rate: u32) -> u64 {
        self.allowance =
            (self.allowance + f64::from(rate) * STEP.as_secs_f64()).min(f64::from(rate));
        let count = self.allowance.floor();
        self.allowance -= count;
        count as u64
    }

    /// Spreads a number of devices over the shards.
    fn send_away(&mut self, count: u64, reference: &Arc<str>) {
        let shards = u64::from(self.shards);
        for offset in 0..self.shards {
            let extra = u64::from(u64::from(offset) < count % shards);
            let share = count / shards + extra;
            if share == 0 {
                continue;
            }
            let shard = (self.next_shard + offset) % self.shards;
            let mail = ClusterMail::Move {
                count: u32::try_from(share).unwrap_or(u32::MAX),
                reference: reference.clone(),
            };
            self.post(ShardId(shard), mail);
        }
        self.next_shard = (self.next_shard + 1) % self.shards;
    }

    fn to_shards(&self, mail: ClusterMail) {
        for shard in 0..self.shards {
            self.post(ShardId(shard), mail.clone());
        }
    }

    fn post(&self, shard: ShardId, mail: ClusterMail) {
        self.shared.mailboxes[usize::from(shard.0)].post(Letter::Mail(Mail::Cluster(mail)));
    }
}

fn standing(node: &Registered) -> Standing<'_> {
    Standing {
        name: &node.info.name,
        load: node.info.load,
        draining: node.info.draining,
    }
}

/// What 5.0 clients are told as Server Reference: `host:port` of a node's first address. MQTT 5.0 section 4.11.
pub fn reference(node: &Registered) -> Arc<str> {
    let first = node.info.addresses.first().map(AsRef::as_ref).unwrap_or("");
    let address = first.split_once("://").map_or(first, |(_, rest)| rest);
    address.split('/').next().unwrap_or_default().into()
}
