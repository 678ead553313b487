//! Load for MQTT servers, ours and others, that checks every delivery.
//!
//! Start at [`run`]. A scenario (`scenario/`, one file each) plays against a `target`: a server that runs already, or one that is
//! started for it. Its connections are a `fleet`: one thread, one epoll loop. Each payload carries a `stamp` that says who
//! sent it and which one it is; an `account` compares that with what should have come; the `report` puts servers side by side.
//! [`floor`] is the yardstick: a process that only copies bytes from socket to socket.
//!
//! Deliberately absent: TLS and WebSocket, more than one thread, rates below the maximum. `docs/benchmarks.md` has the method.

mod account;
mod api;
mod exchange;
mod fleet;
pub mod floor;
mod meter;
mod options;
mod process;
mod publisher;
mod redis;
mod report;
mod scenario;
mod stamp;
mod target;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

pub use account::{Account, Arrival, Tally};
pub use options::Common;
pub use report::{Metric, Outcome};
pub use scenario::Scenario;
pub use target::{Nodes, Source, Target};

/// Measures an MQTT server and checks every delivery
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    scenario: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    #[command(flatten)]
    One(Scenario),
    /// Runs the whole set, each scenario against a fresh server, and prints the servers side by side
    All(scenario::all::All),
    /// Runs the bare loop that serves as yardstick
    #[command(hide = true)]
    FloorServer(floor::FloorServer),
}

/// Runs what the arguments ask for and prints the result; fails if any delivery was not as it should be.
pub fn run(args: BenchArgs) -> Result<ExitCode> {
    let BenchArgs { common, scenario } = args;
    let scenarios = match scenario {
        Command::FloorServer(floor) => return floor.run().map(|()| ExitCode::SUCCESS),
        Command::One(scenario) => vec![scenario],
        Command::All(all) => all.scenarios()?,
    };
    process::raise_file_limit();
    process::watch_signals()?;
    let outcomes = compare(&scenarios, &common)?;
    if common.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    } else {
        print!("{}", report::table(&outcomes));
    }
    let good = outcomes.iter().all(Outcome::is_good);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs every scenario against every server, one after the other.
fn compare(scenarios: &[Scenario], common: &Common) -> Result<Vec<Outcome>> {
    let cores = common.pin.then(process::cores).transpose()?;
    let sources = common.sources()?;
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        for (name, source) in &sources {
            if !scenario.suits(source) {
                continue;
            }
            let mut repeats = Vec::new();
            for _ in 0..common.repeat {
                anyhow::ensure!(!process::interrupted(), "interrupted");
                let outcome = open(name, source, cores.as_deref())
                    .and_then(|target| scenario.run(&target, common))
                    .unwrap_or_else(|error| failed(scenario, name, &error));
                progress(&outcome, common);
                repeats.push(outcome);
            }
            outcomes.extend(report::median(repeats));
        }
    }
    Ok(outcomes)
}

/// Opens a server; with `cores`, it gets the first of them and this process the others.
fn open(name: &str, source: &Source, cores: Option<&[usize]>) -> Result<Target> {
    let Some([server, load @ ..]) = cores else {
        return Target::open(name, source);
    };
    anyhow::ensure!(!load.is_empty(), "--pin needs two cores");
    // What is started inherits the cores of this thread.
    process::pin_self(&[*server])?;
    let target = Target::open(name, source);
    process::pin_self(load)?;
    if let Source::Running(nodes) = source {
        for pid in &nodes.pids {
            process::pin(*pid, &[*server])?;
        }
    }
    target
}

fn failed(scenario: &Scenario, target: &str, error: &anyhow::Error) -> Outcome {
    Outcome {
        scenario: scenario.label(),
        target: target.into(),
        metrics: Vec::new(),
        tally: None,
        problems: vec![format!("{error:#}")],
    }
}

/// Long runs say how far they are, on the side.
fn progress(outcome: &Outcome, common: &Common) {
    if common.is_long() {
        eprint!("{}", report::table(std::slice::from_ref(outcome)));
    }
}
