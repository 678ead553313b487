//! Commands of an operator on the node's machine: making apps and keys, orders to the cluster.
//!
//! A node that runs listens on a Unix socket in its data directory, which only its own user can use ([`AdminSocket`]). Without a node, the same
//! commands work on the data directory itself. [`Apps`] finds out which it is. What [`Members`] asks needs a node that runs.

mod apps;
mod cluster;
mod conversation;
mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use campanile_api::cluster::{Located, Overview};
use campanile_push::{
    app::{AppName, KeyHash},
    store::{Command, Outcome, Reader, Unavailable},
};
use serde::{Deserialize, Serialize};

pub use apps::{Apps, AppsError};
pub use cluster::{ClusterRequest, Members};
pub use conversation::{ConversationError, Node};
pub use server::{AdminSocket, SocketError};

/// Apps listed in one reply.
const PAGE: usize = 1000;
/// Bytes of a request or reply; a page of the longest names fits.
const LONGEST_LINE: u64 = 128 * 1024;

/// A request: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Make an app with its first key.
    CreateApp {
        /// The name.
        app: String,
        /// SHA-256 of the key, hexadecimal: the key itself stays with who made it.
        key_sha256: String,
    },
    /// One more key for an app.
    AddKey {
        /// The name.
        app: String,
        /// SHA-256 of the key, hexadecimal.
        key_sha256: String,
    },
    /// Names of apps in order, a page at a time.
    ListApps {
        /// The last name of the page before.
        after: Option<String>,
    },
    /// About the cluster.
    Cluster {
        /// What.
        request: ClusterRequest,
    },
}

/// A reply: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Reply {
    /// Done and durable.
    Done,
    /// There is an app of that name.
    Exists,
    /// There is no app of that name.
    NoApp,
    /// Names of apps.
    Apps {
        /// In order.
        apps: Vec<String>,
        /// Whether there are more after the last.
        more: bool,
    },
    /// The cluster as the node knows it.
    Cluster {
        /// All of it.
        overview: Overview,
    },
    /// Where a client is.
    Located {
        /// The answers of all nodes.
        located: Located,
    },
    /// Not carried out.
    Refused {
        /// Why, for people.
        detail: String,
    },
}

/// Where the node of a data directory listens for commands.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// What a request asks for, and of whom.
enum Wanted {
    Write(Command),
    Apps(Option<AppName>),
    OfCluster(ClusterRequest),
}

impl Request {
    fn wanted(&self, now_ms: u64) -> Result<Wanted, Reply> {
        let refused = |detail: String| Reply::Refused { detail };
        let name = |text: &str| AppName::new(text).map_err(|error| refused(error.to_string()));
        let hash = |text: &str| {
            parse_hash(text)
                .ok_or_else(|| refused("key_sha256 is 64 hexadecimal digits".to_owned()))
        };
        Ok(match self {
            Request::CreateApp { app, key_sha256 } => Wanted::Write(Command::CreateApp {
                app: name(app)?,
                key: hash(key_sha256)?,
                now_ms,
            }),
            Request::AddKey { app, key_sha256 } => Wanted::Write(Command::AddKey {
                app: name(app)?,
                key: hash(key_sha256)?,
            }),
            Request::Cluster { request } => Wanted::OfCluster(request.clone()),
            Request::ListApps { after } => Wanted::Apps(after.as_deref().map(name).transpose()?),
        })
    }
}

fn reply_to_write(outcome: Result<Outcome, Unavailable>) -> Reply {
    match outcome {
        Ok(Outcome::Done) => Reply::Done,
        Ok(Outcome::Exists) => Reply::Exists,
        Ok(Outcome::NoApp) => Reply::NoApp,
        Ok(other) => Reply::Refused {
            detail: format!("the store answered {other:?}"),
        },
        Err(unavailable) => Reply::Refused {
            detail: unavailable.to_string(),
        },
    }
}

fn list(reader: &dyn Reader, after: Option<&AppName>) -> Reply {
    match reader.apps(after, PAGE) {
        Ok(apps) => Reply::Apps {
            more: apps.len() == PAGE,
            apps: apps.iter().map(ToString::to_string).collect(),
        },
        Err(unavailable) => Reply::Refused {
            detail: unavailable.to_string(),
        },
    }
}

fn show_hash(hash: &KeyHash) -> String {
    hash.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hash(text: &str) -> Option<KeyHash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(KeyHash(hash))
}
