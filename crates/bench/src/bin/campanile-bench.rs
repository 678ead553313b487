//! The load tool by itself, for machines that have no server binary.

use std::process::ExitCode;

use clap::Parser;

/// Measures an MQTT server and checks every delivery
#[derive(Parser)]
#[command(name = "campanile-bench", version)]
struct Cli {
    #[command(flatten)]
    args: campanile_bench::BenchArgs,
}

fn main() -> ExitCode {
    campanile_bench::run(Cli::parse().args).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
