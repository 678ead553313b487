//! Checks of the repository itself: `cargo xtask spec | edges | docs | sim`; and `bench-cluster`, which measures it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

mod bench_cluster;
mod docs;
mod edges;
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
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Spec { list } => spec::run(root(), list),
        Task::Edges => edges::run(root()),
        Task::Docs { bin } => docs::run(root(), bin),
        Task::BenchCluster(bench) => bench.run(root()),
        Task::Sim(plays) => sim::run(&plays),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root of the checkout")
}
