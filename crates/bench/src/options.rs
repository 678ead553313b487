//! Options that all scenarios share.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use campanile_mqtt::Version;
use clap::{Args, ValueEnum};

use crate::{
    fleet,
    target::{Nodes, Source, Target},
};

/// Options of all scenarios.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of all scenarios")]
pub struct Common {
    /// MQTT address of a server that runs already, or of each node of a cluster [default without --server and --peer: 127.0.0.1:1883]
    #[arg(long, global = true, value_name = "ADDRESS", value_delimiter = ',')]
    pub mqtt: Vec<SocketAddr>,
    /// HTTP address of that server, or of each node
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:8080"
    )]
    pub http: Vec<SocketAddr>,
    /// Process of that server, or of each node, to see their CPU time and memory
    #[arg(long, global = true, requires = "mqtt", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Redis of that server, to see what it has to do: one without password and TLS
    #[arg(long, global = true, requires = "mqtt", value_name = "ADDRESS")]
    pub redis: Option<SocketAddr>,
    /// A campanile binary to start for each scenario, with a fresh data directory
    #[arg(long, global = true, value_name = "PATH")]
    pub server: Option<PathBuf>,
    /// Another server to start for each scenario, by a shell command. It finds a port in $PORT and an empty directory in $DIR
    #[arg(long, global = true, value_name = "NAME=COMMAND", value_parser = named)]
    pub peer: Vec<(String, String)>,
    /// Also run against a bare loop that only copies bytes, as a yardstick
    #[arg(long, global = true)]
    pub with_floor: bool,
    /// Protocol version
    #[arg(long, global = true, value_enum, default_value = "3.1.1")]
    pub protocol: Protocol,
    /// User name of all clients
    #[arg(long, global = true, requires = "password")]
    pub username: Option<String>,
    /// Password of all clients
    #[arg(long, global = true, requires = "username")]
    pub password: Option<String>,
    /// Key for the HTTP API
    #[arg(long, global = true, env = "CAMPANILE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Handshakes under way at a time
    #[arg(long, global = true, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// Seconds without any packet after which a run is given up
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    pub stall: u64,
    /// Runs of each scenario; the one in the middle is reported
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Give the server the first core and the load the others
    #[arg(long, global = true)]
    pub pin: bool,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
}

/// Protocol version of all clients.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Protocol {
    /// MQTT 3.1.1
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5.0
    #[value(name = "5")]
    V5,
}

fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => {
            Ok((name.into(), command.into()))
        }
        _ => Err("must be a name, \"=\" and a shell command".into()),
    }
}

impl Common {
    /// The servers to measure, with their names.
    pub(crate) fn sources(&self) -> Result<Vec<(String, Source)>> {
        let mut sources = Vec::new();
        if self.with_floor {
            sources.push(("floor".into(), Source::Floor));
        }
        if let Some(path) = &self.server {
            let path = path
                .canonicalize()
                .with_context(|| format!("no server at {}", path.display()))?;
            sources.push(("campanile".into(), Source::Campanile(path)));
        }
        for (name, command) in &self.peer {
            sources.push((name.clone(), Source::Shell(command.clone())));
        }
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 1883));
        let nothing_to_start = self.server.is_none() && self.peer.is_empty();
        let mut mqtt = self.mqtt.clone();
        if mqtt.is_empty() && nothing_to_start {
            mqtt.push(default);
        }
        if let [first, others @ ..] = mqtt.as_slice() {
            let name = match others.len() {
                0 => first.to_string(),
                more => format!("{first} + {more}"),
            };
            let nodes = Nodes {
                mqtt,
                http: self.http.clone(),
                pids: self.pid.clone(),
                redis: self.redis,
            };
            sources.push((name, Source::Running(nodes)));
        }
        Ok(sources)
    }

    /// How a fleet connects to `target`.
    pub(crate) fn fleet(&self, target: &Target) -> fleet::Options {
        fleet::Options {
            mqtt: target.nodes.mqtt.clone(),
            http: target.nodes.http.clone(),
            version: match self.protocol {
                Protocol::V311 => Version::V311,
                Protocol::V5 => Version::V5,
            },
            login: self.username.clone().zip(self.password.clone()),
            concurrency: self.concurrency as usize,
            stall: Duration::from_secs(self.stall),
            run: run_number(),
        }
    }

    /// Whether there is more than one run to wait for.
    pub(crate) fn is_long(&self) -> bool {
        self.repeat > 1 || usize::from(self.server.is_some()) + self.peer.len() > 1
    }
}

/// Differs from run to run, on a machine and between machines.
fn run_number() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Nanoseconds spread well over the low bits, which choose the local addresses.
    (since.as_nanos() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as u32
        ^ std::process::id().rotate_left(16)
}
