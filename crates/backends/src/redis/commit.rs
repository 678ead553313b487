//! Carrying out chunks of requests: each exactly once, whatever happens to the connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{Pipeline, Value};

use super::{
    config::RedisConfig,
    figures::Figures,
    replicated::{Moment, Replicated},
    reply::{Answer, answer},
    servers::{Down, Server, Servers, send},
    waiting::{shortage, wait},
};

/// The script's error for a chunk that must not come before the one that was sent with it.
const BEHIND: &str = "BEHIND";
/// The script remembers as many answers of a writer; so many chunks of an app may be under way.
pub const CHUNKS_UNDER_WAY: usize = 8;

/// Requests of one app that one script run carries out.
#[derive(Debug)]
pub struct Chunk {
    /// Whose: what stands in the hash tag.
    pub tag: Arc<str>,
    /// Packed requests.
    pub payload: Vec<u8>,
    /// Number of the chunk among those of this writer and app, rising.
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
    /// Carried out on the primary, but too few replicas have it. Sent again, it is recognised there, or carried out on the primary that was promoted
    /// without it, before what comes after it.
    TooFew(Answer, Arc<str>),
    /// Not carried out.
    Refused(Arc<str>),
    /// It may have been carried out; nobody can know.
    Unknown(Arc<str>),
}

impl Fate {
    /// Why it is not known to be carried out, and to stay so; `None`: it is.
    pub fn failure(&self) -> Option<Arc<str>> {
        match self {
            Fate::Done(_) => None,
            Fate::Waiting(reason) => Some(reason.clone().unwrap_or_else(|| "redis is down".into())),
            Fate::Unclear(reason)
            | Fate::TooFew(_, reason)
            | Fate::Refused(reason)
            | Fate::Unknown(reason) => Some(reason.clone()),
        }
    }
}

/// Sends chunks until each has a fate.
pub struct Committer {
    /// Where to.
    pub servers: Arc<Servers>,
    /// Timeouts and durability.
    pub config: Arc<RedisConfig>,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// Where it is noted what replicas have.
    pub replicated: Arc<Replicated>,
    /// Name of this backend among the writers.
    pub writer: String,
    /// Bounds and retention times, packed.
    pub rules: Vec<u8>,
    /// Addresses of servers that were given up for lack of replicas, until they have enough: a second wait would be as long as the first.
    pub short: Mutex<BTreeSet<Arc<str>>>,
}

impl Committer {
    /// Carries chunks out, those of one app in their order. At most [`CHUNKS_UNDER_WAY`] of each app.
    pub async fn run(&self, chunks: &mut [Chunk]) {
        let deadline = Instant::now() + self.config.give_up_after;
        let mut pause = Duration::from_millis(5);
        let mut is_first = true;
        loop {
            let trouble = self.try_once(chunks, is_first).await;
            stop_behind_failures(chunks);
            let Some(trouble) = trouble else { return };
            is_first = false;
            if trouble.is_in_vain || Instant::now() >= deadline {
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
                fate @ (Fate::Waiting(_) | Fate::Unclear(_) | Fate::TooFew(..)) => fate,
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
                            is_in_vain: true,
                        })
                        .is_in_vain &= is_known;
                }
            }
        }
        let asked = self.replicated.moment();
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
                Ok(answers) => self.take(&server, asked, &indexes, answers, chunks).await,
                Err(reason) => {
                    self.servers.disconnect(&server);
                    let reason: Arc<str> = format!("redis {}: {reason}", server.address).into();
                    for index in indexes {
                        chunks[index].fate = Fate::Unclear(reason.clone());
                    }
                    Some(reason)
                }
            };
            if let Some(reason) = again {
                let is_in_vain = self.short().contains(&server.address)
                    && trouble.as_ref().is_none_or(|before| before.is_in_vain);
                trouble = Some(Trouble { reason, is_in_vain });
            }
        }
        trouble
    }

    fn pipeline(&self, server: &Server, indexes: &[usize], chunks: &[Chunk]) -> Pipeline {
        let mut pipeline = redis::pipe();
        let mut before: BTreeMap<&str, u64> = BTreeMap::new();
        for &index in indexes {
            let chunk = &chunks[index];
            let before = before.insert(&chunk.tag, chunk.number);
            pipeline
                .cmd("EVALSHA")
                .arg(&*server.script)
                .arg(1)
                .arg(key(&self.config.prefix, &chunk.tag))
                .arg(&chunk.payload)
                .arg(&self.writer)
                .arg(chunk.number)
                .arg(&self.rules)
                .arg(before.unwrap_or(0));
        }
        if self.config.waits() {
            wait(&mut pipeline, &self.config, &self.replicated, server);
        }
        pipeline
    }

    /// Takes the answers of a server. Returns why some chunks must be sent again, if so.
    async fn take(
        &self,
        server: &Server,
        asked: Moment,
        indexes: &[usize],
        mut answers: Vec<Value>,
        chunks: &mut [Chunk],
    ) -> Option<Arc<str>> {
        let waits = self.config.waits();
        let too_few = if waits {
            let waited = answers.split_off(indexes.len().min(answers.len()));
            let (servers, config) = (&self.servers, &self.config);
            shortage(servers, config, &self.replicated, server, &waited).await
        } else {
            None
        };
        if too_few.is_none() {
            self.short().remove(&server.address);
        }
        let mut again = None;
        for (&index, value) in indexes.iter().zip(answers) {
            let fate = match value {
                Value::BulkString(bytes) => match answer(&bytes) {
                    Ok(answer) => match &too_few {
                        Some(reason) if answer.writes > 0 => {
                            again.get_or_insert_with(|| reason.clone());
                            Fate::TooFew(answer, reason.clone())
                        }
                        Some(_) => Fate::Done(answer),
                        None => {
                            if waits {
                                let tag = &chunks[index].tag;
                                self.replicated.note(tag, &server.run, answer.place, asked);
                            }
                            Fate::Done(answer)
                        }
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
                    let mut reason: Arc<str> = text.trim_end().into();
                    if error.code() == BEHIND {
                        reason = again.clone().unwrap_or(reason);
                    }
                    let was_unclear =
                        matches!(chunks[index].fate, Fate::Unclear(_) | Fate::TooFew(..));
                    let fate = fate_of_error(error.code(), reason.clone(), was_unclear);
                    if matches!(fate, Fate::Waiting(_) | Fate::Unclear(_)) {
                        self.servers.disconnect(server);
                        again = Some(reason);
                    }
                    fate
                }
                other => Fate::Unknown(format!("redis: a script answered {other:?}").into()),
            };
            chunks[index].fate = fate;
        }
        again
    }

    fn short(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.short.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, chunks: &mut [Chunk], trouble: &Trouble) {
        for chunk in chunks {
            let fate = std::mem::replace(&mut chunk.fate, Fate::Waiting(None));
            let is_open = matches!(fate, Fate::Waiting(_) | Fate::Unclear(_) | Fate::TooFew(..));
            if is_open {
                // For a moment at least nothing is sent. Whoever is told that something is unknown sends it again; what waits behind it must not come
                // first.
                let reason = Down(trouble.reason.clone());
                let address = self.servers.address(&chunk.tag);
                if let (Fate::TooFew(..), Some(address)) = (&fate, &address) {
                    self.short().insert(address.clone());
                }
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
    /// Another try would change nothing: a task of its own tries to connect, or the server was given up for lack of replicas before.
    is_in_vain: bool,
}

/// The root of the keys of a tag.
pub fn key(prefix: &str, tag: &str) -> String {
    format!("{prefix}{{{tag}}}:")
}

/// What stands behind a chunk of its tag that was not carried out, and will not be, must not be carried out either: what is sent again would come after it.
fn stop_behind_failures(chunks: &mut [Chunk]) {
    let mut stopped: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for chunk in chunks {
        match (&chunk.fate, stopped.get(&chunk.tag)) {
            (Fate::Refused(reason) | Fate::Unknown(reason), None) => {
                stopped.insert(chunk.tag.clone(), reason.clone());
            }
            (Fate::Waiting(_), Some(reason)) => chunk.fate = Fate::Refused(reason.clone()),
            (Fate::Unclear(_) | Fate::TooFew(..), Some(reason)) => {
                chunk.fate = Fate::Unknown(reason.clone());
            }
            _ => {}
        }
    }
}

/// What an error that a script was answered with means for it. `was_unclear`: an earlier try may have been carried out.
fn fate_of_error(code: &str, reason: Arc<str>, was_unclear: bool) -> Fate {
    match code {
        // Raised by the first write, of which there was none before: a repetition would have been recognised without writing.
        "OOM" | "STALE" => Fate::Refused(reason),
        // Not carried out there, may be carried out elsewhere or later.
        BEHIND | "NOSCRIPT" | "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "READONLY"
        | "LOADING" | "MASTERDOWN" | "BUSY" | "NOREPLICAS" | "MISCONF" | "NOAUTH"
            if was_unclear =>
        {
            Fate::Unclear(reason)
        }
        "NOREPLICAS" | "MISCONF" | "NOAUTH" => Fate::Refused(reason),
        BEHIND | "NOSCRIPT" | "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "READONLY"
        | "LOADING" | "MASTERDOWN" | "BUSY" => Fate::Waiting(Some(reason)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_tried_again_behind_a_failure_of_its_tag() {
        let chunk = |tag: &str, fate| Chunk {
            tag: tag.into(),
            payload: Vec::new(),
            number: 1,
            fate,
        };
        let mut chunks = [
            chunk("a", Fate::Waiting(None)),
            chunk("a", Fate::Refused("full".into())),
            chunk("b", Fate::Waiting(None)),
            chunk("a", Fate::Waiting(None)),
            chunk("a", Fate::Unclear("no answer".into())),
        ];
        stop_behind_failures(&mut chunks);
        let fates = chunks.map(|chunk| match chunk.fate {
            Fate::Refused(reason) => format!("refused: {reason}"),
            Fate::Unknown(reason) => format!("unknown: {reason}"),
            _ => "open".to_owned(),
        });
        assert_eq!(
            fates,
            [
                "open",
                "refused: full",
                "open",
                "refused: full",
                "unknown: full"
            ]
        );
    }
}
