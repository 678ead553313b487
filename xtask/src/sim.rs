//! Plays seeds of the simulation.

use anyhow::bail;
use campanile_sim::{
    cluster,
    world::{self, Failure, Outcome},
};

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum World {
    /// A node alone.
    Node,
    /// Several nodes over one store.
    Cluster,
    /// One after the other.
    Both,
}

/// What to play.
#[derive(clap::Args)]
pub struct Plays {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// What is simulated.
    #[arg(long, value_enum, default_value = "both")]
    world: World,
    /// How many nodes a cluster has, 2..=4; the seed says if not given.
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=4))]
    nodes: Option<u8>,
    /// Play campaigns in every seed, not only in each fourth.
    #[arg(long)]
    campaigns: bool,
    /// Print what happens.
    #[arg(long)]
    trace: bool,
}

/// Plays seeds; stops at the first that breaks a promise.
pub fn run(plays: &Plays) -> anyhow::Result<()> {
    let Plays {
        world,
        trace,
        campaigns,
        ..
    } = *plays;
    let also = if campaigns { " --campaigns" } else { "" };
    if world != World::Cluster {
        let options = world::Options {
            trace,
            campaigns,
            ..world::Options::default()
        };
        let replay = format!("--world node{also}");
        play(plays, &replay, |seed| world::run(seed, options))?;
    }
    if world != World::Node {
        let options = cluster::Options {
            trace,
            campaigns,
            nodes: plays.nodes.map(usize::from),
            ..cluster::Options::default()
        };
        let nodes = plays.nodes.map(|nodes| format!(" --nodes {nodes}"));
        let replay = format!("--world cluster{}{also}", nodes.unwrap_or_default());
        play(plays, &replay, |seed| cluster::run(seed, options))?;
    }
    Ok(())
}

fn play(
    plays: &Plays,
    replay: &str,
    run: impl Fn(u64) -> Result<Outcome, Failure>,
) -> anyhow::Result<()> {
    let &Plays { from, seeds, .. } = plays;
    let mut arrivals = 0;
    for seed in from..from.saturating_add(seeds) {
        match run(seed) {
            Ok(outcome) => arrivals += outcome.arrivals,
            Err(failure) => bail!(
                "seed {seed}: {}\nreplay: cargo xtask sim {replay} --from {seed} --seeds 1 --trace",
                failure.text
            ),
        }
    }
    println!("{replay}: {arrivals} arrivals");
    println!("{replay}: held: {seeds} seeds");
    Ok(())
}
