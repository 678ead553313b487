//! `campanile completions`

use std::{io, process::ExitCode};

use clap_complete::{Shell, generate};

/// Arguments of `campanile completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, command: &mut clap::Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    generate(args.shell, command, "campanile", &mut script);
    let _ = io::Write::write_all(&mut io::stdout(), &script); // A reader that has gone is no error.
    Ok(ExitCode::SUCCESS)
}
