//! Bugs to build in between the parts of a cluster, to see that the simulation finds them.

use std::collections::BTreeMap;

use campanile_backends::{Reader, Request};
use campanile_broker::{
    cluster::peer::PeerMessage,
    ids::{AppId, ClientKey, Epoch, Offset},
    mail::{ClusterMail, Mail},
    store::{Command, LogKind, Page, Query, StoreError},
};

/// A bug to build in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The store takes writes of sessions that were claimed since.
    NoFencing,
    /// What the other node saved is not read after a take-over.
    SkipReread,
    /// The store answers before its replica has what it says.
    AnswerBeforeSync,
    /// Now and then a peer's word of a log entry is lost, and the next one hides the gap.
    HideLogEntries,
    /// Changes of subscriptions are answered before all nodes know of them.
    AnswerBeforeKnown,
    /// Peers do not tell of inbox entries, and notes are lost.
    LoseInboxes,
    /// A node's generation is given up while it lives.
    VoidTheLiving,
    /// The store does not know that a will was published.
    KeepSpentWills,
    /// What a session did last is lost when it goes to another node.
    LoseHandOvers,
    /// Messages for members at peers are not kept until those have them.
    ForgetShared,
    /// Log entries that are read from the store are ignored.
    IgnorePolls,
    /// Lost nodes are never given up.
    NeverVoid,
    /// A new generation is not written to the sessions.
    SkipRestamps,
    /// Peers do not let go of clients that were claimed elsewhere.
    IgnoreReleases,
    /// Reads tell of what the store's replica does not have.
    TellUnsafe,
    /// What a device remembers of campaigns is lost when it goes to another node.
    ForgetMemories,
    /// Messages are kept behind one of the same connection that was not.
    OvertakeFailures,
}

impl Sabotage {
    /// All of them.
    pub const ALL: &[Sabotage] = &[
        Sabotage::NoFencing,
        Sabotage::SkipReread,
        Sabotage::AnswerBeforeSync,
        Sabotage::HideLogEntries,
        Sabotage::AnswerBeforeKnown,
        Sabotage::LoseInboxes,
        Sabotage::VoidTheLiving,
        Sabotage::KeepSpentWills,
        Sabotage::LoseHandOvers,
        Sabotage::ForgetShared,
        Sabotage::IgnorePolls,
        Sabotage::NeverVoid,
        Sabotage::SkipRestamps,
        Sabotage::IgnoreReleases,
        Sabotage::TellUnsafe,
        Sabotage::ForgetMemories,
        Sabotage::OvertakeFailures,
    ];

    /// A batch reaches the store.
    pub fn on_batch(self, batch: &mut [Request], reader: &dyn Reader) {
        for request in batch {
            let Request::Broker(command) = request else {
                continue;
            };
            match (self, command) {
                (Sabotage::NoFencing, command) => renew_epoch(command, reader),
                (Sabotage::KeepSpentWills, Command::Publish(publish)) => publish.spends_will = None,
                (
                    Sabotage::SkipRestamps,
                    Command::Restamp {
                        client, generation, ..
                    },
                ) => {
                    let query = Query::Session {
                        client: client.clone(),
                    };
                    if let Ok(Page::Session(Some(session))) = reader.read(&query) {
                        *generation = session.owner.unwrap_or(*generation);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Puts the epoch of a session's last claim into a command.
fn renew_epoch(command: &mut Command, reader: &dyn Reader) {
    let (client, epoch) = match command {
        Command::Subscribe(subscribe) => (&subscribe.client, &mut subscribe.epoch),
        Command::Progress(progress) | Command::HandOver(progress) => {
            (&progress.client, &mut progress.epoch)
        }
        Command::Release(release) => (&release.progress.client, &mut release.progress.epoch),
        Command::ForgetReceived { client, epoch, .. } => (&*client, epoch),
        Command::Publish(publish) => match &mut publish.received {
            Some(received) => (&received.client, &mut received.epoch),
            None => return,
        },
        _ => return,
    };
    let query = Query::Session {
        client: client.clone(),
    };
    if let Ok(Page::Session(Some(session))) = reader.read(&query) {
        *epoch = session.epoch;
    }
}

/// A [`Sabotage`] at work in one node.
#[derive(Debug)]
pub struct Saboteur {
    what: Sabotage,
    count: u32,
    hidden: BTreeMap<(AppId, LogKind), Offset>,
    handed_over: BTreeMap<(AppId, Box<str>), Epoch>,
}

impl Saboteur {
    /// One that does that.
    pub fn new(what: Sabotage) -> Saboteur {
        Saboteur {
            what,
            count: 0,
            hidden: BTreeMap::new(),
            handed_over: BTreeMap::new(),
        }
    }

    /// What it does.
    pub fn what(&self) -> Sabotage {
        self.what
    }

    /// Every fifth time.
    fn strikes(&mut self) -> bool {
        self.count += 1;
        self.count.is_multiple_of(5)
    }

    /// A peer's message arrives. `false`: it does not.
    pub fn on_peer(&mut self, message: &mut PeerMessage) -> bool {
        match (self.what, message) {
            (
                Sabotage::HideLogEntries,
                PeerMessage::Log {
                    app, log, previous, ..
                },
            ) => {
                let key = (app.clone(), *log);
                if let Some(before) = self.hidden.remove(&key) {
                    *previous = before;
                } else if self.strikes() {
                    self.hidden.insert(key, *previous);
                    return false;
                }
                true
            }
            (Sabotage::LoseInboxes, PeerMessage::Inbox { .. }) => false,
            _ => true,
        }
    }

    /// A message leaves for a peer. `Some`: the sender believes that the peer answers this.
    pub fn on_send(&mut self, message: &mut PeerMessage) -> Option<PeerMessage> {
        match (self.what, message) {
            (Sabotage::ForgetShared, PeerMessage::DeliverShared { ticket, .. }) if *ticket != 0 => {
                let done = PeerMessage::SharedDone { ticket: *ticket };
                *ticket = 0;
                Some(done)
            }
            _ => None,
        }
    }

    /// The hub has a letter for a shard.
    pub fn on_letter(&mut self, mail: &Mail) {
        if let (
            Sabotage::LoseHandOvers,
            Mail::Cluster(ClusterMail::Release { client, epoch, .. }),
        ) = (self.what, mail)
        {
            self.handed_over.insert(key(client), *epoch);
        }
    }

    /// `true`: the letter is answered and not delivered.
    pub fn swallows(&self, mail: &Mail) -> bool {
        self.what == Sabotage::IgnoreReleases
            && matches!(mail, Mail::Cluster(ClusterMail::Release { .. }))
    }

    /// A command leaves for the store.
    pub fn on_command(&mut self, command: &mut Command) {
        match (self.what, command) {
            (Sabotage::LoseHandOvers, Command::HandOver(progress))
                if self.handed_over.get(&key(&progress.client)) == Some(&progress.epoch) =>
            {
                (progress.cursors, progress.unfinished) = (None, None);
                progress.inbox_done.clear();
                progress.receipts.clear();
            }
            (Sabotage::OvertakeFailures, Command::Publish(publish)) => publish.sender = None,
            _ => {}
        }
    }

    /// A page arrives.
    pub fn on_page(&mut self, page: &mut Result<Page, StoreError>) {
        match (self.what, page) {
            (Sabotage::SkipReread, page @ Ok(Page::Session(_))) => {
                *page = Err(StoreError::Unavailable("not read".into()));
            }
            (Sabotage::ForgetMemories, Ok(Page::Session(Some(session)))) => session.memory = None,
            (Sabotage::LoseInboxes, Ok(Page::Changes(changes))) => changes.notes.clear(),
            (Sabotage::IgnorePolls, Ok(Page::Changes(changes))) => {
                for log in &mut changes.logs {
                    log.entries.clear();
                }
            }
            (Sabotage::NeverVoid, Ok(Page::Changes(changes))) => changes.owners.clear(),
            _ => {}
        }
    }
}

fn key(client: &ClientKey) -> (AppId, Box<str>) {
    (client.app.clone(), client.client_id.as_ref().into())
}
