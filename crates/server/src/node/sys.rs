//! The figures under `$SYS/broker`, with the names and forms that Mosquitto made customary.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::net::figures::Figures;

/// Times over which loads are averaged, in minutes.
const MINUTES: [(f64, &str); 3] = [(1.0, "1min"), (5.0, "5min"), (15.0, "15min")];

type Count = fn(&Figures) -> u64;

/// Topics and values.
pub type SysFigures = Arc<[(Box<str>, Box<str>)]>;

/// Makes the figures; remembers what loads are averaged from.
#[derive(Debug)]
pub struct Sys {
    last: Instant,
    loads: Vec<Load>,
    most_clients: u64,
}

/// A rate per minute, averaged exponentially.
#[derive(Debug)]
struct Load {
    name: &'static str,
    of: Count,
    last: u64,
    averages: [f64; MINUTES.len()],
}

impl Sys {
    /// Begins at a time when nothing was counted yet.
    pub fn new(now: Instant) -> Sys {
        let load = |(name, of)| Load {
            name,
            of,
            last: 0,
            averages: [0.0; MINUTES.len()],
        };
        let loads: [(&'static str, Count); 8] = [
            ("messages/received", |all| all.shard.packets_in),
            ("messages/sent", |all| all.shard.packets_out),
            ("publish/received", |all| {
                all.shard.publishes_in.iter().sum()
            }),
            ("publish/sent", |all| all.shard.publishes_out.iter().sum()),
            ("publish/dropped", dropped),
            ("bytes/received", |all| all.driver.bytes_in),
            ("bytes/sent", |all| all.driver.bytes_out),
            ("connections", |all| all.shard.connects),
        ];
        Sys {
            last: now,
            loads: loads.into_iter().map(load).collect(),
            most_clients: 0,
        }
    }

    /// The figures now.
    pub fn figures(&mut self, all: &Figures, uptime: Duration, now: Instant) -> SysFigures {
        let Figures { shard, driver } = all;
        self.most_clients = self.most_clients.max(shard.connections);
        let mut figures: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(48);
        let mut set = |name: &str, value: String| {
            figures.push((format!("$SYS/broker/{name}").into(), value.into()));
        };
        let version = concat!("campanile ", env!("CARGO_PKG_VERSION"));
        set("version", version.to_owned());
        set("uptime", format!("{} seconds", uptime.as_secs()));
        let numbers = [
            ("clients/connected", shard.connections),
            ("clients/active", shard.connections),
            ("clients/maximum", self.most_clients),
            ("messages/received", shard.packets_in),
            ("messages/sent", shard.packets_out),
            ("messages/inflight", shard.inflight),
            ("publish/messages/received", shard.publishes_in.iter().sum()),
            ("publish/messages/sent", shard.publishes_out.iter().sum()),
            ("publish/messages/dropped", dropped(all)),
            (
                "publish/bytes/received",
                shard.publish_bytes_in.iter().sum(),
            ),
            ("publish/bytes/sent", shard.publish_bytes_out.iter().sum()),
            ("bytes/received", driver.bytes_in),
            ("bytes/sent", driver.bytes_out),
            ("subscriptions/count", shard.subscriptions),
            ("retained messages/count", shard.retained_messages),
        ];
        for (name, value) in numbers {
            set(name, value.to_string());
        }
        let minutes = now.saturating_duration_since(self.last).as_secs_f64() / 60.0;
        self.last = now;
        for load in &mut self.loads {
            load.advance((load.of)(all), minutes);
            for ((_, over), average) in MINUTES.iter().zip(load.averages) {
                set(
                    &format!("load/{}/{over}", load.name),
                    format!("{average:.2}"),
                );
            }
        }
        figures.into()
    }
}

impl Load {
    fn advance(&mut self, count: u64, minutes: f64) {
        if minutes <= 0.0 {
            return;
        }
        let rate = count.saturating_sub(self.last) as f64 / minutes;
        self.last = count;
        for ((over, _), average) in MINUTES.iter().zip(&mut self.averages) {
            let weight = (-minutes / over).exp();
            *average = rate + weight * (*average - rate);
        }
    }
}

fn dropped(all: &Figures) -> u64 {
    let shard = &all.shard;
    shard.dropped_queue_full + shard.dropped_expired + shard.dropped_too_large + shard.dropped_gap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_customary_names_and_loads_approach_the_rate() {
        let start = Instant::now();
        let mut sys = Sys::new(start);
        let mut all = Figures::default();
        let mut last = None;
        for second in (10..=600).step_by(10) {
            all.shard.packets_in += 100;
            let now = start + Duration::from_secs(second);
            last = Some(sys.figures(&all, now - start, now));
        }
        let figures = last.unwrap();
        let value = |name: &str| {
            let found = figures.iter().find(|(topic, _)| **topic == *name);
            &*found.unwrap_or_else(|| panic!("no {name}")).1
        };
        assert_eq!(value("$SYS/broker/uptime"), "600 seconds");
        assert_eq!(value("$SYS/broker/messages/received"), "6000");
        assert_eq!(value("$SYS/broker/retained messages/count"), "0");
        let load = |over| value(&format!("$SYS/broker/load/messages/received/{over}")).parse();
        let (one, fifteen): (f64, f64) = (load("1min").unwrap(), load("15min").unwrap());
        assert!((one - 600.0).abs() < 1.0, "{one}");
        assert!((250.0..320.0).contains(&fifteen), "{fifteen}");
    }
}
