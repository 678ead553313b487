//! The task that owns all others: it listens, and dials whom this node is to dial.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use campanile_broker::ids::Generation;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};
use tracing::error;

use super::{accept, dial, events::EventSink, table::Table};

/// Runs until the links are to stop, then ends every task.
pub async fn keep(table: Arc<Table>, listener: TcpListener, events: EventSink) {
    let mut wanted = table.wanted.subscribe();
    let mut tasks = JoinSet::new();
    let mut dialing: HashMap<(Generation, Generation, SocketAddr), AbortHandle> = HashMap::new();
    let handshakes = Arc::new(Semaphore::new(accept::HANDSHAKES_MAX));
    loop {
        let now = wanted.borrow_and_update().clone();
        if now.stopping {
            break;
        }
        // A dialer ends by itself when its peer is not wanted any more; if it was listed again meanwhile, this comes back when it has ended.
        dialing.retain(|_, task| !task.is_finished());
        // One connection per pair: the smaller generation, which is the older run, dials.
        let later = now.peers.values();
        let later = later.filter(|known| now.own < known.peer.generation);
        for known in later.filter(|_| now.own != Generation::ALONE) {
            let pair = (now.own, known.peer.generation, known.peer.address);
            dialing.entry(pair).or_insert_with(|| {
                let (table, events) = (table.clone(), events.clone());
                tasks.spawn(dial::keep_dialing(table, now.own, known.clone(), events))
            });
        }
        tokio::select! {
            (stream, address, permit) = accept::next(&listener, &handshakes) => {
                tasks.spawn(accept::serve(table.clone(), stream, address, events.clone(), permit));
            }
            changed = wanted.changed() => if changed.is_err() { break; },
            Some(ended) = tasks.join_next() => if let Err(failed) = ended {
                error!(%failed, "a peer task has failed");
            },
        }
    }
    tasks.shutdown().await;
}
