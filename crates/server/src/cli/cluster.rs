//! `campanile cluster`

mod show;

use std::{
    num::NonZeroU32,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use campanile_api::cluster::{DrainOrder, NodeStatus};
use campanile_push::app::AppName;
use clap::Subcommand;
use serde_json::json;

use super::{ConfigArg, complain, say};
use crate::{
    admin::{ClusterRequest, ConversationError, Members},
    config::{Overrides, parse_duration},
};

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after the deadline of a drain `--wait` gives up.
const AFTER_DEADLINE: Duration = Duration::from_secs(30);

/// Arguments of `campanile cluster`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Asks a node that runs on this machine, at DATA/admin.sock, which only its own user can use. Orders are kept by ZooKeeper: any node takes them \
for all.

Examples:
  campanile cluster status --config campanile.toml
  campanile cluster drain push-2 --rate 500 --deadline 10m --wait    before push-2 is upgraded
  campanile cluster undrain push-2
  campanile cluster where shop phone-1")]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ClusterCommand {
    /// Shows all nodes: how full they are, who leads, which links are up
    Status {
        #[command(flatten)]
        place: PlaceArgs,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Moves all devices of a node to the others; then it stops
    Drain(DrainArgs),
    /// Withdraws the order to drain a node: it takes devices again
    Undrain {
        /// The node's name
        node: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Moves what nodes have above their fair share to those that have room
    Rebalance {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Tells which node a client is connected to
    Where {
        /// The client's app
        #[arg(value_parser = parse_app)]
        app: AppName,
        /// The client identifier
        client: String,
        #[command(flatten)]
        place: PlaceArgs,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct DrainArgs {
    /// The node's name
    node: String,
    /// Devices a second; without it as cluster.drain_rate of the node says
    #[arg(long, value_name = "DEVICES")]
    rate: Option<NonZeroU32>,
    /// Disconnect what is left after this time, such as 10m; without it never
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// Waits until the node has no device any more
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct PlaceArgs {
    /// Data directory of the node that is asked, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
}

fn parse_app(text: &str) -> Result<AppName, String> {
    AppName::new(text).map_err(|error| error.to_string())
}

pub(super) fn run(args: ClusterArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ClusterCommand::Status { place, json } => {
            let overview = place.members()?.status()?;
            if json {
                say(serde_json::to_string_pretty(&overview)?);
            } else {
                say(show::status(&overview, now_ms()).trim_end());
            }
        }
        ClusterCommand::Drain(drain) => return drain.run(),
        ClusterCommand::Undrain { node, place } => {
            let request = ClusterRequest::Undrain { node: node.clone() };
            place.members()?.order(request)?;
            say(format_args!("{node} takes devices again"));
        }
        ClusterCommand::Rebalance { place } => {
            place.members()?.order(ClusterRequest::Rebalance)?;
            say("ordered: nodes above their fair share move the surplus away");
        }
        ClusterCommand::Where {
            app,
            client,
            place,
            json,
        } => {
            let located = place.members()?.locate(&app, &client)?;
            if json {
                say(json!(located));
            } else {
                say(show::located(&app, &client, &located));
            }
            if located.connection.is_none() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl PlaceArgs {
    fn members(&self) -> anyhow::Result<Members> {
        let overrides = Overrides {
            data_dir: self.data.clone(),
            ..Overrides::default()
        };
        let settings = self.config.load(&overrides, false)?.settings;
        Ok(Members::of(&settings.node.data_dir)?)
    }
}

impl DrainArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let mut members = self.place.members()?;
        let deadline_ms = self
            .deadline
            .map(|deadline| now_ms().saturating_add(deadline.as_millis() as u64));
        members.order(ClusterRequest::Drain {
            node: self.node.clone(),
            order: DrainOrder {
                rate: self.rate.map(NonZeroU32::get),
                deadline_ms,
            },
        })?;
        say(format_args!("{} moves its devices away", self.node));
        if self.wait {
            self.wait(&mut members, deadline_ms)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Looks until the node is empty or gone.
    fn wait(&self, members: &mut Members, deadline_ms: Option<u64>) -> anyhow::Result<()> {
        let node = &self.node;
        let give_up_ms =
            deadline_ms.map(|deadline| deadline.saturating_add(AFTER_DEADLINE.as_millis() as u64));
        let mut last: Option<NodeStatus> = None;
        loop {
            let status = match members.status() {
                // An empty node stops, and with it the conversation.
                Err(ConversationError::Broken { .. })
                    if last.as_ref().is_some_and(|last| last.this) =>
                {
                    None
                }
                other => other?.nodes.into_iter().find(|status| status.name == *node),
            };
            match progress(last.as_ref(), status.as_ref()) {
                Progress::Done(what) => {
                    say(format_args!("{node} {what}"));
                    return Ok(());
                }
                Progress::Withdrawn => bail!(
                    "{node} is no longer being drained: someone withdrew the order, or it was started again"
                ),
                Progress::Left(count) => {
                    if last.as_ref().map(|last| last.connections) != Some(count) {
                        complain(format_args!("{node}: {count} devices left"));
                    }
                }
            }
            if give_up_ms.is_some_and(|give_up_ms| now_ms() > give_up_ms) {
                bail!("{node} still has devices after its deadline: look at its log");
            }
            last = status;
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// How far a drain is.
#[derive(Debug, PartialEq)]
enum Progress {
    Done(&'static str),
    Withdrawn,
    Left(u64),
}

/// Compares what was last seen of a node with what is seen now; `None`: it is not there.
fn progress(last: Option<&NodeStatus>, now: Option<&NodeStatus>) -> Progress {
    match now {
        None => Progress::Done("has left the cluster"),
        // The order may take a moment to reach the node that is asked.
        Some(now) if !now.draining && last.is_some_and(|last| last.draining) => Progress::Withdrawn,
        Some(now) if now.draining && now.connections == 0 => {
            Progress::Done("has no device any more")
        }
        Some(now) => Progress::Left(now.connections),
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(draining: bool, connections: u64) -> NodeStatus {
        NodeStatus {
            name: "a".to_owned(),
            this: false,
            generation: None,
            version: "0.1.0".to_owned(),
            started_ms: 0,
            addresses: Vec::new(),
            http: String::new(),
            connections,
            capacity: 10,
            draining,
            drain: None,
            leader: false,
            linked: Some(true),
        }
    }

    #[test]
    fn a_drain_is_over_when_the_node_is_empty_or_gone() {
        let draining = node(true, 2);
        let check = |last: Option<&NodeStatus>, now: Option<&NodeStatus>, expected| {
            assert_eq!(progress(last, now), expected);
        };
        check(None, Some(&draining), Progress::Left(2));
        check(None, Some(&node(false, 0)), Progress::Left(0));
        check(
            Some(&draining),
            Some(&node(true, 0)),
            Progress::Done("has no device any more"),
        );
        check(
            Some(&draining),
            None,
            Progress::Done("has left the cluster"),
        );
        check(Some(&draining), Some(&node(false, 2)), Progress::Withdrawn);
    }
}
