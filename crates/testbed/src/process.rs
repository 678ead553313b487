//! Child processes that end with the value that owns them, and free ports.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// How long a server may take to start.
pub const START: Duration = Duration::from_secs(60);

/// A child process with its output in a file. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints is appended to `NAME.log` in `directory`.
    pub fn start(name: &str, directory: &Path, command: &mut Command) -> anyhow::Result<Process> {
        let log = directory.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| {
                format!("cannot start {:?}: is it installed?", command.get_program())
            })?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it runs (a stopped one does).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by its number or name, as `kill -s` takes it.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .args(["-s", signal, &self.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("cannot send {signal} to {} ({})", self.name, self.id());
        }
        Ok(())
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn terminate(&mut self, patience: Duration) -> anyhow::Result<()> {
        if self.is_running() {
            self.signal("TERM")?;
        }
        wait_for(&format!("the end of {}", self.name), patience, || {
            Ok((!self.is_running()).then_some(()))
        })
    }

    /// Waits until `ready` says yes. Fails if the process ends before, with what it printed.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let result = wait_for(what, START, || {
            if !self.is_running() {
                bail!("{} has ended:\n{}", self.name, self.output());
            }
            ready()
        });
        result.with_context(|| format!("{}:\n{}", self.name, self.output()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks until there is something, or fails once `patience` is over. Looks every 10 ms.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {patience:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nobody listens on. Somebody else may take it before the caller does: start again then.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
