//! Many seeds on all cores.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::world::{Failure, Outcome};

/// Plays seeds on all cores; the failure of the lowest seed that fails, if any does.
pub fn play(
    seeds: Range<u64>,
    run: impl Fn(u64) -> Result<Outcome, Failure> + Sync,
) -> Result<Vec<Outcome>, Failure> {
    let next = AtomicU64::new(seeds.start);
    let play_some = || {
        let mut outcomes = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(outcomes);
            }
            outcomes.push(run(seed).inspect_err(|_| {
                next.fetch_max(seeds.end, Ordering::Relaxed);
            })?);
        }
    };
    let results: Vec<Result<Vec<Outcome>, Failure>> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(2, |n| n.get());
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(play_some)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("run catches");
        threads.into_iter().map(join).collect()
    });
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(some) => outcomes.extend(some),
            Err(failure) => failures.push(failure),
        }
    }
    match failures.into_iter().min_by_key(|failure| failure.seed) {
        Some(failure) => Err(failure),
        None => Ok(outcomes),
    }
}
