//! Carrying out chunks of requests: each exactly once, whatever happens to the connection.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Pipeline, Value};

use super::{
    config::{Durability, RedisConfig, Topology},
    figures::Figures,
    reply::{Answer, answer},
    servers::{Down, Server, Servers, send},
};

/// The script remembers as many answers of a writer; so many chunks of an app may be under way.
pub const CHUNKS_UNDER_WAY: usize = 8;

/// Requests of one app that one script run carries out.
#[derive(Debug)]
pub struct Chunk {
    /// Whose: what stands in the hash tag.
    pub tag: Arc<str>,
    /// Packed requests.
    pub payload: Vec<u8>,
    /// Number of the chunk among those of this writer and app, without gaps.
    pub number: u64,
    /// How far it is.
    pub fate: Fate,
}

/// What became of a chunk.
#[derive(Debug)]
pub enum Fate {
    /// Not sent, or answered by an error before anything happened; the last of those.
    Waiting(Option<Arc<str>>),
    /// Sent, and the answer was lost: it may have been carried out.
    Unclear(Arc<str>),
    /// Carried out.
    Done(Answer),
    /// Carried out on the primary, but too few replicas have it.
    TooFew(Answer, Arc<str>),
    /// Not carried out.
    Refused(Arc<str>),
    /// It may have been carried out; nobody can know.
    Unknown(Arc<str>),
}

/// Sends chunks until each has a fate.
pub struct Committer {
    /// Where to.
    pub servers: Arc<Servers>,
    /// Timeouts and durability.
    pub config: Arc<RedisConfig>,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// Name of this backend among the writers.
    pub writer: String,
    /// Bounds and retention times, packed.
    pub rules: Vec<u8>,
}

impl Committer {
    /// Carries chunks out, those of one app in their order. At most [`CHUNKS_UNDER_WAY`] of each app.
    pub async fn run(&self, chunks: &mut [Chunk]) {
        let deadline = Instant::now() + self.config.give_up_after;
        let mut pause = Duration::from_millis(5);
        let mut is_first = true;
        loop {
            let trouble = self.try_once(chunks, is_first).await;
            let Some(trouble) = trouble else { return };
            is_first = false;
            if trouble.is_down_already || Instant::now() >= deadline {
                self.give_up(chunks, &trouble);
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
            // What it finds out, the next try says.
            let _ = self.servers.find().await;
        }
    }

    /// Sends what is not decided. Returns what went wrong, if anything did that another try may mend.
    async fn try_once(&self, chunks: &mut [Chunk], is_first: bool) -> Option<Trouble> {
        let mut by_server: BTreeMap<Arc<str>, (Server, Vec<usize>)> = BTreeMap::new();
        let mut trouble: Option<Trouble> = None;
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let fate = match &mut chunk.fate {
                fate @ (Fate::Waiting(_) | Fate::Unclear(_)) => fate,
                _ => continue,
            };
            match self.servers.of(&chunk.tag).await {
                Ok(server) => {
                    let entry = by_server.entry(server.address.clone());
                    entry.or_insert_with(|| (server, Vec::new())).1.push(index);
                }
                Err(Down(reason)) => {
                    if let Fate::Waiting(last) = fate {
                        *last = Some(reason.clone());
                    }
                    let is_known = self.servers.is_down(&chunk.tag);
                    trouble
                        .get_or_insert(Trouble {
                            reason,
                            is_down_already: true,
                        })
                        .is_down_already &= is_known;
                }
            }
        }
        let sent = futures_of(by_server.into_values().map(|(server, indexes)| {
            let pipeline = self.pipeline(&server, &indexes, chunks);
            let timeout = self.config.command_timeout;
            let mut connection = server.connection.clone();
            async move {
                let answers = send(&mut connection, &pipeline, timeout).await;
                (server, indexes, answers)
            }
        }));
        for (server, indexes, answers) in sent.await {
            self.figures.count_round_trip(indexes.len());
            if !is_first {
                self.figures.count_retries(indexes.len());
            }
            let again = match answers {
                Ok(answers) => self.take(&server, &indexes, answers, chunks).await,
                Err(reason) => {
                    let reason: Arc<str> = format!("redis {}: {reason}", server.address).into();
                    for index in indexes {
                        chunks[index].fate = Fate::Unclear(reason.clone());
                    }
                    Some(reason)
                }
            };
            if let Some(reason) = again {
                self.servers.disconnect(&server);
                let is_down_already = false;
                trouble = Some(Trouble {
                    reason,
                    is_down_already,
                });
            }
        }
        trouble
    }

    fn pipeline(&self, server: &Server, indexes: &[usize], chunks: &[Chunk]) -> Pipeline {
        let mut pipeline = redis::pipe();
        for &index in indexes {
            let chunk = &chunks[index];
            pipeline
                .cmd("EVALSHA")
                .arg(&*server.script)
                .arg(1)
                .arg(key(&self.config.prefix, &chunk.tag))
                .arg(&chunk.payload)
                .arg(&self.writer)
                .arg(chunk.number)
                .arg(&self.rules);
        }
        if self.waits() {
            // Some of the time for an answer is left for the way.
            let patience = self.config.command_timeout.as_millis() as u64 * 3 / 4;
            // Not WAITAOF: a server that syncs its file with every write answers after that anyway, and replicas tell only once a second how far they
            // have synced theirs.
            pipeline
                .cmd("WAIT")
                .arg(self.config.min_replicas)
                .arg(patience.max(1));
        }
        pipeline
    }

    fn waits(&self) -> bool {
        self.config.durability == Durability::Replicated && self.config.min_replicas > 0
    }

    /// Takes the answers of a server. Returns why some chunks must be sent again, if so.
    async fn take(
        &self,
        server: &Server,
        indexes: &[usize],
        mut answers: Vec<Value>,
        chunks: &mut [Chunk],
    ) -> Option<Arc<str>> {
        let too_few = if self.waits() {
            answers
                .pop()
                .and_then(|waited| self.shortage(server, &waited))
        } else {
            None
        };
        let mut again = None;
        for (&index, value) in indexes.iter().zip(answers) {
            let fate = match value {
                Value::BulkString(bytes) => match answer(&bytes) {
                    Ok(answer) => match &too_few {
                        Some(reason) if answer.writes > 0 => Fate::TooFew(answer, reason.clone()),
                        _ => Fate::Done(answer),
                    },
                    Err(_) => Fate::Unknown("redis: a script answered nonsense".into()),
                },
                Value::ServerError(error) => {
                    let text = format!(
                        "redis {}: {} {}",
                        server.address,
                        error.code(),
                        error.details().unwrap_or_default()
                    );
                    let reason: Arc<str> = text.trim_end().into();
                    let was_unclear = matches!(chunks[index].fate, Fate::Unclear(_));
                    let fate = fate_of_error(error.code(), reason.clone(), was_unclear);
                    if matches!(fate, Fate::Waiting(_) | Fate::Unclear(_)) {
                        again = Some(reason);
                    }
                    fate
                }
                other => Fate::Unknown(format!("redis: a script answered {other:?}").into()),
            };
            chunks[index].fate = fate;
        }
        if too_few.is_some() && matches!(self.config.topology, Topology::Sentinel { .. }) {
            // It may have been cut off, and another one promoted. If the sentinels are not there either, it stays.
            let _ = self.servers.find().await;
        }
        again
    }

    /// Why what was written is not durable, if so.
    fn shortage(&self, server: &Server, waited: &Value) -> Option<Arc<str>> {
        let wanted = i64::from(self.config.min_replicas);
        let address = &server.address;
        match waited {
            Value::Int(replicas) if *replicas >= wanted => None,
            Value::Int(replicas) => {
                Some(format!("redis {address}: {replicas} of {wanted} replicas have it").into())
            }
            other => Some(format!("redis {address}: waiting for replicas: {other:?}").into()),
        }
    }

    fn give_up(&self, chunks: &mut [Chunk], trouble: &Trouble) {
        for chunk in chunks {
            let fate = std::mem::replace(&mut chunk.fate, Fate::Waiting(None));
            let is_open = matches!(fate, Fate::Waiting(_) | Fate::Unclear(_));
            if is_open {
                let reason = Down(trouble.reason.clone());
                let address = self.servers.address(&chunk.tag);
                self.servers.give_up(address.as_ref(), &reason);
            }
            chunk.fate = match fate {
                Fate::Waiting(reason) => {
                    Fate::Refused(reason.unwrap_or_else(|| trouble.reason.clone()))
                }
                Fate::Unclear(reason) => Fate::Unknown(reason),
                decided => decided,
            };
        }
    }
}

/// Why chunks are not decided.
struct Trouble {
    reason: Arc<str>,
    /// Nothing was tried, since a task of its own does that already.
    is_down_already: bool,
}

/// The root of the keys of a tag.
pub fn key(prefix: &str, tag: &str) -> String {
    format!("{prefix}{{{tag}}}:")
}

/// What an error that a script was answered with means for it. `was_unclear`: an earlier try may have been carried out.
fn fate_of_error(code: &str, reason: Arc<str>, was_unclear: bool) -> Fate {
    match code {
        // Raised by the first write, of which there was none before: a repetition would have been recognised without writing.
        "OOM" | "STALE" => Fate::Refused(reason),
        // Not carried out there, may be carried out elsewhere or later.
        "NOSCRIPT" | "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "LOADING"
        | "MASTERDOWN" | "BUSY" | "NOREPLICAS" | "MISCONF" | "NOAUTH"
            if was_unclear =>
        {
            Fate::Unclear(reason)
        }
        "NOREPLICAS" | "MISCONF" | "NOAUTH" => Fate::Refused(reason),
        "NOSCRIPT" | "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "LOADING"
        | "MASTERDOWN" | "BUSY" => Fate::Waiting(Some(reason)),
        // The script broke off, who knows where.
        _ => {
            tracing::error!(%reason, "a script failed");
            Fate::Unknown(reason)
        }
    }
}

/// Runs futures at the same time and returns what they come to, in order.
async fn futures_of<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let mut futures: Vec<F> = futures.collect();
    if futures.len() == 1 {
        return match futures.pop() {
            Some(future) => vec![future.await],
            None => Vec::new(),
        };
    }
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.extend(task.await);
    }
    outputs
}
