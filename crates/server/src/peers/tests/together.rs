//! Nodes that get on with each other, come and go.

use campanile_broker::{cluster::peer::PeerMessage, ids::Generation, store::QoS};

use super::*;
use crate::peers::{DownReason, Sent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_in_both_directions() {
    let (mut a, mut b) = (Node::start("a", 1), Node::start("b", 2));
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
    for number in 1..=5000 {
        assert_eq!(a.links.send(Generation(2), ticket(number)), Sent::Queued);
        assert_eq!(b.links.send_all(&ticket(number)), 1);
    }
    for number in 1..=5000 {
        assert_eq!(ticket_of(a.message(Generation(2)).await), number);
        assert_eq!(ticket_of(b.message(Generation(1)).await), number);
    }
    until(|| a.links.figures().peers[0].counts.messages_out == 5000).await;
    let figures = a.links.figures();
    assert_eq!(figures.total, figures.peers[0].counts);
    assert_eq!((figures.total.ups, figures.total.downs), (1, 0));
    assert_eq!(figures.total.messages_in, 5000);
    let link = figures.peers[0].link.as_ref().unwrap();
    assert_eq!((link.queued_messages, link.queued_bytes), (0, 0));
    assert_eq!((link.protocol, &*link.program), (1, "0.1.0"));
}

#[tokio::test]
async fn of_three_nodes_each_hears_the_two_others() {
    let mut nodes = [
        Node::start("a", 1),
        Node::start("b", 2),
        Node::start("c", 3),
    ];
    introduce(&nodes.each_ref());
    for node in &mut nodes {
        let mut up = Vec::new();
        for _ in 0..2 {
            match node.event().await {
                LinkEvent::Up { generation, .. } => up.push(generation),
                other => panic!("{other:?}"),
            }
        }
        up.sort();
        assert_eq!(node.links.up(), up);
        assert!(!up.contains(&node.generation));
    }
    assert_eq!(nodes[0].links.send_all(&ticket(1)), 2);
    for node in &mut nodes[1..] {
        assert_eq!(ticket_of(node.message(Generation(1)).await), 1);
    }
}

#[tokio::test]
async fn node_that_restarts_is_another_peer() {
    let (mut a, mut b) = (Node::start("a", 1), Node::start("b", 2));
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
    b.links.stop().await;
    assert!(b.events.recv().await.is_none());
    assert_eq!(a.is_down(Generation(2)).await, DownReason::Closed);
    assert_eq!(a.links.send(Generation(2), ticket(1)), Sent::NoLink);
    let listen = b.links.address();
    let mut b = Node::start_with(PeerConfig { listen, ..quick() }, "b", 3);
    introduce(&[&a, &b]);
    a.is_up(Generation(3)).await;
    b.is_up(Generation(1)).await;
    b.links.send(Generation(1), ticket(2));
    assert_eq!(ticket_of(a.message(Generation(3)).await), 2);
}

#[tokio::test]
async fn links_are_made_anew_when_the_node_registers_anew() {
    let (mut a, mut b) = (Node::start("a", 1), Node::start("b", 2));
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
    a.generation = Generation(3);
    a.links.set_own(Generation(3));
    assert_eq!(a.links.send(Generation(2), ticket(1)), Sent::NoLink);
    assert_eq!(a.is_down(Generation(2)).await, DownReason::Reregistered);
    assert_eq!(b.is_down(Generation(1)).await, DownReason::Closed);
    introduce(&[&a, &b]);
    // It is b's turn to dial now.
    a.is_up(Generation(2)).await;
    b.is_up(Generation(3)).await;
}

#[tokio::test]
async fn peer_that_is_not_listed_any_more_is_left_and_back_when_it_is_listed_again() {
    let (mut a, mut b) = (Node::start("a", 1), Node::start("b", 2));
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
    b.links.set_peers(Vec::new());
    assert_eq!(b.links.send(Generation(1), ticket(1)), Sent::NoLink);
    assert_eq!(b.is_down(Generation(1)).await, DownReason::Unlisted);
    assert_eq!(a.is_down(Generation(2)).await, DownReason::Closed);
    // a is told that it is unknown, and retries.
    until(|| a.links.figures().handshakes_failed > 2).await;
    b.links.set_peers(vec![a.peer()]);
    b.is_up(Generation(1)).await;
    a.is_up(Generation(2)).await;
    a.links.set_peers(Vec::new());
    a.links.set_peers(vec![b.peer()]);
    assert_eq!(a.is_down(Generation(2)).await, DownReason::Unlisted);
    a.is_up(Generation(2)).await;
}

#[tokio::test]
async fn node_that_learns_of_the_other_later_is_linked_at_once() {
    let (mut a, mut b) = (Node::start("a", 1), Node::start("b", 2));
    a.links.set_peers(vec![b.peer()]);
    until(|| b.links.figures().handshakes_failed > 3).await;
    assert!(b.links.up().is_empty());
    b.links.set_peers(vec![a.peer()]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
}

#[tokio::test]
async fn node_of_another_cluster_is_refused() {
    let (a, b) = (
        Node::start("a", 1),
        Node::start_as(
            Dialect::OWN,
            quick(),
            PeerIdentity {
                cluster: "other".into(),
                ..identity("b", 2)
            },
        ),
    );
    introduce(&[&a, &b]);
    until(|| a.links.figures().handshakes_failed > 0).await;
    until(|| b.links.figures().handshakes_failed > 0).await;
    assert_eq!(a.links.figures().total.ups, 0);
    assert_eq!(b.links.figures().total.ups, 0);
}

#[tokio::test]
async fn node_without_a_generation_has_no_links() {
    let (mut a, mut b) = (Node::start("a", 0), Node::start("b", 2));
    introduce(&[&a, &b]);
    assert!(a.links.up().is_empty());
    a.generation = Generation(1);
    a.links.set_own(Generation(1));
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
}

#[tokio::test]
async fn slow_node_holds_its_peers_back_until_the_queue_is_full() {
    let small = PeerConfig {
        queue_messages_max: 100,
        events_max: 4,
        events_bytes_max: 1 << 20,
        ..quick()
    };
    let mut a = Node::start_with(small.clone(), "a", 1);
    let mut b = Node::start_with(small, "b", 2);
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    // b reads nothing: its events are full, then the sockets, then the queue.
    let payload = [0; 100_000];
    let mut queued = 0;
    soon(async {
        loop {
            match a
                .links
                .send(Generation(2), deliver(QoS::AtMostOnce, &payload))
            {
                Sent::Queued => queued += 1,
                Sent::Full if a.links.figures().total.messages_dropped > 1000 => break,
                Sent::Full => tokio::task::yield_now().await,
                Sent::NoLink => panic!("the link is gone"),
            }
        }
    })
    .await;
    // It is alive for longer than silence is allowed, and nothing of what was queued is missing.
    let since = tokio::time::Instant::now();
    until(|| since.elapsed() > quick().silence * 2).await;
    b.is_up(Generation(1)).await;
    for _ in 0..queued {
        match b.message(Generation(1)).await {
            PeerMessage::Deliver { message, .. } => assert_eq!(message.payload(), payload),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(a.links.figures().total.resets, 0);
    assert_eq!(a.links.figures().total.downs, 0);
}

#[tokio::test]
async fn message_that_must_not_be_missing_resets_a_full_link() {
    let small = PeerConfig {
        queue_bytes_max: 1 << 20,
        events_max: 1,
        ..quick()
    };
    let mut a = Node::start_with(small.clone(), "a", 1);
    let mut b = Node::start_with(small, "b", 2);
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    let payload = [0; 100_000];
    soon(async {
        while a
            .links
            .send(Generation(2), deliver(QoS::AtLeastOnce, &payload))
            == Sent::Queued
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(a.is_down(Generation(2)).await, DownReason::Overrun);
    assert_eq!(a.links.figures().total.resets, 1);
    assert_eq!(a.links.figures().total.messages_dropped, 0);
    // Both start anew.
    b.is_up(Generation(1)).await;
    loop {
        match b.event().await {
            LinkEvent::Message { .. } => {}
            LinkEvent::Down { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    b.is_up(Generation(1)).await;
    a.is_up(Generation(2)).await;
    a.links.send(Generation(2), ticket(1));
    assert_eq!(ticket_of(b.message(Generation(1)).await), 1);
}

#[tokio::test]
async fn message_larger_than_the_peer_reads_is_not_sent() {
    let small = PeerConfig {
        frame_bytes_max: 1000,
        ..quick()
    };
    let mut a = Node::start("a", 1);
    let mut b = Node::start_with(small, "b", 2);
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
    let payload = [0; 1000];
    a.links
        .send(Generation(2), deliver(QoS::AtMostOnce, &payload));
    a.links.send(Generation(2), ticket(1));
    assert_eq!(ticket_of(b.message(Generation(1)).await), 1);
    until(|| a.links.figures().total.messages_dropped == 1).await;
    a.links
        .send(Generation(2), deliver(QoS::AtLeastOnce, &payload));
    assert_eq!(a.is_down(Generation(2)).await, DownReason::TooLarge);
    assert_eq!(b.is_down(Generation(1)).await, DownReason::Closed);
    assert_eq!(a.links.figures().total.resets, 1);
}
