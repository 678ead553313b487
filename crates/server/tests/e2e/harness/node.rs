//! A node: the real binary, on free ports, with a data directory of its own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Authority, Lines, Transport, eventually};

/// The API key of the app `default`.
const KEY: &str = "cmp_ZW5kLXRvLWVuZC10ZXN0cy1vZi1jYW1wYW5pbGUtMQw";

/// How a node is started.
#[derive(Default)]
pub struct NodeOptions {
    /// Listeners for TLS and WSS beside the plain ones.
    pub tls: bool,
    /// The configuration file, but for the listeners.
    pub settings: String,
    /// Without `--dev`: nobody is let in unless the settings say so, and there is no app.
    pub no_dev: bool,
    /// Data directory; a temporary one if there is none.
    pub data: Option<PathBuf>,
}

/// A node that runs, or ran.
pub struct Node {
    /// Holds the configuration, and the data directory unless that is elsewhere; goes with the node.
    _directory: TempDir,
    data: PathBuf,
    config: PathBuf,
    options: NodeOptions,
    ip: IpAddr,
    authority: Option<Authority>,
    child: Child,
    log: Lines,
    earlier_logs: Vec<String>,
    addresses: Value,
}

impl Node {
    /// A development node: anybody may connect, and the app `default` has a key.
    pub fn start() -> Node {
        Node::with(NodeOptions::default())
    }

    /// A node as the options say.
    pub fn with(options: NodeOptions) -> Node {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let data = options
            .data
            .clone()
            .unwrap_or_else(|| directory.path().join("data"));
        let config = directory.path().join("campanile.toml");
        let ip = own_address();
        let authority = options.tls.then(|| Authority::new(directory.path(), ip));
        let nothing = Command::new("true")
            .spawn()
            .expect("there is a program that does nothing");
        let mut node = Node {
            _directory: directory,
            data,
            config,
            options,
            ip,
            authority,
            child: nothing,
            log: Lines::default(),
            earlier_logs: Vec::new(),
            addresses: Value::Null,
        };
        node.launch();
        node.await_ready();
        node
    }

    /// Starts it again after [`Node::kill9`] or [`Node::stop`], on the same addresses.
    pub fn start_again(&mut self) {
        self.launch();
        self.await_ready();
    }

    /// Starts the process, and does not wait until it is ready.
    pub fn launch(&mut self) {
        let _ = self.child.wait();
        self.configure();
        self.earlier_logs.extend(self.log.all());
        // A file of the last run would tell addresses before the node listens on them.
        let _ = fs::remove_file(self.addresses_file());
        let (output, input) = std::io::pipe().expect("a pipe can be made");
        let errors = input.try_clone().expect("a pipe can have two writers");
        self.child = self
            .command()
            .stdout(input)
            .stderr(errors)
            .spawn()
            .expect("the binary starts");
        self.log = Lines::of(output);
    }

    /// Writes the configuration file.
    fn configure(&self) {
        let mut settings = self.options.settings.clone();
        if let Some(Authority {
            certificate, key, ..
        }) = &self.authority
        {
            for (name, transport) in [("mqtts", "tls"), ("wss", "wss")] {
                let address = self.bound(name).unwrap_or(SocketAddr::new(self.ip, 0));
                settings += &format!(
                    "\n[[listeners]]\nname = {name:?}\ntransport = {transport:?}\naddress = \"{address}\"\n"
                );
                settings += &format!("tls_certificate = {certificate:?}\ntls_key = {key:?}\n");
            }
        }
        fs::write(&self.config, settings).expect("the configuration can be written");
    }

    /// The command that starts this node.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_campanile"));
        command
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data);
        if !self.options.no_dev {
            command.arg("--dev");
        }
        for (flag, name) in [("--mqtt", "mqtt"), ("--ws", "ws"), ("--http", "http")] {
            let address = self.bound(name).unwrap_or(SocketAddr::new(self.ip, 0));
            command.arg(flag).arg(address.to_string());
        }
        command
            .env("CAMPANILE_DEV_KEY", KEY)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null());
        command
    }

    fn await_ready(&mut self) {
        let addresses = eventually("the node's addresses", || {
            let ended = self.child.try_wait().expect("the node can be waited for");
            assert_eq!(ended, None, "the node ended at its start");
            fs::read_to_string(self.addresses_file()).ok()
        });
        self.addresses = serde_json::from_str(&addresses).expect("the addresses are JSON");
        eventually("readiness", || {
            (self.get("/readyz").status == 200).then_some(())
        });
    }

    fn addresses_file(&self) -> PathBuf {
        self.data.join("addresses.json")
    }

    fn bound(&self, name: &str) -> Option<SocketAddr> {
        let address = &self.addresses[name];
        let address = address.as_str().or_else(|| address[0].as_str());
        address.map(|address| address.parse().expect("the node tells socket addresses"))
    }

    /// Where it listens for MQTT.
    pub fn address(&self, transport: Transport) -> SocketAddr {
        let name = match transport {
            Transport::Tcp => "mqtt",
            Transport::Tls => "mqtts",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        };
        self.bound(name)
            .unwrap_or_else(|| panic!("no {name} in {}", self.addresses))
    }

    /// Where it listens for HTTP.
    pub fn http(&self) -> SocketAddr {
        self.bound("http").expect("the node serves HTTP")
    }

    /// Key of the app `default`.
    pub fn api_key(&self) -> &'static str {
        KEY
    }

    /// Who signed its certificate.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("the node has TLS")
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it printed since its last start.
    pub fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// `SIGKILL`: no farewell, no flush.
    pub fn kill9(&mut self) {
        self.child.kill().expect("the node runs");
        self.child.wait().expect("the node ends");
    }

    /// `SIGTERM`; it must end well within 5 seconds.
    pub fn stop(&mut self) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = self.await_end();
        assert!(status.success(), "the node ends with {status}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the node takes {:?} to stop",
            began.elapsed()
        );
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a process id");
        kill_process(pid, signal).expect("the node runs");
    }

    /// Waits for its end.
    pub fn await_end(&mut self) -> ExitStatus {
        eventually("the node's end", || {
            self.child.try_wait().expect("the node can be waited for")
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = [self.earlier_logs.as_slice(), &self.log.all()].concat();
            eprintln!("--- log of the node\n{}\n---", log.join("\n"));
        }
    }
}

/// An address of the loopback network that no other test uses, so that a node that starts again finds its ports free: ports for
/// outgoing connections are taken on 127.0.0.1.
fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let number = u8::try_from(number).expect("a test program starts fewer than 256 nodes");
    Ipv4Addr::new(127, process[2] | 1, process[3], number).into()
}
