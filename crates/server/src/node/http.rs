//! What the HTTP API needs from the node.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use campanile_api::{self as api, ApiState, Parts, Version};
use campanile_backends::Request;
use campanile_broker::{ids::AppId, store::Command};
use campanile_push::{app::AppName, id::PushId, store as push};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use super::{Inner, StartError, metrics, outgoing::Receivers, quotas, store::Tag};

/// Connections that the kernel keeps while none is accepted.
const BACKLOG: i32 = 1024;

/// Opens the API's socket.
pub(super) fn bind(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let open = || -> io::Result<std::net::TcpListener> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|cause| StartError::Http { address, cause })
}

/// The API's state over this node.
pub(super) fn state(node: &Arc<Inner>, config: api::Config) -> ApiState {
    metrics::recorder();
    let clock = node.shared.clock.clone();
    let (ids, id_clock) = (node.ids.clone(), clock.clone());
    ApiState::new(Parts {
        store: Arc::new(Store(node.clone())),
        node: Arc::new(Health(node.clone())),
        cluster: node.cluster(),
        now_ms: Arc::new(move || clock.now().0),
        new_id: Arc::new(move || PushId(ids.next(id_clock.now()).0)),
        outgoing: Arc::new(Receivers::new(
            config.webhooks.allow_private_targets,
            Duration::from_millis(config.webhooks.timeout_ms),
        )),
        config,
    })
}

pub(super) struct Store(pub(super) Arc<Inner>);

impl api::Store for Store {
    fn submit(
        &self,
        command: push::Command,
    ) -> oneshot::Receiver<Result<push::Outcome, push::Unavailable>> {
        // Whoever asked for the push waits for it; the order to count it goes with it, whatever becomes of it.
        let order = self.0.census.order(&command).map(|order| {
            let (nobody, _) = oneshot::channel();
            (Tag::Api(nobody), Request::Push(order))
        });
        let (answer, outcome) = oneshot::channel();
        let request = (Tag::Api(answer), Request::Push(command));
        for (tag, _) in self.0.store.submit(order.into_iter().chain([request])) {
            if let Tag::Api(answer) = tag {
                let _ = answer.send(Err(push::Unavailable(BUSY.into())));
            }
        }
        outcome
    }

    fn erase(
        &self,
        app: &AppName,
        limit: u32,
    ) -> oneshot::Receiver<Result<push::Erased, push::Unavailable>> {
        let (answer, outcome) = oneshot::channel();
        let erase = Command::Erase {
            app: AppId::new(app.as_str()),
            now: self.0.shared.clock.now(),
            limit,
        };
        let request = (Tag::Erase(answer), Request::Broker(erase));
        for (tag, _) in self.0.store.submit([request]) {
            if let Tag::Erase(answer) = tag {
                let _ = answer.send(Err(push::Unavailable(BUSY.into())));
            }
        }
        outcome
    }

    fn reader(&self) -> Arc<dyn push::Reader> {
        self.0.reader.clone()
    }
}

const BUSY: &str = "too many requests wait for it, or it is closing";

struct Health(Arc<Inner>);

impl api::Node for Health {
    fn not_ready(&self) -> Vec<String> {
        let node = &self.0;
        let mut reasons = Vec::new();
        if node.stopping.load(Ordering::Relaxed) {
            reasons.push("the node is stopping".to_owned());
        }
        let figures = node.store_figures.lock();
        let figures = figures.unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &figures.failing {
            reasons.push(format!("the store refuses writes: {reason}"));
        }
        reasons
    }

    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> String {
        metrics::render(&self.0)
    }

    fn connections(&self, app: &AppName) -> u64 {
        quotas::connections(&self.0.shared, &AppId::new(app.as_str()))
    }

    fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("CAMPANILE_COMMIT"),
        }
    }
}
