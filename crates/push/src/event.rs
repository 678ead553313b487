//! What happened, as webhooks and the event stream tell it.
//!
//! ```json
//! {"id": "01KAR0M4G0ZJ9QX6T5V8C2N3B7", "type": "push.clicked", "app": "shop", "time": "2026-11-23T06:00:00.000Z",
//!  "device": "phone-1", "push_id": "01KAR0M4G0..", "data": {"action": "reply"}}
//! ```
//!
//! An event may arrive more than once; its `id` stays the same. A store writes an event in the commit that makes it true, for the
//! devices that were new to a set, so that a repeated receipt makes no second event; and only in an app where somebody wants to know
//! ([`LISTENERS`](crate::rows::LISTENERS)). What happens is written down as a [`Draft`]; its place in the app's event log makes an [`Event`] of it.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    app::AppName,
    explanation::Time,
    funnel::Funnel,
    id::{BadPushId, PushId},
    receipt::{DropReason, FailReason},
};

/// Identity of an event, and its place in the stream: a ULID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u128);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PushId(self.0).fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id is a ULID: 26 characters of 0-9 and A-Z without I, L, O and U")]
pub struct BadEventId;

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<EventId, BadEventId> {
        let id: Result<PushId, BadPushId> = text.parse();
        id.map(|id| EventId(id.0)).map_err(|_| BadEventId)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl EventId {
    /// The id of what stands at a place of an app's event log, which was taken at that time.
    pub fn new(at_ms: u64, place: u64) -> EventId {
        EventId(u128::from(at_ms & 0xffff_ffff_ffff) << 80 | u128::from(place))
    }

    /// Its place in the event log of its app.
    pub fn place(self) -> u64 {
        self.0 as u64
    }
}

/// What is to be told, before it has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The device that it is about.
    pub device: Option<Arc<str>>,
    /// The push that it is about.
    pub push: Option<PushId>,
    /// What happened.
    pub kind: Kind,
    /// What belongs to it: a JSON object.
    pub data: Option<Arc<str>>,
}

impl Draft {
    /// It is about a device, a push, or both.
    pub fn new(device: Option<&Arc<str>>, push: Option<PushId>, what: &What) -> Draft {
        Draft {
            device: device.cloned(),
            push,
            kind: what.kind(),
            data: what.data(),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Identity and order.
    pub id: EventId,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What.
    pub draft: Draft,
}

/// What happened, with what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", content = "data")]
pub enum What {
    /// A device connected.
    #[serde(rename = "device.connected")]
    DeviceConnected,
    /// A connection ended; not told of one that another connection of the device took over.
    #[serde(rename = "device.disconnected")]
    DeviceDisconnected {
        /// That its node was lost.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Disconnection>,
    },
    /// A device exists.
    #[serde(rename = "device.registered")]
    DeviceRegistered,
    /// A device's tags, attributes, user, .. changed.
    #[serde(rename = "device.updated")]
    DeviceUpdated {
        /// The fields that changed.
        changed: Vec<String>,
    },
    /// A device exists no more.
    #[serde(rename = "device.deleted")]
    DeviceDeleted,
    /// A push is durable.
    #[serde(rename = "push.accepted")]
    PushAccepted {
        /// Devices that it is for, where that is known at once.
        #[serde(skip_serializing_if = "Option::is_none")]
        targeted: Option<u64>,
    },
    /// A device acknowledged it.
    #[serde(rename = "push.delivered")]
    PushDelivered,
    /// A device showed it.
    #[serde(rename = "push.displayed")]
    PushDisplayed,
    /// Somebody opened it.
    #[serde(rename = "push.clicked")]
    PushClicked {
        /// Which button; absent for the notification itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        action: Option<String>,
    },
    /// Somebody wiped it away.
    #[serde(rename = "push.dismissed")]
    PushDismissed,
    /// Its time ran out for a device.
    #[serde(rename = "push.expired")]
    PushExpired,
    /// A newer push replaced it at a device.
    #[serde(rename = "push.collapsed")]
    PushCollapsed {
        /// The newer one.
        #[serde(serialize_with = "text")]
        by: PushId,
    },
    /// A rule dropped it for a device.
    #[serde(rename = "push.dropped")]
    PushDropped {
        /// Which rule.
        reason: DropReason,
    },
    /// A device could not take it.
    #[serde(rename = "push.failed")]
    PushFailed {
        /// Why.
        reason: FailReason,
    },
    /// Somebody paused it.
    #[serde(rename = "push.paused")]
    PushPaused,
    /// It stopped by itself, as too many devices failed.
    #[serde(rename = "push.halted")]
    PushHalted {
        /// Devices that had an outcome by then.
        outcomes: u64,
        /// Those of them that failed.
        failed: u64,
    },
    /// It goes on after a pause or a halt.
    #[serde(rename = "push.resumed")]
    PushResumed,
    /// Somebody cancelled it.
    #[serde(rename = "push.cancelled")]
    PushCancelled,
    /// Somebody recalled it.
    #[serde(rename = "push.recalled")]
    PushRecalled,
    /// Nothing of it is pending any more.
    #[serde(rename = "push.done")]
    PushDone {
        /// The counts.
        funnel: Funnel,
    },
}

/// Why a connection ended, where it did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Disconnection {
    /// Its node died.
    NodeLost,
}

fn text<S: Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// What happened, without what belongs to it: for filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "as in `What`")]
#[repr(u8)]
pub enum Kind {
    DeviceConnected,
    DeviceDisconnected,
    DeviceRegistered,
    DeviceUpdated,
    DeviceDeleted,
    PushAccepted,
    PushDelivered,
    PushDisplayed,
    PushClicked,
    PushDismissed,
    PushExpired,
    PushCollapsed,
    PushDropped,
    PushFailed,
    PushPaused,
    PushHalted,
    PushResumed,
    PushCancelled,
    PushRecalled,
    PushDone,
}

impl Kind {
    /// Every kind, with its name. Its place in the list is its number in stores: never change one.
    pub const ALL: [(Kind, &'static str); 20] = [
        (Kind::DeviceConnected, "device.connected"),
        (Kind::DeviceDisconnected, "device.disconnected"),
        (Kind::DeviceRegistered, "device.registered"),
        (Kind::DeviceUpdated, "device.updated"),
        (Kind::DeviceDeleted, "device.deleted"),
        (Kind::PushAccepted, "push.accepted"),
        (Kind::PushDelivered, "push.delivered"),
        (Kind::PushDisplayed, "push.displayed"),
        (Kind::PushClicked, "push.clicked"),
        (Kind::PushDismissed, "push.dismissed"),
        (Kind::PushExpired, "push.expired"),
        (Kind::PushCollapsed, "push.collapsed"),
        (Kind::PushDropped, "push.dropped"),
        (Kind::PushFailed, "push.failed"),
        (Kind::PushPaused, "push.paused"),
        (Kind::PushHalted, "push.halted"),
        (Kind::PushResumed, "push.resumed"),
        (Kind::PushCancelled, "push.cancelled"),
        (Kind::PushRecalled, "push.recalled"),
        (Kind::PushDone, "push.done"),
    ];

    /// Its name, such as `push.delivered`.
    pub fn name(self) -> &'static str {
        Kind::ALL[self as usize].1
    }

    /// The number that stands for it in a store.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a number, or `None` for one that a later version wrote.
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(code)).map(|(kind, _)| *kind)
    }
}

impl What {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            What::DeviceConnected => Kind::DeviceConnected,
            What::DeviceDisconnected { .. } => Kind::DeviceDisconnected,
            What::DeviceRegistered => Kind::DeviceRegistered,
            What::DeviceUpdated { .. } => Kind::DeviceUpdated,
            What::DeviceDeleted => Kind::DeviceDeleted,
            What::PushAccepted { .. } => Kind::PushAccepted,
            What::PushDelivered => Kind::PushDelivered,
            What::PushDisplayed => Kind::PushDisplayed,
            What::PushClicked { .. } => Kind::PushClicked,
            What::PushDismissed => Kind::PushDismissed,
            What::PushExpired => Kind::PushExpired,
            What::PushCollapsed { .. } => Kind::PushCollapsed,
            What::PushDropped { .. } => Kind::PushDropped,
            What::PushFailed { .. } => Kind::PushFailed,
            What::PushPaused => Kind::PushPaused,
            What::PushHalted { .. } => Kind::PushHalted,
            What::PushResumed => Kind::PushResumed,
            What::PushCancelled => Kind::PushCancelled,
            What::PushRecalled => Kind::PushRecalled,
            What::PushDone { .. } => Kind::PushDone,
        }
    }
}

impl What {
    /// What belongs to it, as a JSON object.
    pub fn data(&self) -> Option<Arc<str>> {
        let whole = serde_json::to_value(self).expect("it has only string keys");
        let data = whole.get("data")?;
        let is_empty = data.as_object().is_some_and(serde_json::Map::is_empty);
        (!is_empty).then(|| data.to_string().into())
    }
}

impl Event {
    /// The event as JSON.
    pub fn to_json(&self, app: &AppName) -> String {
        #[derive(Serialize)]
        struct Document<'e> {
            id: EventId,
            app: &'e str,
            time: Time,
            #[serde(skip_serializing_if = "Option::is_none")]
            device: Option<&'e str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            push_id: Option<String>,
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'e RawValue>,
        }
        let Draft {
            device,
            push,
            kind,
            data,
        } = &self.draft;
        serde_json::to_string(&Document {
            id: self.id,
            app: app.as_str(),
            time: Time(self.at_ms),
            device: device.as_deref(),
            push_id: push.map(|id| id.to_string()),
            r#type: kind.name(),
            // A store that was damaged may hold anything.
            data: data
                .as_deref()
                .and_then(|data| serde_json::from_str(data).ok()),
        })
        .expect("it has only string keys and serialises without conditions")
    }

    /// Events with the same key are told in order: those of a device; of a push where they are about no device; else of the app.
    pub fn key(&self) -> Key {
        match (&self.draft.device, self.draft.push) {
            (Some(device), _) => Key::Device(Arc::clone(device)),
            (None, Some(push)) => Key::Push(push),
            (None, None) => Key::App,
        }
    }
}

/// What is told in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they name what they are")]
pub enum Key {
    App,
    Device(Arc<str>),
    Push(PushId),
}

/// Which events somebody wants: names such as `push.delivered`, families such as `push.*`, or `*`. A family includes kinds that
/// later versions add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<Pattern>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    All,
    Family(&'static str),
    One(Kind),
}

/// A pattern that matches no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no event {0:?}: name one such as \"push.delivered\", a family (\"push.*\", \"device.*\") or \"*\""
)]
pub struct BadPattern(pub String);

const FAMILIES: [&str; 2] = ["device.", "push."];

impl Filter {
    /// All events.
    pub fn all() -> Filter {
        Filter(vec![Pattern::All])
    }

    /// Reads patterns. None at all match nothing.
    pub fn parse<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Filter, BadPattern> {
        let read = |pattern: &str| {
            if pattern == "*" {
                return Some(Pattern::All);
            }
            if let Some(family) = pattern.strip_suffix('*') {
                let known = FAMILIES.into_iter().find(|known| *known == family);
                return known.map(Pattern::Family);
            }
            let known = Kind::ALL.into_iter().find(|(_, name)| *name == pattern);
            known.map(|(kind, _)| Pattern::One(kind))
        };
        let mut all = Vec::new();
        for pattern in patterns {
            let read =
                read(pattern).ok_or_else(|| BadPattern(pattern.chars().take(64).collect()))?;
            if !all.contains(&read) {
                all.push(read);
            }
        }
        Ok(Filter(all))
    }

    /// The patterns as text.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|pattern| match pattern {
            Pattern::All => "*".to_owned(),
            Pattern::Family(family) => format!("{family}*"),
            Pattern::One(kind) => kind.name().to_owned(),
        })
    }

    /// Whether it lets events of a kind through.
    pub fn matches(&self, kind: Kind) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::All => true,
            Pattern::Family(family) => kind.name().starts_with(family),
            Pattern::One(one) => *one == kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: What) -> Event {
        Event {
            id: EventId::new(0, 1),
            at_ms: 0,
            draft: Draft::new(Some(&"d1".into()), Some(PushId(2)), &what),
        }
    }

    fn json(event: &Event) -> String {
        event.to_json(&AppName::new("shop").unwrap())
    }

    /// One of each, in the order of [`Kind::ALL`].
    fn one_of_each() -> Vec<What> {
        vec![
            What::DeviceConnected,
            What::DeviceDisconnected {
                reason: Some(Disconnection::NodeLost),
            },
            What::DeviceRegistered,
            What::DeviceUpdated {
                changed: vec!["tags".into()],
            },
            What::DeviceDeleted,
            What::PushAccepted { targeted: Some(2) },
            What::PushDelivered,
            What::PushDisplayed,
            What::PushClicked { action: None },
            What::PushDismissed,
            What::PushExpired,
            What::PushCollapsed { by: PushId(3) },
            What::PushDropped {
                reason: DropReason::InboxFull,
            },
            What::PushFailed {
                reason: FailReason::TooLarge,
            },
            What::PushPaused,
            What::PushHalted {
                outcomes: 100,
                failed: 9,
            },
            What::PushResumed,
            What::PushCancelled,
            What::PushRecalled,
            What::PushDone {
                funnel: Funnel::default(),
            },
        ]
    }

    #[test]
    fn the_document_leaves_out_what_is_not_there() {
        assert_eq!(
            json(&event(What::PushClicked {
                action: Some("reply".into())
            })),
            r#"{"id":"00000000000000000000000001","app":"shop","time":"1970-01-01T00:00:00.000Z","device":"d1","push_id":"00000000000000000000000002","type":"push.clicked","data":{"action":"reply"}}"#
        );
        let mut plain = event(What::DeviceDeleted);
        plain.draft.push = None;
        assert_eq!(
            json(&plain),
            r#"{"id":"00000000000000000000000001","app":"shop","time":"1970-01-01T00:00:00.000Z","device":"d1","type":"device.deleted"}"#
        );
    }

    #[test]
    fn names_in_documents_are_those_of_the_filter() {
        let all = one_of_each();
        assert_eq!(all.len(), Kind::ALL.len());
        for (what, (kind, name)) in all.into_iter().zip(Kind::ALL) {
            assert_eq!((what.kind(), kind.name()), (kind, name));
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
            let told: serde_json::Value = serde_json::from_str(&json(&event(what))).unwrap();
            assert_eq!(told["type"], name);
            let filter = Filter::parse([name]).unwrap();
            let passed = Kind::ALL.iter().filter(|(kind, _)| filter.matches(*kind));
            assert_eq!(passed.count(), 1);
        }
        assert_eq!(Kind::from_code(200), None);
    }

    #[test]
    fn filters_know_families_and_refuse_what_never_happens() {
        let filter = Filter::parse(["push.*", "device.deleted", "push.*"]).unwrap();
        assert_eq!(
            filter.patterns().collect::<Vec<_>>(),
            ["push.*", "device.deleted"]
        );
        assert!(filter.matches(Kind::PushDone) && filter.matches(Kind::DeviceDeleted));
        assert!(!filter.matches(Kind::DeviceUpdated));
        assert!(Filter::all().matches(Kind::DeviceUpdated));
        for bad in [
            "",
            "push",
            "push.",
            "push.deliver",
            "p*",
            "push.delivered.*",
            "**",
        ] {
            assert_eq!(Filter::parse([bad]), Err(BadPattern(bad.into())));
        }
    }

    #[test]
    fn ids_are_ordered_and_round_trip() {
        let (first, second) = (EventId::new(5, 7), EventId::new(5, 8));
        assert!(first < second && first.to_string() < second.to_string());
        assert_eq!(first.to_string().parse(), Ok(first));
        assert_eq!(second.place(), 8);
        assert_eq!("x".parse::<EventId>(), Err(BadEventId));
    }

    #[test]
    fn order_is_kept_per_device() {
        let mut event = event(What::PushDelivered);
        assert_eq!(event.key(), Key::Device("d1".into()));
        event.draft.device = None;
        assert_eq!(event.key(), Key::Push(PushId(2)));
        event.draft.push = None;
        assert_eq!(event.key(), Key::App);
    }
}
