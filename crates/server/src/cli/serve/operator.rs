//! What an operator asks of a node that runs: admin commands, and SIGHUP.

use std::{path::Path, sync::Arc, thread::JoinHandle};

use anyhow::Context;
use campanile_api::{Store, cluster::Cluster};
use tokio::{
    runtime::{Builder, Runtime},
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::{admin::AdminSocket, auth::ClientAccess};

/// The thread that listens to the operator.
pub struct Operator {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Operator {
    /// Starts it. Without an admin socket the node goes on: a warning says so.
    pub fn start(
        data_dir: &Path,
        store: Arc<dyn Store>,
        cluster: Arc<dyn Cluster>,
        access: Arc<ClientAccess>,
    ) -> anyhow::Result<Operator> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let in_runtime = runtime.enter();
        let hangups = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        let socket = AdminSocket::open(data_dir).inspect_err(|error| tracing::warn!(%error, "no admin socket: \"campanile app\" needs the node stopped, and \"campanile cluster\" cannot reach it")).ok();
        drop(in_runtime);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("operator".to_owned())
            .spawn(move || {
                run(
                    &runtime,
                    socket,
                    (store, cluster),
                    hangups,
                    &access,
                    stopped,
                )
            })?;
        Ok(Operator { stop, thread })
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the operator's thread panicked");
        }
    }
}

fn run(
    runtime: &Runtime,
    socket: Option<AdminSocket>,
    (store, cluster): (Arc<dyn Store>, Arc<dyn Cluster>),
    mut hangups: Signal,
    access: &ClientAccess,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let (stop_socket, socket_stopped) = oneshot::channel::<()>();
        let serving = async {
            if let Some(socket) = socket {
                socket
                    .serve(store, cluster, async { drop(socket_stopped.await) })
                    .await;
            }
        };
        let listening = async {
            tokio::pin!(stopped);
            loop {
                select! {
                    _ = &mut stopped => break,
                    Some(()) = hangups.recv() => reload(access),
                }
            }
            drop(stop_socket);
        };
        tokio::join!(serving, listening);
    });
}

fn reload(access: &ClientAccess) {
    match access.reload() {
        Ok(()) => tracing::info!("password and ACL files read again"),
        Err(problems) => {
            for problem in &problems.0 {
                tracing::error!(%problem, "mistake in a password or ACL file");
            }
            tracing::error!("the password and ACL files of before stay in force");
        }
    }
}
