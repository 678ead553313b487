//! Why a device did or did not get a push.
//!
//! The caller gathers [`Facts`]: the device's bits of the push's [receipts](crate::receipt), its position, its connection, the times. [`explain`] is a
//! decision table over them, in the same precedence as the [funnel](crate::funnel), so that the explanation of a device never contradicts the number that
//! it was counted in. One is ahead of it: a device whose cursor is past an entry that says nothing of it was skipped, and its mark is about to be written.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use crate::{
    campaign::{Ended, How},
    funnel::{Life, Outcome},
    id::PushId,
    receipt::{DropReason, FailReason, Mark},
    time::rfc3339,
};

/// A time for people and programs: RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.0))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// What is known of one device and one push.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Now, in Unix milliseconds.
    pub now_ms: u64,
    /// The push's times, or `None` if the app has no such push, or none any more.
    pub life: Option<Life>,
    /// Whether the app has the device.
    pub device_known: bool,
    /// The device's marks, with their times where they were kept.
    pub marks: BTreeMap<Mark, Option<Time>>,
    /// For a device that is not targeted, or left the audience before its turn: what kept it out, where that can be told.
    pub kept_out: Option<KeptOut>,
    /// The audience does not take it in now.
    pub is_out: bool,
    /// The push that replaced it here.
    pub collapsed_by: Option<PushId>,
    /// The size of the packet and the client's limit, in bytes, if it was too large.
    pub too_large: Option<(u64, u64)>,
    /// What makes it wait although the device could have it.
    pub hold: Option<Hold>,
    /// The last time that it was sent.
    pub sent: Option<Sent>,
    /// Where the device is.
    pub presence: Presence,
    /// Where it stands in its log or inbox.
    pub position: Position,
}

impl Facts {
    /// The push ended before its time: so it did for a device of which nothing else is said.
    pub fn end(&mut self, ended: &Ended) {
        let Some(life) = &mut self.life else { return };
        if ended.at_ms >= life.expires_ms {
            return;
        }
        match ended.how {
            How::Cancelled | How::Recalled => life.ended_ms = Some(ended.at_ms),
            How::Collapsed(by) => {
                self.marks.insert(Mark::Collapsed, Some(Time(ended.at_ms)));
                self.collapsed_by = Some(by);
            }
        }
    }
}

/// What keeps a device out of an audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptOut {
    /// It has the tag now, but not when the push was made.
    TagLater {
        /// The tag.
        tag: String,
        /// When it got it.
        since: Time,
    },
    /// It had the tag when the push was made, and not any more when it was its turn.
    TagRemoved {
        /// The tag.
        tag: String,
    },
    /// It has a tag that the audience excludes.
    Muted {
        /// The tag.
        tag: String,
    },
    /// It registered after the push was made.
    RegisteredLater {
        /// When.
        at: Time,
    },
}

/// What makes a push wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Somebody paused it, or it halted by itself.
    Paused,
    /// It begins later, here: the time before which it is not sent, or the local time of the device.
    NotBefore(Time),
    /// The device's slot of the pace.
    Pace(Time),
    /// The end of the device's quiet hours.
    QuietHours(Time),
}

/// A PUBLISH to the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The connection, as the logs name it.
    pub connection: String,
    /// When.
    pub at: Time,
}

/// Where a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Never seen, or nobody knows.
    #[default]
    Unknown,
    /// Connected.
    Connected,
    /// Not connected since then.
    Away(Time),
}

/// Where an entry stands to the device's cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// Nobody knows.
    #[default]
    Unknown,
    /// This many entries are to be acknowledged before it.
    Ahead(u64),
    /// The cursor is past it.
    Passed,
}

/// The reason, as a `code` with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the sentences say it")]
pub enum Explanation {
    PushNotFound,
    DeviceNotFound,
    NotInAudience,
    TagAddedLater {
        tag: String,
        since: Time,
    },
    TagRemoved {
        tag: String,
    },
    Muted {
        tag: String,
    },
    RegisteredLater {
        registered_at: Time,
    },
    /// It matched when the push was made, and not when it was its turn; why is not known any more.
    LeftAudience,
    Delivered {
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<Time>,
    },
    Displayed {
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<Time>,
    },
    Clicked {
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<Time>,
    },
    Dismissed {
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<Time>,
    },
    Collapsed {
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "push_id")]
        by: Option<PushId>,
    },
    Capped,
    InQuietHours,
    LocalTimePast,
    DroppedByQuota {
        quota: DropReason,
    },
    LogTrimmed,
    DeviceDeleted,
    TooLarge {
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    RefusedByDevice,
    Recalled {
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<Time>,
    },
    Expired {
        at: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        away_since: Option<Time>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sent: Option<Sent>,
    },
    NotAcknowledged {
        connection: String,
        sent_at: Time,
    },
    Paused,
    WaitingForTime {
        until: Time,
    },
    WaitingForPace {
        until: Time,
    },
    WaitingForQuietHours {
        until: Time,
    },
    Away {
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<Time>,
    },
    Queued {
        #[serde(skip_serializing_if = "Option::is_none")]
        behind: Option<u64>,
    },
}

fn push_id<S: Serializer>(id: &Option<PushId>, to: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => to.collect_str(id),
        None => to.serialize_none(),
    }
}

/// Decides. The first rule that holds:
///
/// | facts | explanation |
/// |---|---|
/// | no such push; no such device | `push_not_found`, `device_not_found` |
/// | clicked, dismissed, displayed or delivered | that, the one that says most |
/// | not targeted | `tag_added_later`, `muted`, .., or `not_in_audience` |
/// | failed, dropped, collapsed, recalled, expired | that, as the funnel counts it |
/// | pending, and the cursor is past it | `tag_removed`, `muted` or `left_audience` |
/// | pending, and sent | `not_acknowledged` |
/// | pending, and not in the audience now | `tag_removed`, `muted` or `left_audience` |
/// | pending, and held | `paused`, `waiting_for_..` |
/// | pending | `queued` for a device that is connected, `away` for others |
pub fn explain(facts: &Facts) -> Explanation {
    let Some(life) = &facts.life else {
        return Explanation::PushNotFound;
    };
    if !facts.device_known {
        return Explanation::DeviceNotFound;
    }
    if let Some(explanation) = had(facts) {
        return explanation;
    }
    if !facts.marks.contains_key(&Mark::Targeted) {
        return kept_out(facts, Explanation::NotInAudience);
    }
    match Outcome::of(|mark| facts.marks.contains_key(&mark), life, facts.now_ms) {
        // `had` has answered it; what is left of it is true all the same.
        Outcome::Delivered => Explanation::Delivered { at: None },
        Outcome::Failed(reason) => failed(facts, reason),
        Outcome::Dropped(reason) => dropped(facts, reason),
        Outcome::Collapsed => Explanation::Collapsed {
            by: facts.collapsed_by,
        },
        Outcome::Recalled => Explanation::Recalled {
            at: time_of(facts, Mark::Recalled).or(life.ended_ms.map(Time)),
        },
        Outcome::Expired => Explanation::Expired {
            at: Time(life.expires_ms),
            away_since: match facts.presence {
                Presence::Away(since) if since.0 < life.expires_ms => Some(since),
                _ => None,
            },
            sent: facts.sent.clone(),
        },
        Outcome::Pending => pending(facts),
    }
}

fn time_of(facts: &Facts, mark: Mark) -> Option<Time> {
    facts.marks.get(&mark).copied().flatten()
}

/// What a device that has it did with it.
fn had(facts: &Facts) -> Option<Explanation> {
    let marked = |mark| facts.marks.get(&mark).copied();
    None.or_else(|| marked(Mark::Clicked).map(|at| Explanation::Clicked { at }))
        .or_else(|| marked(Mark::Dismissed).map(|at| Explanation::Dismissed { at }))
        .or_else(|| marked(Mark::Displayed).map(|at| Explanation::Displayed { at }))
        .or_else(|| marked(Mark::Delivered).map(|at| Explanation::Delivered { at }))
}

fn kept_out(facts: &Facts, unknown: Explanation) -> Explanation {
    match facts.kept_out.clone() {
        Some(KeptOut::TagLater { tag, since }) => Explanation::TagAddedLater { tag, since },
        Some(KeptOut::TagRemoved { tag }) => Explanation::TagRemoved { tag },
        Some(KeptOut::Muted { tag }) => Explanation::Muted { tag },
        Some(KeptOut::RegisteredLater { at }) => Explanation::RegisteredLater { registered_at: at },
        None => unknown,
    }
}

fn failed(facts: &Facts, reason: FailReason) -> Explanation {
    match reason {
        FailReason::TooLarge => Explanation::TooLarge {
            bytes: facts.too_large.map(|(bytes, _)| bytes),
            limit: facts.too_large.map(|(_, limit)| limit),
        },
        FailReason::Refused => Explanation::RefusedByDevice,
    }
}

fn dropped(facts: &Facts, reason: DropReason) -> Explanation {
    match reason {
        quota @ (DropReason::InboxFull | DropReason::StoredBytes) => {
            Explanation::DroppedByQuota { quota }
        }
        DropReason::FrequencyCap => Explanation::Capped,
        DropReason::QuietHours => Explanation::InQuietHours,
        DropReason::LocalTimePast => Explanation::LocalTimePast,
        DropReason::LeftAudience => kept_out(facts, Explanation::LeftAudience),
        DropReason::LogTrimmed => Explanation::LogTrimmed,
        DropReason::DeviceDeleted => Explanation::DeviceDeleted,
    }
}

fn pending(facts: &Facts) -> Explanation {
    if facts.position == Position::Passed {
        return kept_out(facts, Explanation::LeftAudience);
    }
    if let Some(sent) = facts.sent.clone() {
        return Explanation::NotAcknowledged {
            connection: sent.connection,
            sent_at: sent.at,
        };
    }
    if facts.is_out {
        // Unless it comes back, nobody sends it, whatever it waits for.
        return kept_out(facts, Explanation::LeftAudience);
    }
    match (facts.hold, facts.presence) {
        (Some(Hold::Paused), _) => Explanation::Paused,
        (Some(Hold::NotBefore(until)), _) => Explanation::WaitingForTime { until },
        (Some(Hold::Pace(until)), _) => Explanation::WaitingForPace { until },
        (Some(Hold::QuietHours(until)), _) => Explanation::WaitingForQuietHours { until },
        (None, Presence::Away(since)) => Explanation::Away { since: Some(since) },
        (None, Presence::Unknown) => Explanation::Away { since: None },
        (None, Presence::Connected) => Explanation::Queued {
            behind: match facts.position {
                Position::Ahead(behind) => Some(behind),
                Position::Unknown | Position::Passed => None,
            },
        },
    }
}

impl fmt::Display for Explanation {
    /// The sentence for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Explanation as E;
        let at = |time: &Option<Time>| time.map_or(String::new(), |time| format!(" at {time}"));
        match self {
            E::PushNotFound => {
                f.write_str("the app has no such push, or its receipts are no longer kept")
            }
            E::DeviceNotFound => f.write_str("the app has no such device"),
            E::NotInAudience => f.write_str("the device was not in the audience"),
            E::TagAddedLater { tag, since } => write!(
                f,
                "the device has the tag {tag:?} since {since}, after the push was made"
            ),
            E::TagRemoved { tag } => write!(
                f,
                "the device no longer has the tag {tag:?}, which it had when the push was made"
            ),
            E::Muted { tag } => {
                write!(
                    f,
                    "the device has the tag {tag:?}, which the audience excludes"
                )
            }
            E::RegisteredLater { registered_at } => write!(
                f,
                "the device registered at {registered_at}, after the push was made"
            ),
            E::LeftAudience => {
                f.write_str("the device was in the audience when the push was made, and no longer is")
            }
            E::Delivered { at: time } => write!(f, "the device acknowledged it{}", at(time)),
            E::Displayed { at: time } => write!(f, "the device showed it{}", at(time)),
            E::Clicked { at: time } => write!(f, "somebody opened it{}", at(time)),
            E::Dismissed { at: time } => write!(f, "somebody dismissed it{}", at(time)),
            E::Collapsed { by: Some(by) } => {
                write!(f, "push {by} with the same collapse key replaced it")
            }
            E::Collapsed { by: None } => {
                f.write_str("a newer push with the same collapse key replaced it")
            }
            E::Capped => f.write_str("the device had as many pushes as its frequency cap allows"),
            E::InQuietHours => f.write_str(
                "its turn was in the device's quiet hours, and the push does not wait for their end",
            ),
            E::LocalTimePast => f.write_str(
                "the device's clock had shown the local time already when the push was accepted, and such devices are skipped",
            ),
            E::DroppedByQuota { quota } => match quota {
                DropReason::StoredBytes => f.write_str("the app's quota of stored bytes was used up"),
                _ => f.write_str("the device's inbox was full, and it was the first to give way"),
            },
            E::LogTrimmed => f.write_str(
                "the device was away for longer than the log is kept; it was told that it missed something",
            ),
            E::DeviceDeleted => f.write_str("the device was deleted before it got it"),
            E::TooLarge {
                bytes: Some(bytes),
                limit: Some(limit),
            } => write!(
                f,
                "it has {bytes} bytes, and the device's client takes at most {limit}"
            ),
            E::TooLarge { .. } => f.write_str("it is larger than the device's client takes"),
            E::RefusedByDevice => f.write_str("the device answered with an error"),
            E::Recalled { at: time } => {
                write!(f, "the push was cancelled or recalled{} before the device got it", at(time))
            }
            E::Expired {
                at,
                sent: Some(sent),
                ..
            } => write!(
                f,
                "its time ran out at {at}; it was sent on connection {} at {} and not acknowledged",
                sent.connection, sent.at
            ),
            E::Expired {
                at,
                away_since: Some(since),
                ..
            } => write!(
                f,
                "its time ran out at {at}, while the device was away (since {since})"
            ),
            E::Expired { at, .. } => write!(f, "its time ran out at {at}"),
            E::NotAcknowledged {
                connection,
                sent_at,
            } => write!(
                f,
                "sent on connection {connection} at {sent_at}, and not acknowledged yet"
            ),
            E::Paused => f.write_str("the push is paused"),
            E::WaitingForTime { until } => write!(f, "it is not sent before {until}"),
            E::WaitingForPace { until } => {
                write!(f, "its pace gives this device its turn at {until}")
            }
            E::WaitingForQuietHours { until } => {
                write!(f, "the device has quiet hours until {until}")
            }
            E::Away { since: Some(since) } => {
                write!(f, "the device is away since {since}, and gets it when it returns")
            }
            E::Away { since: None } => {
                f.write_str("the device is not connected, and gets it when it returns")
            }
            E::Queued { behind: None } => f.write_str("it is on its way to the device"),
            E::Queued {
                behind: Some(behind),
            } => write!(
                f,
                "it is queued: {behind} others are to be acknowledged before it"
            ),
        }
    }
}

/// An explanation as the API gives it: its `code`, what belongs to it, and the sentence as `message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    message: String,
}

impl From<Explanation> for Explained {
    fn from(explanation: Explanation) -> Explained {
        Explained {
            message: explanation.to_string(),
            explanation,
        }
    }
}

mod gathered;

pub use self::gathered::AtDevice;

#[cfg(test)]
mod tests;
