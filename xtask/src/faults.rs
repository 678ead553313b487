//! Breaks a real cluster at random.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use campanile_testbed::faults::{Held, RedisMode, Run, play};
use clap::ValueEnum;

/// How Redis runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Redis {
    /// One server.
    Standalone,
    /// A primary, replicas and Sentinels.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

/// Plays a run; the last line says what was held.
pub fn run(
    seed: u64,
    minutes: f64,
    nodes: usize,
    redis: Redis,
    binary: PathBuf,
) -> anyhow::Result<()> {
    ensure!(
        (2..=9).contains(&nodes),
        "--nodes {nodes}: 2 to 9 can be started"
    );
    let run = Run {
        seed,
        time: Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?,
        nodes,
        redis: match redis {
            Redis::Standalone => RedisMode::Standalone,
            Redis::Sentinel => RedisMode::Sentinel,
            Redis::Cluster => RedisMode::Cluster,
        },
        binary,
    };
    let held = play(&run, |line| println!("{line}")).with_context(|| {
        let redis = format!("{redis:?}").to_lowercase();
        format!("replay: cargo xtask faults --seed {seed} --nodes {nodes} --redis {redis}")
    })?;
    let Held { figures, faults } = held;
    for (kind, count) in &faults {
        println!("{count:4} x {kind}");
    }
    println!(
        "held: {} faults, {} takeovers; {} accepted ({} refused), {} deliveries, none missing, none twice at QoS 2, {} repeated at QoS 1 and {} at groups",
        faults.values().sum::<u32>(),
        figures.takeovers,
        figures.accepted,
        figures.refused,
        figures.received,
        figures.duplicates_qos1,
        figures.duplicates_other,
    );
    Ok(())
}
