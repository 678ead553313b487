//! The apps as the hub knows them: logs in order, and what is read from the store when nobody announced it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Hub, POLL_MS, Request,
    sequencer::{InTurn, Sequencer},
    waits::Then,
};
use crate::{
    cluster::peer::PeerMessage,
    ids::{AppId, Millis, Offset},
    mail::{ClusterMail, Mail},
    store::{
        Change, Changes, ChangesQuery, LogEntry, LogKind, Notice, Page, Query, Snapshot, StoreError,
    },
};

/// Of each kind in one read.
const PAGE: u32 = 1024;
/// How long an entry may wait for the announcement of one before it until the store is asked.
const EARLY_MS: u64 = 10;
/// Entries that may wait for a change that was not announced; beyond, they are read from the store again.
const MAX_UNJUDGED: usize = 4096;
/// After a read that failed.
const RETRY_MS: u64 = 250;

/// What the hub knows of an app.
#[derive(Debug)]
pub struct AppState {
    logs: BTreeMap<LogKind, Sequencer<LogEntry>>,
    changes: Sequencer<Change>,
    /// Entries with an audience whose devices are not known before a change that is still to come.
    unjudged: Vec<Unjudged>,
    notes: Offset,
    /// The shards were sent changes up to here.
    sent: Offset,
    /// They are being asked whether they have taken them.
    syncing: bool,
    /// They have taken changes up to here.
    pub synced: Offset,
    /// A snapshot was taken: the app can be served.
    pub is_loaded: bool,
    /// A read is under way; `None` for the time: it is to be read when it has come.
    next_poll: Option<Millis>,
    /// When the last change was learnt: it is no younger.
    pub learnt: Millis,
    /// Everything is known until here.
    known_until: Millis,
    /// Shards wait until the store is read that is asked after this.
    look_after: Option<Millis>,
}

/// An announced entry that waits for a change.
#[derive(Debug)]
struct Unjudged {
    log: LogKind,
    previous: Offset,
    entry: LogEntry,
    changes: Offset,
}

impl AppState {
    fn new(partitions: u8, now: Millis) -> AppState {
        let topics = (0..partitions).map(LogKind::Topic);
        let logs = topics.chain([LogKind::Push]);
        AppState {
            logs: logs.map(|log| (log, Sequencer::new(Offset(0)))).collect(),
            changes: Sequencer::new(Offset(0)),
            unjudged: Vec::new(),
            notes: Offset(0),
            sent: Offset(0),
            syncing: false,
            synced: Offset(0),
            is_loaded: false,
            next_poll: Some(now),
            learnt: now,
            known_until: Millis(0),
            look_after: None,
        }
    }

    /// When it is to be read next; `None`: it is being read.
    pub fn next_poll(&self) -> Option<Millis> {
        self.next_poll
    }

    fn log(&mut self, log: LogKind) -> &mut Sequencer<LogEntry> {
        self.logs
            .entry(log)
            .or_insert_with(|| Sequencer::new(Offset(0)))
    }

    /// Reads soon what was not announced.
    fn hurry(&mut self, now: Millis) {
        if let Some(next) = &mut self.next_poll {
            *next = (*next).min(Millis(now.0 + EARLY_MS));
        }
    }
}

impl<H> Hub<H> {
    pub(super) fn app(&mut self, app: &AppId) -> &mut AppState {
        if !self.apps.contains_key(app) {
            self.apps
                .insert(app.clone(), AppState::new(self.partitions, self.now));
        }
        self.apps.get_mut(app).expect("just inserted")
    }

    /// When every node that is not linked knows a change that the store has now, or doubts what it knows.
    pub(super) fn lease_over(&mut self, app: &AppId, offset: Offset) -> Millis {
        let now = self.now;
        let state = self.app(app);
        if offset <= state.changes.end() {
            return Millis(state.learnt.0 + super::LEASE_WAIT_MS);
        }
        // A node that is not linked made it.
        state.hurry(now);
        Millis(now.0 + super::LEASE_WAIT_MS)
    }

    /// A shard has messages that wait until it knows what the store has now.
    pub(super) fn look(&mut self, app: &AppId) {
        let now = self.now;
        let state = self.app(app);
        state.look_after = Some(now);
        state.hurry(now);
    }

    /// The store was read that was asked then, or (`None`) could not be.
    fn on_looked(&mut self, id: &AppId, asked: Option<Millis>) {
        let now = self.now;
        let app = self.app(id);
        let Some(after) = app.look_after else { return };
        match asked {
            Some(asked) if asked <= after => app.hurry(now),
            _ => app.look_after = None,
        }
        let app = id.clone();
        self.mail_all(Mail::Cluster(ClusterMail::Looked { app, asked }));
    }

    /// Somebody says that a log has a new entry. `changes`: as in [`Notice::Log`].
    pub(super) fn on_log(
        &mut self,
        app: &AppId,
        log: LogKind,
        previous: Offset,
        entry: LogEntry,
        changes: Offset,
    ) {
        let now = self.now;
        let state = self.app(app);
        if !state.is_loaded {
            // The snapshot, or the first read after it, has it.
            return;
        }
        if changes > state.changes.end() {
            if state.unjudged.len() < MAX_UNJUDGED {
                state.unjudged.push(Unjudged {
                    log,
                    previous,
                    entry,
                    changes,
                });
            }
            return state.hurry(now);
        }
        let mut in_turn = Vec::new();
        let sequencer = state.log(log);
        sequencer.announce(previous, entry.offset, entry, &mut in_turn);
        if sequencer.is_waiting() {
            state.hurry(now);
        }
        self.send_entries(app, log, in_turn);
    }

    /// Somebody says that something changed.
    pub(super) fn on_change(
        &mut self,
        app: &AppId,
        previous: Offset,
        offset: Offset,
        change: Change,
    ) {
        let now = self.now;
        let state = self.app(app);
        if !state.is_loaded {
            return;
        }
        let mut in_turn = Vec::new();
        state
            .changes
            .announce(previous, offset, change, &mut in_turn);
        if state.changes.is_waiting() {
            state.hurry(now);
        }
        self.send_changes(app, in_turn);
        self.judge(app);
    }

    /// Takes the entries that waited for changes which have come since.
    fn judge(&mut self, app: &AppId) {
        let state = self.app(app);
        if state.unjudged.is_empty() {
            return;
        }
        for waiting in std::mem::take(&mut state.unjudged) {
            let Unjudged {
                log,
                previous,
                entry,
                changes,
            } = waiting;
            self.on_log(app, log, previous, entry, changes);
        }
    }

    fn send_entries(&mut self, app: &AppId, log: LogKind, entries: Vec<InTurn<LogEntry>>) {
        for InTurn {
            previous, entry, ..
        } in entries
        {
            self.mail_all(Mail::Notice(Notice::Log {
                app: app.clone(),
                log,
                previous,
                entry,
                // The shards were sent them before.
                changes: Offset::default(),
            }));
        }
    }

    fn send_changes(&mut self, app: &AppId, changes: Vec<InTurn<Change>>) {
        for InTurn {
            previous,
            offset,
            entry,
        } in changes
        {
            let now = self.now;
            let state = self.app(app);
            (state.sent, state.learnt) = (offset, now);
            self.mail_all(Mail::Notice(Notice::Change {
                app: app.clone(),
                previous,
                offset,
                change: entry,
            }));
        }
    }

    /// Asks the shards whether they have taken the changes that they were sent.
    pub(super) fn sync_changes(&mut self) {
        let unsynced: Vec<(AppId, Offset)> = self
            .apps
            .iter()
            .filter(|(_, app)| app.is_loaded && app.sent > app.synced && !app.syncing)
            .map(|(id, app)| (id.clone(), app.sent))
            .collect();
        for (app, sent) in unsynced {
            let ticket = self.waits.ticket();
            self.app(&app).syncing = true;
            self.waits.begin(
                ticket,
                self.shards.into(),
                Vec::new(),
                None,
                Then::Synced(app, sent),
            );
            self.mail_all(Mail::Cluster(ClusterMail::Sync { ticket }));
        }
    }

    pub(super) fn on_synced(&mut self, app: &AppId, offset: Offset) {
        let state = self.app(app);
        state.syncing = false;
        state.synced = offset;
        self.tell_known(app, offset);
        self.sync_changes();
        self.release_held();
    }

    fn tell_known(&mut self, app: &AppId, offset: Offset) {
        self.peers
            .tell_all(&mut self.effects.peers, || PeerMessage::ChangesKnown {
                app: app.clone(),
                offset,
            });
    }

    /// Reads the apps whose time has come.
    pub(super) fn poll_due(&mut self) {
        let now = self.now;
        let own = self.own;
        let due: Vec<AppId> = self
            .apps
            .iter()
            .filter(|(_, app)| app.next_poll.is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let ticket = self.waits.ticket();
            let app = self.app(&id);
            app.next_poll = None;
            let (request, query) = match app.is_loaded {
                false => (
                    Request::Snapshot(id.clone()),
                    Query::Snapshot { app: id.clone() },
                ),
                true => (
                    Request::Poll(id.clone(), now),
                    Query::Changes(ChangesQuery {
                        app: id.clone(),
                        changes: app.changes.end(),
                        logs: app
                            .logs
                            .iter()
                            .map(|(log, known)| (*log, known.end()))
                            .collect(),
                        mailbox: own,
                        notes: app.notes,
                        limit: PAGE,
                    }),
                ),
            };
            self.requests.insert(ticket, request);
            self.effects.queries.push((ticket, query));
        }
    }

    /// The store has answered a query of the hub.
    pub fn on_page(&mut self, ticket: u64, page: Result<Page, StoreError>, now: Millis) {
        self.begin(now);
        match (self.requests.remove(&ticket), page) {
            (Some(Request::Poll(app, asked)), Ok(Page::Changes(changes))) => {
                self.on_news(&app, asked, *changes);
            }
            (Some(Request::Snapshot(app)), Ok(Page::Snapshot(snapshot))) => {
                self.on_snapshot(&app, *snapshot);
            }
            (Some(Request::Poll(app, _) | Request::Snapshot(app)), _) => {
                self.app(&app).next_poll = Some(Millis(now.0 + RETRY_MS));
                self.on_looked(&app, None);
            }
            _ => {}
        }
    }

    fn on_snapshot(&mut self, id: &AppId, snapshot: Snapshot) {
        let now = self.now;
        let app = self.app(id);
        app.is_loaded = true;
        app.changes.restart(snapshot.changes);
        (app.sent, app.learnt) = (snapshot.changes, now);
        for &(log, end) in &snapshot.log_ends {
            // What was announced before goes on where it was; only a log that went back begins anew.
            let known = app.log(log);
            if known.end() == Offset(0) || known.end() > end {
                known.restart(end);
            }
        }
        app.next_poll = Some(now);
        let (app, snapshot) = (id.clone(), Arc::new(snapshot));
        self.mail_all(Mail::Cluster(ClusterMail::Snapshot { app, snapshot }));
        self.sync_changes();
    }

    fn on_news(&mut self, id: &AppId, asked: Millis, news: Changes) {
        let now = self.now;
        let doubts = asked < self.doubts_until || !self.is_counted() || !self.unaware.is_empty();
        self.effects.clock = Some((asked, news.now));
        let app = self.app(id);
        app.next_poll = Some(match news.more {
            true => now,
            false => Millis(now.0 + POLL_MS),
        });
        // Behind the last change of a page that is not the last one, whom an entry is for cannot be judged; behind changes that are lost neither.
        let judged_to = match (news.changes_lost, news.changes.last()) {
            (true, _) => Some(Offset::default()),
            (false, Some(last)) if news.more => Some(last.offset),
            _ => None,
        };
        let mut changes = Vec::new();
        for change in news.changes {
            app.changes.read(change.offset, change.change, &mut changes);
        }
        app.changes.release(&mut changes);
        let mut read = changes.len();
        let (mut logs, mut went_back) = (Vec::new(), 0);
        let mut lost = news.changes_lost;
        for log in news.logs {
            let mut entries = Vec::new();
            let sequencer = app.log(log.log);
            for entry in log.entries {
                let is_early = judged_to.is_some_and(|judged| entry.offset > judged);
                if is_early && entry.message.audience.is_some() {
                    break;
                }
                sequencer.read(entry.offset, entry, &mut entries);
            }
            sequencer.release(&mut entries);
            lost |= log.went_back;
            read += entries.len();
            if log.went_back {
                tracing::error!(
                    app = %id, log = ?log.log,
                    "a log ends before what was read of it: the store has lost entries"
                );
                went_back += 1;
            }
            logs.push((log.log, entries));
        }
        if let Some(last) = news.notes.last() {
            app.notes = last.offset;
        }
        if lost {
            app.is_loaded = false;
            app.next_poll = Some(now);
        }
        let is_complete = !(news.more || lost);
        if is_complete && !doubts {
            app.known_until = Millis(asked.0 + super::LEASE_MS);
        }
        self.stats.entries_read += read as u64;
        self.stats.logs_went_back += went_back;
        self.stats.reloads += u64::from(lost || news.notes_lost);
        self.send_changes(id, changes);
        for (log, entries) in logs {
            self.send_entries(id, log, entries);
        }
        self.judge(id);
        for note in news.notes {
            let client = note.client.clone();
            let mail = match note.entry {
                Offset(0) => ClusterMail::Recheck(client),
                entry => ClusterMail::InboxWaits {
                    client,
                    entry,
                    lane: note.lane,
                },
            };
            self.mail_home(&note.client, Mail::Cluster(mail));
        }
        if news.notes_lost {
            self.mail_all(Mail::Cluster(ClusterMail::InboxesWait(id.clone())));
        }
        if is_complete {
            self.on_looked(id, Some(asked));
        }
        self.sync_changes();
        self.owners_of.insert(id.clone(), news.owners);
        self.owners = self.owners_of.values().flatten().copied().collect();
        self.tell_known_until();
    }

    /// Tells the shards how long they may trust what they know.
    fn tell_known_until(&mut self) {
        let until = self.apps.values().map(|app| app.known_until).min();
        if let Some(until) = until.filter(|until| *until > self.told_known_until) {
            self.told_known_until = until;
            self.mail_all(Mail::Cluster(ClusterMail::KnownUntil(until)));
        }
    }
}
