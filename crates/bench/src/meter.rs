//! What a run cost and how long its deliveries took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::{
    process::{self, Usage},
    redis::{self, Work},
    report::Metric,
    target::Nodes,
};

/// Takes the usage of server and load tool from [`Meter::start`] to [`Meter::stop`].
pub struct Meter {
    nodes: Nodes,
    server: Option<Usage>,
    redis: Option<Work>,
    load: Duration,
    started: Instant,
}

/// What was used between start and stop.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// CPU time of the server, of all its nodes; unknown if its processes are.
    pub server: Option<Duration>,
    /// What its Redis had to do; unknown if its address is.
    pub redis: Option<Work>,
    /// CPU time of this process.
    pub load: Duration,
    /// Resident memory of the server at the end, KiB.
    pub rss_kib: Option<u64>,
    /// From start to the moment given to [`Meter::stop`].
    pub elapsed: Duration,
}

impl Meter {
    /// Begins now.
    pub fn start(nodes: &Nodes) -> Meter {
        Meter {
            nodes: nodes.clone(),
            redis: redis_work(nodes),
            server: server_usage(nodes),
            load: process::own_cpu(),
            started: Instant::now(),
        }
    }

    /// Sums up. `ended` is when the work was over; what the server did after that still counts as used.
    pub fn stop(&self, ended: Instant) -> Spent {
        let server = server_usage(&self.nodes);
        Spent {
            redis: self
                .redis
                .zip(redis_work(&self.nodes))
                .map(|(before, after)| after.since(before)),
            server: self
                .server
                .zip(server)
                .map(|(before, after)| after.cpu.saturating_sub(before.cpu)),
            load: process::own_cpu().saturating_sub(self.load),
            rss_kib: server.map(|usage| usage.rss_kib),
            elapsed: ended.duration_since(self.started),
        }
    }
}

/// Usage of all nodes, if they are known. One that is dead counts for nothing.
pub fn server_usage(nodes: &Nodes) -> Option<Usage> {
    let usages = nodes.pids.iter().map(|pid| process::usage(*pid).ok());
    usages.flatten().reduce(|sum, usage| Usage {
        cpu: sum.cpu + usage.cpu,
        rss_kib: sum.rss_kib + usage.rss_kib,
    })
}

fn redis_work(nodes: &Nodes) -> Option<Work> {
    redis::work(nodes.redis?).ok()
}

impl Spent {
    /// CPU time of the server per one of `count` things, µs, which is also seconds per million. Nothing if its process is
    /// not known.
    pub fn server_metrics(&self, thing: &str, count: u64) -> Vec<Metric> {
        self.server
            .map(|cpu| Metric::new(format!("server CPU per {thing}"), micros(cpu, count), "µs"))
            .into_iter()
            .collect()
    }

    /// What else is worth a look: the load's CPU time, and the server's memory.
    pub fn other_metrics(&self, thing: &str, count: u64) -> Vec<Metric> {
        let load = micros(self.load, count);
        let mut metrics = vec![Metric::new(format!("load CPU per {thing}"), load, "µs")];
        if let Some(cpu) = self.server {
            metrics.push(Metric::new("server CPU", cpu.as_secs_f64(), "s"));
        }
        if let Some(kib) = self.rss_kib {
            metrics.push(Metric::new("server RSS", kib as f64 / 1024.0, "MiB"));
        }
        if let Some(work) = self.redis {
            metrics.extend(work.metrics(thing, count));
        }
        metrics
    }

    /// How many of `count` went through in a second.
    pub fn rate(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Of `cpu` for each of `count`.
fn micros(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// Latencies, 1 µs to 5 minutes, to two digits.
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        let most_us = Duration::from_secs(300).as_micros() as u64;
        let histogram = Histogram::new_with_bounds(1, most_us, 2);
        Latencies(histogram.expect("the bounds are constant and valid"))
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record((ns / 1000).max(1));
    }

    /// Percentiles.
    pub fn metrics(&self) -> Vec<Metric> {
        if self.0.is_empty() {
            return Vec::new();
        }
        [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)]
            .map(|(name, quantile)| {
                let ms = self.0.value_at_quantile(quantile) as f64 / 1000.0;
                Metric::new(format!("latency {name}"), ms, "ms")
            })
            .into()
    }
}
