//! The node's log: events of `tracing`, to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::{Log, LogFormat};

/// Environment variable with directives that win over `log.level`.
pub const FILTER_VARIABLE: &str = "CAMPANILE_LOG";

/// The embedded database and the ZooKeeper client tell of their inner life at `info`. Directives that name them win over these.
const QUIET: &str = "fjall=warn,lsm_tree=warn,zookeeper_client=warn,";

/// Directives that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{FILTER_VARIABLE}={directives:?}: {cause}; write a level (error, warn, info, debug, trace) or directives such as \"info,campanile=debug\""
)]
pub struct BadDirectives {
    directives: String,
    cause: ParseError,
}

/// Starts the log of this process. `directives` is the value of [`FILTER_VARIABLE`]. Of several calls, the first counts.
pub fn start(settings: &Log, directives: Option<&str>) -> Result<(), BadDirectives> {
    let filter = filter(settings, directives)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // Fails only if there is a log already, as in tests.
    let _ = match settings.format {
        LogFormat::Human => builder
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
    Ok(())
}

fn filter(settings: &Log, directives: Option<&str>) -> Result<EnvFilter, BadDirectives> {
    let directives = directives
        .filter(|directives| !directives.trim().is_empty())
        .unwrap_or(&settings.level);
    let quiet = match directives.trim() {
        "off" | "error" => "",
        _ => QUIET,
    };
    EnvFilter::try_new(format!("{quiet}{directives}")).map_err(|cause| BadDirectives {
        directives: directives.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_setting_and_its_mistakes_are_named() {
        let settings = Log {
            level: "warn".to_owned(),
            format: LogFormat::Human,
        };
        let shown = |directives| {
            let filter = filter(&settings, directives).unwrap().to_string();
            let mut parts: Vec<String> = filter.split(',').map(str::to_owned).collect();
            parts.sort();
            parts.join(",")
        };
        assert_eq!(
            shown(None),
            "fjall=warn,lsm_tree=warn,warn,zookeeper_client=warn"
        );
        assert_eq!(
            shown(Some("")),
            "fjall=warn,lsm_tree=warn,warn,zookeeper_client=warn"
        );
        assert_eq!(
            shown(Some("debug,fjall=info")),
            "debug,fjall=info,lsm_tree=warn,zookeeper_client=warn"
        );
        assert_eq!(shown(Some("error")), "error");
        let message = filter(&settings, Some("campanile=loud"))
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("CAMPANILE_LOG=\"campanile=loud\": "),
            "{message}"
        );
    }
}
