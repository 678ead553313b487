//! Watches connections that were replaced by another one of the same client, until the node closes them.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use campanile_mqtt::Reason;

use super::account::Account;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The first byte of the packet.
const DISCONNECT: u8 = 0xe0;

/// Reads until the node closes; what comes is not acknowledged, so it comes again where the client is now.
pub fn watch(
    mut stream: TcpStream,
    account: Arc<Account>,
    client: &str,
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    let id = account.supersede(client);
    thread::spawn(move || {
        let _ = stream.set_read_timeout(Some(LOOK_EVERY));
        let mut buffer = [0; 16 * 1024];
        let mut last = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => last = [last, buffer[..count].to_vec()].concat(),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            // A DISCONNECT with its reason string fits.
            let surplus = last.len().saturating_sub(256);
            last.drain(..surplus);
        }
        account.closed(id, is_told(&last));
    })
}

/// Whether the last packet is a DISCONNECT with 0x8E.
fn is_told(last: &[u8]) -> bool {
    let tells = |at: usize| match last[at..] {
        [DISCONNECT, length, reason, ..] => {
            usize::from(length) == last.len() - at - 2 && reason == Reason::SessionTakenOver as u8
        }
        _ => false,
    };
    (0..last.len()).any(tells)
}
