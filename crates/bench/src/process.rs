//! What processes use: CPU time, memory, cores, file descriptors. Linux's /proc.

use std::{
    fs, io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    process::{Pid, Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// What a process and its descendants have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads, also those that ended. The kernel counts it in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory, KiB.
    pub rss_kib: u64,
}

/// Reads the usage of process `pid` and its descendants.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let mut sum = usage_of_one(pid)?;
    for member in &family(pid)[1..] {
        // It may end while we look.
        if let Ok(usage) = usage_of_one(*member) {
            sum.cpu += usage.cpu;
            sum.rss_kib += usage.rss_kib;
        }
    }
    Ok(sum)
}

fn usage_of_one(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ticks = cpu_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let rss_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0); // A process that is ending has none.
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / per_second),
        rss_kib,
    })
}

/// utime + stime of a /proc/PID/stat.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the command in parentheses, which may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn children(pid: u32) -> Vec<u32> {
    threads(pid)
        .into_iter()
        .filter_map(|thread| fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|child| child.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// A process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut index = 0;
    while let Some(&member) = family.get(index) {
        family.extend(children(member));
        index += 1;
    }
    family
}

/// CPU time of this process.
pub fn own_cpu() -> Duration {
    usage_of_one(std::process::id()).map_or(Duration::ZERO, |usage| usage.cpu)
}

/// Raises the soft limit of open files to the hard one and returns it.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
    .unwrap_or(u64::MAX)
}

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM do not end this process but show in [`interrupted`], so that the servers it started are stopped.
/// The second of them ends it.
pub fn watch_signals() -> io::Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the first signal finds the flag still down.
        signal_hook::flag::register_conditional_default(signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}

/// Whether somebody wants this process to end.
pub fn interrupted() -> bool {
    INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The cores that this process may run on.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("cannot read the CPU affinity")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect())
}

/// Binds this thread, and what it starts from now on, to `cores`.
pub fn pin_self(cores: &[usize]) -> Result<()> {
    sched_setaffinity(None, &set(cores)).with_context(|| format!("cannot pin to cores {cores:?}"))
}

/// Binds all threads of a running process and of its descendants to `cores`.
pub fn pin(pid: u32, cores: &[usize]) -> Result<()> {
    for thread in family(pid).into_iter().flat_map(threads) {
        let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
        sched_setaffinity(thread, &set(cores))
            .with_context(|| format!("cannot pin process {pid} to cores {cores:?}"))?;
    }
    Ok(())
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_after_a_command_with_spaces_and_parentheses() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 17 25 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(42));
    }

    #[test]
    fn own_usage_grows_with_work() {
        let before = usage(std::process::id()).unwrap();
        assert!(before.rss_kib > 0);
        let mut sum = 0_u64;
        while usage(std::process::id()).unwrap().cpu == before.cpu {
            sum = (0..100_000_u64).fold(sum, |sum, n| sum.wrapping_add(n * n));
        }
        assert_ne!(std::hint::black_box(sum), 1);
    }

    #[test]
    fn usage_of_no_process_is_an_error() {
        assert!(usage(u32::MAX).is_err());
    }
}
