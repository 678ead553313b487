//! Runs of `campanile bench`, each a process of its own.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{site::Site, table::Column};

/// What `campanile bench hold` prints when all its connections are up.
const ALL_CONNECTED: &str = "all connected";

/// A load process.
pub struct Load {
    child: Child,
    /// Its end is what a load that holds connections waits for.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Load {
    /// Starts one against a site. `arguments`: the scenario and its options, separated by spaces.
    pub fn start(binary: &Path, site: &Site, arguments: &str) -> Result<Load> {
        let mut child = Command::new(binary)
            .args(["bench", "--json", "--stall", "20"])
            .args(site.arguments())
            .args(arguments.split_ascii_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("output is piped")?;
        Ok(Load {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// Waits until it holds all its connections.
    pub fn wait_connected(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(
            line.trim_end() == ALL_CONNECTED,
            "the load ended early: {line}{}",
            self.rest()
        );
        Ok(())
    }

    /// Starts nodes again that end, until it has ended.
    pub fn attend(&mut self, site: &mut Site) -> Result<()> {
        while self.child.try_wait()?.is_none() {
            site.restart_dead()?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets go of what it holds, and takes its result.
    pub fn finish(mut self) -> Result<Column> {
        self.input = None;
        let text = self.rest();
        self.child.wait()?;
        Column::read(&text).with_context(|| format!("the load ended without a result: {text}"))
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        // What cannot be read is missing in the result, which says so.
        let _ = self.output.read_to_string(&mut text);
        text
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        let _ = self.child.wait();
    }
}
