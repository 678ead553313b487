//! Listeners: where clients come in, and how fast.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use campanile_broker::ids::AppId;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::{
    tickets::Tickets,
    tls::{ServerTls, TlsError, TlsSpec},
};

/// Connections that the kernel keeps while no shard accepts them: a reconnect storm's first second.
const BACKLOG: i32 = 4096;
/// Idle time before the kernel probes whether the peer is still there; carriers' NAT tables forget a silent connection after some minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A listener as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Its name in logs and metrics, unique in the node.
    pub name: String,
    /// Where it listens. Port 0: any free one.
    pub address: SocketAddr,
    /// The app that its clients belong to.
    pub app: String,
    /// TLS; `None`: plain text.
    pub tls: Option<TlsSpec>,
    /// MQTT over WebSocket under this path (and `/`); `None`: straight over TCP.
    pub websocket_path: Option<String>,
    /// Connections at a time; what comes beyond is closed at once.
    pub max_connections: usize,
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, not ours, or not allowed.
    #[error("listener {name}: cannot listen on {address}: {cause}")]
    Bind {
        /// The listener.
        name: String,
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// Its TLS setup is wrong.
    #[error("listener {name}: {cause}")]
    Tls {
        /// The listener.
        name: String,
        /// Why.
        cause: TlsError,
    },
}

/// A listener as all shards share it.
#[derive(Debug)]
pub struct Listening {
    /// Its name.
    pub name: Arc<str>,
    /// The app of its clients.
    pub app: AppId,
    /// TLS of its connections.
    pub tls: Option<ServerTls>,
    /// Path of its WebSockets.
    pub websocket_path: Option<Arc<str>>,
    /// The address that it is bound to.
    pub address: SocketAddr,
    max_connections: usize,
    connections: AtomicUsize,
    socket: std::net::TcpListener,
}

impl Listening {
    /// Binds and listens. `tickets` are those of all listeners of the node.
    pub fn open(spec: &ListenerSpec, tickets: &Arc<Tickets>) -> Result<Listening, ListenError> {
        let tls = spec
            .tls
            .as_ref()
            .map(|tls| tls.load(spec.websocket_path.is_some(), Some(tickets)))
            .transpose()
            .map_err(|cause| ListenError::Tls {
                name: spec.name.clone(),
                cause,
            })?;
        let bind_failed = |cause| ListenError::Bind {
            name: spec.name.clone(),
            address: spec.address,
            cause,
        };
        let socket = bind(spec.address).map_err(bind_failed)?;
        Ok(Listening {
            name: spec.name.as_str().into(),
            app: AppId::new(&spec.app),
            tls,
            websocket_path: spec.websocket_path.as_deref().map(Into::into),
            address: socket.local_addr().map_err(bind_failed)?,
            max_connections: spec.max_connections,
            connections: AtomicUsize::new(0),
            socket,
        })
    }

    /// Counts a connection in. `false`: there are as many as may be.
    pub fn enter(&self) -> bool {
        let fits = self.connections.fetch_add(1, Ordering::Relaxed) < self.max_connections;
        if !fits {
            self.leave();
        }
        fits
    }

    /// Counts a connection out.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// What devices connect to: `mqtt://`, `mqtts://`, `ws://` or `wss://`.
    pub fn url(&self) -> String {
        let scheme = match (&self.websocket_path, &self.tls) {
            (None, None) => "mqtt",
            (None, Some(_)) => "mqtts",
            (Some(_), None) => "ws",
            (Some(_), Some(_)) => "wss",
        };
        let path = self.websocket_path.as_deref().unwrap_or_default();
        format!("{scheme}://{}{path}", self.address)
    }

    /// Most connections at a time.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Connections now, all shards.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The listening socket for one more shard.
    pub fn socket(&self) -> io::Result<mio::net::TcpListener> {
        self.socket.try_clone().map(mio::net::TcpListener::from_std)
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Linux hands these options on to accepted sockets, which saves four system calls for each.
    set_options(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Options of every connection.
pub fn set_options(socket: &SockRef) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(Duration::from_secs(15))
            .with_retries(4),
    )
}

/// How fast the node accepts: a token bucket that its shards share, so that a reconnect storm does not starve the connected.
#[derive(Debug)]
pub struct AcceptBudget {
    per_second: f64,
    burst: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl AcceptBudget {
    /// A full bucket. `per_second` 0 means no limit.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> AcceptBudget {
        AcceptBudget {
            per_second: f64::from(per_second),
            burst: f64::from(burst.max(1)),
            bucket: Mutex::new(Bucket {
                tokens: f64::from(burst.max(1)),
                filled: now,
            }),
        }
    }

    /// Takes up to `wanted` tokens.
    pub fn take(&self, wanted: u32, now: Instant) -> u32 {
        if self.per_second == 0.0 {
            return wanted;
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(bucket.filled);
        bucket.filled = bucket.filled.max(now);
        let filled = bucket.tokens + elapsed.as_secs_f64() * self.per_second;
        bucket.tokens = filled.min(self.burst);
        let taken = wanted.min(bucket.tokens as u32);
        bucket.tokens -= f64::from(taken);
        taken
    }

    /// Gives back what was not used.
    pub fn give_back(&self, unused: u32) {
        if unused > 0 && self.per_second > 0.0 {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.tokens = (bucket.tokens + f64::from(unused)).min(self.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_its_burst_then_its_rate() {
        let start = Instant::now();
        let budget = AcceptBudget::new(100, 10, start);
        assert_eq!(budget.take(64, start), 10);
        assert_eq!(budget.take(64, start), 0);
        assert_eq!(budget.take(64, start + Duration::from_millis(50)), 5);
        budget.give_back(3);
        assert_eq!(budget.take(64, start + Duration::from_millis(50)), 3);
        assert_eq!(budget.take(64, start + Duration::from_secs(9)), 10);
    }

    #[test]
    fn rate_zero_is_no_limit() {
        let start = Instant::now();
        let budget = AcceptBudget::new(0, 0, start);
        assert_eq!(budget.take(64, start), 64);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn accepted_socket_inherits_its_options() {
        let spec = ListenerSpec {
            name: "test".into(),
            address: ([127, 0, 0, 1], 0).into(),
            app: "default".into(),
            tls: None,
            websocket_path: None,
            max_connections: 1,
        };
        let listening = Listening::open(&spec, &Arc::default()).unwrap();
        let _client = std::net::TcpStream::connect(listening.address).unwrap();
        let socket = listening.socket.try_clone().unwrap();
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEP_ALIVE);
    }
}
