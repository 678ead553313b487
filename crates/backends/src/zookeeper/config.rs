//! Where the ensemble is and how to speak to it.

use std::{path::PathBuf, time::Duration};

use zookeeper_client::{Client, TlsOptions};

use super::Error;

/// How a node finds and uses a ZooKeeper ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperConfig {
    /// `host:port` of the ensemble's servers; name all of them. Without a port: 2181.
    pub servers: Vec<String>,
    /// Path under which the cluster keeps everything; created if need be. Clusters that share an ensemble differ in it.
    pub chroot: String,
    /// How long a node that fell silent stays registered. The servers bound it by 2 and 20 of their ticks.
    pub session_timeout: Duration,
    /// How long a loss of most other nodes is doubted. Must exceed `session_timeout`.
    pub confirmation: Duration,
    /// What identifies the cluster's nodes to the ensemble. With it, what they create is closed to everybody else.
    pub auth: Option<DigestAuth>,
    /// To reach the servers by TLS.
    pub tls: Option<TlsFiles>,
}

impl Default for ZooKeeperConfig {
    fn default() -> ZooKeeperConfig {
        ZooKeeperConfig {
            servers: vec!["127.0.0.1:2181".to_owned()],
            chroot: "/campanile".to_owned(),
            session_timeout: Duration::from_secs(4),
            confirmation: Duration::from_secs(10),
            auth: None,
            tls: None,
        }
    }
}

/// User and password of ZooKeeper's `digest` scheme.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestAuth {
    /// The user; no colon.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for DigestAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DigestAuth")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// PEM files, read anew for each session, so that they may be renewed in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that the servers' certificates come from.
    pub authority: PathBuf,
    /// Own certificate chain and its private key, for servers that ask for one.
    pub identity: Option<TlsIdentityFiles>,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentityFiles {
    /// The chain, own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl ZooKeeperConfig {
    /// All mistakes that can be seen without the ensemble.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |key: &'static str, value: &str, rule: &'static str| {
            let value = value.to_owned();
            Err(Error::Invalid { key, value, rule })
        };
        if self.servers.is_empty() {
            return invalid("servers", "", "name at least one server as host:port");
        }
        let is_plain = |server: &&String| server.is_empty() || server.contains([',', '/', ' ']);
        if let Some(server) = self.servers.iter().find(is_plain) {
            return invalid("servers", server, "a server is host:port");
        }
        let levels: Vec<&str> = self.chroot.split('/').skip(1).collect();
        if !self.chroot.starts_with('/') || levels.iter().any(|level| !is_node_name(level)) {
            let rule = "a path such as /campanile, without a slash at its end";
            return invalid("chroot", &self.chroot, rule);
        }
        if self.confirmation <= self.session_timeout {
            let rule = "must be longer than session_timeout";
            return invalid("confirmation", &format!("{:?}", self.confirmation), rule);
        }
        let user = self.auth.as_ref().map_or("", |auth| &auth.user);
        if user.contains(':') || (self.auth.is_some() && user.is_empty()) {
            return invalid("auth.user", user, "one or more characters, none a colon");
        }
        self.tls_options().map(drop)
    }

    /// A new session. Fails once no server has answered; the caller tries again at its own pace.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        let mut connector = Client::connector()
            .with_session_timeout(self.session_timeout)
            .with_fail_eagerly();
        if let Some(auth) = &self.auth {
            let secret = format!("{}:{}", auth.user, auth.password);
            connector = connector.with_auth("digest", secret.as_bytes());
        }
        let servers = self.servers.join(",");
        let connected = match self.tls_options()? {
            Some(options) => connector.with_tls(options).secure_connect(&servers).await,
            None => connector.connect(&servers).await,
        };
        connected.map_err(|reason| self.unreachable(reason))
    }

    pub(super) fn unreachable(&self, reason: zookeeper_client::Error) -> Error {
        let servers = self.servers.join(",");
        let hint = match self.tls {
            Some(_) => {
                "are the servers up, are these their TLS ports, do authority and certificates fit"
            }
            None => "are the servers up, are these their plain ports",
        };
        Error::Unreachable {
            servers,
            hint,
            reason,
        }
    }

    /// What an operation's failure means to the caller.
    pub(super) fn failure(&self, path: &str, reason: zookeeper_client::Error) -> Error {
        use zookeeper_client::Error as Reason;
        let servers = self.servers.join(",");
        let path = format!("{}{path}", self.chroot);
        match reason {
            Reason::NoAuth | Reason::AuthFailed => Error::Refused { servers, path },
            Reason::ConnectionLoss
            | Reason::SessionExpired
            | Reason::SessionMoved
            | Reason::ClientClosed
            | Reason::Timeout
            | Reason::NoHosts => self.unreachable(reason),
            reason => Error::Failed {
                servers,
                path,
                reason,
            },
        }
    }

    fn tls_options(&self) -> Result<Option<TlsOptions>, Error> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| Error::File {
                path: path.clone(),
                source: std::sync::Arc::new(source),
            })
        };
        let wrong = |path: &PathBuf| {
            let path = path.clone();
            move |source: zookeeper_client::Error| Error::File {
                path,
                source: std::sync::Arc::new(source),
            }
        };
        let authority = read(&tls.authority)?;
        let mut options = TlsOptions::new()
            .with_pem_ca(&authority)
            .map_err(wrong(&tls.authority))?;
        if let Some(identity) = &tls.identity {
            let (certificate, key) = (read(&identity.certificate)?, read(&identity.key)?);
            options = options
                .with_pem_identity(&certificate, &key)
                .map_err(wrong(&identity.certificate))?;
        }
        Ok(Some(options))
    }
}

/// Whether ZooKeeper takes it as one level of a path.
pub(super) fn is_node_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/') && !name.chars().any(char::is_control)
}
