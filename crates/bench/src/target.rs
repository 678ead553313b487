//! The servers that are measured: running ones, and ones that are started for a run and stopped after it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process;

/// Where to get a server.
#[derive(Clone, Debug)]
pub enum Source {
    /// It runs already, on one node or several.
    Running(Nodes),
    /// The binary of Campanile.
    Campanile(PathBuf),
    /// A shell command, with the environment that `--command` documents.
    Shell(String),
    /// The bare loop of [`crate::floor`].
    Floor,
}

/// The nodes of a server.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Their MQTT addresses. Connections go to them in turn.
    pub mqtt: Vec<SocketAddr>,
    /// Their HTTP addresses, if they have any. HTTP connections go to them in turn.
    pub http: Vec<SocketAddr>,
    /// Their processes, to see what they use.
    pub pids: Vec<u32>,
    /// The Redis that keeps their state, to see what it has to do.
    pub redis: Option<SocketAddr>,
}

/// How long a server may take to accept its first connection.
const START: Duration = Duration::from_secs(30);
/// How long it may take to print its key after that.
const KEY: Duration = Duration::from_secs(2);
/// How long it may take to end when asked to.
const STOP: Duration = Duration::from_secs(10);

/// A server under measurement. Dropping it stops it if it was started for this.
pub struct Target {
    /// Of its column.
    pub name: String,
    /// Where it is.
    pub nodes: Nodes,
    /// If it was started for this.
    process: Option<Process>,
}

impl Target {
    /// The API key that a server in development mode prints when it has started.
    pub fn key(&self) -> Option<String> {
        let process = self.process.as_ref()?;
        let until = Instant::now() + KEY;
        loop {
            let log = process.whole_log();
            let words = log.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
            let key = words.into_iter().find(|word| word.starts_with("cmp_"));
            if key.is_some() || Instant::now() > until {
                return key.map(str::to_owned);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Bytes on disk of what the server keeps, if it was started for this.
    pub fn disk_bytes(&self) -> Option<u64> {
        let process = self.process.as_ref()?;
        Some(size_of(&data_of(&process.directory)))
    }

    /// Starts the server if need be and waits until it accepts connections.
    pub fn open(name: &str, source: &Source) -> Result<Target> {
        let localhost = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Source::Running(nodes) = source {
            return Ok(Target {
                name: name.into(),
                nodes: nodes.clone(),
                process: None,
            });
        }
        let (mqtt, http) = (localhost(free_port()?), localhost(free_port()?));
        let directory = tempfile::Builder::new()
            .prefix("campanile-bench-")
            .tempdir()
            .context("cannot create a directory for the server")?;
        // The server's own, apart from what we keep here.
        let data = data_of(&directory);
        fs::create_dir(&data)?;
        let command = command(source, mqtt, http, &data)?;
        let mut process = Process::start(command, directory)?;
        process.wait_until_it_accepts(mqtt)?;
        if let Source::Campanile(_) = source {
            process.wait_until_it_accepts(http)?;
        }
        Ok(Target {
            name: name.into(),
            nodes: Nodes {
                mqtt: vec![mqtt],
                http: vec![http],
                pids: vec![process.child.id()],
                redis: None,
            },
            process: Some(process),
        })
    }
}

/// Where a server that is started for a run keeps its data.
fn data_of(directory: &TempDir) -> PathBuf {
    directory.path().join("data")
}

/// Bytes that the files below a directory take. One that goes away meanwhile counts for nothing.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        // Sparse files are as large as what is in them.
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn command(source: &Source, mqtt: SocketAddr, http: SocketAddr, data: &Path) -> Result<Command> {
    let mut command = match source {
        Source::Running(_) => bail!("a running server needs no command"),
        Source::Campanile(path) => {
            let mut command = Command::new(path);
            command.args(["serve", "--dev", "--data"]).arg(data);
            command.args(["--mqtt", &mqtt.to_string(), "--http", &http.to_string()]);
            // Not used, but it must not stand in the way of another node.
            command.args(["--ws", "127.0.0.1:0"]);
            command
        }
        Source::Shell(line) => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]);
            command
        }
        Source::Floor => floor_command(mqtt)?,
    };
    command
        .env("PORT", mqtt.port().to_string())
        .env("HTTP_PORT", http.port().to_string())
        .env("DIR", data);
    Ok(command)
}

/// This same program, wherever the subcommand is mounted.
fn floor_command(mqtt: SocketAddr) -> Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    if std::env::args().nth(1).as_deref() == Some("bench") {
        command.arg("bench");
    }
    command.args(["floor-server", "--listen", &mqtt.to_string()]);
    Ok(command)
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

struct Process {
    child: Child,
    directory: TempDir,
}

impl Process {
    fn start(mut command: Command, directory: TempDir) -> Result<Process> {
        let log = fs::File::create(directory.path().join("output.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Process { child, directory })
    }

    fn wait_until_it_accepts(&mut self, address: SocketAddr) -> Result<()> {
        let until = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log());
            }
            if Instant::now() > until {
                bail!("no server at {address} after {START:?}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The last lines that the server wrote.
    fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn whole_log(&self) -> String {
        let text = fs::read(self.directory.path().join("output.log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn has_ended_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A shell may not pass the signal on, so descendants are asked too.
        let family = process::family(self.child.id());
        let signal = |signal: Signal| {
            for pid in &family {
                if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, signal); // It may have ended by itself.
                }
            }
        };
        signal(Signal::TERM);
        if !self.has_ended_within(STOP) {
            signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
