//! Checks of the repository itself: `cargo xtask spec | edges | docs | sim | faults`; `bench-cluster` measures it, `demo` shows it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

mod bench_cluster;
mod demo;
mod docs;
mod edges;
mod faults;
mod sim;
mod spec;

/// Checks of the repository itself.
#[derive(Parser)]
enum Task {
    /// Every normative MQTT statement has a test that bears its id, or a reason why none applies.
    Spec {
        /// Name the statements that have neither.
        #[arg(long)]
        list: bool,
    },
    /// No crate depends on what it must not know.
    Edges,
    /// The examples of the documentation do what the documentation says.
    Docs {
        /// The binary to run them with; built if not given.
        #[arg(long)]
        bin: Option<PathBuf>,
    },
    /// Measures a single node beside clusters of real nodes, ZooKeeper and Redis.
    BenchCluster(bench_cluster::BenchCluster),
    /// Every promise holds in the simulation, whatever goes wrong.
    Sim(sim::Plays),
    /// Every promise holds in a cluster of real nodes over real servers, whatever fails. Needs what `./test` installs.
    Faults(faults::Faults),
    /// Shows a cluster on this machine that loses a node and no message.
    Demo {
        /// The binary to run; built if not given.
        #[arg(long)]
        bin: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Spec { list } => spec::run(root(), list),
        Task::Edges => edges::run(root()),
        Task::Docs { bin } => docs::run(root(), bin),
        Task::BenchCluster(bench) => bench.run(root()),
        Task::Sim(plays) => sim::run(&plays),
        Task::Faults(faults) => binary(faults.bin.clone()).and_then(|bin| faults.run(bin)),
        Task::Demo { bin } => binary(bin).and_then(demo::run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault:#}");
            ExitCode::FAILURE
        }
    }
}

/// The binary that was named, or the one that is built now.
fn binary(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    named.map_or_else(|| docs::build(root()), Ok)
}

/// The root of the checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root of the checkout")
}
