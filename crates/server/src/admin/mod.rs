//! Commands of an operator on the node's machine: making apps and keys, orders to the cluster.
//!
//! A node that runs listens on a Unix socket in its data directory, which only its own user can use ([`AdminSocket`]). Without a node, the same
//! commands work on the data directory itself. [`Apps`] finds out which it is. What [`Members`] asks needs a node that runs.

mod cluster;
mod conversation;
mod places;
mod server;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use campanile_api::{
    Store,
    cluster::{Located, Overview},
};
use campanile_push::{
    app::{AppName, KeyHash},
    registry::{
        Context, Planned, Refusal,
        apps::{self, MAX_QUOTA, QuotaChange, Quotas},
        carry_out,
        permission::{Permission, Permissions},
    },
    store::{Command, Outcome, Reader, Unavailable},
};
use serde::{Deserialize, Serialize};

pub use cluster::{ClusterRequest, Members};
pub use conversation::{ConversationError, Node};
pub use places::{Apps, AppsError};
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
        /// What it may do.
        permissions: Vec<String>,
    },
    /// Names of apps in order, a page at a time.
    ListApps {
        /// The last name of the page before.
        after: Option<String>,
    },
    /// What an app may use.
    SetQuotas {
        /// The name.
        app: String,
        /// Those that change, by their names; 0: as much as there is.
        quotas: BTreeMap<String, u64>,
    },
    /// Delete an app with all that it keeps.
    DeleteApp {
        /// The name.
        app: String,
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
    /// The app is being deleted.
    Leaving,
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
        located: Box<Located>,
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
    CreateApp(AppName, KeyHash, Permissions),
    AddKey(AppName, KeyHash, Permissions),
    Apps(Option<AppName>),
    SetQuotas(AppName, QuotaChange),
    DeleteApp(AppName),
    OfCluster(ClusterRequest),
}

impl Request {
    fn wanted(&self) -> Result<Wanted, Reply> {
        let refused = |detail: String| Reply::Refused { detail };
        let name = |text: &str| AppName::new(text).map_err(|error| refused(error.to_string()));
        let hash = |text: &str| {
            parse_hash(text)
                .ok_or_else(|| refused("key_sha256 is 64 hexadecimal digits".to_owned()))
        };
        Ok(match self {
            Request::CreateApp { app, key_sha256 } => {
                Wanted::CreateApp(name(app)?, hash(key_sha256)?, Permissions::ADMIN)
            }
            Request::AddKey {
                app,
                key_sha256,
                permissions,
            } => {
                let permission = |text: &String| {
                    Permission::parse(text)
                        .ok_or_else(|| refused(format!("there is no permission {text:?}")))
                };
                let permissions = permissions
                    .iter()
                    .map(permission)
                    .collect::<Result<_, _>>()?;
                Wanted::AddKey(name(app)?, hash(key_sha256)?, permissions)
            }
            Request::SetQuotas { app, quotas } => {
                Wanted::SetQuotas(name(app)?, quota_change(quotas).map_err(refused)?)
            }
            Request::DeleteApp { app } => Wanted::DeleteApp(name(app)?),
            Request::Cluster { request } => Wanted::OfCluster(request.clone()),
            Request::ListApps { after } => Wanted::Apps(after.as_deref().map(name).transpose()?),
        })
    }
}

/// Carries out what concerns apps. Blocks as `submit` does.
fn change_apps(
    reader: &dyn Reader,
    submit: impl FnMut(Command) -> Result<Outcome, Unavailable>,
    wanted: &Wanted,
) -> Reply {
    let now_ms = now_ms();
    let context = Context {
        reader,
        now_ms,
        unique: unique(now_ms),
        actor: "operator",
    };
    let done = match wanted {
        Wanted::CreateApp(app, key, permissions) => carry_out(&context, submit, |context| {
            apps::create(context, app, Quotas::default(), key, *permissions)
        }),
        Wanted::SetQuotas(app, change) => carry_out(&context, submit, |context| {
            let planned = apps::change_quotas(context, app, change)?;
            Ok(Planned {
                change: planned.change,
                answer: String::new(),
            })
        }),
        Wanted::DeleteApp(app) => carry_out(&context, submit, |context| {
            let planned = apps::delete(context, app)?;
            Ok(Planned {
                change: planned.change,
                answer: String::new(),
            })
        }),
        Wanted::AddKey(app, key, permissions) => carry_out(&context, submit, |context| {
            apps::add_key(context, app, key, *permissions, "")
        }),
        Wanted::Apps(after) => match apps::list(&context, after.as_ref(), PAGE) {
            Ok((apps, more)) => {
                return Reply::Apps {
                    apps: apps.into_iter().map(|(app, _)| app.to_string()).collect(),
                    more,
                };
            }
            Err(unavailable) => Err(unavailable.into()),
        },
        Wanted::OfCluster(_) => unreachable!("that is no matter of apps"),
    };
    match done {
        Ok(_) => Reply::Done,
        Err(Refusal::Exists { .. }) => Reply::Exists,
        Err(Refusal::Missing { .. }) => Reply::NoApp,
        Err(Refusal::Leaving { .. }) => Reply::Leaving,
        Err(refusal) => Reply::Refused {
            detail: refusal.to_string(),
        },
    }
}

fn quota_change(quotas: &BTreeMap<String, u64>) -> Result<QuotaChange, String> {
    let mut change = QuotaChange::default();
    for (name, quota) in quotas {
        let field = match name.as_str() {
            "devices" => &mut change.devices,
            "connections" => &mut change.connections,
            "pushes_per_second" => &mut change.pushes_per_second,
            "stored_bytes" => &mut change.stored_bytes,
            other => return Err(format!("there is no quota {other:?}")),
        };
        if *quota > MAX_QUOTA {
            return Err(format!("{name}: a quota is at most {MAX_QUOTA}"));
        }
        *field = Some(*quota);
    }
    Ok(change)
}

/// Makes an app with a key, or gives it the key, of a development node: it may do everything in the app, and operate. Blocks until that is durable.
pub fn register(store: &dyn Store, app: &AppName, key: &KeyHash) -> anyhow::Result<()> {
    let submit = |command| {
        let outcome = store.submit(command).blocking_recv();
        outcome.unwrap_or_else(|_| Err(Unavailable("it did not answer".into())))
    };
    let reader = store.reader();
    let change = |wanted| change_apps(&*reader, submit, &wanted);
    let permissions = Permissions::ADMIN.with(Permission::Operator);
    let reply = match change(Wanted::CreateApp(app.clone(), *key, permissions)) {
        Reply::Exists => change(Wanted::AddKey(app.clone(), *key, permissions)),
        reply => reply,
    };
    match reply {
        Reply::Done => Ok(()),
        // The node must run for that to end.
        Reply::Leaving => {
            tracing::warn!(%app, "the app is being deleted and does not get its key: restart the node once that is done");
            Ok(())
        }
        other => anyhow::bail!("the store did not take the key of app {app}: {other:?}"),
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// A new ULID.
fn unique(now_ms: u64) -> u128 {
    let random: [u8; 16] = crate::auth::random();
    u128::from(now_ms & 0xffff_ffff_ffff) << 80 | u128::from_be_bytes(random) >> 48
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
