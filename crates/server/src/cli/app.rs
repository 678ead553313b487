//! `campanile app`

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use campanile_push::{
    app::AppName,
    key::ApiKey,
    registry::permission::{Permission, Permissions},
};
use clap::Subcommand;
use serde_json::json;

use super::{ConfigArg, say};
use crate::{
    admin::{Apps, Reply, socket_path},
    auth::random,
    config::{Overrides, StoreKind},
};

/// Arguments of `campanile app`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Works on the data directory of a node, whether the node runs or not: a node that runs takes commands at \
DATA/admin.sock, which only its own user can use. An API key is shown once, when it is made; the node stores only its hash.

Examples:
  campanile app create shop --data /var/lib/campanile
  campanile app key shop --config campanile.toml        one more key, for instance to change keys
  campanile app key shop --may push:send,read           a key for a server that only sends
  campanile app key ops --may operator                  a key for /v1/admin: all apps, and the nodes
  campanile app quota shop --connections 5000 --pushes-per-second 100
  campanile app list --json")]
pub struct AppArgs {
    #[command(subcommand)]
    command: AppCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AppCommand {
    /// Makes an app and prints its first API key
    Create(NameArgs),
    /// Makes one more API key for an app and prints it
    Key(KeyArgs),
    /// Changes what an app may use; a running node takes it up within five seconds
    Quota(QuotaArgs),
    /// Deletes an app with all that it keeps; a running node erases it in the background
    Delete(NameArgs),
    /// Lists the apps
    List(PlaceArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct NameArgs {
    /// 1 to 64 of a-z, 0-9, "_" and "-", beginning with a letter or digit
    #[arg(value_name = "NAME", value_parser = parse_name)]
    app: AppName,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct KeyArgs {
    #[command(flatten)]
    name: NameArgs,
    /// What the key may do: admin (everything in the app), push:send, device:write, read, operator (all apps and the nodes); several separated by commas
    #[arg(long, value_name = "PERMISSIONS", value_delimiter = ',', default_value = "admin", value_parser = parse_permission)]
    may: Vec<Permission>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "What is not given stays as it is; 0 means as much as there is.")]
struct QuotaArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Registered devices
    #[arg(long, value_name = "NUMBER")]
    devices: Option<u64>,
    /// Connections at a time, over all nodes
    #[arg(long, value_name = "NUMBER")]
    connections: Option<u64>,
    /// Pushes that are accepted a second, over all nodes
    #[arg(long, value_name = "NUMBER")]
    pushes_per_second: Option<u64>,
    /// Bytes of messages that are kept; above it pushes are refused
    #[arg(long, value_name = "BYTES")]
    stored_bytes: Option<u64>,
}

impl QuotaArgs {
    fn given(&self) -> BTreeMap<String, u64> {
        let quotas = [
            ("devices", self.devices),
            ("connections", self.connections),
            ("pushes_per_second", self.pushes_per_second),
            ("stored_bytes", self.stored_bytes),
        ];
        let given = quotas.into_iter();
        given
            .filter_map(|(name, quota)| Some((name.to_owned(), quota?)))
            .collect()
    }
}

#[derive(Clone, Debug, clap::Args)]
struct PlaceArgs {
    /// Data directory of the node, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

fn parse_permission(text: &str) -> Result<Permission, String> {
    Permission::parse(text).ok_or_else(|| {
        format!(
            "there is no permission {text:?}; known: push:send, device:write, read, admin, operator"
        )
    })
}

fn parse_name(text: &str) -> Result<AppName, String> {
    AppName::new(text).map_err(|error| error.to_string())
}

pub(super) fn run(args: AppArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        AppCommand::Create(NameArgs { app, place }) => {
            let key = ApiKey::from_random(random());
            place.with_apps(false, |apps| match apps.create(&app, &key.hash())? {
                Reply::Exists => bail!(
                    "app {app} exists already; \"campanile app key {app}\" makes another key for it"
                ),
                reply => done(&app, &reply),
            })?;
            place.show_key(&app, &key, "made");
        }
        AppCommand::Key(KeyArgs {
            name: NameArgs { app, place },
            may,
        }) => {
            let permissions: Permissions = may.into_iter().collect();
            let key = ApiKey::from_random(random());
            place.with_apps(true, |apps| {
                match apps.add_key(&app, &key.hash(), permissions)? {
                    Reply::NoApp => {
                        bail!("there is no app {app}; \"campanile app create {app}\" makes it")
                    }
                    reply => done(&app, &reply),
                }
            })?;
            place.show_key(&app, &key, "has one more key");
        }
        AppCommand::Quota(args) => {
            let given = args.given();
            if given.is_empty() {
                bail!("name at least one quota, such as --connections 5000");
            }
            let NameArgs { app, place } = args.name;
            place.with_apps(true, |apps| done(&app, &apps.set_quotas(&app, given)?))?;
            place.tell(&app, "has the quotas");
        }
        AppCommand::Delete(NameArgs { app, place }) => {
            place.with_apps(true, |apps| done(&app, &apps.delete(&app)?))?;
            place.tell(&app, "is being deleted");
        }
        AppCommand::List(place) => {
            let names = place.with_apps(true, |apps| Ok(apps.list()?))?;
            if place.json {
                say(json!({ "apps": names }));
            } else {
                names.iter().for_each(say);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn done(app: &AppName, reply: &Reply) -> anyhow::Result<()> {
    match reply {
        Reply::NoApp => {
            bail!("there is no app {app}; \"campanile app list\" shows those there are")
        }
        Reply::Leaving => bail!("{}", leaving(app)),
        _ => Ok(()),
    }
}

fn leaving(app: &AppName) -> String {
    format!("app {app} is being deleted; once that is done, its name is free")
}

impl PlaceArgs {
    fn tell(&self, app: &AppName, what: &str) {
        if self.json {
            say(json!({ "app": app.as_str() }));
        } else {
            say(format_args!("app {app} {what}"));
        }
    }

    fn with_apps<T>(
        &self,
        must_exist: bool,
        act: impl FnOnce(&mut Apps) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let overrides = Overrides {
            data_dir: self.data.clone(),
            ..Overrides::default()
        };
        let settings = self.config.load(&overrides, false)?.settings;
        let dir = &settings.node.data_dir;
        if must_exist && !dir.is_dir() {
            bail!(
                "data directory {}: there is none; name it with --data or --config",
                dir.display()
            );
        }
        if settings.store.kind == StoreKind::Memory && !socket_path(dir).exists() {
            bail!("the store is in memory (store.kind): start the node first");
        }
        if settings.store.kind == StoreKind::Redis && !socket_path(dir).exists() {
            bail!(
                "the store is in Redis (store.kind): start a node of it first, and name its data directory"
            );
        }
        let mut apps = Apps::of(settings.embedded())?;
        let done = act(&mut apps);
        apps.close().context("closing the data directory")?;
        done
    }

    fn show_key(&self, app: &AppName, key: &ApiKey, done: &str) {
        if self.json {
            say(json!({ "app": app.as_str(), "key": key.reveal() }));
        } else {
            say(format_args!(
                "app {app} {done}\nAPI key, shown only now: {}",
                key.reveal()
            ));
        }
    }
}
