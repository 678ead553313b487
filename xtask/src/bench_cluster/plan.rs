//! What is measured on which site.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use super::{
    BenchCluster,
    load::Load,
    site::{Kind, Site},
    table::{Column, Metric},
};

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// As many connections as fit: memory
    Hold,
    /// Pushes to all devices
    Broadcast,
    /// Pushes to one device each
    Push,
    /// Connects of persistent sessions
    Connect,
    /// A node is killed
    Failover,
    /// Publishes between clients
    Publish,
}

/// One column of a table.
pub struct Case {
    /// Of its table.
    pub title: String,
    /// Where it runs.
    pub kind: Kind,
    action: Action,
}

enum Action {
    /// `campanile bench` with these arguments.
    Bench(String),
    /// The same, while nodes that end are started again if there is no other.
    Attended(String),
    /// Connections in as many load processes as nodes.
    Hold { each: usize, persistent: bool },
}

/// All cases, those of a table one after the other.
pub fn cases(options: &BenchCluster) -> Vec<Case> {
    let wanted = |scenario| options.only.is_empty() || options.only.contains(&scenario);
    let size = |full: usize| if options.quick { full / 10 } else { full };
    let mut cases = Vec::new();
    let mut add = |title: &str, kinds: &[Kind], action: &dyn Fn(Kind) -> Action| {
        cases.extend(kinds.iter().map(|kind| Case {
            title: title.to_owned(),
            kind: *kind,
            action: action(*kind),
        }));
    };
    let (all, few) = (options.kinds(u8::MAX), options.kinds(3));
    if wanted(Scenario::Hold) {
        for (title, persistent) in [
            ("held connections, clean sessions", false),
            ("held connections, persistent sessions", true),
        ] {
            let each = size(options.held);
            add(title, &all, &|_| Action::Hold { each, persistent });
        }
    }
    if wanted(Scenario::Broadcast) {
        let devices = size(options.devices);
        let title = format!("pushes to all of {devices} devices");
        add(&title, &all, &|_| {
            bench(format!("broadcast --devices {devices} --pushes 20"))
        });
    }
    if wanted(Scenario::Push) {
        for (callers, pushes) in [(1, 3_000), (32, 30_000), (256, 30_000)] {
            let pushes = size(pushes);
            let title = format!("pushes to one device each, {callers} at a time");
            let line = format!("push --devices 1000 --callers {callers} --pushes {pushes}");
            add(&title, &few, &|_| bench(line.clone()));
        }
    }
    if wanted(Scenario::Connect) {
        let clients = size(10_000);
        for (title, first) in [
            ("connects, new persistent sessions", " --first"),
            ("connects, returning sessions", ""),
        ] {
            let line = format!("storm --clients {clients} --persistent{first}");
            add(title, &few, &|_| bench(line.clone()));
        }
    }
    if wanted(Scenario::Publish) {
        for (qos, messages) in [(0, 2_000_000), (1, 1_000_000)] {
            let messages = size(messages);
            let title = format!("100 pairs, 32 under way, QoS {qos}");
            let line = format!("pairs --pairs 100 --window 32 --qos {qos} --messages {messages}");
            add(&title, &few, &|_| bench(line.clone()));
        }
    }
    if wanted(Scenario::Failover) {
        let devices = size(5_000);
        for (title, backoff) in [
            ("a node killed, devices return within 1 s", 1000),
            ("a node killed, devices return at once", 0),
        ] {
            let line =
                format!("--concurrency 256 failover --devices {devices} --backoff {backoff}");
            add(title, &few, &|_| Action::Attended(line.clone()));
        }
    }
    cases
}

fn bench(line: String) -> Action {
    Action::Bench(line)
}

impl Case {
    /// Runs it.
    pub fn run(&self, site: &mut Site, binary: &Path) -> Result<Column> {
        match &self.action {
            Action::Bench(line) => Load::start(binary, site, line)?.finish(),
            Action::Attended(line) => {
                let mut load = Load::start(binary, site, line)?;
                if site.kind.nodes() == 1 {
                    load.attend(site)?;
                }
                load.finish()
            }
            Action::Hold { each, persistent } => hold(site, binary, *each, *persistent),
        }
    }
}

fn hold(site: &Site, binary: &Path, each: usize, persistent: bool) -> Result<Column> {
    let session = if persistent { " --persistent" } else { "" };
    let line = format!("hold --connections {each}{session}");
    let (resident, redis) = (site.resident_bytes()?, site.redis_bytes()?);
    let started = std::time::Instant::now();
    let mut loads = Vec::new();
    for _ in 0..site.kind.nodes() {
        loads.push(Load::start(binary, site, &line)?);
    }
    for load in &mut loads {
        load.wait_connected()?;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let count = (each * loads.len()) as f64;
    // Lazy writes and freed memory have settled by then.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut column = Column::default();
    let mut add = |name: &str, value: f64, unit: &str| {
        column.metrics.push(Metric::new(name, value, unit));
    };
    let more = site.resident_bytes()?.saturating_sub(resident) as f64;
    add(
        "resident memory per connection",
        more / 1024.0 / count,
        "KiB",
    );
    add("connections", count, "");
    add("time to connect all", elapsed, "s");
    add("connects", count / elapsed, "/s");
    let per_session =
        |bytes: Option<u64>| -> Option<f64> { Some(bytes?.saturating_sub(redis?) as f64 / count) };
    if let Some(bytes) = per_session(site.redis_bytes()?) {
        add("Redis memory per connected session", bytes, "B");
    }
    let mut problems = Vec::new();
    for load in loads {
        problems.extend(load.finish()?.problems);
    }
    if persistent {
        std::thread::sleep(std::time::Duration::from_secs(3));
        if let Some(bytes) = per_session(site.redis_bytes()?) {
            add("Redis memory per idle session", bytes, "B");
        }
    }
    column.problems = problems;
    Ok(column)
}
