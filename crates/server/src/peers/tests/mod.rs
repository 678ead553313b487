//! Links of several nodes in one process, over loopback.

mod bench;
mod previous;
mod round_trip;
mod secure;
mod strangers;
mod together;

use std::{future::Future, sync::Arc, time::Duration};

use campanile_broker::{
    cluster::peer::PeerMessage,
    ids::{AppId, Generation, MessageId},
    message::{Kind, Message},
    store::QoS,
};
use tokio::runtime::Handle;

use super::{LinkEvent, LinkEvents, Links, Peer, PeerConfig, PeerIdentity, hello::Dialect};

/// What takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// A node's links.
struct Node {
    links: Links,
    events: LinkEvents,
    generation: Generation,
    name: Arc<str>,
}

/// Links that do not wait long.
fn quick() -> PeerConfig {
    PeerConfig {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_millis(500),
        ..PeerConfig::default()
    }
}

fn identity(name: &str, generation: u64) -> PeerIdentity {
    PeerIdentity {
        name: name.into(),
        generation: Generation(generation),
        version: "0.1.0".into(),
        cluster: "test".into(),
    }
}

impl Node {
    fn start(name: &str, generation: u64) -> Node {
        Node::start_with(quick(), name, generation)
    }

    fn start_with(config: PeerConfig, name: &str, generation: u64) -> Node {
        Node::start_as(Dialect::OWN, config, identity(name, generation))
    }

    fn start_as(dialect: Dialect, config: PeerConfig, identity: PeerIdentity) -> Node {
        let (generation, name) = (identity.generation, identity.name.clone());
        let (links, events) =
            Links::start_speaking(dialect, config, identity, &Handle::current()).unwrap();
        Node {
            links,
            events,
            generation,
            name,
        }
    }

    /// As the others know it.
    fn peer(&self) -> Peer {
        Peer {
            generation: self.generation,
            name: self.name.clone(),
            address: self.links.address(),
        }
    }

    async fn event(&mut self) -> LinkEvent {
        soon(self.events.recv()).await.expect("links are running")
    }

    async fn is_up(&mut self, peer: Generation) {
        match self.event().await {
            LinkEvent::Up { generation, .. } => assert_eq!(generation, peer),
            other => panic!("{other:?}"),
        }
    }

    async fn is_down(&mut self, peer: Generation) -> super::DownReason {
        match self.event().await {
            LinkEvent::Down { generation, reason } => {
                assert_eq!(generation, peer);
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    async fn message(&mut self, peer: Generation) -> PeerMessage {
        match self.event().await {
            LinkEvent::Message {
                generation,
                message,
            } => {
                assert_eq!(generation, peer);
                message
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Lets all nodes know of each other.
fn introduce(nodes: &[&Node]) {
    for node in nodes {
        let peers = nodes.iter().map(|node| node.peer()).collect();
        node.links.set_peers(peers);
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, what).await;
    done.expect("it does not happen")
}

/// Waits until a condition holds.
async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn message(qos: QoS, payload: &[u8]) -> Arc<Message> {
    let mut message = Message::new(MessageId(7), Kind::Publish, "a/b", &[], payload);
    message.qos = qos;
    Arc::new(message)
}

fn deliver(qos: QoS, payload: &[u8]) -> PeerMessage {
    PeerMessage::Deliver {
        app: AppId::new("app"),
        message: message(qos, payload),
    }
}

fn ticket(ticket: u64) -> PeerMessage {
    PeerMessage::SharedDone { ticket }
}

fn ticket_of(message: PeerMessage) -> u64 {
    match message {
        PeerMessage::SharedDone { ticket } => ticket,
        other => panic!("{other:?}"),
    }
}
