//! Watches connections that were replaced by another one of the same client, until the node closes them.

use std::{
    net::TcpStream,
    sync::{Arc, atomic::AtomicBool},
    thread::{self, JoinHandle},
};

use super::account::Account;
use crate::conversation;

/// Reads until the node closes; what comes is not acknowledged, so it comes again where the client is now.
pub fn watch(
    stream: TcpStream,
    account: Arc<Account>,
    client: &str,
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    let id = account.supersede(client);
    thread::spawn(move || {
        let was_told = conversation::watch_end(stream, &stop);
        account.closed(id, was_told);
    })
}
