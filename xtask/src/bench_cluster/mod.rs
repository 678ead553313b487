//! The single node beside clusters: the same load, the same machine, one table.
//!
//! `site` starts what is measured, `load` runs `campanile bench` against it in processes of its own, `plan` says what is measured,
//! `table` puts sites side by side. `docs/benchmarks.md` has the method and figures.

mod load;
mod plan;
mod site;
mod table;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use campanile_testbed::zookeeper::Ensemble;
use clap::Args;

use self::{
    plan::Case,
    site::{Kind, Site},
    table::Column,
};

/// What to measure, and how large.
#[derive(Args)]
pub struct BenchCluster {
    /// Sizes of the clusters
    #[arg(long, value_delimiter = ',', default_value = "1,3,5", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Vec<u8>,
    /// Devices of all nodes together, for pushes to all
    #[arg(long, default_value_t = 15_000)]
    devices: usize,
    /// Held connections per node; a process may open 20,000 files here
    #[arg(long, default_value_t = 18_000)]
    held: usize,
    /// Scenarios [default: all]
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<plan::Scenario>,
    /// Runs of each; of each figure the one in the middle is reported
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    repeat: u8,
    /// A tenth of the size
    #[arg(long)]
    quick: bool,
    /// The binary that is measured and that makes the load; built for release if not given
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl BenchCluster {
    /// Runs all cases and prints the tables; fails if any delivery was not as it should be.
    pub fn run(&self, root: &Path) -> anyhow::Result<()> {
        let binary = match &self.bin {
            Some(binary) => binary
                .canonicalize()
                .with_context(|| format!("there is no {}", binary.display()))?,
            None => build(root)?,
        };
        let ensemble = Ensemble::start(1)?;
        let cases = plan::cases(self);
        let mut columns = Vec::new();
        for case in &cases {
            let mut repeats = Vec::new();
            for _ in 0..self.repeat {
                let column = run_case(case, &binary, &ensemble);
                eprint!("{}", table::text(std::slice::from_ref(&column)));
                repeats.push(column);
            }
            columns.extend(table::median(repeats));
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&columns)?);
        } else {
            print!("{}", table::text(&columns));
        }
        let bad = columns.iter().filter(|column| !column.is_good()).count();
        ensure!(bad == 0, "{bad} of {} runs went wrong", columns.len());
        Ok(())
    }

    fn kinds(&self, most_nodes: u8) -> Vec<Kind> {
        let sizes = self.nodes.iter().filter(|nodes| **nodes <= most_nodes);
        std::iter::once(Kind::Embedded)
            .chain(sizes.map(|nodes| Kind::Cluster((*nodes).into())))
            .collect()
    }
}

/// A case that cannot be run is a column that says why; the others go on.
fn run_case(case: &Case, binary: &Path, ensemble: &Ensemble) -> Column {
    let mut column = Site::start(case.kind, binary, ensemble)
        .and_then(|mut site| case.run(&mut site, binary))
        .unwrap_or_else(|error| Column::failed(&error));
    column.scenario.clone_from(&case.title);
    column.site = case.kind.to_string();
    column
}

fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "campanile"])
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "the binary does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/campanile"))
}
