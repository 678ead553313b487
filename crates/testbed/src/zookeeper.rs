//! A ZooKeeper ensemble of Debian's packages `zookeeper`, `libnetty-java` and a Java runtime.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::{
    network::Place,
    process::{Process, START, wait_for},
};

/// Beside `zookeeper.jar`, whose manifest names what it needs of Debian's jars, except for these, without which it cannot speak TLS.
const JARS: &[&str] = &[
    "zookeeper.jar",
    "netty-codec.jar",
    "netty-resolver.jar",
    "netty-transport-native-unix-common.jar",
    "slf4j-simple.jar",
];

/// Small and quick to start: the machine runs several of them beside the tests.
const JVM: &[&str] = &[
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
];

/// The unit of the servers' time. Sessions may last 2 to 20 of them.
const TICK: Duration = Duration::from_millis(500);

/// How often a start is tried anew because somebody else took a port in between.
const ATTEMPTS: usize = 3;

/// Files that servers prove their identity with, and check that of clients by. All are PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's private key (PKCS #8), followed by its certificate. Java takes both from one file.
    pub key_and_certificate: PathBuf,
    /// Certificates of the authorities that clients' certificates come from.
    pub authority: PathBuf,
}

/// Several servers that agree with each other, or one alone. Killed when dropped.
#[derive(Debug)]
pub struct Ensemble {
    servers: Vec<Server>,
    _directory: TempDir,
}

/// One server of an ensemble.
#[derive(Debug)]
struct Server {
    directory: PathBuf,
    place: Place,
    client_port: u16,
    process: Option<Process>,
}

impl Ensemble {
    /// Starts that many servers (1 or 3, say) and waits until they serve.
    pub fn start(servers: usize) -> anyhow::Result<Ensemble> {
        Ensemble::start_at(&vec![Place::default(); servers])
    }

    /// Like [`Ensemble::start`], with a place for each server.
    pub fn start_at(places: &[Place]) -> anyhow::Result<Ensemble> {
        Ensemble::start_with(places, None)
    }

    /// Like [`Ensemble::start`]; clients must come by TLS and show a certificate.
    pub fn start_tls(servers: usize, tls: &Tls) -> anyhow::Result<Ensemble> {
        Ensemble::start_with(&vec![Place::default(); servers], Some(tls))
    }

    fn start_with(places: &[Place], tls: Option<&Tls>) -> anyhow::Result<Ensemble> {
        ensure!(!places.is_empty(), "an ensemble has at least one server");
        let mut attempt = 1;
        loop {
            match Ensemble::try_start(places, tls) {
                Err(error)
                    if attempt < ATTEMPTS
                        && format!("{error:#}").contains("Address already in use") =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(places: &[Place], tls: Option<&Tls>) -> anyhow::Result<Ensemble> {
        let directory = TempDir::new()?;
        let quorum: Vec<String> = places
            .iter()
            .map(|place| {
                let (peers, election) = (place.free_port()?, place.free_port()?);
                Ok(format!("{}:{peers}:{election}", place.ip()))
            })
            .collect::<anyhow::Result<_>>()?;
        let mut ensemble = Ensemble {
            servers: Vec::new(),
            _directory: directory,
        };
        for (index, place) in places.iter().enumerate() {
            let directory = ensemble._directory.path().join(format!("server{index}"));
            let server = Server {
                client_port: place.free_port()?,
                place: place.clone(),
                directory,
                process: None,
            };
            server.configure(index, &quorum, tls)?;
            ensemble.servers.push(server);
        }
        for index in 0..places.len() {
            ensemble.launch(index)?;
        }
        ensemble.wait_until_serving()?;
        Ok(ensemble)
    }

    /// `host:port` of each server, for clients.
    pub fn addresses(&self) -> Vec<String> {
        let address = |server: &Server| server.socket().to_string();
        self.servers.iter().map(address).collect()
    }

    /// Where each server runs.
    pub fn places(&self) -> Vec<Place> {
        self.servers
            .iter()
            .map(|server| server.place.clone())
            .collect()
    }

    /// How many servers it has, running or not.
    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// Kills a server at once (SIGKILL). Its data stays for [`Ensemble::launch`].
    pub fn kill(&mut self, index: usize) {
        self.servers[index].process = None;
    }

    /// Kills all servers at once.
    pub fn kill_all(&mut self) {
        (0..self.size()).for_each(|index| self.kill(index));
    }

    /// Freezes a server (SIGSTOP): its connections stay open and say nothing.
    pub fn stop(&self, index: usize) -> anyhow::Result<()> {
        self.servers[index].running()?.signal("STOP")
    }

    /// Lets a frozen server go on (SIGCONT).
    pub fn cont(&self, index: usize) -> anyhow::Result<()> {
        self.servers[index].running()?.signal("CONT")
    }

    /// Starts a server that does not run. Returns before it serves.
    pub fn launch(&mut self, index: usize) -> anyhow::Result<()> {
        let server = &mut self.servers[index];
        ensure!(server.process.is_none(), "server {index} runs already");
        server.process = Some(server.launch(index)?);
        Ok(())
    }

    /// Starts all servers that do not run, and waits until all serve.
    pub fn restart_all(&mut self) -> anyhow::Result<()> {
        for index in 0..self.size() {
            if self.servers[index].process.is_none() {
                self.launch(index)?;
            }
        }
        self.wait_until_serving()
    }

    /// Waits until every server that runs serves clients.
    pub fn wait_until_serving(&mut self) -> anyhow::Result<()> {
        for server in &mut self.servers {
            let log = server.directory.clone();
            let Some(process) = &mut server.process else {
                continue;
            };
            let socket = SocketAddr::from((server.place.ip(), server.client_port));
            process.wait_until(&format!("a ZooKeeper server in {}", log.display()), || {
                Ok(mode(&log, socket))
            })?;
        }
        Ok(())
    }

    /// Which server leads the ensemble now.
    pub fn leader(&self) -> anyhow::Result<usize> {
        wait_for("a leader of the ensemble", START, || {
            let leads = |server: &Server| {
                server.process.is_some()
                    && mode(&server.directory, server.socket())
                        .is_some_and(|mode| mode != "follower")
            };
            Ok(self.servers.iter().position(leads))
        })
    }
}

impl Server {
    fn configure(&self, index: usize, quorum: &[String], tls: Option<&Tls>) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.directory.join("data"))?;
        std::fs::write(self.directory.join("data/myid"), format!("{}\n", index + 1))?;
        let mut lines = String::new();
        writeln!(lines, "tickTime={}", TICK.as_millis())?;
        writeln!(lines, "initLimit=20\nsyncLimit=6")?;
        writeln!(lines, "dataDir={}", self.directory.join("data").display())?;
        writeln!(lines, "admin.enableServer=false")?;
        writeln!(lines, "4lw.commands.whitelist=srvr,ruok")?;
        // What is on disk survives a kill of the server without this; only a crash of the machine needs it.
        writeln!(lines, "forceSync=no\nmaxClientCnxns=0")?;
        match tls {
            None => writeln!(
                lines,
                "clientPort={}\nclientPortAddress={}",
                self.client_port,
                self.place.ip()
            )?,
            Some(tls) => {
                writeln!(
                    lines,
                    "secureClientPort={}\nsecureClientPortAddress=127.0.0.1",
                    self.client_port
                )?;
                writeln!(
                    lines,
                    "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory"
                )?;
                writeln!(lines, "ssl.keyStore.type=PEM\nssl.trustStore.type=PEM")?;
                writeln!(
                    lines,
                    "ssl.keyStore.location={}",
                    tls.key_and_certificate.display()
                )?;
                writeln!(lines, "ssl.trustStore.location={}", tls.authority.display())?;
                writeln!(lines, "ssl.clientAuth=need")?;
                // The names of clients do not resolve to addresses.
                writeln!(lines, "ssl.clientHostnameVerification=false")?;
            }
        }
        if quorum.len() > 1 {
            for (index, server) in quorum.iter().enumerate() {
                writeln!(lines, "server.{}={server}", index + 1)?;
            }
        }
        Ok(std::fs::write(self.directory.join("zoo.cfg"), lines)?)
    }

    fn socket(&self) -> SocketAddr {
        (self.place.ip(), self.client_port).into()
    }

    fn launch(&self, index: usize) -> anyhow::Result<Process> {
        let mut command = self.place.command("java");
        command
            .args(JVM)
            .arg("-cp")
            .arg(class_path()?)
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.directory.join("zoo.cfg"));
        Process::start(&format!("zookeeper{index}"), &self.directory, &mut command)
    }

    fn running(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("this server does not run")
    }
}

fn class_path() -> anyhow::Result<String> {
    let jars: Vec<String> = JARS
        .iter()
        .map(|jar| format!("/usr/share/java/{jar}"))
        .collect();
    if let Some(missing) = jars.iter().find(|jar| !Path::new(jar).exists()) {
        bail!("{missing} is missing: apt-get install zookeeper libnetty-java libslf4j-java");
    }
    Ok(jars.join(":"))
}

/// Whether a server leads, follows or stands alone; `None` while it does not serve.
fn mode(directory: &Path, server: SocketAddr) -> Option<String> {
    // A secure port takes no commands; there the log has to do, and a TLS ensemble is of one server.
    let configuration = std::fs::read_to_string(directory.join("zoo.cfg")).ok()?;
    if configuration.contains("secureClientPort") {
        let listens = TcpStream::connect(server).is_ok();
        return listens.then(|| "standalone".to_owned());
    }
    let answer = ask(server, "srvr").ok()?;
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("Mode: "))?;
    Some(line.trim().to_owned())
}

fn ask(server: SocketAddr, command: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
    // A frozen server accepts and never answers.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(command.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensemble_elects_another_leader_when_its_leader_dies() -> anyhow::Result<()> {
        let mut ensemble = Ensemble::start(3)?;
        let first = ensemble.leader()?;
        ensemble.kill(first);
        let second = ensemble.leader()?;
        assert_ne!(first, second);
        ensemble.restart_all()
    }
}
