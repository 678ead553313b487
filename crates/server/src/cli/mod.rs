//! The command line. One file per command; [`main`] is the way in.

mod app;
mod check_config;
mod cluster;
mod completions;
pub mod mqtt_connection;
mod passwd;
pub mod publish;
mod push;
pub mod scram_client;
mod serve;
pub mod subscribe;

use std::{
    fmt::Display,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, Loaded, Overrides, Problems};

/// A message push system for devices: a push API for app servers, MQTT for devices.
#[derive(Debug, Parser)]
#[command(name = "campanile", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  campanile serve --dev                                   a node to try things on
  campanile sub -i phone-1 -q 1 --no-clean                be a device
  campanile push --key KEY --device phone-1 --title Hi    push to it
  campanile app create shop --data /var/lib/campanile     an app and its API key

Exit codes: 0 it worked, 1 it did not, 2 the command line is wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node
    Serve(serve::ServeArgs),
    /// Pushes to devices through the HTTP API of a node
    Push(push::PushArgs),
    /// Makes apps and their API keys, limits what apps may use, lists and removes them
    App(app::AppArgs),
    /// Shows the nodes of a cluster, drains and balances them, finds clients
    Cluster(cluster::ClusterArgs),
    /// Sets, changes or deletes a user's password in a password file
    Passwd(passwd::PasswdArgs),
    /// Finds all mistakes in a configuration
    CheckConfig(check_config::CheckConfigArgs),
    /// Publishes messages to an MQTT broker
    Pub(publish::PubArgs),
    /// Subscribes to topics of an MQTT broker and prints what comes
    Sub(subscribe::SubArgs),
    /// Measures an MQTT broker
    Bench(campanile_bench::BenchArgs),
    /// Prints a completion script for a shell
    #[command(
        after_help = "Example:\n  campanile completions bash > /etc/bash_completion.d/campanile"
    )]
    Completions(completions::CompletionsArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Push(args) => push::run(&args),
        Command::App(args) => app::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Passwd(args) => passwd::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Pub(args) => publish::run(args),
        Command::Sub(args) => subscribe::run(args),
        Command::Bench(args) => campanile_bench::run(args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
    };
    done.unwrap_or_else(|error| {
        complain(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// The configuration file to read, for all commands that need the settings.
#[derive(Clone, Debug, clap::Args)]
struct ConfigArg {
    /// Configuration file; without one the defaults hold
    #[arg(long, value_name = "FILE", env = "CAMPANILE_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArg {
    fn path(&self) -> Option<&Path> {
        self.config
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty())
    }

    fn load(&self, overrides: &Overrides, development: bool) -> Result<Loaded, Problems> {
        // A name or value that is not Unicode is none of ours, or fails as what it is then.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        });
        config::load(self.path(), environment, overrides, development)
    }
}

/// Writes a line to standard output. A reader that has gone is no error.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes a line to standard error.
fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_command_lines_are_usage_errors() {
        for line in [
            "campanile",
            "campanile nonsense",
            "campanile push --title x",
            "campanile serve --mqtt localhost",
            "campanile passwd f",
            "campanile cluster",
            "campanile cluster drain",
            "campanile cluster drain a --rate 0",
            "campanile cluster drain a --deadline 10",
            "campanile cluster where Shop d1",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
