//! Bugs to build in, to see that the simulation finds them. They live between the parts of a node, not in them.

use bytes::Bytes;
use campanile_backends::Request;
use campanile_broker::{
    mail::{Interest, Mail},
    store::{Change, Command, LogKind, Notice, Progress},
};
use campanile_push::{
    campaign::{Row, State},
    clock::Zone,
    id::PushId,
    options::Options,
    pacing::{Moment, Spread},
};

use crate::node::Asker;

/// A bug to build in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// What a commit did is announced before it is on disk.
    AnnounceBeforeSync,
    /// Now and then the notice of a log entry is lost, and the next one hides the gap.
    LoseLogNotices,
    /// Now and then the notice of an inbox entry is lost.
    LoseInboxNotices,
    /// Two log notices of a commit change places, and their chain is patched.
    SwapLogNotices,
    /// Messages for live subscribers of other shards are lost now and then.
    LoseDeliveries,
    /// Other shards do not learn that nobody wants a filter any more.
    KeepInterest,
    /// The identifiers of incoming QoS 2 messages are not remembered.
    ForgetReceived,
    /// Outgoing exchanges are not saved.
    ForgetUnfinished,
    /// Receipts of pushes are lost now and then.
    LoseReceipts,
    /// A will stays stored after a normal DISCONNECT.
    KeepWills,
    /// Acknowledged inbox entries are not removed.
    KeepInboxes,
    /// Cursors are saved one entry too far.
    AdvanceCursors,
    /// A message that is to be kept is acknowledged without being appended.
    SkipAppends,
    /// Releases of sessions are lost.
    LoseReleases,
    /// What devices remember of campaigns is not saved.
    ForgetMemories,
    /// Shards do not hear that a campaign is paused.
    IgnorePauses,
    /// Shards do not hear that a campaign ended.
    IgnoreEnds,
    /// Shards take campaigns for a portion for campaigns for all.
    IgnorePortions,
    /// Shards give all devices of a campaign their turns at once.
    IgnoreTurns,
    /// What devices will not get, and why, is not saved.
    LoseReasons,
}

impl Sabotage {
    /// All of them.
    pub const ALL: &[Sabotage] = &[
        Sabotage::AnnounceBeforeSync,
        Sabotage::LoseLogNotices,
        Sabotage::LoseInboxNotices,
        Sabotage::SwapLogNotices,
        Sabotage::LoseDeliveries,
        Sabotage::KeepInterest,
        Sabotage::ForgetReceived,
        Sabotage::ForgetUnfinished,
        Sabotage::LoseReceipts,
        Sabotage::KeepWills,
        Sabotage::KeepInboxes,
        Sabotage::AdvanceCursors,
        Sabotage::SkipAppends,
        Sabotage::LoseReleases,
        Sabotage::ForgetMemories,
        Sabotage::IgnorePauses,
        Sabotage::IgnoreEnds,
        Sabotage::IgnorePortions,
        Sabotage::IgnoreTurns,
        Sabotage::LoseReasons,
    ];

    /// Whether only campaigns show it.
    pub fn is_of_campaigns(self) -> bool {
        matches!(
            self,
            Sabotage::ForgetMemories
                | Sabotage::IgnorePauses
                | Sabotage::IgnoreEnds
                | Sabotage::IgnorePortions
                | Sabotage::IgnoreTurns
                | Sabotage::LoseReasons
        )
    }
}

/// A [`Sabotage`] at work.
pub(crate) struct Saboteur {
    what: Sabotage,
    count: u32,
    /// Offset that the next notice of a log is to follow.
    hidden: Option<(LogKind, campanile_broker::ids::Offset)>,
}

impl Saboteur {
    pub fn new(what: Sabotage) -> Saboteur {
        Saboteur {
            what,
            count: 0,
            hidden: None,
        }
    }

    /// Every fifth time.
    fn strikes(&mut self) -> bool {
        self.count += 1;
        self.count.is_multiple_of(5)
    }

    pub fn announces_early(&self) -> bool {
        self.what == Sabotage::AnnounceBeforeSync
    }

    pub fn on_requests(&mut self, requests: &mut [(Asker, Request)]) {
        for (_, request) in requests {
            let Request::Broker(command) = request else {
                continue;
            };
            match (self.what, command) {
                (Sabotage::ForgetReceived, Command::Publish(publish)) => publish.received = None,
                (Sabotage::SkipAppends, Command::Publish(publish)) if self.strikes() => {
                    publish.log = None;
                }
                (Sabotage::KeepWills, Command::Release(release)) => {
                    release.will_at = release.will_at.or(release.expires_at);
                }
                (Sabotage::LoseReleases, command @ Command::Release(_)) => {
                    let Command::Release(release) = command else {
                        continue;
                    };
                    *command = Command::Progress(release.progress.clone());
                }
                (_, Command::Progress(progress)) => self.on_progress(progress),
                (_, Command::Release(release)) => self.on_progress(&mut release.progress),
                _ => {}
            }
        }
    }

    fn on_progress(&mut self, progress: &mut Progress) {
        match self.what {
            Sabotage::ForgetUnfinished => progress.unfinished = None,
            Sabotage::LoseReceipts => {
                let strikes = !progress.receipts.is_empty() && self.strikes();
                progress.receipts.retain(|_| !strikes);
            }
            Sabotage::ForgetMemories => progress.memory = None,
            Sabotage::LoseReasons => progress.settled.clear(),
            Sabotage::KeepInboxes => progress.inbox_done.clear(),
            Sabotage::AdvanceCursors => {
                for cursor in progress.cursors.iter_mut().flatten() {
                    cursor.done.0 += 1;
                }
            }
            _ => {}
        }
    }

    pub fn on_notices(&mut self, notices: &mut Vec<Notice>) {
        match self.what {
            Sabotage::LoseLogNotices => {
                let all = std::mem::take(notices);
                for mut notice in all {
                    if let Notice::Log {
                        log,
                        previous,
                        entry,
                        ..
                    } = &mut notice
                    {
                        if let Some((hidden, before)) = self.hidden.take() {
                            if hidden == *log {
                                *previous = before;
                            }
                        } else if self.strikes() {
                            self.hidden = Some((*log, *previous));
                            let _ = entry;
                            continue;
                        }
                    }
                    notices.push(notice);
                }
            }
            Sabotage::LoseInboxNotices => {
                notices.retain(|notice| !matches!(notice, Notice::Inbox { .. }) || !self.strikes());
            }
            Sabotage::SwapLogNotices => swap_entries(notices),
            what if what.is_of_campaigns() => notices.retain_mut(|notice| match notice {
                Notice::Change {
                    change: Change::Campaign { push, row },
                    ..
                } => falsify(what, PushId(push.0), row),
                _ => true,
            }),
            _ => {}
        }
    }

    pub fn loses(&mut self, mail: &Mail) -> bool {
        match (self.what, mail) {
            (Sabotage::LoseDeliveries, Mail::Deliver { .. }) => self.strikes(),
            (
                Sabotage::KeepInterest,
                Mail::Interest {
                    change: Interest::Durable { present: false, .. },
                    ..
                },
            ) => true,
            _ => false,
        }
    }
}

/// Has shards hear something else of a campaign. Whether they hear of it.
fn falsify(what: Sabotage, push: PushId, row: &mut Option<Bytes>) -> bool {
    let read = row.as_ref().and_then(|row| Row::decode(row, push).ok());
    let Some(Row::Campaign(campaign)) = read else {
        return what != Sabotage::IgnoreEnds;
    };
    let mut campaign = *campaign;
    match what {
        Sabotage::IgnorePauses => return campaign.state == State::Running,
        Sabotage::IgnorePortions => campaign.targeting.portion = None,
        Sabotage::IgnoreTurns => {
            let moment = Moment {
                push,
                accepted_ms: campaign.accepted_ms,
                expires_ms: campaign.expires_ms,
            };
            let at_once = Spread::new(&Options::default(), moment, 0, &Zone::UTC);
            campaign.spread = at_once.expect("it has no pace");
        }
        _ => return true,
    }
    *row = Some(Row::Campaign(Box::new(campaign)).encode().into());
    true
}

/// The messages of neighbouring entries of a log change places.
fn swap_entries(notices: &mut [Notice]) {
    for at in 1..notices.len() {
        let (before, after) = notices.split_at_mut(at);
        if let (
            Some(Notice::Log {
                log: one,
                entry: first,
                ..
            }),
            Some(Notice::Log {
                log: other,
                entry: second,
                ..
            }),
        ) = (before.last_mut(), after.first_mut())
            && one == other
        {
            std::mem::swap(&mut first.message, &mut second.message);
        }
    }
}
