//! What the tests stand on: nodes, clients, and waiting for what should happen.

mod cli;
mod client;
mod http;
mod lines;
mod node;
mod raw;
mod tls;

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

pub use cli::{Tool, mosquitto_pub, mosquitto_sub};
pub use client::{Client, Kind, Message, MessageOptions, Protocol, Session, Transport, Will};
pub use http::{Push, Report, Response, request};
pub use lines::Lines;
pub use node::{Node, NodeOptions};
pub use raw::Raw;
pub use tls::Authority;

/// Longest wait for anything that should happen. Generous, since other tests run at the same time; passing tests never wait it out.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until an answer is there.
pub fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A tool that `./test` installs.
pub fn installed(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run ./test once, it installs the clients",
        path.display()
    );
    path
}
