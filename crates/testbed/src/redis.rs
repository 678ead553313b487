//! Redis servers: one alone, a primary with replicas and sentinels, a cluster.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::{
    network::Place,
    process::{Process, START, wait_for},
};

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// `appendonly yes` with this `appendfsync`, or nothing on disk.
    pub append_fsync: Option<&'static str>,
    /// Further lines of its configuration.
    pub config: Vec<String>,
    /// Only TLS connections: files of the authority, the server's certificate and its key.
    pub tls: Option<TlsFiles>,
    /// Password of the default user, which the testbed itself needs to know.
    pub password: Option<String>,
    /// Where it runs.
    pub place: Place,
}

/// Files for TLS, as PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate of the authority, for clients' certificates too.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// One server with a directory of its own.
#[derive(Debug)]
pub struct Redis {
    name: String,
    program: &'static str,
    arguments: Vec<String>,
    directory: TempDir,
    place: Place,
    port: u16,
    password: Option<String>,
    /// It speaks TLS, so that the testbed cannot ask it.
    is_silent: bool,
    process: Process,
}

impl Redis {
    /// Starts a server that keeps nothing on disk.
    pub fn start() -> anyhow::Result<Redis> {
        Redis::start_with(&RedisOptions::default())
    }

    /// Starts a server.
    pub fn start_with(options: &RedisOptions) -> anyhow::Result<Redis> {
        // Somebody may take the port between the look and the start.
        let mut last = None;
        for _ in 0..3 {
            match Redis::try_start(options) {
                Ok(redis) => return Ok(redis),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    fn try_start(options: &RedisOptions) -> anyhow::Result<Redis> {
        let directory = TempDir::new()?;
        let port = options.place.free_port()?;
        let mut lines = vec![
            format!("bind {}", options.place.ip()),
            // Or it refuses whoever comes from another host without a password.
            "protected-mode no".to_owned(),
            "save \"\"".to_owned(),
            format!("dir {}", directory.path().display()),
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        match &options.tls {
            None => lines.push(format!("port {port}")),
            Some(tls) => {
                lines.push("port 0".to_owned());
                lines.push(format!("tls-port {port}"));
                lines.push(format!("tls-ca-cert-file {}", tls.authority.display()));
                lines.push(format!("tls-cert-file {}", tls.certificate.display()));
                lines.push(format!("tls-key-file {}", tls.key.display()));
            }
        }
        if let Some(fsync) = options.append_fsync {
            lines.push("appendonly yes".to_owned());
            lines.push(format!("appendfsync {fsync}"));
        }
        if let Some(password) = &options.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("masterauth {password}"));
        }
        lines.extend(options.config.iter().cloned());
        let mut redis = Redis::launch("redis-server", "redis", directory, port, &lines, options)?;
        redis.wait_until_ready()?;
        Ok(redis)
    }

    fn launch(
        program: &'static str,
        name: &str,
        directory: TempDir,
        port: u16,
        lines: &[String],
        options: &RedisOptions,
    ) -> anyhow::Result<Redis> {
        let file = directory.path().join(format!("{name}.conf"));
        std::fs::write(&file, lines.join("\n") + "\n")?;
        let arguments = vec![file.display().to_string()];
        let place = options.place.clone();
        let process = start(&place, program, name, directory.path(), &arguments)?;
        Ok(Redis {
            name: name.to_owned(),
            program,
            arguments,
            directory,
            place,
            port,
            password: options.password.clone(),
            is_silent: options.tls.is_some(),
            process,
        })
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> String {
        self.socket().to_string()
    }

    fn socket(&self) -> SocketAddr {
        (self.place.ip(), self.port).into()
    }

    /// Where it runs.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it (SIGSTOP): it keeps its connections and does not answer.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> anyhow::Result<()> {
        self.process.signal("CONT")
    }

    /// Starts it again after its end, on the same port with what it has on disk.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process.kill();
        self.process = start(
            &self.place,
            self.program,
            &self.name,
            self.directory.path(),
            &self.arguments,
        )?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let (socket, password) = (self.socket(), self.password.clone());
        if self.is_silent {
            return self.process.wait_until("redis to listen", || {
                Ok(TcpStream::connect(socket).ok().map(|_| ()))
            });
        }
        // Another one that was given the same port may answer while this one is about to fail.
        let own = format!("process_id:{}", self.process.id());
        self.process.wait_until("redis to answer", || {
            let answer = |command: &[&str]| ask(socket, password.as_deref(), command);
            let is_up = answer(&["PING"]).is_ok_and(|answer| answer == "PONG");
            let info = answer(&["INFO", "server"]).unwrap_or_default();
            Ok((is_up && info.lines().any(|line| line.trim() == own)).then_some(()))
        })
    }

    /// Sends a command and returns the answer: of one that is a list, its elements a line each.
    pub fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        ask(self.socket(), self.password.as_deref(), command)
    }
}

fn start(
    place: &Place,
    program: &str,
    name: &str,
    directory: &Path,
    arguments: &[String],
) -> anyhow::Result<Process> {
    Process::start(name, directory, place.command(program).args(arguments))
}

/// A primary with replicas, watched by three sentinels that promote another one within about two seconds.
#[derive(Debug)]
pub struct Replicated {
    /// The servers; the first began as the primary.
    pub servers: Vec<Redis>,
    /// The sentinels.
    pub sentinels: Vec<Redis>,
}

impl Replicated {
    /// What the sentinels call the primary.
    pub const NAME: &'static str = "campanile";

    /// Starts a primary, replicas and sentinels, and waits until all know each other.
    pub fn start(replicas: usize, options: &RedisOptions) -> anyhow::Result<Replicated> {
        Replicated::start_at(&vec![options.place.clone(); replicas + 1], options)
    }

    /// The same with a place for each server, the primary's first. Each of the first three has a sentinel, too.
    pub fn start_at(places: &[Place], options: &RedisOptions) -> anyhow::Result<Replicated> {
        const SENTINELS: usize = 3;
        let at = |place: &Place| RedisOptions {
            place: place.clone(),
            ..options.clone()
        };
        let (first, others) = places.split_first().context("no place for a primary")?;
        let replicas = others.len();
        let primary = Redis::start_with(&at(first))?;
        let (ip, port) = (first.ip(), primary.port());
        let mut servers = vec![primary];
        for place in others {
            let mut options = at(place);
            options.config.push(format!("replicaof {ip} {port}"));
            servers.push(Redis::start_with(&options)?);
        }
        let mut sentinels = Vec::new();
        for place in places.iter().cycle().take(SENTINELS) {
            sentinels.push(Replicated::start_sentinel(&servers[0], &at(place))?);
        }
        let replicated = Replicated { servers, sentinels };
        wait_for("replicas to be online", START, || {
            let info = replicated.servers[0].ask(&["INFO", "replication"])?;
            Ok((info.matches("state=online").count() == replicas).then_some(()))
        })?;
        wait_for("sentinels to know each other", START, || {
            let knows_all = |sentinel: &Redis| -> anyhow::Result<bool> {
                let state = sentinel.ask(&["SENTINEL", "MASTER", Replicated::NAME])?;
                let lines: Vec<&str> = state.lines().collect();
                let value = |name: &str| {
                    let at = lines.iter().position(|line| *line == name)?;
                    lines.get(at + 1)?.parse::<usize>().ok()
                };
                Ok(value("num-slaves") == Some(replicas)
                    && value("num-other-sentinels") == Some(SENTINELS - 1))
            };
            for sentinel in &replicated.sentinels {
                if !knows_all(sentinel)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        Ok(replicated)
    }

    fn start_sentinel(primary: &Redis, options: &RedisOptions) -> anyhow::Result<Redis> {
        let directory = TempDir::new()?;
        let port = options.place.free_port()?;
        let name = Replicated::NAME;
        let mut lines = vec![
            format!("port {port}"),
            format!("bind {}", options.place.ip()),
            "protected-mode no".to_owned(),
            format!("dir {}", directory.path().display()),
            format!(
                "sentinel monitor {name} {} {} 2",
                primary.place.ip(),
                primary.port
            ),
            format!("sentinel down-after-milliseconds {name} 500"),
            format!("sentinel failover-timeout {name} 3000"),
            format!("sentinel parallel-syncs {name} 1"),
        ];
        if let Some(password) = &options.password {
            lines.push(format!("sentinel auth-pass {name} {password}"));
        }
        let only_place = RedisOptions {
            place: options.place.clone(),
            ..RedisOptions::default()
        };
        let mut sentinel = Redis::launch(
            "redis-sentinel",
            "sentinel",
            directory,
            port,
            &lines,
            &only_place,
        )?;
        sentinel.wait_until_ready()?;
        Ok(sentinel)
    }

    /// Where each server runs.
    pub fn places(&self) -> Vec<Place> {
        let servers = self.servers.iter();
        servers.map(|server| server.place().clone()).collect()
    }

    /// Addresses of the sentinels.
    pub fn sentinel_addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::address).collect()
    }

    /// The server that the sentinels take for the primary.
    pub fn primary(&mut self) -> anyhow::Result<&mut Redis> {
        let query = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Replicated::NAME];
        let answer = self.sentinels[0].ask(&query)?;
        let address = answer.replace('\n', ":");
        let mut servers = self.servers.iter_mut();
        let server = servers.find(|server| server.address() == address);
        server.with_context(|| {
            format!("the sentinel answered {answer:?}, which is no server of ours")
        })
    }
}

/// A Redis Cluster of three primaries, each with as many replicas.
#[derive(Debug)]
pub struct Cluster {
    /// The servers, primaries first.
    pub servers: Vec<Redis>,
}

impl Cluster {
    /// Servers that are primaries.
    pub const PRIMARIES: usize = 3;

    /// Starts a cluster and waits until it takes requests.
    pub fn start(replicas: usize, options: &RedisOptions) -> anyhow::Result<Cluster> {
        let servers = Cluster::PRIMARIES * (1 + replicas);
        Cluster::start_at(&vec![options.place.clone(); servers], options)
    }

    /// The same with a place for each server, as many as a multiple of [`Cluster::PRIMARIES`].
    pub fn start_at(places: &[Place], options: &RedisOptions) -> anyhow::Result<Cluster> {
        let replicas = (places.len() / Cluster::PRIMARIES).saturating_sub(1);
        let mut options = options.clone();
        options
            .config
            .extend(["cluster-enabled yes", "cluster-node-timeout 1000"].map(str::to_owned));
        let mut servers = Vec::new();
        for place in places {
            options.place = place.clone();
            servers.push(Cluster::start_server(&options)?);
        }
        let mut create = Command::new("redis-cli");
        if let Some(password) = &options.password {
            create.args(["-a", password, "--no-auth-warning"]);
        }
        create.args(["--cluster", "create"]);
        create.args(servers.iter().map(Redis::address));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let output = create.output().context("cannot run redis-cli")?;
        ensure!(
            output.status.success(),
            "redis-cli --cluster create: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let cluster = Cluster { servers };
        wait_for("the cluster to be ready", START, || {
            for server in &cluster.servers {
                let info = server.ask(&["CLUSTER", "INFO"])?;
                if !info.contains("cluster_state:ok") || !info.contains("cluster_slots_ok:16384") {
                    return Ok(None);
                }
                if !is_synced(server)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        Ok(cluster)
    }

    /// The port of the cluster bus is 10,000 above, unless it is named; a free one cannot be had for both otherwise.
    fn start_server(options: &RedisOptions) -> anyhow::Result<Redis> {
        let mut options = options.clone();
        options
            .config
            .push(format!("cluster-port {}", options.place.free_port()?));
        Redis::start_with(&options)
    }

    /// Where each server runs.
    pub fn places(&self) -> Vec<Place> {
        let servers = self.servers.iter();
        servers.map(|server| server.place().clone()).collect()
    }

    /// Addresses of all servers.
    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Redis::address).collect()
    }
}

/// Whether a server is a primary, or a replica that has its primary's data.
fn is_synced(server: &Redis) -> anyhow::Result<bool> {
    let info = server.ask(&["INFO", "replication"])?;
    Ok(info.contains("role:master") || info.contains("master_link_status:up"))
}

const PATIENCE: Duration = Duration::from_secs(5);

fn ask(server: SocketAddr, password: Option<&str>, command: &[&str]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    if let Some(password) = password {
        stream.write_all(&encode(&["AUTH", password]))?;
        read(&mut reader)?;
    }
    stream.write_all(&encode(command))?;
    read(&mut reader)
}

fn encode(command: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        bytes.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
    }
    bytes
}

fn read(reader: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    ensure!(reader.read_line(&mut line)? > 0, "the server hung up");
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "$" if rest == "-1" => Ok(String::new()),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>()? + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => {
            let mut lines = Vec::new();
            for _ in 0..rest.parse::<i64>()?.max(0) {
                lines.push(read(reader)?);
            }
            Ok(lines.join("\n"))
        }
        _ => bail!("the server answered {line:?}"),
    }
}
