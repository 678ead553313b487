//! `campanile serve`

mod addresses;
mod development;
mod operator;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, anyhow, bail};

use self::operator::Operator;
use super::{ConfigArg, say};
use crate::{
    auth::ClientAccess,
    banner::{Banner, Listening},
    config::{Loaded, LogFormat, Overrides, Settings},
    logging,
    net::listener::ListenError,
    node::{Ended, Node, StartError},
};

/// Arguments of `campanile serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
The configuration is the file, CAMPANILE_SECTION__KEY variables over it, and these flags over both. \
SIGTERM and Ctrl-C stop the node in order; SIGHUP reads the password, ACL and certificate files again. \
DATA/addresses.json tells scripts where a node listens that chose its ports itself.

Examples:
  campanile serve --dev
  campanile serve --dev --data /tmp/try --mqtt 127.0.0.1:0 --http 127.0.0.1:0     any free ports
  campanile serve --config /etc/campanile.toml
  CAMPANILE_LIMITS__MAX_INFLIGHT=50 campanile serve --config /etc/campanile.toml")]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// A node to try things on: every device may connect, the app "default" gets an API key (CAMPANILE_DEV_KEY, or one kept in DATA/dev-key),
    /// and it listens on this machine only: MQTT at 1883, WebSocket at 8083, HTTP at 8080
    #[arg(long)]
    dev: bool,
    /// Data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the first TCP listener; port 0 takes any free port
    #[arg(long, value_name = "ADDR:PORT")]
    mqtt: Option<SocketAddr>,
    /// Address of the first WebSocket listener
    #[arg(long, value_name = "ADDR:PORT")]
    ws: Option<SocketAddr>,
    /// Address of the HTTP API
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Form of the log
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let overrides = Overrides {
        data_dir: args.data.clone(),
        mqtt: args.mqtt,
        ws: args.ws,
        http: args.http,
        log_format: args.log_format,
    };
    let loaded = args.config.load(&overrides, args.dev)?;
    let settings = &loaded.settings;
    logging::start(
        &settings.log,
        std::env::var(logging::FILTER_VARIABLE).ok().as_deref(),
    )?;
    let nobody_can_connect =
        settings.clients.password_file.is_none() && !settings.clients.allow_anonymous;
    if nobody_can_connect && args.config.path().is_none() {
        bail!(
            "a node without configuration welcomes nobody but devices with credentials of an app, and has no app. Either try one on this machine:\n  campanile serve --dev\nor write a configuration and name its password file there:\n  \
             campanile check-config --print-defaults > campanile.toml\n  campanile serve --config campanile.toml"
        );
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let access = Arc::new(ClientAccess::open(&settings.clients, &settings.listeners)?);
    let config = settings
        .node_config(access.clone())
        .map_err(|error| anyhow!(loaded.problem("redis", error.to_string()).to_string()))?;
    let mut node = Node::start(config).map_err(|error| explain(error, &loaded))?;
    let ended = run_node(&mut node, settings, args.dev, access);
    let stopped = node.stop();
    let ended = ended?;
    stopped?;
    match ended {
        Ended::Signal(_) | Ended::Drained => Ok(ExitCode::SUCCESS),
        Ended::Failed(reason) => Err(anyhow!(reason)),
    }
}

/// What happens between the node's start and its stop.
fn run_node(
    node: &mut Node,
    settings: &Settings,
    development: bool,
    access: Arc<ClientAccess>,
) -> anyhow::Result<Ended> {
    let data_dir = &settings.node.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("data directory {}", data_dir.display()))?;
    let key = if development {
        let key = development::key(data_dir, std::env::var(development::KEY_VARIABLE).ok())?;
        development::register(&*node.store(), development_app(settings), &key)?;
        Some(key)
    } else {
        None
    };
    let operator = Operator::start(data_dir, node.store(), node.cluster(), access)?;
    announce(
        node,
        settings,
        key.as_ref()
            .map(|key| (development_app(settings), key.reveal())),
    );
    // Last, since whoever waits for this file may use the key or send a signal at once.
    let addresses = addresses::File::write(data_dir, settings, node)?;
    let ended = node.wait();
    match ended {
        Ended::Signal(signal) => tracing::info!(signal, "told to stop"),
        Ended::Drained => tracing::info!("drained: no device is left, the node stops"),
        Ended::Failed(_) => {}
    }
    drop(addresses);
    operator.stop();
    Ok(ended)
}

fn development_app(settings: &Settings) -> &str {
    settings
        .listeners
        .first()
        .map_or("default", |listener| &listener.app)
}

fn announce(node: &Node, settings: &Settings, development: Option<(&str, &str)>) {
    let name = settings.node_name();
    let bound = settings.listeners.iter().zip(node.addresses());
    let banner = Banner {
        node: &name,
        listeners: bound
            .map(|(listener, (_, address))| Listening {
                name: &listener.name,
                transport: listener.transport,
                address,
                app: &listener.app,
                path: &listener.path,
            })
            .collect(),
        http: node.http_address().unwrap_or(settings.http.address),
        data_dir: &settings.node.data_dir,
        store: settings.store.kind,
        durability: settings.store.durability,
        development,
    };
    match settings.log.format {
        LogFormat::Human => say(&banner),
        LogFormat::Json => banner.log(),
    }
}

/// Names the key that is to be changed.
fn explain(error: StartError, loaded: &Loaded) -> anyhow::Error {
    let key_of = |name: &str, key: &str| {
        let index = loaded
            .settings
            .listeners
            .iter()
            .position(|listener| listener.name == name);
        index.map_or_else(
            || "listeners".to_owned(),
            |index| format!("listeners[{index}]{key}"),
        )
    };
    let taken = |address: SocketAddr, cause: &std::io::Error| {
        let way_out = match cause.kind() {
            std::io::ErrorKind::AddrInUse => "; stop what listens there, or choose another address",
            std::io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
            }
            _ => "",
        };
        format!("cannot listen on {address}: {cause}{way_out}")
    };
    let problem = match &error {
        StartError::Listen(ListenError::Bind {
            name,
            address,
            cause,
        }) => loaded.problem(&key_of(name, ".address"), taken(*address, cause)),
        StartError::Listen(ListenError::Tls { name, cause }) => {
            loaded.problem(&key_of(name, ""), format!("TLS: {cause}"))
        }
        StartError::Http { address, cause } => {
            loaded.problem("http.address", taken(*address, cause))
        }
        StartError::Open(cause) => loaded.problem("node.data_dir", cause.to_string()),
        _ => return error.into(),
    };
    anyhow!(problem.to_string())
}
