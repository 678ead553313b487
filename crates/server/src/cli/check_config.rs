//! `campanile check-config`

use std::process::ExitCode;

use serde_json::json;

use super::{ConfigArg, say};
use crate::{
    auth::{ClientAccess, FileProblem},
    config::{Origin, Overrides, Problem},
};

/// What `--print-defaults` prints.
const DEFAULTS: &str = include_str!("../../../../config/campanile.toml");

/// Arguments of `campanile check-config`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Reads the file, the environment (CAMPANILE_SECTION__KEY) and the password, ACL and TLS files that they name, \
and reports everything that is wrong at once. Nothing is started.

Examples:
  campanile check-config --config campanile.toml
  campanile check-config --print-defaults > campanile.toml")]
pub struct CheckConfigArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Prints the result as JSON: {\"ok\", \"mistakes\": [{\"key\", \"place\", \"message\"}], \"warnings\": [..]}
    #[arg(long)]
    json: bool,
    /// Prints a configuration file with every key, its default and what it means, and checks nothing
    #[arg(long, exclusive = true)]
    print_defaults: bool,
}

pub(super) fn run(args: &CheckConfigArgs) -> anyhow::Result<ExitCode> {
    if args.print_defaults {
        say(DEFAULTS.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let (mistakes, warnings) = match args.config.load(&Overrides::default(), false) {
        Err(problems) => (problems.0, Vec::new()),
        Ok(loaded) => {
            let tls =
                loaded
                    .settings
                    .listeners
                    .iter()
                    .enumerate()
                    .filter_map(|(index, listener)| {
                        let cause = listener.load_tls().err()?;
                        Some(
                            loaded.problem(&format!("listeners[{index}]"), format!("TLS: {cause}")),
                        )
                    });
            let mut mistakes: Vec<Problem> = tls.collect();
            mistakes.extend(loaded.cluster_file_mistakes());
            if let Err(files) =
                ClientAccess::open(&loaded.settings.clients, &loaded.settings.listeners)
            {
                mistakes.extend(files.0.into_iter().map(of_file));
            }
            (mistakes, loaded.warnings)
        }
    };
    let ok = mistakes.is_empty();
    if args.json {
        let show = |problem: &Problem| json!({ "key": problem.key, "place": place(problem), "message": problem.message });
        let list = |problems: &[Problem]| problems.iter().map(show).collect::<Vec<_>>();
        say(json!({ "ok": ok, "mistakes": list(&mistakes), "warnings": list(&warnings) }));
    } else {
        mistakes
            .iter()
            .for_each(|problem| say(format_args!("mistake: {problem}")));
        warnings
            .iter()
            .for_each(|problem| say(format_args!("warning: {problem}")));
        let plural = |count: usize, word: &str| {
            format!("{count} {word}{}", if count == 1 { "" } else { "s" })
        };
        let name = args
            .config
            .path()
            .map_or("the defaults".into(), |path| path.to_string_lossy());
        say(format_args!(
            "{name}: {}, {}",
            plural(mistakes.len(), "mistake"),
            plural(warnings.len(), "warning")
        ));
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn of_file(problem: FileProblem) -> Problem {
    Problem {
        key: String::new(),
        origin: Origin::Default,
        message: problem.to_string(),
    }
}

fn place(problem: &Problem) -> Option<String> {
    (problem.origin != Origin::Default).then(|| problem.origin.to_string())
}
