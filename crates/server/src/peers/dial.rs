//! The end that dials: again and again, until the peer is not wanted any more.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use campanile_broker::ids::Generation;
use prost::bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    events::EventSink,
    frame,
    hello::{Agreed, HELLO_BYTES_MAX, RefusalCode, Refused},
    link::{Connection, Known},
    table::Table,
    wire::{Reply, Verdict},
};

/// Between the first attempts.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Between later ones.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After a refusal that only a person can do something about.
const BACKOFF_REFUSED: Duration = Duration::from_secs(10);

/// Why there is no link yet.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("refused: {}", .0.text)]
    Refused(Refused),
}

/// Keeps a link to one peer.
pub async fn keep_dialing(
    table: Arc<Table>,
    own: Generation,
    known: Arc<Known>,
    events: EventSink,
) {
    let mut wanted = table.wanted.subscribe();
    let peer = &known.peer;
    let mut backoff = BACKOFF_MIN;
    let mut said = String::new();
    loop {
        let dialed = tokio::select! {
            _ = wanted.wait_for(|wanted| !wanted.covers(own, &known)) => return,
            dialed = timeout(table.config.silence, dial(&table, own, &known)) => dialed,
        };
        let error = match dialed {
            Ok(Ok((agreed, connection))) => {
                said.clear();
                let since = Instant::now();
                // A link that is not wanted any more is told so itself, and ends.
                table.serve(own, &known, agreed, connection, &events).await;
                if since.elapsed() > BACKOFF_MAX {
                    backoff = BACKOFF_MIN;
                }
                None
            }
            Ok(Err(error)) => Some(error),
            Err(_) => Some(DialError::Timeout),
        };
        let mut pause = backoff;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        if let Some(error) = error {
            table.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            match &error {
                // Its view of the members, or ours, is late.
                DialError::Refused(refused) if refused.code == RefusalCode::Unknown => {
                    backoff = BACKOFF_MIN;
                }
                DialError::Refused(_) => pause = BACKOFF_REFUSED,
                _ => {}
            }
            let reason = error.to_string();
            if reason == said {
                debug!(peer = %peer.name, address = %peer.address, %reason, "no link");
            } else {
                warn!(peer = %peer.name, generation = %peer.generation, address = %peer.address, %reason, "no link, retrying");
                said = reason;
            }
        }
        tokio::select! {
            _ = wanted.wait_for(|wanted| !wanted.covers(own, &known)) => return,
            () = sleep(jittered(pause)) => {}
        }
    }
}

async fn dial(
    table: &Table,
    own: Generation,
    known: &Known,
) -> Result<(Agreed, Connection), DialError> {
    let peer = &known.peer;
    let stream = TcpStream::connect(peer.address).await?;
    stream.set_nodelay(true)?;
    match &table.security {
        None => {
            let (reader, writer) = stream.into_split();
            introduce(table, own, known, Box::new(reader), Box::new(writer)).await
        }
        Some(security) => {
            let stream = security.connect(stream, peer).await?;
            let (reader, writer) = tokio::io::split(stream);
            introduce(table, own, known, Box::new(reader), Box::new(writer)).await
        }
    }
}

async fn introduce(
    table: &Table,
    own: Generation,
    known: &Known,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
) -> Result<(Agreed, Connection), DialError> {
    let speaker = table.speaker(own);
    let peer = known.peer.generation;
    let mut hello = BytesMut::new();
    frame::put(&speaker.hello(peer), HELLO_BYTES_MAX, &mut hello).map_err(std::io::Error::other)?;
    writer.write_all_buf(&mut hello).await?;
    writer.flush().await?;
    let mut received = BytesMut::new();
    let reply: Reply = frame::read(&mut reader, &mut received, HELLO_BYTES_MAX).await?;
    let agreed = match reply.verdict {
        Some(Verdict::Welcome(hello)) => {
            let expected = (hello.generation == peer.0).then_some(());
            let judged = speaker.judge(&hello, expected);
            judged.map_err(DialError::Refused)?.0
        }
        Some(Verdict::Refusal(refusal)) => {
            return Err(DialError::Refused(Refused {
                code: RefusalCode::from_number(refusal.code),
                text: refusal.text,
            }));
        }
        None => {
            return Err(DialError::Refused(Refused {
                code: RefusalCode::Other,
                text: "for a reason that only a later version knows".into(),
            }));
        }
    };
    let connection = Connection {
        reader,
        writer,
        received,
        to_send: BytesMut::new(),
    };
    Ok((agreed, connection))
}

/// Between half of it and all of it, so that nodes that lost a peer together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}
