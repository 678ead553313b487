//! The configuration: a TOML file, the environment over it, the flags over both.
//!
//! Start at [`load`]. [`Settings`] is the sum of the parts' settings; [`Loaded`] also knows where each key was set, so that an error
//! found later (a port in use, a file that is not there) can still name it. All mistakes are reported at once, each with the key's
//! full path, the place, and the way out. Paths are relative to the working directory.

mod assemble;
mod checks;
mod cluster;
mod cluster_checks;
mod limits;
mod listener;
mod problem;
mod reader;
mod redis;
mod secret;
mod sections;
mod tls_files;
mod tree;
mod units;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use cluster::{ClusterSettings, Rebalance};
pub use listener::{ClientAuth, Listener, Transport, Way};
pub use problem::{Origin, Problem, Problems};
pub use redis::{RedisDurability, RedisMode, RedisSettings};
pub use secret::Secret;
pub use sections::{Clients, Durability, Http, Log, LogFormat, Node, Settings, Store, StoreKind};
pub use tls_files::TlsFiles;

pub use units::{parse_duration, show_duration};

use reader::{Findings, Reader};
use tree::Table;

/// Most bytes of a configuration file.
const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// What flags of the command line set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `--data`
    pub data_dir: Option<PathBuf>,
    /// `--mqtt`: address of the first TCP listener, which is added if there is none.
    pub mqtt: Option<SocketAddr>,
    /// `--ws`: address of the first WebSocket listener, which is added if there is none.
    pub ws: Option<SocketAddr>,
    /// `--http`
    pub http: Option<SocketAddr>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
}

/// Settings without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What works, but hardly as meant.
    pub warnings: Vec<Problem>,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where a key was set, such as `listeners[0].address`.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Mistakes in the TLS files that `[cluster]` and `[redis]` name.
    pub fn cluster_file_mistakes(&self) -> Vec<Problem> {
        cluster_checks::file_mistakes(self)
    }

    /// A problem with the value of a key that only its use brought to light.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem {
            key: key.to_owned(),
            origin: self.origin(key),
            message: message.into(),
        }
    }
}

/// Reads the configuration over the defaults, or over those for development.
///
/// `environment` is that of the process; only `CAMPANILE_SECTION__KEY` matters.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
    development: bool,
) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let table = match file {
        Some(path) => read_file(path, &mut problems),
        None => Table::new(),
    };
    let base = if development {
        Settings::for_development()
    } else {
        Settings::default()
    };
    settle(base, table, environment, overrides, problems)
}

/// Reads a configuration from a text; `path` names it in messages.
pub fn parse(path: &Path, text: &str) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let table = tree::parse_toml(path, text, &mut problems);
    settle(
        Settings::default(),
        table,
        [],
        &Overrides::default(),
        problems,
    )
}

fn read_file(path: &Path, problems: &mut Vec<Problem>) -> Table {
    let mut wrong = |message: String| {
        problems.push(Problem {
            key: String::new(),
            origin: Origin::Default,
            message: format!("{}: {message}", path.display()),
        });
        Table::new()
    };
    match std::fs::metadata(path) {
        Err(error) => return wrong(format!("cannot be read: {error}")),
        Ok(metadata) if metadata.len() > LARGEST_FILE_BYTES => {
            return wrong(format!(
                "is larger than {}",
                units::show_bytes(LARGEST_FILE_BYTES)
            ));
        }
        Ok(_) => {}
    }
    match std::fs::read_to_string(path) {
        Ok(text) => tree::parse_toml(path, &text, problems),
        Err(error) => wrong(format!("cannot be read: {error}")),
    }
}

fn settle(
    mut settings: Settings,
    mut table: Table,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
    problems: Vec<Problem>,
) -> Result<Loaded, Problems> {
    let mut findings = Findings::default();
    findings.problems = problems;
    let mut variables: Vec<_> = environment.into_iter().collect();
    variables.sort();
    tree::overlay_environment(&mut table, variables, &mut findings.problems);
    let mut root = Reader::root(table, &mut findings);
    settings.read(&mut root);
    root.finish();
    findings.name_unknown_keys();
    override_with(&mut settings, overrides, &mut findings.origins);
    let mut loaded = Loaded {
        settings,
        warnings: Vec::new(),
        origins: findings.origins,
    };
    checks::check(&mut loaded, &mut findings.problems);
    let mut problems = findings.problems;
    if problems.is_empty() {
        return Ok(loaded);
    }
    let line = |problem: &Problem| match problem.origin {
        Origin::File { line, .. } => line,
        _ => usize::MAX,
    };
    problems.sort_by_key(line);
    Err(Problems(problems))
}

fn override_with(
    settings: &mut Settings,
    overrides: &Overrides,
    origins: &mut BTreeMap<String, Origin>,
) {
    let mut came_from = |key: String, flag| origins.insert(key, Origin::Flag(flag));
    if let Some(data_dir) = &overrides.data_dir {
        settings.node.data_dir = data_dir.clone();
        came_from("node.data_dir".to_owned(), "--data");
    }
    if let Some(address) = overrides.http {
        settings.http.address = address;
        came_from("http.address".to_owned(), "--http");
    }
    if let Some(format) = overrides.log_format {
        settings.log.format = format;
        came_from("log.format".to_owned(), "--log-format");
    }
    for (address, transport, name, flag) in [
        (overrides.mqtt, Transport::Tcp, "mqtt", "--mqtt"),
        (overrides.ws, Transport::Ws, "ws", "--ws"),
    ] {
        let Some(address) = address else { continue };
        let index = match settings
            .listeners
            .iter()
            .position(|listener| listener.transport == transport)
        {
            Some(index) => index,
            None => {
                let taken = settings
                    .listeners
                    .iter()
                    .any(|listener| listener.name == name);
                let name = if taken {
                    format!("{name}-flag")
                } else {
                    name.to_owned()
                };
                settings.listeners.push(Listener {
                    name,
                    transport,
                    ..Listener::default()
                });
                settings.listeners.len() - 1
            }
        };
        settings.listeners[index].address = address;
        came_from(format!("listeners[{index}].address"), flag);
    }
}

#[cfg(test)]
mod tests;
