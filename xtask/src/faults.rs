//! Breaks a real cluster at random.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use campanile_testbed::{
    faults::{Held, Hosts, RedisMode, Run, play},
    network::inside,
};
use clap::{Args, ValueEnum};

/// Names the binary if the command line does not.
pub const BINARY: &str = "CAMPANILE_FAULTS_BINARY";

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

/// What servers and nodes run on.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum NetworkKind {
    /// Each on a host of its own, a network namespace; packets are dropped and refused between them. Linux, with ip, nft, and root or user namespaces.
    Namespaces,
    /// All on the loopback address; nothing is cut off.
    Loopback,
}

/// What is broken.
#[derive(Args, Clone, Debug)]
pub struct Faults {
    /// Draws the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long faults go on.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How Redis runs.
    #[arg(long, value_enum, default_value = "sentinel")]
    redis: Redis,
    /// What servers and nodes run on.
    #[arg(long, value_enum, default_value = "namespaces")]
    network: NetworkKind,
    /// The binary to run; built if not given.
    #[arg(long, env = BINARY)]
    pub bin: Option<PathBuf>,
}

impl Faults {
    /// Plays a run; the last line says what was held.
    pub fn run(&self, binary: PathBuf) -> anyhow::Result<()> {
        let Faults {
            seed,
            minutes,
            nodes,
            redis,
            network,
            ..
        } = *self;
        ensure!(
            (2..=9).contains(&nodes),
            "--nodes {nodes}: 2 to 9 can be started"
        );
        if matches!(network, NetworkKind::Namespaces) && !inside::is_inside() {
            return run_inside(&binary);
        }
        let run = Run {
            seed,
            time: Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?,
            nodes,
            redis: match redis {
                Redis::Standalone => RedisMode::Standalone,
                Redis::Sentinel => RedisMode::Sentinel,
                Redis::Cluster => RedisMode::Cluster,
            },
            network: match network {
                NetworkKind::Namespaces => Hosts::Namespaces,
                NetworkKind::Loopback => Hosts::Loopback,
            },
            binary,
        };
        println!(
            "{}",
            match network {
                NetworkKind::Namespaces =>
                    "each server and node on a host of its own, packets are dropped",
                NetworkKind::Loopback => "all on the loopback address, no partitions",
            }
        );
        let held = play(&run, |line| println!("{line}")).with_context(|| {
            let (redis, network) = (format!("{redis:?}"), format!("{network:?}"));
            let choices = format!("--redis {redis} --network {network}").to_lowercase();
            format!("replay: cargo xtask faults --seed {seed} --nodes {nodes} {choices}")
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
}

/// The same run by this program in a namespace of its own, with the binary that is built by now.
fn run_inside(binary: &Path) -> anyhow::Result<()> {
    let arguments = env::args_os().skip(1);
    let mut again =
        inside::again(arguments).context("--network loopback breaks what can be broken without")?;
    let status = again.env(BINARY, binary).status()?;
    ensure!(status.success(), "the run ended with {status}");
    Ok(())
}
