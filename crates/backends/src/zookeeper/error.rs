//! What can go wrong between a node and the ensemble.

use std::path::PathBuf;

use thiserror::Error;

/// Why the ensemble could not do something, and what helps.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error("{key} {value:?}: {rule}")]
    Invalid {
        /// Which part.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should.
        rule: &'static str,
    },
    /// A file of the TLS configuration is wrong.
    #[error("cannot use {}: it must hold PEM", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::sync::Arc<dyn std::error::Error + Send + Sync>,
    },
    /// No server serves this node now. Trying later may help.
    #[error("ZooKeeper at {servers} does not answer ({reason}): {hint}?")]
    Unreachable {
        /// The servers.
        servers: String,
        /// What to look at.
        hint: &'static str,
        /// What the client said.
        reason: zookeeper_client::Error,
    },
    /// The ensemble keeps this node out.
    #[error(
        "ZooKeeper at {servers} refuses access to {path}: give the digest user and password that the cluster was created with, or choose \
         another chroot"
    )]
    Refused {
        /// The servers.
        servers: String,
        /// To what.
        path: String,
    },
    /// Another process has registered under this node's name.
    #[error(
        "node name {name:?} is taken by a process at {peer_address} (session {session:#x}): names are unique in a cluster; if that is an \
         earlier run of this node, its registration ends with its session, otherwise give this node another name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Where that process says that it is reached.
        peer_address: String,
        /// Its session.
        session: i64,
    },
    /// Nothing went wrong, but there was not enough time.
    #[error("not registered within {within:?}{}", because(.cause))]
    NotRegistered {
        /// The patience.
        within: std::time::Duration,
        /// What stood in the way last.
        cause: Option<Box<Error>>,
    },
    /// The membership was stopped.
    #[error("this node has left the cluster")]
    Stopped,
    /// Anything else that the ensemble said.
    #[error("ZooKeeper at {servers}, {path}: {reason}")]
    Failed {
        /// The servers.
        servers: String,
        /// What it was about.
        path: String,
        /// What the client said.
        reason: zookeeper_client::Error,
    },
}

fn because(cause: &Option<Box<Error>>) -> String {
    cause
        .as_ref()
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default()
}
