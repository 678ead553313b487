//! Plays seeds of the simulation.

use anyhow::bail;
use campanile_sim::world::{self, Options};

/// Plays `seeds` seeds; stops at the first that breaks a promise.
pub fn run(from: u64, seeds: u64, trace: bool) -> anyhow::Result<()> {
    let options = Options {
        trace,
        ..Options::default()
    };
    let mut arrivals = 0;
    for seed in from..from.saturating_add(seeds) {
        match world::run(seed, options) {
            Ok(outcome) => arrivals += outcome.arrivals,
            Err(failure) => bail!(
                "seed {seed}: {}\nreplay: cargo xtask sim --from {seed} --seeds 1 --trace",
                failure.text
            ),
        }
    }
    println!("{arrivals} arrivals");
    println!("held: {seeds} seeds");
    Ok(())
}
