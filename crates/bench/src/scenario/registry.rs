//! Devices that are registered through the HTTP API, and a push to some of them.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use crate::{
    Common, Metric, Outcome, Target,
    fleet::{Crew, Ended, Fleet, LinkId, Links},
    meter::{Latencies, Meter, Spent, server_usage},
};

/// Registers devices, and has the audience of a push counted over all of them.
#[derive(Args, Clone, Debug)]
pub struct Registry {
    /// Devices
    #[arg(long, default_value_t = 1_000_000)]
    pub devices: u64,
    /// HTTP connections, each with one request under way
    #[arg(long, default_value_t = 64)]
    pub callers: usize,
    /// App that the devices belong to
    #[arg(long, default_value = "default")]
    pub app: String,
}

/// One device in so many has the tag that the push asks for, and one in so many the platform.
const VIPS: u64 = 100;
const PLATFORMS: [&str; 3] = ["android", "ios", "web"];
/// The audience of the push.
const AUDIENCE: &str = r#"{"expr":"vip && platform == \"ios\""}"#;

impl Registry {
    pub(super) fn label(&self) -> String {
        let (devices, callers) = (self.devices, self.callers);
        format!("{devices} devices registered over {callers} HTTP connections")
    }

    pub(super) fn run(&self, target: &Target, common: &Common) -> Result<Outcome> {
        let key = common.key.clone().or_else(|| target.key());
        let key = key.context("the HTTP API needs a key: --key, or CAMPANILE_KEY")?;
        let mut fleet = Fleet::new(common.fleet(target))?;
        for _ in 0..self.callers.max(1) {
            fleet.links.add_http();
        }
        let before_kib = server_usage(&target.nodes).map(|usage| usage.rss_kib);
        let mut crew = Registrations {
            plan: self,
            key,
            run: fleet.links.options().run,
            called: vec![0; self.callers.max(1)],
            asked: 0,
            registered: 0,
            latencies: Latencies::default(),
            pushed_ns: None,
            counted_after: None,
        };
        let links = self.callers.max(1);
        fleet.connect(&mut crew, (0..links).map(LinkId))?;

        let meter = Meter::start(&target.nodes);
        for caller in 0..links {
            crew.register(&mut fleet.links, LinkId(caller));
        }
        let ended = fleet.drive(&mut crew, |crew, _| crew.registered == self.devices)?;
        let spent = meter.stop(Instant::now());
        let ended = match ended {
            Ended::Done => {
                crew.push(&mut fleet.links);
                fleet.drive(&mut crew, |crew, _| crew.counted_after.is_some())?
            }
            ended => ended,
        };
        Ok(crew.outcome(target, &spent, before_kib, fleet.links.problems(ended)))
    }

    /// Devices that the push is for.
    fn expected(&self) -> u64 {
        let vips = (0..self.devices).step_by(VIPS as usize);
        vips.filter(|number| platform(*number) == "ios").count() as u64
    }
}

fn platform(number: u64) -> &'static str {
    PLATFORMS[(number % PLATFORMS.len() as u64) as usize]
}

struct Registrations<'a> {
    plan: &'a Registry,
    key: String,
    run: u32,
    /// When each caller sent its request, on the clock of the fleet.
    called: Vec<u64>,
    asked: u64,
    registered: u64,
    latencies: Latencies,
    /// When the push was sent, once all are registered.
    pushed_ns: Option<u64>,
    /// How long that took, and how many devices it is for.
    counted_after: Option<(Duration, u64)>,
}

#[derive(Deserialize)]
struct Answer {
    push_id: String,
    targeted: Option<u64>,
}

impl Registrations<'_> {
    /// Sends the caller's next registration, if one is left.
    fn register(&mut self, links: &mut Links, link: LinkId) {
        if self.asked == self.plan.devices {
            return;
        }
        let number = self.asked;
        self.asked += 1;
        self.called[link.0] = links.tick();
        let tags = if number.is_multiple_of(VIPS) {
            r#"["vip","news"]"#
        } else {
            r#"["news"]"#
        };
        // What an ordinary app says of its devices.
        let body = format!(
            r#"{{"platform":"{}","app_version":"3.{}.0","language":"en-GB","time_zone":"Europe/London","user":"user-{}","tags":{tags},"attributes":{{"plan":"free","level":{}}}}}"#,
            platform(number),
            number % 20,
            number / 2,
            number % 100,
        );
        let path = format!("devices/bench-{:08x}-{number}", self.run);
        self.request(links, link, "PUT", &path, &body);
    }

    fn push(&mut self, links: &mut Links) {
        self.pushed_ns = Some(links.tick());
        let body = format!(r#"{{"audience":{AUDIENCE},"data":{{"n":1}}}}"#);
        self.request(links, LinkId(0), "POST", "pushes", &body);
    }

    fn request(&self, links: &mut Links, link: LinkId, method: &str, path: &str, body: &str) {
        let (app, key) = (&self.plan.app, &self.key);
        let length = body.len();
        // Writing to memory does not fail.
        links.send(link, |out| {
            let _ = write!(
                out,
                "{method} /v1/apps/{app}/{path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
        });
    }

    /// Asks for the push's report until its audience is counted.
    fn look(&mut self, links: &mut Links, pushed_ns: u64, body: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
            return links.fault(format!("not a push: {}", String::from_utf8_lossy(body)));
        };
        if let Some(targeted) = answer.targeted {
            let waited = Duration::from_nanos(links.now_ns().saturating_sub(pushed_ns));
            self.counted_after = Some((waited, targeted));
            return;
        }
        let path = format!("pushes/{}", answer.push_id);
        self.request(links, LinkId(0), "GET", &path, "");
    }

    fn outcome(
        &self,
        target: &Target,
        spent: &Spent,
        before_kib: Option<u64>,
        mut problems: Vec<String>,
    ) -> Outcome {
        let mut metrics = spent.server_metrics("registration", self.registered);
        metrics.push(Metric::new(
            "registrations",
            spent.rate(self.registered),
            "/s",
        ));
        metrics.extend(self.latencies.metrics());
        if let (Some(before), Some(after)) = (before_kib, spent.rss_kib) {
            let bytes = after.saturating_sub(before) * 1024;
            let each = bytes as f64 / self.registered.max(1) as f64;
            metrics.push(Metric::new("server RSS per device", each, "B"));
        }
        if let Some(disk) = target.disk_bytes() {
            let each = disk as f64 / self.registered.max(1) as f64;
            metrics.push(Metric::new("disk per device", each, "B"));
        }
        if let Some((waited, targeted)) = self.counted_after {
            let ms = waited.as_secs_f64() * 1e3;
            metrics.push(Metric::new("until an audience is counted", ms, "ms"));
            let expected = self.plan.expected();
            // Another run may have left devices behind.
            if targeted < expected {
                problems.push(format!("{targeted} devices counted, {expected} expected"));
            }
        }
        metrics.extend(spent.other_metrics("registration", self.registered));
        Outcome {
            scenario: self.plan.label(),
            target: target.name.clone(),
            metrics,
            tally: None,
            problems,
        }
    }
}

impl Crew for Registrations<'_> {
    fn on_response(&mut self, links: &mut Links, link: LinkId, status: u16, body: &[u8]) {
        if !(200..300).contains(&status) {
            let body = String::from_utf8_lossy(body);
            return links.fault(format!("answered with {status}: {body}"));
        }
        if let Some(pushed_ns) = self.pushed_ns {
            return self.look(links, pushed_ns, body);
        }
        self.registered += 1;
        let called_ns = self.called[link.0];
        self.latencies
            .record(links.now_ns().saturating_sub(called_ns));
        self.register(links, link);
    }
}
