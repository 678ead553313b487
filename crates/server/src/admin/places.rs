//! The operator's end: apps of a data directory, whether a node runs on it or not.

use std::{collections::BTreeMap, io, path::PathBuf};

use campanile_backends::{
    Backend,
    embedded::{Embedded, EmbeddedConfig, OpenError},
};
use campanile_broker::{ids::Millis, store::StoreError};
use campanile_push::{
    app::{AppName, KeyHash},
    registry::permission::Permissions,
    store::Unavailable,
};

use super::{
    Reply, Request, Wanted, change_apps,
    conversation::{ConversationError, Node},
    now_ms, socket_path,
};

/// Why apps cannot be seen or changed.
#[derive(Debug, thiserror::Error)]
pub enum AppsError {
    /// A process holds the data directory, but does not take commands.
    #[error("{holder}, and it takes no commands at {}: {cause}", socket.display())]
    Deaf {
        /// Who holds it.
        holder: OpenError,
        /// Where it should listen.
        socket: PathBuf,
        /// What came of trying.
        cause: io::Error,
    },
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot read or write.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The conversation with the node broke.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
    /// The node did not carry it out.
    #[error("refused: {0}")]
    Refused(String),
}

/// The apps of a data directory.
pub enum Apps {
    /// A node runs and takes commands.
    Running(Node),
    /// No node runs: this process holds the directory.
    Stopped(Box<dyn Backend>),
}

impl Apps {
    /// Finds the node that uses a data directory, or opens the directory if none does. Makes the directory if it is not there.
    pub fn of(config: EmbeddedConfig) -> Result<Apps, AppsError> {
        let socket = socket_path(&config.path);
        let cause = match Node::connect(&socket) {
            Ok(node) => return Ok(Apps::Running(node)),
            Err(cause) => cause,
        };
        let mut store = match Embedded::open(config) {
            Ok(store) => store,
            Err(holder @ OpenError::InUse { .. }) => {
                return Err(AppsError::Deaf {
                    holder,
                    socket,
                    cause,
                });
            }
            Err(error) => return Err(error.into()),
        };
        store.recover(Millis(now_ms()))?;
        Ok(Apps::Stopped(Box::new(store)))
    }

    /// Makes an app with its first key: [`Reply::Done`] or [`Reply::Exists`].
    pub fn create(&mut self, app: &AppName, key: &KeyHash) -> Result<Reply, AppsError> {
        self.ask(&Request::CreateApp {
            app: app.to_string(),
            key_sha256: key.hex(),
        })
    }

    /// Gives an app one more key: [`Reply::Done`] or [`Reply::NoApp`].
    pub fn add_key(
        &mut self,
        app: &AppName,
        key: &KeyHash,
        permissions: Permissions,
    ) -> Result<Reply, AppsError> {
        self.ask(&Request::AddKey {
            app: app.to_string(),
            key_sha256: key.hex(),
            permissions: permissions.iter().map(|p| p.text().to_owned()).collect(),
        })
    }

    /// Changes what an app may use: [`Reply::Done`] or [`Reply::NoApp`]. 0: as much as there is.
    pub fn set_quotas(
        &mut self,
        app: &AppName,
        quotas: BTreeMap<String, u64>,
    ) -> Result<Reply, AppsError> {
        self.ask(&Request::SetQuotas {
            app: app.to_string(),
            quotas,
        })
    }

    /// Has an app deleted with all that it keeps: [`Reply::Done`] or [`Reply::NoApp`].
    pub fn delete(&mut self, app: &AppName) -> Result<Reply, AppsError> {
        self.ask(&Request::DeleteApp {
            app: app.to_string(),
        })
    }

    /// Names of all apps in order.
    pub fn list(&mut self) -> Result<Vec<String>, AppsError> {
        let mut names: Vec<String> = Vec::new();
        loop {
            match self.ask(&Request::ListApps {
                after: names.last().cloned(),
            })? {
                Reply::Apps { mut apps, more } => {
                    let more = more && !apps.is_empty();
                    names.append(&mut apps);
                    if !more {
                        return Ok(names);
                    }
                }
                other => return Err(AppsError::Refused(format!("not a list of apps: {other:?}"))),
            }
        }
    }

    /// Ends the work on the data directory in order.
    pub fn close(self) -> Result<(), AppsError> {
        match self {
            Apps::Running(_) => Ok(()),
            Apps::Stopped(store) => Ok(store.close()?),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, AppsError> {
        let reply = match self {
            Apps::Running(node) => node.ask(request)?,
            Apps::Stopped(store) => of_directory(store.as_mut(), request),
        };
        match reply {
            Reply::Refused { detail } => Err(AppsError::Refused(detail)),
            reply => Ok(reply),
        }
    }
}

fn of_directory(store: &mut dyn Backend, request: &Request) -> Reply {
    use campanile_backends::{Reply as Stored, Request as Write};
    let wanted = match request.wanted() {
        Ok(Wanted::OfCluster(_)) => {
            return Reply::Refused {
                detail: "only a node that runs knows the cluster".to_owned(),
            };
        }
        Ok(wanted) => wanted,
        Err(refused) => return refused,
    };
    let reader = store.reader();
    let submit = |command| match store.commit(vec![Write::Push(command)]).replies.pop() {
        Some(Ok(Stored::Push(outcome))) => Ok(outcome),
        Some(Err(StoreError::Unavailable(cause))) => Err(Unavailable(cause)),
        other => Err(Unavailable(format!("it answered {other:?}").into())),
    };
    change_apps(&*reader, submit, &wanted)
}
