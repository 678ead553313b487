//! What the handlers work with: the ports that the server supplies, and the limits around them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use campanile_push::{
    app::AppName,
    id::PushId,
    registry::{self, Context, Planned, Refusal},
    request::Limits,
    store::{Command, Erased, Outcome, Reader, Stored, Unavailable},
};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use crate::{
    Config,
    auth::KeyCache,
    cluster::Cluster,
    connect::Admission,
    outgoing::Outgoing,
    problem::{Code, Problem},
    rate::PushRates,
};

/// Reads of the store at a time: each occupies a thread that may wait for the disk.
const CONCURRENT_READS: usize = 64;

/// How long what an app keeps is believed: with a quota of stored bytes, so much more may be stored.
const STORED_FOR: Duration = Duration::from_secs(5);

/// The way to durable state.
pub trait Store: Send + Sync {
    /// Queues a command. The outcome arrives once it is durable. Where the queue is full, `Unavailable` is there at once;
    /// a sender that is dropped means that nobody knows the outcome. Must not block.
    fn submit(&self, command: Command) -> oneshot::Receiver<Result<Outcome, Unavailable>>;
    /// Removes at most about `limit` things that an app keeps, with its rows. Answers and refusals as of [`Store::submit`].
    fn erase(&self, app: &AppName, limit: u32) -> oneshot::Receiver<Result<Erased, Unavailable>>;
    /// Reads of what is committed. The reader's own calls may block.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// How the node is. No call may block.
pub trait Node: Send + Sync {
    /// Why the node should get no traffic now, one short sentence each; empty when it is ready.
    fn not_ready(&self) -> Vec<String>;
    /// Whether it is about to end: what goes on for ever ends now.
    fn is_stopping(&self) -> bool;
    /// All metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    /// What runs here.
    fn version(&self) -> Version;
    /// Connections of an app to this node.
    fn connections(&self, app: &AppName) -> u64;
}

/// What runs here, for `GET /version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Version {
    /// Semantic version of the binary.
    pub version: &'static str,
    /// The commit it was built from, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<&'static str>,
}

/// Unix milliseconds now.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
/// Makes push ids.
pub type NewId = Arc<dyn Fn() -> PushId + Send + Sync>;

/// What the server puts in.
pub struct Parts {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// The node around us.
    pub node: Arc<dyn Node>,
    /// The nodes that serve together.
    pub cluster: Arc<dyn Cluster>,
    /// The time.
    pub now_ms: Clock,
    /// New push ids.
    pub new_id: NewId,
    /// The way to receivers of webhooks and callbacks.
    pub outgoing: Arc<dyn Outgoing>,
    /// Settings.
    pub config: Config,
}

/// State shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

struct Shared {
    parts: Parts,
    keys: KeyCache,
    reads: Arc<Semaphore>,
    connects: Admission,
    push_rates: PushRates,
    stored: Mutex<HashMap<AppName, (Stored, Instant)>>,
    /// Event streams that may still be opened.
    streams: Arc<Semaphore>,
}

impl ApiState {
    /// State over these parts.
    pub fn new(parts: Parts) -> ApiState {
        let reads = Arc::new(Semaphore::new(CONCURRENT_READS));
        let streams = Arc::new(Semaphore::new(parts.config.max_event_streams));
        ApiState(Arc::new(Shared {
            streams,
            parts,
            keys: KeyCache::default(),
            reads,
            connects: Admission::default(),
            push_rates: PushRates::default(),
            stored: Mutex::default(),
        }))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.parts.config
    }

    pub(crate) fn node(&self) -> &dyn Node {
        &*self.0.parts.node
    }

    /// Room for one more event stream, if there is any.
    pub(crate) fn stream_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.streams).try_acquire_owned().ok()
    }

    pub(crate) fn outgoing(&self) -> Arc<dyn Outgoing> {
        Arc::clone(&self.0.parts.outgoing)
    }

    pub(crate) fn cluster(&self) -> &dyn Cluster {
        &*self.0.parts.cluster
    }

    pub(crate) fn connects(&self) -> &Admission {
        &self.0.connects
    }

    pub(crate) fn push_rates(&self) -> &PushRates {
        &self.0.push_rates
    }

    /// What an app keeps, looked at lately.
    pub(crate) async fn stored(&self, app: &AppName) -> Result<Stored, Problem> {
        let lately = {
            let stored = self.0.stored.lock().unwrap_or_else(PoisonError::into_inner);
            stored
                .get(app)
                .filter(|(_, at)| at.elapsed() < STORED_FOR)
                .map(|(stored, _)| *stored)
        };
        if let Some(stored) = lately {
            return Ok(stored);
        }
        let of = app.clone();
        let found = self.read(move |reader| reader.stored(&of)).await?;
        let mut stored = self.0.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.retain(|_, (_, at)| at.elapsed() < STORED_FOR);
        stored.insert(app.clone(), (found, Instant::now()));
        Ok(found)
    }

    pub(crate) fn keys(&self) -> &KeyCache {
        &self.0.keys
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.0.parts.now_ms)()
    }

    pub(crate) fn new_id(&self) -> PushId {
        (self.0.parts.new_id)()
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            payload_bytes: self.config().max_payload_bytes,
            plain_callbacks: self.config().webhooks.allow_http,
        }
    }

    /// Has a command carried out and waits until that is durable.
    pub(crate) async fn write(&self, command: Command) -> Result<Outcome, Problem> {
        self.wait_for(self.0.parts.store.submit(command)).await
    }

    /// Has some of what an app keeps removed, and waits until that is durable.
    pub(crate) async fn erase(&self, app: &AppName, limit: u32) -> Result<Erased, Problem> {
        self.wait_for(self.0.parts.store.erase(app, limit)).await
    }

    async fn wait_for<T>(
        &self,
        outcome: oneshot::Receiver<Result<T, Unavailable>>,
    ) -> Result<T, Problem> {
        match timeout(self.config().store_timeout(), outcome).await {
            Ok(Ok(Ok(outcome))) => Ok(outcome),
            Ok(Ok(Err(unavailable))) => Err(Problem::store_unavailable(&unavailable)),
            Ok(Err(_)) | Err(_) => Err(Problem::new(
                Code::OutcomeUnknown,
                "the store did not answer in time, so it may or may not have happened; send the same request again, a push with the same Idempotency-Key",
            )),
        }
    }

    /// Has a plan of the registry carried out, made anew as long as others come first, and waits until that is durable.
    pub(crate) async fn carry_out<T: Send + 'static>(
        &self,
        actor: String,
        plan: impl Fn(&Context<'_>) -> Result<Planned<T>, Refusal> + Send + Sync + 'static,
    ) -> Result<T, Problem> {
        let plan = Arc::new(plan);
        for _ in 0..registry::ATTEMPTS {
            let (plan, actor) = (Arc::clone(&plan), actor.clone());
            let (now_ms, PushId(unique)) = (self.now_ms(), self.new_id());
            let planned = self.read(move |reader| {
                let context = Context {
                    reader,
                    now_ms,
                    unique,
                    actor: &actor,
                };
                match plan(&context) {
                    Err(Refusal::Unavailable(why)) => Err(why),
                    planned => Ok(planned),
                }
            });
            let Planned { change, answer } = planned.await??;
            let Some(change) = change else {
                return Ok(answer);
            };
            let bounds = change.bounds.clone();
            let outcome = self.write(Command::Change(Box::new(change))).await?;
            if registry::settle(outcome, &bounds)? {
                return Ok(answer);
            }
            metrics::counter!("campanile_registry_conflicts_total").increment(1);
        }
        Err(Refusal::Contended.into())
    }

    /// Reads what the registry keeps.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Context<'_>) -> Result<T, Unavailable> + Send + 'static,
    ) -> Result<T, Problem> {
        let now_ms = self.now_ms();
        self.read(move |reader| {
            read(&Context {
                reader,
                now_ms,
                unique: 0,
                actor: "",
            })
        })
        .await
    }

    /// Reads what the registry keeps, where that may be refused.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Context<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let answer = self.look(move |context| match ask(context) {
            Err(Refusal::Unavailable(why)) => Err(why),
            answer => Ok(answer),
        });
        Ok(answer.await??)
    }

    /// Reads from the store where blocking is allowed.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Reader) -> Result<T, Unavailable> + Send + 'static,
    ) -> Result<T, Problem> {
        let reading = async {
            let permit = Arc::clone(&self.0.reads)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let reader = self.0.parts.store.reader();
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                read(&*reader)
            })
            .await
        };
        match timeout(self.config().store_timeout(), reading).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(unavailable))) => Err(Problem::store_unavailable(&unavailable)),
            Ok(Err(_)) => Err(Problem::internal("reading the store failed")),
            Err(_) => Err(Problem::store_unavailable(&Unavailable(
                "it did not answer in time".into(),
            ))),
        }
    }
}
