//! How much a link carries. Not a test: `cargo test --release -p campanile --lib peers::tests::bench -- --ignored --nocapture`

use std::time::Instant;

use campanile_broker::ids::Generation;

use super::*;
use crate::peers::Sent;

/// Messages that are sent.
const MESSAGES: u64 = 2_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn messages_a_second_over_loopback() {
    let mut a = Node::start_with(PeerConfig::default(), "a", 1);
    let mut b = Node::start_with(PeerConfig::default(), "b", 2);
    introduce(&[&a, &b]);
    a.is_up(Generation(2)).await;
    b.is_up(Generation(1)).await;
    let since = Instant::now();
    let sender = std::thread::spawn(move || {
        let message = deliver(QoS::AtMostOnce, &[0; 256]);
        let mut full = 0_u64;
        for _ in 0..MESSAGES {
            while a.links.send(Generation(2), message.clone()) == Sent::Full {
                full += 1;
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        (a, full)
    });
    for _ in 0..MESSAGES {
        // Without a deadline: its timer would be measured too.
        b.events.recv().await.unwrap();
    }
    let elapsed = since.elapsed();
    let (_a, full) = sender.join().unwrap();
    let rate = MESSAGES as f64 / elapsed.as_secs_f64();
    println!("{rate:.0} messages of 256 B a second, {elapsed:?}; {full} times full");
}
