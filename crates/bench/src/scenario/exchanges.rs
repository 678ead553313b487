//! Fan-out, pairs and fan-in: three shapes of the same exchange.

use anyhow::Result;
use campanile_mqtt::QoS;
use clap::Args;

use super::{parse_payload, parse_qos};
use crate::{
    Common, Outcome, Target,
    exchange::{self, Shape, qos_name},
    publisher::Plan,
};

/// One publisher to many subscribers.
#[derive(Args, Clone, Debug)]
pub struct FanOut {
    /// Subscribers
    #[arg(long, default_value_t = 10_000)]
    pub subscribers: usize,
    /// Messages
    #[arg(long, default_value_t = 50)]
    pub messages: u64,
    /// Quality of service, 0 to 2
    #[arg(long, default_value = "0", value_parser = parse_qos)]
    pub qos: QoS,
    /// Messages that may be under way; 1 makes every delivery a write of its own
    #[arg(long, default_value_t = 1)]
    pub window: u64,
    /// Bytes
    #[arg(long, default_value = "256", value_parser = parse_payload)]
    pub payload: usize,
}

impl FanOut {
    pub(super) fn label(&self) -> String {
        let (qos, n) = (qos_name(self.qos), self.subscribers);
        format!(
            "fan-out to {n}, {qos}, {} B, W{}",
            self.payload, self.window
        )
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let plan = plan(self.qos, self.window, self.messages, self.payload);
        let subscribers = self.subscribers;
        exchange::run(
            self.label(),
            Shape::FanOut { subscribers },
            plan,
            target,
            common,
        )
    }
}

/// Publishers that each have one subscriber.
#[derive(Args, Clone, Debug)]
pub struct Pairs {
    /// Pairs
    #[arg(long, default_value_t = 100)]
    pub pairs: usize,
    /// Messages of all pairs together
    #[arg(long, default_value_t = 1_000_000)]
    pub messages: u64,
    /// Quality of service, 0 to 2
    #[arg(long, default_value = "0", value_parser = parse_qos)]
    pub qos: QoS,
    /// Messages of a pair that may be under way
    #[arg(long, default_value_t = 32)]
    pub window: u64,
    /// Bytes
    #[arg(long, default_value = "256", value_parser = parse_payload)]
    pub payload: usize,
}

impl Pairs {
    pub(super) fn label(&self) -> String {
        let (qos, n) = (qos_name(self.qos), self.pairs);
        format!("{n} pairs, {qos}, {} B, W{}", self.payload, self.window)
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let each = self.messages.div_ceil(self.pairs.max(1) as u64);
        let plan = plan(self.qos, self.window, each, self.payload);
        let shape = Shape::Pairs { count: self.pairs };
        exchange::run(self.label(), shape, plan, target, common)
    }
}

/// Many publishers to one subscriber.
#[derive(Args, Clone, Debug)]
pub struct FanIn {
    /// Publishers
    #[arg(long, default_value_t = 100)]
    pub publishers: usize,
    /// Messages of all publishers together
    #[arg(long, default_value_t = 500_000)]
    pub messages: u64,
    /// Quality of service, 0 to 2
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub qos: QoS,
    /// Messages of a publisher that may be under way
    #[arg(long, default_value_t = 8)]
    pub window: u64,
    /// Bytes
    #[arg(long, default_value = "256", value_parser = parse_payload)]
    pub payload: usize,
}

impl FanIn {
    pub(super) fn label(&self) -> String {
        let (qos, n) = (qos_name(self.qos), self.publishers);
        format!(
            "fan-in {n} to 1, {qos}, {} B, W{}",
            self.payload, self.window
        )
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let each = self.messages.div_ceil(self.publishers.max(1) as u64);
        let plan = plan(self.qos, self.window, each, self.payload);
        let publishers = self.publishers;
        exchange::run(
            self.label(),
            Shape::FanIn { publishers },
            plan,
            target,
            common,
        )
    }
}

fn plan(qos: QoS, window: u64, messages: u64, payload: usize) -> Plan {
    // Fewer than the packet identifiers there are.
    let window = window.clamp(1, 65_000);
    Plan {
        qos,
        window,
        messages,
        payload,
    }
}
