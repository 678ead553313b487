//! The scenarios.

pub mod all;
mod broadcast;
mod exchanges;
mod failover;
mod hold;
mod idle;
mod offline;
mod push;
mod registry;
mod storm;

use anyhow::Result;
use campanile_mqtt::QoS;
use clap::Subcommand;

use crate::{
    Common, Outcome, Target,
    stamp::{MAX_PAYLOAD_BYTES, STAMP_BYTES},
    target::Source,
};

/// What to measure.
#[derive(Subcommand, Clone, Debug)]
pub enum Scenario {
    /// Connections that only keep alive: memory and CPU time of each
    Idle(idle::Idle),
    /// One publisher to many subscribers
    Fanout(exchanges::FanOut),
    /// Publishers that each have one subscriber
    Pairs(exchanges::Pairs),
    /// Many publishers to one subscriber
    Fanin(exchanges::FanIn),
    /// Connects as fast as possible
    Storm(storm::Storm),
    /// Messages for sessions that are away, and their return
    Offline(offline::Offline),
    /// Pushes to single devices through the HTTP API
    Push(push::Push),
    /// Pushes to all devices through the HTTP API
    Broadcast(broadcast::Broadcast),
    /// Devices registered through the HTTP API, and an audience counted over all of them
    Registry(registry::Registry),
    /// Connections that are held until standard input ends
    Hold(hold::Hold),
    /// Pushes and publishes go on while a node is killed and its devices go elsewhere
    Failover(failover::Failover),
}

impl Scenario {
    /// Its name and sizes, the same for all servers.
    pub fn label(&self) -> String {
        match self {
            Scenario::Idle(idle) => idle.label(),
            Scenario::Fanout(fan_out) => fan_out.label(),
            Scenario::Pairs(pairs) => pairs.label(),
            Scenario::Fanin(fan_in) => fan_in.label(),
            Scenario::Storm(storm) => storm.label(),
            Scenario::Offline(offline) => offline.label(),
            Scenario::Push(push) => push.label(),
            Scenario::Broadcast(broadcast) => broadcast.label(),
            Scenario::Registry(registry) => registry.label(),
            Scenario::Hold(hold) => hold.label(),
            Scenario::Failover(failover) => failover.label(),
        }
    }

    /// Runs it.
    pub fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        match self {
            Scenario::Idle(idle) => idle.run(target, common),
            Scenario::Fanout(fan_out) => fan_out.run(target, common),
            Scenario::Pairs(pairs) => pairs.run(target, common),
            Scenario::Fanin(fan_in) => fan_in.run(target, common),
            Scenario::Storm(storm) => storm.run(target, common),
            Scenario::Offline(offline) => offline.run(target, common),
            Scenario::Push(push) => push.run(target, common),
            Scenario::Broadcast(broadcast) => broadcast.run(target, common),
            Scenario::Registry(registry) => registry.run(target, common),
            Scenario::Hold(hold) => hold.run(target, common),
            Scenario::Failover(failover) => failover.run(target, common),
        }
    }

    /// Whether a server of that kind can do it at all.
    pub(crate) fn suits(&self, source: &Source) -> bool {
        match self {
            Scenario::Offline(_) => !matches!(source, Source::Floor),
            Scenario::Push(_) | Scenario::Broadcast(_) | Scenario::Registry(_) => {
                matches!(source, Source::Campanile(_) | Source::Running(_))
            }
            // It kills what it is told to, and somebody else has to start it again.
            Scenario::Failover(_) => matches!(source, Source::Running(_)),
            Scenario::Storm(storm) => !storm.persistent || !matches!(source, Source::Floor),
            _ => true,
        }
    }
}

/// For clap.
fn parse_qos(text: &str) -> Result<QoS, String> {
    let bits = text.parse().ok();
    bits.and_then(QoS::from_bits)
        .ok_or_else(|| "must be 0, 1 or 2".into())
}

/// For clap.
fn parse_payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (STAMP_BYTES..=MAX_PAYLOAD_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "must be a number of bytes, {STAMP_BYTES} to {MAX_PAYLOAD_BYTES}"
        )),
    }
}
