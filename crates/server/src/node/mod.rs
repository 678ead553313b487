//! One node: the parts, how they are put together, and in which order they stop.
//!
//! Start at [`Node::start`]. Threads: one per shard (`shard-N`, a `Driver`), the store's writer and readers, those that judge
//! credentials (`auth`), the `ticker`, the `census`, and a few of tokio's for HTTP and signals. `store` carries requests and answers between them.

mod alone;
mod auth;
mod census;
mod cluster;
mod config;
mod http;
mod leading;
mod metrics;
mod outgoing;
mod process;
mod quotas;
mod registrar;
mod signals;
mod store;
mod sys;
mod ticker;
mod tickets;
mod totals;

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::RecvTimeoutError,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use campanile_backends::{
    Backend, Reader,
    audiences::{LiveAudiences, Watched},
    embedded::{Embedded, OpenError},
    memory::Memory,
    redis::{self, Redis, RedisConfig},
    worker::{ReadMailbox, ReadPool, StoreMailbox, StoreWorker},
};
use campanile_broker::{
    access::Access,
    effects::Ticket,
    ids::{Generation, IdSource, ShardId},
    shard::{Setup, Shard},
    store::{Recovery, StoreError},
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

pub use config::{HttpSpec, NodeConfig, StoreSpec};

pub use self::cluster::{ClusterSpec, JoinError};
use self::{
    auth::AuthPool,
    census::{Census, CensusMailbox},
    cluster::{
        Desk, HubMailbox, HubThread, Joined, MemberCell, Surroundings, presentation, relieve,
    },
    leading::Leading,
    quotas::WithinQuotas,
    registrar::Registrar,
    signals::{Signals, Told, end_at_once},
    store::{PageRouter, Router, ShardServices, StoreFigures, Tag},
    ticker::{Rhythm, Ticker},
    tickets::{keep_fresh, own_ring},
};
use crate::auth::{DeviceCredentials, REFRESH_EVERY};
use crate::net::{
    clock::Clock,
    driver::{self, Driver, Shared},
    listener::{AcceptBudget, ListenError, Listening},
    mailbox::Letter,
    tickets::Tickets,
    tls::ServerTls,
};

/// How long shards may take to stop: their own limit and some.
const SHARDS_STOP: Duration = Duration::from_millis(3500);
/// How long a node waits for what the store holds before it gives up starting.
const READY: Duration = Duration::from_secs(60);
/// How long a node that stops waits for ZooKeeper.
const LEAVE: Duration = Duration::from_secs(2);
/// How long HTTP requests may go on when the node stops.
const HTTP_DRAIN: Duration = Duration::from_secs(2);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The API's socket cannot be opened.
    #[error("http: cannot listen on {address}: {cause}")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The Redis cannot be used.
    #[error("redis: {0}")]
    Redis(#[from] redis::OpenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node cannot become a member of its cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// What is stored cannot be read.
    #[error("cannot read what is stored: {0}")]
    Recover(StoreError),
    /// The operating system refuses a thread, a poll or random bytes.
    #[error("the operating system refuses: {0}")]
    System(#[from] io::Error),
}

/// Why [`Node::wait`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM or SIGINT.
    Signal(&'static str),
    /// An operator had the node drained, and its last device has gone.
    Drained,
    /// A part of the node has died; what it held in memory is gone.
    Failed(String),
}

/// A running node. Dropped without [`Node::stop`] it ends with the process only.
pub struct Node {
    inner: Arc<Inner>,
    shards: Vec<JoinHandle<()>>,
    /// Ends when the last shard's thread has ended.
    shards_ended: std::sync::mpsc::Receiver<()>,
    failures: mpsc::UnboundedReceiver<String>,
    /// Says once that the node was drained.
    is_drained: mpsc::Receiver<()>,
    runtime: Runtime,
    http: Option<Http>,
    leading: Leading,
    ticker: Ticker,
    census: Census,
    reads: ReadPool<(ShardId, Ticket)>,
    auth: Vec<JoinHandle<()>>,
    credentials: Arc<DeviceCredentials>,
    worker: StoreWorker<Tag>,
    hub: Option<HubThread>,
}

/// What the parts of a node share.
struct Inner {
    name: String,
    shared: Arc<Shared>,
    ids: Arc<IdSource>,
    store: StoreMailbox<Tag>,
    reads: ReadMailbox<(ShardId, Ticket)>,
    reader: Arc<dyn Reader>,
    store_figures: Arc<Mutex<StoreFigures>>,
    redis_figures: Option<Arc<redis::Figures>>,
    stopping: AtomicBool,
    /// Of a member of a cluster, once it serves.
    member: MemberCell,
    /// The way to the hub of a member of a cluster.
    hub: Option<HubMailbox>,
    census: CensusMailbox,
    /// Of a node alone, to its shards.
    questions: Arc<alone::Questions>,
    /// Campaigns that the node that leads looks after.
    watched: Arc<Watched>,
}

impl Inner {
    /// The nodes that serve together, as operators and the HTTP API see them.
    fn cluster(self: &Arc<Inner>) -> Arc<dyn campanile_api::cluster::Cluster> {
        match self.member.get() {
            Some(member) => Arc::new(Desk {
                node: self.clone(),
                member: member.clone(),
            }),
            None => Arc::new(alone::Alone(self.clone())),
        }
    }

    /// Whether this node is the one that removes what has expired and makes the pushes of schedules. While nobody can say who leads, all do: it costs, but harms nothing.
    fn may_sweep(&self) -> bool {
        if self.hub.is_none() {
            return true;
        }
        let Some(member) = self.member.get() else {
            return false;
        };
        let membership = member.zookeeper.membership();
        let leads = membership
            .leader
            .as_deref()
            .is_some_and(|leader| leader == self.name);
        leads || !membership.reachable
    }
}

/// Who does for shards what takes long.
struct Aides {
    auth: AuthPool,
    registrar: Registrar,
}

/// What a shard's thread holds while it lives.
#[derive(Clone)]
struct Alarm {
    failed: mpsc::UnboundedSender<String>,
    running: std::sync::mpsc::Sender<()>,
}

struct Http {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Opens the sockets and the store, then begins to serve.
    pub fn start(mut config: NodeConfig) -> Result<Node, StartError> {
        let clock = Clock::start();
        let files = process::raise_file_limit();
        let tickets = Arc::<Tickets>::default();
        tickets.replace(own_ring(clock.now().0).map_err(io::Error::from)?);
        let listeners = config.listeners.iter();
        let listeners: Vec<_> = listeners
            .map(|spec| Listening::open(spec, &tickets))
            .collect::<Result<_, _>>()?;
        let http_socket = config
            .http
            .as_ref()
            .map(|http| http::bind(http.address))
            .transpose()?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.control_threads.max(1))
            .thread_name("control")
            .enable_all()
            .build()?;
        let (mut backend, redis_figures) = open(&config.store)?;
        let recovery = backend.recover(clock.now()).map_err(StartError::Recover)?;
        let reader = backend.reader();
        tracing::info!(
            sessions = recovery.sessions.len(),
            retained = recovery.retained.len(),
            wills = recovery.wills.len(),
            elapsed_ms = clock.uptime().as_millis() as u64,
            "state recovered"
        );

        let joined = config
            .cluster
            .as_ref()
            .map(|spec| {
                let http = http_socket
                    .as_ref()
                    .and_then(|socket| socket.local_addr().ok());
                let info = presentation(&config, spec, &listeners, http, &clock);
                Joined::join(spec.clone(), info, runtime.handle())
            })
            .transpose()?;

        let count = config.shard_count();
        let hub_waiting = Arc::<AtomicUsize>::default();
        let (hub, hub_letters) = HubMailbox::new(hub_waiting.clone());
        let hub = joined.as_ref().map(|_| hub);
        let seats: io::Result<Vec<_>> = (0..count).map(|_| driver::seat()).collect();
        let (polls, mailboxes): (Vec<_>, Vec<_>) = seats?.into_iter().unzip();
        let shared = Arc::new(Shared {
            clock,
            listeners,
            tickets,
            accept_budget: AcceptBudget::new(
                config.accepts_per_second,
                config.accept_burst,
                Instant::now(),
            ),
            max_sockets: usize::try_from(files)
                .unwrap_or(usize::MAX)
                .saturating_sub(config.reserved_files)
                .max(1),
            figures: mailboxes.iter().map(|_| Mutex::default()).collect(),
            mailboxes,
            hub_waiting,
        });

        let (failed, failures) = mpsc::unbounded_channel();
        let store_figures = Arc::new(Mutex::new(StoreFigures::default()));
        let router = Router::new(
            shared.clone(),
            hub.clone(),
            store_figures.clone(),
            failed.clone(),
        );
        let worker = StoreWorker::spawn(backend, config.worker.clone(), router)?;
        let reads = ReadPool::spawn(
            reader.clone(),
            config.read_threads,
            config.read_queue,
            PageRouter {
                shared: shared.clone(),
                hub: hub.clone(),
            },
        )?;
        let shares = quotas::Shares::default();
        let within_quotas: Arc<dyn Access> = Arc::new(WithinQuotas {
            access: config.access.clone(),
            shared: shared.clone(),
            shares: shares.clone(),
        });
        config.access = within_quotas;
        let apps = shared.listeners.iter().map(|listener| listener.app.clone());
        let apps: std::collections::BTreeSet<_> = apps.collect();
        let credentials = config.credentials.clone();
        credentials.start(reader.clone(), shared.clock.clone(), apps.iter().cloned());
        runtime.spawn(refresh_credentials(credentials.clone()));
        let (auth_pool, auth) = AuthPool::spawn(&config, shared.clone())?;
        let (census, orders) = CensusMailbox::new();
        let inner = Arc::new(Inner {
            census,
            questions: Arc::default(),
            watched: Arc::new(Watched::default()),
            name: config.name.clone(),
            ids: Arc::new(IdSource::new(random()?)),
            store: worker.mailbox(),
            reads: reads.mailbox(),
            reader,
            store_figures,
            redis_figures,
            stopping: AtomicBool::new(false),
            member: MemberCell::new(),
            hub: hub.clone(),
            shared,
        });
        let generation = joined.as_ref().map(|joined| joined.generation);
        let (drained, is_drained) = mpsc::channel(1);
        let hub = match (joined, hub) {
            (Some(joined), Some(hub)) => {
                let surroundings = Surroundings {
                    shared: inner.shared.clone(),
                    store: inner.store.clone(),
                    reads: inner.reads.clone(),
                    hub,
                    letters: hub_letters,
                    failed: failed.clone(),
                };
                let partitions = config.broker.topic_partitions;
                let (member, thread) = joined.start(
                    surroundings,
                    apps.into_iter().collect(),
                    partitions,
                    runtime.handle(),
                )?;
                if !thread.wait_ready(READY) {
                    return Err(StartError::Recover(StoreError::Unavailable(
                        "it did not say in time what it holds".into(),
                    )));
                }
                let member = Arc::new(member);
                let relief = relieve(
                    member.clone(),
                    inner.shared.clone(),
                    config.name.as_str().into(),
                );
                runtime.spawn(async move {
                    relief.await;
                    // Nobody waits for it any more when the node stops.
                    let _ = drained.send(()).await;
                });
                let _ = inner.member.set(member);
                Some(thread)
            }
            _ => None,
        };

        let (running, shards_ended) = std::sync::mpsc::channel();
        let alarm = Alarm { failed, running };
        let mut api = config.http.as_ref().map(|http| http.api.clone());
        if let Some(api) = &mut api {
            api.drain_timeout_ms = api.drain_timeout_ms.min(HTTP_DRAIN.as_millis() as u64);
        }
        let api = api.unwrap_or_default();
        let state = http::state(&inner, api.clone());
        let aides = Aides {
            auth: auth_pool,
            registrar: Registrar::start(&runtime, state.clone(), inner.shared.clone()),
        };
        let shards = spawn_shards(&config, &inner, polls, recovery, generation, &aides, &alarm)?;
        drop((alarm, aides));
        runtime.spawn(keep_fresh(inner.clone()));
        let census = Census::spawn(inner.clone(), orders, config.count_every)?;
        // Before anybody is let in, if the store can be read.
        ticker::read_quotas(&inner, &shares);
        let ticker = Ticker::spawn(
            inner.clone(),
            shares,
            Rhythm {
                sweep_every: config.sweep_every,
                sweep_limit: config.sweep_limit,
                sys_every: config.sys_every,
            },
        )?;
        let leading = Leading::start(&runtime, &inner, &state);
        let http = match (config.http, http_socket) {
            (Some(_), Some(socket)) => Some(Http::start(&runtime, state, api, socket)?),
            _ => None,
        };

        let node = Node {
            inner,
            shards,
            shards_ended,
            failures,
            is_drained,
            runtime,
            http,
            leading,
            ticker,
            census,
            reads,
            auth,
            credentials,
            worker,
            hub,
        };
        node.announce(&config.name);
        Ok(node)
    }

    /// The addresses that clients connect to, by listener, in the order of the configuration.
    pub fn addresses(&self) -> Vec<(&str, SocketAddr)> {
        let listeners = self.inner.shared.listeners.iter();
        listeners
            .map(|listener| (&*listener.name, listener.address))
            .collect()
    }

    /// The address of the HTTP API.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// The way to durable state, as the HTTP API has it.
    pub fn store(&self) -> Arc<dyn campanile_api::Store> {
        Arc::new(http::Store(self.inner.clone()))
    }

    /// The nodes that serve together, as operators and the HTTP API see them.
    pub fn cluster(&self) -> Arc<dyn campanile_api::cluster::Cluster> {
        self.inner.cluster()
    }

    /// Where tasks beside those of the node may run. They are cut off when the node stops.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// All metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        metrics::render(&self.inner)
    }

    /// Reads the certificates of all TLS listeners again, for connections to come. One that is not as it should be stays as it was.
    pub fn reload_certificates(&self) {
        reload_certificates(&self.inner.shared.listeners);
    }

    /// Waits until the process is told to stop, the node was drained, or a part of it has died. A further signal ends the process at once. SIGHUP reads the
    /// certificates again.
    pub fn wait(&mut self) -> Ended {
        let (failures, is_drained) = (&mut self.failures, &mut self.is_drained);
        let listeners = &self.inner.shared.listeners;
        self.runtime.block_on(async {
            let mut signals = match Signals::listen() {
                Ok(signals) => signals,
                Err(error) => return Ended::Failed(format!("cannot listen for signals: {error}")),
            };
            loop {
                tokio::select! {
                    told = signals.next() => match told {
                        Told::Reload => reload_certificates(listeners),
                        Told::Stop(signal) => {
                            tokio::spawn(end_at_once(signals));
                            return Ended::Signal(signal);
                        }
                    },
                    Some(()) = is_drained.recv() => {
                        tokio::spawn(end_at_once(signals));
                        return Ended::Drained;
                    }
                    // A sender lives as long as the store's thread, and says why that ends.
                    failure = failures.recv() => return Ended::Failed(failure.unwrap_or_default()),
                }
            }
        })
    }

    /// Stops: no new connections, every client is told, every session saved, the store closed. Takes less than five seconds, unless the disk does.
    pub fn stop(self) -> Result<(), StoreError> {
        let began = Instant::now();
        self.inner.stopping.store(true, Ordering::Relaxed);
        if let Some(member) = self.inner.member.get() {
            member.say_goodbye(&self.inner);
        }
        let http = self.http.map(|http| {
            // Dropped, it says stop.
            drop(http.stop);
            http.task
        });
        self.leading.stop(&self.runtime);
        self.ticker.stop();
        self.census.stop();
        for mailbox in &self.inner.shared.mailboxes {
            mailbox.post(Letter::Stop);
        }
        let all_ended = self.shards_ended.recv_timeout(SHARDS_STOP);
        let all_ended = all_ended == Err(RecvTimeoutError::Disconnected);
        if let Some(task) = http {
            let drained = self
                .runtime
                .block_on(async { tokio::time::timeout(HTTP_DRAIN, task).await });
            if drained.is_err() {
                tracing::warn!("HTTP requests did not end in time");
            }
        }
        self.reads.shutdown();
        if all_ended {
            join_all(self.shards);
            // The last way to these threads went with the shards.
            join_all(self.auth);
        } else {
            tracing::error!("a shard does not stop; its clients are cut off");
        }
        self.credentials.stop();
        let closed = self.worker.shutdown();
        match &closed {
            Ok(()) => {
                let elapsed_ms = began.elapsed().as_millis() as u64;
                tracing::info!(elapsed_ms, "node stopped");
            }
            Err(error) => tracing::error!(%error, "the store did not close in order"),
        }
        if let Some(hub) = self.hub {
            // Until now it has passed on the store's answers.
            hub.stop();
        }
        if let Some(member) = self.inner.member.get() {
            let left = async { tokio::time::timeout(LEAVE, member.leave()).await };
            if self.runtime.block_on(left).is_err() {
                tracing::warn!("ZooKeeper did not answer; the others will miss this node soon");
            }
        }
        // To the end somebody listens for a second signal.
        self.runtime.shutdown_timeout(Duration::from_millis(100));
        closed
    }

    fn announce(&self, name: &str) {
        for listener in &self.inner.shared.listeners {
            tracing::info!(
                listener = %listener.name,
                address = %listener.address,
                tls = listener.tls.is_some(),
                websocket = listener.websocket_path.as_deref(),
                "listening"
            );
        }
        if let Some(address) = self.http_address() {
            tracing::info!(listener = "http", %address, "listening");
        }
        tracing::info!(
            node = name,
            version = env!("CARGO_PKG_VERSION"),
            shards = self.inner.shared.mailboxes.len(),
            max_sockets = self.inner.shared.max_sockets,
            elapsed_ms = self.inner.shared.clock.uptime().as_millis() as u64,
            "node started"
        );
    }
}

type Opened = (Box<dyn Backend>, Option<Arc<redis::Figures>>);

/// Reads the keys and rules of devices again and again, as long as the runtime lives.
async fn refresh_credentials(credentials: Arc<DeviceCredentials>) {
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        let credentials = credentials.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || credentials.refresh_all()).await {
            tracing::error!(%error, "reading the credentials of devices again panicked");
        }
    }
}

/// The store, and its own figures if it has some.
fn open(spec: &StoreSpec) -> Result<Opened, StartError> {
    let mut figures = None;
    let backend: Box<dyn Backend> = match spec {
        StoreSpec::Memory(config) => Box::new(Memory::new(config.clone())),
        StoreSpec::Embedded(config) => Box::new(Embedded::open(config.clone())?),
        StoreSpec::Redis(config, rules) => {
            let redis = Redis::open(RedisConfig::clone(config), rules.clone())?;
            figures = Some(redis.figures());
            Box::new(redis)
        }
    };
    Ok((backend, figures))
}

fn spawn_shards(
    config: &NodeConfig,
    inner: &Arc<Inner>,
    polls: Vec<mio::Poll>,
    recovery: Recovery,
    cluster: Option<Generation>,
    aides: &Aides,
    alarm: &Alarm,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let recovery = Arc::new(recovery);
    let broker = Arc::new(config.broker.clone());
    let seed = random()?;
    let count = polls.len() as u8;
    let mut threads = Vec::with_capacity(polls.len());
    for (poll, number) in polls.into_iter().zip(0..) {
        let id = ShardId(number);
        let setup = Setup {
            id,
            count,
            config: broker.clone(),
            access: config.access.clone(),
            audiences: Box::new(LiveAudiences::new(inner.watched.clone())),
            ids: inner.ids.clone(),
            seed,
            cluster,
        };
        let services = ShardServices {
            shard: id,
            shared: inner.shared.clone(),
            store: inner.store.clone(),
            reads: inner.reads.clone(),
            auth: aides.auth.clone(),
            registrar: aides.registrar.clone(),
            questions: inner.questions.clone(),
            hub: inner.hub.clone(),
        };
        let (shared, recovery, alarm) = (inner.shared.clone(), recovery.clone(), alarm.clone());
        let serve = move || -> io::Result<()> {
            let machine = Shard::new(setup, &recovery, shared.clock.now());
            drop(recovery);
            Driver::new(id, poll, shared, machine, services)?.run()
        };
        let thread = std::thread::Builder::new().name(format!("shard-{number}"));
        threads.push(thread.spawn(move || {
            let Alarm { failed, running } = alarm;
            // Half a change may be left in a shard that panicked, so it cannot go on: the node stops, and its clients go elsewhere or come back.
            let failure = match catch_unwind(AssertUnwindSafe(serve)) {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("shard {number} cannot go on: {error}")),
                Err(_) => Some(format!("shard {number} panicked")),
            };
            if let Some(failure) = failure {
                tracing::error!(reason = %failure, "a shard has died, the node must stop");
                let _ = failed.send(failure);
            }
            drop(running);
        })?);
    }
    Ok(threads)
}

fn reload_certificates(listeners: &[Listening]) {
    for listener in listeners {
        match listener.tls.as_ref().map(ServerTls::reload) {
            None => {}
            Some(Ok(())) => tracing::info!(listener = %listener.name, "certificate read again"),
            Some(Err(error)) => {
                tracing::error!(listener = %listener.name, %error, "the certificate stays as it was");
            }
        }
    }
}

fn join_all(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread panicked");
        }
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::from)
}

impl Http {
    fn start(
        runtime: &Runtime,
        state: campanile_api::ApiState,
        config: campanile_api::Config,
        socket: std::net::TcpListener,
    ) -> Result<Http, StartError> {
        let address = socket.local_addr()?;
        let router = campanile_api::router(state);
        let _in_runtime = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = runtime.spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            campanile_api::serve(listener, router, &config, stopped).await;
        });
        Ok(Http {
            address,
            stop,
            task,
        })
    }
}

#[cfg(test)]
mod tests;
