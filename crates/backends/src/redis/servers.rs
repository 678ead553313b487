//! Connections to the servers that hold the keys: which one holds which, and how they are found again.
//!
//! A cluster's slots are looked up here and not by the client library, since WAIT speaks of the writes of its own connection: the
//! scripts of a commit and the WAIT behind them must travel on one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, TlsCertificates, Value, aio::MultiplexedConnection,
};

use super::{
    config::{RedisConfig, Topology, split_address},
    figures::Figures,
    health::Facts,
};

/// Reconnecting is tried this often.
pub const RECONNECT_EVERY: Duration = Duration::from_millis(100);
const SLOTS: u16 = 16384;

/// A server, connected.
#[derive(Clone)]
pub struct Server {
    /// Its address.
    pub address: Arc<str>,
    /// The connection; clones share it.
    pub connection: MultiplexedConnection,
    /// SHA-1 of the script, which the server has.
    pub script: Arc<str>,
    /// Names the process at the other end: another connection with the same one sees the same data.
    pub run: Arc<str>,
    /// How many replicas followed it when it was connected.
    pub replicas: u32,
}

/// The servers that hold the keys.
pub struct Servers {
    pub(super) config: Arc<RedisConfig>,
    figures: Arc<Figures>,
    script: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// First slots of ranges and who holds them; of a server alone one range.
    routes: BTreeMap<u16, Arc<str>>,
    connected: HashMap<Arc<str>, Server>,
    /// Servers that were connected at some time.
    seen: Vec<Arc<str>>,
    /// Why the servers of these addresses cannot be used now. Under the empty address: no server is known.
    down: HashMap<Arc<str>, Arc<str>>,
    reviving: bool,
}

/// Why no server could be used: nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down(pub Arc<str>);

impl Servers {
    /// The servers of a configuration; none is connected yet.
    pub fn new(
        config: Arc<RedisConfig>,
        figures: Arc<Figures>,
        script: &'static str,
    ) -> Arc<Servers> {
        Arc::new(Servers {
            config,
            figures,
            script,
            state: Mutex::default(),
        })
    }

    /// The server that holds the keys of a tag. Fails at once while it is known to be down.
    pub async fn of(self: &Arc<Self>, tag: &str) -> Result<Server, Down> {
        let address = {
            let state = self.state();
            let address = state.address(tag);
            if let Some(reason) = state.down.get(address.as_deref().unwrap_or_default()) {
                return Err(Down(reason.clone()));
            }
            if let Some(server) = address
                .as_ref()
                .and_then(|address| state.connected.get(address))
            {
                return Ok(server.clone());
            }
            address
        };
        match address {
            Some(address) => self.connect(&address).await,
            None => {
                self.find().await?;
                let address = self.state().address(tag);
                let address = address.ok_or_else(|| {
                    down("redis cluster: no server holds some of the slots".to_owned())
                })?;
                self.connect(&address).await
            }
        }
    }

    /// All servers that hold keys.
    pub async fn all(self: &Arc<Self>) -> Result<Vec<Server>, Down> {
        if self.state().routes.is_empty() {
            self.find().await?;
        }
        let mut addresses: Vec<_> = self.state().routes.values().cloned().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut servers = Vec::new();
        for address in addresses {
            servers.push(self.connect(&address).await?);
        }
        Ok(servers)
    }

    /// Forgets a connection that failed.
    pub fn disconnect(&self, server: &Server) {
        self.state().connected.remove(&server.address);
    }

    /// Looks again who holds what.
    pub async fn find(self: &Arc<Self>) -> Result<(), Down> {
        let routes = match &self.config.topology {
            Topology::Standalone { servers } => self.find_primary(servers).await?,
            Topology::Sentinel { primary, sentinels } => {
                self.ask_sentinels(primary, sentinels).await?
            }
            Topology::Cluster { servers } => self.ask_cluster(servers).await?,
        };
        let mut state = self.state();
        let addresses: Vec<_> = routes.values().cloned().collect();
        state
            .connected
            .retain(|address, _| addresses.contains(address));
        state.down.retain(|address, _| addresses.contains(address));
        state.routes = routes;
        Ok(())
    }

    /// Answers without trying from now on, until a task of its own has connected again.
    pub fn give_up(self: &Arc<Self>, address: Option<&Arc<str>>, reason: &Down) {
        let mut state = self.state();
        let address = address.cloned().unwrap_or_else(|| "".into());
        state.connected.remove(&address);
        if state.down.insert(address, reason.0.clone()).is_none() {
            tracing::warn!(reason = %reason.0, "redis is down: trying to connect again");
        }
        if !state.reviving {
            state.reviving = true;
            tokio::spawn(revive(Arc::downgrade(self)));
        }
    }

    /// Whether a task of its own is about to connect to the server of a tag.
    pub fn is_down(&self, tag: &str) -> bool {
        let state = self.state();
        let address = state.address(tag);
        state
            .down
            .contains_key(address.as_deref().unwrap_or_default())
    }

    /// Where the keys of a tag are, as far as is known.
    pub fn address(&self, tag: &str) -> Option<Arc<str>> {
        self.state().address(tag)
    }

    async fn find_primary(&self, servers: &[String]) -> Result<BTreeMap<u16, Arc<str>>, Down> {
        let mut reasons = Vec::new();
        for address in servers {
            let address: Arc<str> = address.as_str().into();
            match self.connect(&address).await {
                Ok(_) => return Ok(BTreeMap::from([(0, address)])),
                Err(Down(reason)) => reasons.push(reason.to_string()),
            }
        }
        Err(down(reasons.join("; ")))
    }

    /// A server that was cut off from the others knows, and says, that it does not see enough of them; what it says of slots may be old.
    async fn ask_cluster(&self, servers: &[String]) -> Result<BTreeMap<u16, Arc<str>>, Down> {
        let mut known: Vec<Arc<str>> = self.state().seen.clone();
        known.extend(servers.iter().map(|address| address.as_str().into()));
        let mut reasons = Vec::new();
        let mut doubtful = None;
        for address in known {
            match self.slots_at(&address).await {
                Ok((routes, true)) => return Ok(routes),
                Ok((routes, false)) => doubtful = doubtful.or(Some(routes)),
                Err(Down(reason)) => reasons.push(reason.to_string()),
            }
        }
        // Where all say so, some slots may still be served.
        doubtful.ok_or_else(|| down(reasons.join("; ")))
    }

    /// What a server of a cluster says of slots, and whether it holds the cluster for well.
    async fn slots_at(&self, address: &str) -> Result<(BTreeMap<u16, Arc<str>>, bool), Down> {
        let mut connection = self.open(address, false).await?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLUSTER").arg("INFO");
        pipeline.cmd("CLUSTER").arg("SLOTS");
        let (info, slots): (String, Value) = self
            .within(address, pipeline.query_async(&mut connection))
            .await?;
        let routes = routes_of(address, &slots).ok_or_else(|| {
            down(format!(
                "redis {address}: holds no slots: is it in a cluster?"
            ))
        })?;
        Ok((routes, info.contains("cluster_state:ok")))
    }

    /// A connection that was made before, or a new one to a server that proves to be a primary.
    pub(super) async fn connect(&self, address: &Arc<str>) -> Result<Server, Down> {
        if let Some(server) = self.state().connected.get(address) {
            return Ok(server.clone());
        }
        let mut connection = self.open(address, false).await?;
        let facts = self.facts(address, &mut connection).await?;
        if !facts.is_primary {
            return Err(down(format!("redis {address}: is a replica")));
        }
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.script);
        let script: String = self
            .within(address, load.query_async(&mut connection))
            .await?;
        let server = Server {
            address: address.clone(),
            connection,
            script: script.into(),
            run: facts.run.as_str().into(),
            replicas: facts.replicas,
        };
        let mut state = self.state();
        state.connected.insert(address.clone(), server.clone());
        state.down.remove(address);
        if state.seen.contains(address) {
            self.figures.count_reconnect();
            for fault in facts.faults(&self.config) {
                tracing::warn!("{}", fault.text);
            }
        } else {
            state.seen.push(address.clone());
        }
        Ok(server)
    }

    /// What the server says of itself.
    pub async fn facts(
        &self,
        address: &str,
        connection: &mut MultiplexedConnection,
    ) -> Result<Facts, Down> {
        let info: String = self
            .within(address, redis::cmd("INFO").query_async(connection))
            .await?;
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("save");
        let config: Result<HashMap<String, String>, _> =
            tokio::time::timeout(self.config.command_timeout, command.query_async(connection))
                .await
                .map_err(|_| down(format!("redis {address}: no answer")))?;
        Ok(Facts::of(address, &info, config.ok().as_ref()))
    }

    /// A new connection.
    pub(super) async fn open(
        &self,
        address: &str,
        sentinel: bool,
    ) -> Result<MultiplexedConnection, Down> {
        let client = self.client(address, sentinel)?;
        let timeout = self.config.connect_timeout;
        // Every call has a timeout of ours around it.
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&settings);
        match tokio::time::timeout(timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(down(format!("redis {address}: {error}"))),
            Err(_) => Err(down(format!(
                "redis {address}: not connected within {timeout:?}"
            ))),
        }
    }

    fn client(&self, address: &str, sentinel: bool) -> Result<Client, Down> {
        let config = &self.config;
        let (host, port) = split_address(address)
            .ok_or_else(|| down(format!("address \"{address}\": must be \"host:port\"")))?;
        let mut settings = RedisConnectionInfo::default();
        let password = if sentinel {
            config.sentinel_password.as_ref()
        } else {
            if let Some(username) = &config.username {
                settings = settings.set_username(username);
            }
            settings = settings.set_db(config.database.into());
            config.password.as_ref()
        };
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let addr = match &config.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        };
        let client = addr
            .into_connection_info()
            .map(|info| info.set_redis_settings(settings))
            .and_then(|info| match &config.tls {
                None => Client::open(info),
                Some(tls) => Client::build_with_tls(
                    info,
                    TlsCertificates {
                        client_tls: tls.client.as_ref().map(|client| ClientTlsConfig {
                            client_cert: client.certificates.clone(),
                            client_key: client.key.clone(),
                        }),
                        root_cert: tls.authorities.clone(),
                    },
                ),
            });
        client.map_err(|error| down(format!("redis {address}: {error}")))
    }

    /// An answer, if it comes in time.
    pub(super) async fn within<T>(
        &self,
        address: &str,
        answer: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, Down> {
        let timeout = self.config.command_timeout;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(down(format!("redis {address}: {error}"))),
            Err(_) => Err(down(format!(
                "redis {address}: no answer within {timeout:?}"
            ))),
        }
    }

    /// Connects to what is down. Whether everything is up.
    async fn try_again(self: &Arc<Self>) -> bool {
        if let Err(Down(reason)) = self.find().await {
            tracing::debug!(%reason, "redis is still down");
            return false;
        }
        let down: Vec<_> = self.state().down.keys().cloned().collect();
        let mut all = true;
        for address in down {
            all &= self.connect(&address).await.is_ok();
        }
        all
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn address(&self, tag: &str) -> Option<Arc<str>> {
        let (_, address) = self.routes.range(..=slot(tag)).next_back()?;
        Some(address.clone())
    }
}

/// Connects again, for as long as there is somebody to connect for.
async fn revive(servers: Weak<Servers>) {
    loop {
        tokio::time::sleep(RECONNECT_EVERY).await;
        let Some(servers) = servers.upgrade() else {
            return;
        };
        let is_up = servers.try_again().await;
        let mut state = servers.state();
        if is_up && state.down.is_empty() {
            state.reviving = false;
            tracing::info!("redis is up again");
            return;
        }
    }
}

/// Sends commands in one round trip and returns their answers, errors among them.
pub async fn send(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
    timeout: Duration,
) -> Result<Vec<Value>, Arc<str>> {
    let answer = connection.send_packed_commands(pipeline, 0, pipeline.len());
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(values)) => Ok(values),
        Ok(Err(error)) => Err(error.to_string().into()),
        Err(_) => Err(format!("no answer within {timeout:?}").into()),
    }
}

pub(super) fn down(reason: String) -> Down {
    Down(reason.into())
}

/// The slot of a hash tag: CRC-16 (XMODEM) modulo 16,384.
fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

/// First slots of ranges and their primaries, from the answer to CLUSTER SLOTS.
fn routes_of(asked: &str, answer: &Value) -> Option<BTreeMap<u16, Arc<str>>> {
    let Value::Array(ranges) = answer else {
        return None;
    };
    let mut routes = BTreeMap::new();
    for range in ranges {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(first), Value::Int(_), Value::Array(primary), ..] = parts.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = primary.as_slice() else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            // It does not know its own address: it is where we asked.
            _ => split_address(asked)?.0,
        };
        routes.insert(u16::try_from(*first).ok()?, format!("{host}:{port}").into());
    }
    (!routes.is_empty()).then_some(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        for (tag, expected) in [
            ("123456789", 0x31c3),
            ("", 0),
            ("foo", 12182),
            ("bar", 5061),
        ] {
            assert_eq!(slot(tag), expected % SLOTS, "{tag}");
        }
    }
}
