//! The store that several nodes share: a Redis, alone, watched by sentinels, or a cluster.
//!
//! All state of an app lies under one hash tag, so that each request is one run of a Lua script on one server, atomic in a cluster
//! too (`docs/adr/0006-one-slot-per-app.md`). `lua` has the rules, `request` and `reply` their language, `commit` makes each chunk of a batch
//! happen exactly once, `lasting` keeps what may be lost from being told, `servers` finds the servers, `health` judges them.
//!
//! Deliberately absent: copies of state in the node. Other nodes write to the same Redis at any time.

mod commit;
mod config;
mod erase;
mod figures;
mod health;
mod lasting;
mod lua;
mod pack;
mod reader;
mod recover;
mod replicated;
mod reply;
mod request;
mod sentinels;
mod servers;
mod voters;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use campanile_broker::{
    ids::{AppId, Millis, Offset},
    store::{Command, Notice, Outcome, Recovery, StoreError, Swept, Voided},
};
use tokio::runtime::Runtime;

use self::{
    commit::{CHUNKS_UNDER_WAY, Chunk, Committer, Fate},
    pack::{Malformed, Pack, Packed},
    reader::RedisReader,
    replicated::Replicated,
    reply::{Announcer, Answer},
    request::{Place, pack, place, time_of},
    servers::{Down, Servers},
};
pub use self::{
    config::{ClientCertificate, Durability, RedisConfig, Tls, Topology},
    figures::{Counts, Figures},
};
use crate::{Backend, Committed, Config, Reader, Reply, Request};

/// The tag of what belongs to no app; no app is called so.
const APPS_TAG: &str = "$";
/// One run of the script carries out as many requests, or about as many bytes.
const CHUNK_REQUESTS: usize = 128;
const CHUNK_BYTES: usize = 1024 * 1024;
/// Apps that are swept in one round trip.
const APPS_AT_ONCE: usize = 32;

/// Why a Redis was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// A server would lose what it is given.
    #[error("{0}")]
    Unsafe(String),
    /// No server answers, or none is a primary.
    #[error("{0}")]
    Down(Arc<str>),
    /// The threads that keep the connections cannot be started.
    #[error("cannot start a thread for the connections to redis")]
    Thread(#[source] std::io::Error),
}

/// A [`Backend`] that keeps its state in a Redis.
pub struct Redis {
    runtime: Arc<Driver>,
    committer: Committer,
    reader: RedisReader,
    figures: Arc<Figures>,
    rules: Config,
    /// The latest time that a command brought.
    clock: Millis,
    /// The number of the next chunk of each tag.
    numbers: HashMap<Arc<str>, u64>,
    /// Apps that are in the list of those that have state.
    known: BTreeSet<Arc<str>>,
    /// How far erasures have come, by app.
    erasures: HashMap<Arc<str>, erase::Scan>,
}

impl Redis {
    /// Connects to the servers and looks whether they keep what they are given.
    ///
    /// Starts one thread, which drives the connections.
    pub fn open(config: RedisConfig, rules: Config) -> Result<Redis, OpenError> {
        if let Some(fault) = config.fault() {
            return Err(OpenError::Config(fault));
        }
        // A worker, since connections must be driven between the calls, and several threads read at the same time.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("redis")
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let config = Arc::new(config);
        let figures = Arc::new(Figures::default());
        let replicated = Arc::new(Replicated::default());
        let servers = || Servers::new(config.clone(), figures.clone(), lua::script());
        let committer = Committer {
            servers: servers(),
            config: config.clone(),
            figures: figures.clone(),
            replicated: replicated.clone(),
            writer: format!("{:032x}", random()),
            rules: packed_rules(&rules),
            short: Mutex::default(),
        };
        runtime.block_on(judge(&committer.servers, &config))?;
        let runtime = Arc::new(Driver(Some(runtime)));
        let reader = RedisReader {
            servers: servers(),
            marking: servers(),
            config,
            figures: figures.clone(),
            replicated,
            runtime: runtime.clone(),
            partitions: rules.topic_partitions,
        };
        Ok(Redis {
            runtime,
            committer,
            reader,
            figures,
            rules,
            clock: Millis(0),
            numbers: HashMap::new(),
            known: BTreeSet::new(),
            erasures: HashMap::new(),
        })
    }

    /// What the connections have been through; goes on counting.
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }
}

impl Backend for Redis {
    fn commit(&mut self, batch: Vec<Request>) -> Committed {
        let mut run = Run::new(&batch, self.rules.shared);
        let mut from = 0;
        for (index, request) in batch.iter().enumerate() {
            if place(request) == Place::Everywhere {
                self.run_by_app(&mut run, from..index);
                self.run_everywhere(&mut run, index);
                from = index + 1;
            }
        }
        self.run_by_app(&mut run, from..batch.len());
        let committed = run.finish();
        let is_unknown =
            |reply: &&Result<Reply, StoreError>| matches!(reply, Err(StoreError::Unknown(_)));
        let unknown = committed.replies.iter().filter(is_unknown).count();
        self.figures.count_unknown(unknown);
        committed
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.reader.clone())
    }

    fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        self.recover_at(now)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Redis {
    /// Carries out requests of single apps.
    fn run_by_app(&mut self, run: &mut Run<'_>, range: std::ops::Range<usize>) {
        let mut groups: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for index in range {
            let tag = match place(&run.batch[index]) {
                Place::App(app) => app,
                Place::Apps | Place::Everywhere => APPS_TAG.into(),
            };
            groups.entry(tag).or_default().push(index);
        }
        if groups.is_empty() {
            return;
        }
        if let Err(Down(reason)) = self.register(groups.keys()) {
            for index in groups.into_values().flatten() {
                run.replies[index] = Some(Err(StoreError::Unavailable(reason.clone())));
            }
            return;
        }
        let mut clocks = BTreeMap::new();
        for index in groups.values().flatten().copied().collect::<BTreeSet<_>>() {
            self.clock = self
                .clock
                .max(time_of(&run.batch[index]).unwrap_or_default());
            clocks.insert(index, self.clock);
        }
        let mut waiting: Vec<std::vec::IntoIter<(Chunk, Vec<usize>)>> = groups
            .into_iter()
            .map(|(tag, indexes)| self.chunks(run.batch, &tag, &indexes, &clocks).into_iter())
            .collect();
        loop {
            let (mut chunks, mut places): (Vec<Chunk>, Vec<Vec<usize>>) = waiting
                .iter_mut()
                .flat_map(|chunks| chunks.take(CHUNKS_UNDER_WAY))
                .filter(|(chunk, indexes)| !run.refuses(&chunk.tag, indexes))
                .unzip();
            if chunks.is_empty() {
                return;
            }
            self.runtime.block_on(self.committer.run(&mut chunks));
            for (chunk, indexes) in chunks.into_iter().zip(places.drain(..)) {
                run.take(chunk, &indexes);
            }
        }
    }

    fn chunks(
        &mut self,
        batch: &[Request],
        tag: &Arc<str>,
        indexes: &[usize],
        clocks: &BTreeMap<usize, Millis>,
    ) -> Vec<(Chunk, Vec<usize>)> {
        let mut chunks = Vec::new();
        let (mut packed, mut bytes, mut places) = (Vec::new(), 0, Vec::new());
        for &index in indexes {
            let request = pack(&batch[index], clocks[&index]);
            if places.len() >= CHUNK_REQUESTS || (bytes > 0 && bytes + request.len() > CHUNK_BYTES)
            {
                let requests = std::mem::take(&mut packed);
                chunks.push((self.chunk(tag, requests), std::mem::take(&mut places)));
                bytes = 0;
            }
            bytes += request.len();
            packed.push(request);
            places.push(index);
        }
        chunks.push((self.chunk(tag, packed), places));
        chunks
    }

    fn chunk(&mut self, tag: &Arc<str>, requests: Vec<Vec<u8>>) -> Chunk {
        let mut payload = Pack::default();
        payload.list(requests.iter(), |pack, request| {
            pack.raw(request);
        });
        let number = self.numbers.entry(tag.clone()).or_default();
        *number += 1;
        Chunk {
            tag: tag.clone(),
            payload: payload.into_bytes(),
            number: *number,
            fate: Fate::Waiting(None),
        }
    }

    /// Puts apps into the list of those that have state, before they have any: whoever sweeps goes by it.
    fn register<'a>(&mut self, tags: impl Iterator<Item = &'a Arc<str>>) -> Result<(), Down> {
        let new: Vec<Arc<str>> = tags
            .filter(|tag| &***tag != APPS_TAG && !self.known.contains(*tag))
            .cloned()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut request = Pack::default();
        request
            .array(2)
            .text("register")
            .list(new.iter(), |pack, app| {
                pack.text(app);
            });
        let mut chunks = [self.chunk(&APPS_TAG.into(), vec![request.into_bytes()])];
        self.runtime.block_on(self.committer.run(&mut chunks));
        let [chunk] = chunks;
        match chunk.fate.failure() {
            None => {
                self.known.extend(new);
                Ok(())
            }
            // Nothing of the requests was sent.
            Some(reason) => Err(Down(reason)),
        }
    }

    /// Apps that have state, those of other nodes included.
    fn apps(&self) -> Result<Vec<AppId>, StoreError> {
        let mut query = Pack::default();
        query.array(1).text("registered");
        let listed = self.reader.ask(APPS_TAG, query)?.list(reply::text);
        let mut apps: BTreeSet<Arc<str>> = listed
            .map_err(|Malformed| malformed())?
            .into_iter()
            .collect();
        apps.extend(self.known.iter().cloned());
        Ok(apps.iter().map(|app| AppId::new(app)).collect())
    }

    /// Carries out a request that concerns all apps, or all keys of one.
    fn run_everywhere(&mut self, run: &mut Run<'_>, index: usize) {
        let request = &run.batch[index];
        self.clock = self.clock.max(time_of(request).unwrap_or_default());
        let outcome = match request {
            Request::Broker(Command::Sweep { now, limit }) => {
                let mut all = Swept::default();
                self.each_app(run, index, *limit, |app, answer, limit| match answer {
                    None => Step::Pack(request::sweep(*now, limit)),
                    Some(answer) => Step::Used(reply::swept(app, answer).map(|swept| {
                        all.ended.extend(swept.ended);
                        all.wills.extend(swept.wills);
                        all.removed += swept.removed;
                        all.more |= swept.more;
                        swept.removed
                    })),
                })
                .map(|is_all| {
                    all.more |= !is_all;
                    Outcome::Swept(all)
                })
            }
            Request::Broker(Command::Erase { app, limit, .. }) => {
                self.erase(run, index, app, *limit).map(Outcome::Swept)
            }
            Request::Broker(Command::Void {
                generation,
                now,
                limit,
            }) if self.rules.shared => {
                let mut all = Voided::default();
                self.each_app(run, index, *limit, |app, answer, limit| match answer {
                    None => Step::Pack(request::void(*generation, *now, limit)),
                    Some(answer) => Step::Used(reply::voided(app, answer).map(|voided| {
                        let used = voided.wills.len().max(voided.ended.len());
                        all.wills.extend(voided.wills);
                        all.ended.extend(voided.ended);
                        all.more |= voided.more;
                        used as u32
                    })),
                })
                .map(|is_all| {
                    all.more |= !is_all;
                    Outcome::Voided(all)
                })
            }
            _ => Err(StoreError::Unavailable(
                "this store serves one node alone".into(),
            )),
        };
        run.replies[index] = Some(outcome.map(Reply::Broker));
    }

    /// Runs a request in app after app until `limit` is used up. Returns whether all apps had their turn.
    ///
    /// Fails only if it fails everywhere: what was done in some apps must be told, and the others have another turn.
    fn each_app(
        &mut self,
        run: &mut Run<'_>,
        index: usize,
        limit: u32,
        mut step: impl FnMut(&AppId, Option<Packed>, u32) -> Step,
    ) -> Result<bool, StoreError> {
        let apps = self.apps()?;
        let mut left = limit;
        let mut rest = apps.as_slice();
        let (mut failure, mut succeeded) = (None, false);
        while !rest.is_empty() {
            if left == 0 {
                return Ok(false);
            }
            let (now, later) = rest.split_at(rest.len().min(APPS_AT_ONCE).min(left as usize));
            rest = later;
            let share = left / now.len() as u32;
            let mut chunks = Vec::new();
            for app in now {
                if let Step::Pack(request) = step(app, None, share) {
                    chunks.push(self.chunk(&app.as_str().into(), vec![request]));
                }
            }
            self.runtime.block_on(self.committer.run(&mut chunks));
            for (app, chunk) in now.iter().zip(chunks) {
                let used = run.answer_of(chunk, index).and_then(|answer| {
                    match step(app, Some(answer), share) {
                        Step::Used(used) => used.map_err(|Malformed| malformed()),
                        Step::Pack(_) => Err(malformed()),
                    }
                });
                match used {
                    Ok(used) => (left, succeeded) = (left - used.min(left), true),
                    Err(error) => failure = Some(error),
                }
            }
        }
        match failure {
            Some(error) if !succeeded => Err(error),
            Some(error) => {
                tracing::warn!(%error, "not all apps were looked at");
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

/// The runtime that drives the connections. The last handle may be dropped in a task of another runtime, where a [`Runtime`] itself would panic.
struct Driver(Option<Runtime>);

impl Driver {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0
            .as_ref()
            .expect("there until it is dropped")
            .block_on(future)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the caller of [`Redis::each_app`] does with an app.
enum Step {
    /// This is what to run there.
    Pack(Vec<u8>),
    /// The answer was taken; that much of the limit is used.
    Used(Result<u32, Malformed>),
}

/// A batch on its way.
struct Run<'a> {
    batch: &'a [Request],
    replies: Vec<Option<Result<Reply, StoreError>>>,
    /// With the place of the request that caused it.
    notices: Vec<(usize, Notice)>,
    /// Places of requests that are answered once all nodes know what was changed before them.
    known: Vec<(usize, AppId, Offset)>,
    dropped: u32,
    writes: u32,
    announcer: Announcer,
    /// Nodes read what nobody announces.
    shared: bool,
    /// Tags of which something was not carried out, and why: nothing that stands behind it in the batch is.
    stopped: BTreeMap<Arc<str>, Arc<str>>,
}

impl<'a> Run<'a> {
    fn new(batch: &'a [Request], shared: bool) -> Run<'a> {
        Run {
            batch,
            shared,
            replies: vec![None; batch.len()],
            notices: Vec::new(),
            known: Vec::new(),
            dropped: 0,
            writes: 0,
            announcer: Announcer::default(),
            stopped: BTreeMap::new(),
        }
    }

    /// Whether the requests at these places stand behind one of their tag that was not carried out; then they are answered.
    fn refuses(&mut self, tag: &str, indexes: &[usize]) -> bool {
        let Some(reason) = self.stopped.get(tag) else {
            return false;
        };
        for &index in indexes {
            self.replies[index] = Some(Err(StoreError::Unavailable(reason.clone())));
        }
        true
    }

    /// Takes what became of a chunk of the requests at these places.
    fn take(&mut self, chunk: Chunk, indexes: &[usize]) {
        if let Some(reason) = chunk.fate.failure() {
            self.stopped.insert(chunk.tag.clone(), reason);
        }
        let (answer, too_few) = match self.split(chunk.fate) {
            Ok(split) => split,
            Err(error) => {
                for &index in indexes {
                    self.replies[index] = Some(Err(error.clone()));
                }
                return;
            }
        };
        let app = AppId::new(&chunk.tag);
        let mut replies = answer.replies.into_iter();
        for &index in indexes {
            let reply = replies.next().ok_or(Malformed);
            if let (Request::Broker(Command::Subscribe(_)), Ok(Packed::Number(last))) =
                (&self.batch[index], &reply)
            {
                self.known.push((index, app.clone(), Offset(*last)));
            }
            let reply = reply.and_then(|reply| reply::reply(&self.batch[index], reply));
            let reply = reply.unwrap_or_else(|Malformed| Err(malformed()));
            self.replies[index] = Some(match (&too_few, reply) {
                (Some(reason), Ok(_)) => Err(StoreError::Unknown(reason.clone())),
                (_, reply) => reply,
            });
        }
        self.announce(&app, answer.notices, indexes, too_few.is_some());
    }

    /// The answer to a chunk of one request that may be repeated: also one that too few replicas have.
    fn answer_of(&mut self, chunk: Chunk, index: usize) -> Result<Packed, StoreError> {
        let (answer, too_few) = self.split(chunk.fate)?;
        let app = AppId::new(&chunk.tag);
        self.announce(&app, answer.notices, &[index], too_few.is_some());
        answer.replies.into_iter().next().ok_or_else(malformed)
    }

    fn split(&mut self, fate: Fate) -> Result<(Answer, Option<Arc<str>>), StoreError> {
        let (answer, too_few) = match fate {
            Fate::Done(answer) => (answer, None),
            Fate::TooFew(answer, reason) => (answer, Some(reason)),
            Fate::Refused(reason) => return Err(StoreError::Unavailable(reason)),
            Fate::Unknown(reason) | Fate::Unclear(reason) => {
                return Err(StoreError::Unknown(reason));
            }
            Fate::Waiting(reason) => {
                let reason = reason.unwrap_or_else(|| "redis is down".into());
                return Err(StoreError::Unavailable(reason));
            }
        };
        self.dropped += answer.dropped;
        self.writes += answer.writes;
        Ok((answer, too_few))
    }

    fn announce(&mut self, app: &AppId, notices: Vec<Packed>, indexes: &[usize], too_few: bool) {
        if too_few && self.shared {
            // It may yet be lost. Once replicas have it, it is read.
            return;
        }
        for announced in notices {
            let notice = announced.array().and_then(|mut parts| {
                let number = parts.first().ok_or(Malformed)?.number()? as usize;
                let index = *indexes.get(number).ok_or(Malformed)?;
                parts.remove(0);
                let request = &self.batch[index];
                Ok((index, self.announcer.notice(index, request, app, parts)?))
            });
            match notice {
                Ok(notice) => self.notices.push(notice),
                Err(Malformed) => tracing::error!(%app, "a script announced nonsense"),
            }
        }
    }

    fn finish(mut self) -> Committed {
        // Stable, so that what one request caused stays in order.
        self.notices.sort_by_key(|(index, _)| *index);
        let told = self
            .notices
            .iter()
            .filter_map(|(index, notice)| match notice {
                Notice::Change { app, offset, .. } if self.shared => {
                    Some((*index, app.clone(), *offset))
                }
                _ => None,
            });
        let mut all: Vec<_> = told.chain(self.known).collect();
        all.retain(|(_, _, offset)| *offset > Offset::default());
        all.sort_by_key(|(index, _, offset)| (*index, *offset));
        let mut changed: Vec<(usize, AppId, Offset)> = Vec::new();
        for (index, app, offset) in all {
            match changed.last_mut() {
                Some(last) if last.0 == index && last.1 == app => last.2 = offset,
                _ => changed.push((index, app, offset)),
            }
        }
        let lost = || Err(StoreError::Unknown("redis: no answer to a request".into()));
        Committed {
            replies: self
                .replies
                .into_iter()
                .map(|reply| reply.unwrap_or_else(lost))
                .collect(),
            notices: self.notices.into_iter().map(|(_, notice)| notice).collect(),
            dropped: self.dropped,
            writes: self.writes,
            changed,
        }
    }
}

fn malformed() -> StoreError {
    StoreError::Unknown("redis: a script answered nonsense".into())
}

/// Looks whether the servers keep what they are given.
async fn judge(servers: &Arc<Servers>, config: &RedisConfig) -> Result<(), OpenError> {
    let down = |Down(reason)| OpenError::Down(reason);
    for mut server in servers.all().await.map_err(down)? {
        let address = server.address.clone();
        let facts = servers
            .facts(&address, &mut server.connection)
            .await
            .map_err(down)?;
        for fault in facts.faults(config) {
            if !fault.is_allowed {
                return Err(OpenError::Unsafe(fault.text));
            }
            tracing::warn!("{}", fault.text);
        }
        for doubt in facts.doubts(config) {
            tracing::warn!("{doubt}");
        }
    }
    Ok(())
}

fn packed_rules(rules: &Config) -> Vec<u8> {
    let mut pack = Pack::default();
    pack.array(9)
        .number(rules.inbox_max_entries.into())
        .number(rules.inbox_max_bytes)
        .number(rules.push_retention_ms)
        .number(rules.topic_log_max_age_ms)
        .number(rules.topic_log_max_bytes)
        .number(rules.topic_partitions.into())
        .truth(rules.shared)
        .number(rules.events_max_entries)
        .number(rules.events_max_age_ms);
    pack.into_bytes()
}

/// A number that no other backend has.
fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    (half() << 64) | half()
}
