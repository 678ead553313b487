//! Where a server runs: on this machine's loopback, or on a host of a network.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context, bail, ensure};

use crate::process::free_port;

/// The first port given out on a host, where all are free. Outgoing connections take others.
const FIRST_PORT: u16 = 7000;

/// What every host drops and refuses: sources of packets, empty at first. A reset is let through, or it would be answered by another rule.
const RULES: &str = "
table inet wire {
  set lost { type ipv4_addr; }
  set refused { type ipv4_addr; }
  chain arriving {
    type filter hook input priority 0;
    ip saddr @lost drop
    ip saddr @refused tcp flags & rst == 0 reject with tcp reset
  }
}
";

/// Where a server runs. The default is this machine, on the loopback address.
#[derive(Clone, Debug, Default)]
pub struct Place(Option<Arc<Host>>);

impl Place {
    pub(super) fn on(host: Host) -> Place {
        Place(Some(Arc::new(host)))
    }

    pub(super) fn host(&self) -> anyhow::Result<&Host> {
        let host = self.0.as_deref();
        host.context("a server on the loopback address cannot be cut off")
    }

    /// Whether it is this machine's loopback.
    pub fn is_here(&self) -> bool {
        self.0.is_none()
    }

    /// The address of servers there.
    pub fn ip(&self) -> Ipv4Addr {
        self.0.as_ref().map_or(Ipv4Addr::LOCALHOST, |host| host.ip)
    }

    /// A port that nobody listens on. Here, somebody else may take it before the caller does: start again then.
    pub fn free_port(&self) -> anyhow::Result<u16> {
        match &self.0 {
            Some(host) => Ok(host.next_port.fetch_add(1, Ordering::Relaxed)),
            None => free_port(),
        }
    }

    /// A program that will run there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.0 {
            Some(host) => host.command(program),
            None => Command::new(program),
        }
    }
}

/// A network namespace with an address on the bridge.
#[derive(Debug)]
pub(super) struct Host {
    ip: Ipv4Addr,
    next_port: AtomicU16,
    /// Ends when its input does, whatever becomes of us; and with it and the servers of the host goes the namespace.
    holder: Child,
}

impl Host {
    pub(super) fn start(ip: Ipv4Addr, number: usize) -> anyhow::Result<Host> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare: install util-linux")?;
        let mut said = String::new();
        if let Some(out) = holder.stdout.take() {
            BufReader::new(out).read_line(&mut said)?;
        }
        let host = Host {
            ip,
            next_port: AtomicU16::new(FIRST_PORT),
            holder,
        };
        ensure!(said == "ready\n", "cannot make a network namespace");
        host.attach(number).context("cannot connect a host")?;
        Ok(host)
    }

    /// A cable from the bridge, an address, and the rules.
    fn attach(&self, number: usize) -> anyhow::Result<()> {
        let (end, holder, bridge) = (format!("host{number}"), self.holder.id(), super::BRIDGE);
        let outside = format!(
            "link add name {end} type veth peer name eth0 netns {holder}\nlink set {end} master {bridge} up\n"
        );
        run(Command::new("ip").args(["-batch", "-"]), &outside)?;
        let inside = format!(
            "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n",
            self.ip
        );
        run(self.command("ip").args(["-batch", "-"]), &inside)?;
        run(self.command("nft").args(["--file", "-"]), RULES)
    }

    /// Packets from an address are lost from now on, or refused.
    pub(super) fn block(&self, source: Ipv4Addr, set: &str) -> anyhow::Result<()> {
        self.tell(&format!("add element inet wire {set} {{ {source} }}\n"))
    }

    /// All packets pass from now on.
    pub(super) fn unblock(&self) -> anyhow::Result<()> {
        self.tell("flush set inet wire lost\nflush set inet wire refused\n")
    }

    fn tell(&self, rules: &str) -> anyhow::Result<()> {
        run(self.command("nft").args(["--file", "-"]), rules)
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        command.arg("--").arg(program);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a command to its end, with this input. Fails as it does.
pub(super) fn run(command: &mut Command, input: &str) -> anyhow::Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let name = format!("{:?}", command.get_program());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {name}: install iproute2, nftables and util-linux"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end before it has read everything: its status says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} with {input:?}: {}", said.trim());
    }
    Ok(())
}
