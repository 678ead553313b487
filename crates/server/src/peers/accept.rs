//! The end that is dialed.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use campanile_broker::ids::Generation;
use prost::bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    events::EventSink,
    frame,
    hello::{HELLO_BYTES_MAX, RefusalCode, Refused},
    link::Connection,
    table::Table,
    wire::{Hello, Refusal, Reply, Verdict},
};

/// Connections that have not said yet who they are. More wait in the backlog of the socket.
pub const HANDSHAKES_MAX: usize = 64;
/// Before the next try when the operating system has no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Waits for the next connection, while there are not too many that have not said yet who they are.
pub async fn next(
    listener: &TcpListener,
    handshakes: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = handshakes.clone().acquire_owned().await;
    let permit = permit.expect("it is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream, address, permit),
            Err(error) => {
                warn!(%error, "peers: cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hears who it is, and serves its link if it may have one.
pub async fn serve(
    table: Arc<Table>,
    stream: TcpStream,
    address: SocketAddr,
    events: EventSink,
    handshake: OwnedSemaphorePermit,
) {
    let (hello, mut connection) = match timeout(table.config.silence, greet(&table, stream)).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return failed(&table, address, &error.to_string()),
        Err(_) => return failed(&table, address, "no hello in time"),
    };
    let (own, known) = {
        let wanted = table.wanted.borrow();
        let from = Generation(hello.generation);
        (wanted.own, wanted.peers.get(&from).cloned())
    };
    let speaker = table.speaker(own);
    let may_dial = known.filter(|known| known.peer.generation < own);
    let (agreed, known) = match speaker.judge(&hello, may_dial) {
        Ok(agreed) => agreed,
        Err(refused) => return refuse(&table, address, connection, refused).await,
    };
    let welcome = Reply {
        verdict: Some(Verdict::Welcome(speaker.hello(known.peer.generation))),
    };
    frame::put(&welcome, usize::MAX, &mut connection.to_send).expect("there is no bound");
    drop(handshake);
    table.serve(own, &known, agreed, connection, &events).await;
}

async fn greet(table: &Table, stream: TcpStream) -> std::io::Result<(Hello, Connection)> {
    stream.set_nodelay(true)?;
    let (mut reader, writer): (
        Box<dyn AsyncRead + Send + Unpin>,
        Box<dyn AsyncWrite + Send + Unpin>,
    ) = match &table.security {
        None => {
            let (reader, writer) = stream.into_split();
            (Box::new(reader), Box::new(writer))
        }
        Some(security) => {
            let (reader, writer) = tokio::io::split(security.accept(stream).await?);
            (Box::new(reader), Box::new(writer))
        }
    };
    let mut received = BytesMut::new();
    let hello = frame::read(&mut reader, &mut received, HELLO_BYTES_MAX).await?;
    let connection = Connection {
        reader,
        writer,
        received,
        to_send: BytesMut::new(),
    };
    Ok((hello, connection))
}

async fn refuse(table: &Table, address: SocketAddr, mut connection: Connection, refused: Refused) {
    table.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    let reason = &refused.text;
    match refused.code {
        // Membership reaches nodes at different times.
        RefusalCode::Unknown => debug!(%address, %reason, "refused a peer"),
        _ => warn!(%address, %reason, "refused a peer"),
    }
    let reply = Reply {
        verdict: Some(Verdict::Refusal(Refusal {
            code: refused.code as u32,
            text: refused.text,
        })),
    };
    let tell = async {
        frame::put(&reply, usize::MAX, &mut connection.to_send).expect("there is no bound");
        connection
            .writer
            .write_all_buf(&mut connection.to_send)
            .await?;
        connection.writer.shutdown().await
    };
    // It is refused whether it hears of it or not.
    let _ = timeout(table.config.silence, tell).await;
}

fn failed(table: &Table, address: SocketAddr, reason: &str) {
    table.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    debug!(%address, %reason, "a connection is no peer");
}
