//! One node: the real binary with a configuration, a data directory and addresses of its own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    http,
    network::Place,
    process::{Process, wait_for},
};

/// The API key of the app `default`.
pub const KEY: &str = "cmp_dGVzdGJlZC1vZi1jYW1wYW5pbGUtY2x1c3RlcnMtMQw";

/// How long a node may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A node that runs, or ran. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    name: String,
    binary: PathBuf,
    directory: PathBuf,
    place: Place,
    addresses: Addresses,
    process: Option<Process>,
}

/// Where a node listens, in all its lives.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// MQTT over TCP.
    pub mqtt: SocketAddr,
    /// The HTTP API.
    pub http: SocketAddr,
    /// Peers.
    pub peers: SocketAddr,
}

impl Addresses {
    /// Free ports at a place.
    pub fn at(place: &Place) -> anyhow::Result<Addresses> {
        if place.is_here() {
            return Addresses::free();
        }
        let free = || Ok::<_, anyhow::Error>((place.ip(), place.free_port()?).into());
        Ok(Addresses {
            mqtt: free()?,
            http: free()?,
            peers: free()?,
        })
    }

    /// Free ports of an address that nobody else uses, so that they stay free while the node does not run: ports of outgoing connections are taken on
    /// 127.0.0.1.
    pub fn free() -> anyhow::Result<Addresses> {
        let ip = own_address();
        let mut ports = Vec::new();
        for _ in 0..3 {
            ports.push(TcpListener::bind((ip, 0))?);
        }
        Ok(Addresses {
            mqtt: ports[0].local_addr()?,
            http: ports[1].local_addr()?,
            peers: ports[2].local_addr()?,
        })
    }
}

impl Node {
    /// A node that does not run yet. `settings`: its configuration but for listeners, HTTP API and data directory.
    pub fn new(
        binary: &Path,
        name: &str,
        directory: PathBuf,
        addresses: Addresses,
        settings: &str,
    ) -> anyhow::Result<Node> {
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("campanile.toml"), settings)?;
        Ok(Node {
            name: name.to_owned(),
            binary: binary.to_owned(),
            directory,
            place: Place::default(),
            addresses,
            process: None,
        })
    }

    /// The same on another host, where its addresses are.
    pub fn at(self, place: Place) -> Node {
        Node { place, ..self }
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it runs.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The id of its process, also after its end; none before its start.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Starts the process; returns before it is ready.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        ensure!(!self.is_running(), "{} runs already", self.name);
        let mut command = self.place.command(&self.binary);
        command
            .args(["serve", "--dev", "--config"])
            .arg(self.directory.join("campanile.toml"))
            .arg("--data")
            .arg(self.data())
            .args(["--mqtt", &self.addresses.mqtt.to_string()])
            .args([
                "--ws",
                &SocketAddr::new(self.addresses.mqtt.ip(), 0).to_string(),
            ])
            .args(["--http", &self.addresses.http.to_string()])
            .env("CAMPANILE_DEV_KEY", KEY)
            .env("RUST_BACKTRACE", "1");
        self.process = Some(Process::start(&self.name, &self.directory, &mut command)?);
        Ok(())
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Waits until it says that it is ready.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let address = self.addresses.http;
        let process = self.process.as_mut().context("the node was not started")?;
        process.wait_until("readiness", || {
            let answer = http::get(address, "/readyz", ANSWER);
            Ok(answer.ok().filter(|answer| answer.status == 200))
        })?;
        Ok(())
    }

    /// Whether its process is there, be it frozen.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// `SIGKILL`: no farewell, no flush.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// `SIGTERM`, and waits for the end.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.running()?.terminate(READY)
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self) -> anyhow::Result<()> {
        let what = format!("the end of {}", self.name);
        wait_for(&what, READY, || Ok((!self.is_running()).then_some(())))
    }

    /// `SIGSTOP`: connections stay, and nothing is answered.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.running()?.signal("STOP")
    }

    /// `SIGCONT`.
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        self.running()?.signal("CONT")
    }

    /// What it has printed in all its lives.
    pub fn log(&self) -> String {
        let log = self.directory.join(format!("{}.log", self.name));
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// The command-line tool, with these arguments.
    pub fn campanile(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments);
        command
    }

    /// `campanile cluster ...` with this node: what it prints. Fails if the tool does.
    pub fn operate(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.campanile(&["cluster"]);
        command.args(arguments).arg("--data").arg(self.data());
        let output = command.output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `GET` of a path of its HTTP API that needs no key.
    pub fn get(&self, path: &str) -> anyhow::Result<http::Response> {
        http::get(self.addresses.http, path, ANSWER)
    }

    /// A request of the app's owner to the HTTP API; `head` begins with the request line.
    pub fn ask(&self, head: &[&str], body: &str) -> anyhow::Result<http::Response> {
        let key = format!("Authorization: Bearer {KEY}");
        let head = [head, &[&key, "Content-Type: application/json"]].concat();
        http::request(self.addresses.http, &head, body, ANSWER)
    }

    fn running(&mut self) -> anyhow::Result<&mut Process> {
        let name = &self.name;
        self.process
            .as_mut()
            .with_context(|| format!("{name} does not run"))
    }
}

fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // 127.0.x.x stays free for others.
    Ipv4Addr::new(127, (high ^ middle) | 0x80, low, (number % 254 + 1) as u8).into()
}
