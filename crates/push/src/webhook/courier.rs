//! Telling one webhook: what it is to be told, what of that is under way, and what must be kept so that another node can go on.
//!
//! Events are read from the log of their app, in order. Those that were sent without success are kept apart, with those that wait behind them, so that the place in the log
//! up to which all is settled or kept apart moves on. Whoever takes over reads on from that place: what was sent since the last save is sent again, in order.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::delivery::{Answer, Death, Delivery, Outbox, Settled};
use crate::{
    app::AppName,
    event::{Event, EventId, Key},
    id::PushId,
};

/// Events that one webhook's courier holds at most; the others stay in the log.
pub const MAX_HELD: usize = 1000;
/// Events that one save keeps apart at most.
const MAX_KEPT_AT_ONCE: usize = 500;

/// Something to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Identity; of the end of a push told to its callback address, the push's.
    pub id: EventId,
    /// What goes one after the other.
    pub key: Key,
    /// The body of the request.
    pub body: String,
    /// Where it goes, if that is not the address of the webhook.
    pub url: Option<String>,
}

impl Parcel {
    /// An event.
    pub fn of(event: &Event, app: &AppName) -> Parcel {
        Parcel {
            id: event.id,
            key: event.key(),
            body: event.to_json(app),
            url: None,
        }
    }
}

/// A parcel that is kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// It.
    pub parcel: Parcel,
    /// Where it stands. Of one that waits behind another, nothing but zeros.
    pub delivery: Delivery,
}

/// A parcel that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// It.
    pub parcel: Parcel,
    /// Why.
    pub death: Death,
    /// What came of the last request.
    pub last: String,
    /// Requests that were made.
    pub attempts: u32,
    /// Unix milliseconds when it was given up.
    pub dead_ms: u64,
}

/// What of a courier must become durable, together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saving {
    /// Up to this place of the log all is settled or kept apart.
    pub read: u64,
    /// To be kept apart, or kept anew.
    pub keep: Vec<Retry>,
    /// Kept apart until now, and settled.
    pub forget: Vec<EventId>,
    /// Given up.
    pub dead: Vec<DeadLetter>,
}

/// Tells one webhook.
#[derive(Debug)]
pub struct Courier {
    outbox: Outbox<Parcel>,
    /// The place up to which the log was read.
    read: u64,
    saved_read: u64,
    /// Those that are neither settled nor kept apart, by their place.
    loose: BTreeSet<(u64, EventId)>,
    /// Those that are kept apart, as they were kept.
    kept: BTreeMap<EventId, Delivery>,
    forget: BTreeSet<EventId>,
    dead: Vec<DeadLetter>,
}

const WAITS: Delivery = Delivery {
    attempts: 0,
    since_ms: 0,
    next_ms: 0,
};

impl Courier {
    /// One that goes on from a place in the log, with what was kept apart.
    pub fn new(read: u64, kept: Vec<Retry>) -> Courier {
        let mut courier = Courier {
            outbox: Outbox::new(MAX_HELD),
            read,
            saved_read: read,
            loose: BTreeSet::new(),
            kept: BTreeMap::new(),
            forget: BTreeSet::new(),
            dead: Vec::new(),
        };
        courier.take_kept(kept);
        courier
    }

    /// Takes what somebody else kept apart for it. What it knows already is passed over.
    pub fn take_kept(&mut self, mut kept: Vec<Retry>) {
        kept.sort_by_key(|retry| retry.parcel.id.place());
        for Retry { parcel, delivery } in kept {
            let is_known = self.kept.contains_key(&parcel.id) || self.forget.contains(&parcel.id);
            if !is_known {
                self.kept.insert(parcel.id, delivery);
                self.outbox.restore(parcel.key.clone(), parcel, delivery);
            }
        }
    }

    /// How many more events it takes.
    pub fn room(&self) -> usize {
        self.outbox.room()
    }

    /// The place from which the log is to be read on.
    pub fn read_to(&self) -> u64 {
        self.read
    }

    /// Takes what was read from the log behind [`read_to`](Courier::read_to), at most as many as there is [`room`](Courier::room) for.
    pub fn take(&mut self, parcels: impl IntoIterator<Item = Parcel>, read_to: u64, now_ms: u64) {
        for parcel in parcels {
            if self.kept.contains_key(&parcel.id) || self.forget.contains(&parcel.id) {
                continue;
            }
            self.loose.insert((parcel.id.place(), parcel.id));
            let key = parcel.key.clone();
            self.outbox.restore(key, parcel, Delivery::new(now_ms));
        }
        self.read = read_to;
    }

    /// What is to be sent now. The others of its key wait until it is [settled](Courier::settle).
    pub fn take_due(&mut self, now_ms: u64) -> Option<Parcel> {
        self.outbox
            .take_due(now_ms)
            .map(|(_, parcel)| parcel.clone())
    }

    /// When something is due, in Unix milliseconds.
    pub fn next_ms(&self) -> Option<u64> {
        self.outbox.next_ms()
    }

    /// After the answer to what [`take_due`](Courier::take_due) gave. `last` is the answer in words. Returns why it was given up, if it was.
    pub fn settle(
        &mut self,
        key: &Key,
        answer: Answer,
        last: &str,
        now_ms: u64,
        jitter: f64,
    ) -> Option<Death> {
        let attempts = self.outbox.attempts(key).saturating_add(1);
        match self.outbox.settle(key, answer, now_ms, jitter)? {
            Settled::Again(_) => None,
            Settled::Taken(parcel) => {
                self.let_go(parcel.id);
                None
            }
            Settled::Dead(parcel, death) => {
                self.let_go(parcel.id);
                self.dead.push(DeadLetter {
                    parcel,
                    death,
                    last: last.to_owned(),
                    attempts,
                    dead_ms: now_ms,
                });
                Some(death)
            }
        }
    }

    fn let_go(&mut self, id: EventId) {
        self.loose.remove(&(id.place(), id));
        if self.kept.remove(&id).is_some() {
            self.forget.insert(id);
        }
    }

    /// What is to be saved; `None` if nothing has changed.
    pub fn saving(&self) -> Option<Saving> {
        let saving = self.standing();
        let is_nothing = saving.keep.is_empty()
            && saving.forget.is_empty()
            && saving.dead.is_empty()
            && saving.read == self.saved_read;
        (!is_nothing).then_some(saving)
    }

    /// What is to be saved, if only where it stands.
    pub fn standing(&self) -> Saving {
        let mut keep = Vec::new();
        for (delivery, parcels) in self.outbox.lanes() {
            let has_failed = delivery.attempts > 0;
            let stands = std::iter::once(delivery).chain(std::iter::repeat(WAITS));
            for (parcel, delivery) in parcels.zip(stands) {
                let before = self.kept.get(&parcel.id);
                if has_failed && before != Some(&delivery) && keep.len() < MAX_KEPT_AT_ONCE {
                    let parcel = parcel.clone();
                    keep.push(Retry { parcel, delivery });
                }
            }
        }
        let is_kept = |id: &EventId| keep.iter().any(|retry| retry.parcel.id == *id);
        let first_loose = self.loose.iter().find(|(_, id)| !is_kept(id));
        let read = first_loose.map_or(self.read, |(place, _)| place.saturating_sub(1));
        Saving {
            read: read.max(self.saved_read),
            forget: self.forget.iter().copied().collect(),
            dead: self.dead.clone(),
            keep,
        }
    }

    /// That was saved, and nothing happened meanwhile.
    pub fn on_saved(&mut self, saving: &Saving) {
        self.saved_read = saving.read;
        for Retry { parcel, delivery } in &saving.keep {
            self.loose.remove(&(parcel.id.place(), parcel.id));
            self.kept.insert(parcel.id, *delivery);
        }
        for id in &saving.forget {
            self.forget.remove(id);
        }
        self.dead.drain(..saving.dead.len());
    }
}

/// A parcel as it is stored, on its way or given up. Tags are never used for anything else again.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    device: Option<String>,
    #[prost(bytes = "vec", optional, tag = "3")]
    push: Option<Vec<u8>>,
    #[prost(string, tag = "4")]
    body: String,
    #[prost(string, optional, tag = "5")]
    url: Option<String>,
    #[prost(uint32, tag = "6")]
    attempts: u32,
    #[prost(uint64, tag = "7")]
    since_ms: u64,
    #[prost(uint64, tag = "8")]
    next_ms: u64,
    #[prost(uint32, tag = "9")]
    death: u32,
    #[prost(string, tag = "10")]
    last: String,
    #[prost(uint64, tag = "11")]
    dead_ms: u64,
}

/// Stored bytes that are no parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored event of a webhook is damaged; restore the store from a backup")]
pub struct Damaged;

impl Record {
    fn of(parcel: &Parcel) -> Record {
        let (device, push) = match &parcel.key {
            Key::App => (None, None),
            Key::Device(device) => (Some(device.to_string()), None),
            Key::Push(id) => (None, Some(id.0.to_be_bytes().to_vec())),
        };
        Record {
            id: parcel.id.0.to_be_bytes().to_vec(),
            device,
            push,
            body: parcel.body.clone(),
            url: parcel.url.clone(),
            ..Record::default()
        }
    }

    fn parcel(self) -> Result<Parcel, Damaged> {
        let number = |bytes: Vec<u8>| bytes.try_into().map(u128::from_be_bytes);
        let key = match (self.device, self.push) {
            (Some(device), _) => Key::Device(device.into()),
            (None, Some(push)) => Key::Push(PushId(number(push).map_err(|_| Damaged)?)),
            (None, None) => Key::App,
        };
        Ok(Parcel {
            id: EventId(number(self.id).map_err(|_| Damaged)?),
            key,
            body: self.body,
            url: self.url,
        })
    }
}

impl Retry {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let record = Record {
            attempts: self.delivery.attempts,
            since_ms: self.delivery.since_ms,
            next_ms: self.delivery.next_ms,
            ..Record::of(&self.parcel)
        };
        record.encode_to_vec()
    }

    /// What was stored.
    pub fn decode(bytes: &[u8]) -> Result<Retry, Damaged> {
        let record = Record::decode(bytes).map_err(|_| Damaged)?;
        Ok(Retry {
            delivery: Delivery {
                attempts: record.attempts,
                since_ms: record.since_ms,
                next_ms: record.next_ms,
            },
            parcel: record.parcel()?,
        })
    }
}

impl DeadLetter {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let record = Record {
            attempts: self.attempts,
            death: self.death as u32,
            last: self.last.clone(),
            dead_ms: self.dead_ms,
            ..Record::of(&self.parcel)
        };
        record.encode_to_vec()
    }

    /// What was stored.
    pub fn decode(bytes: &[u8]) -> Result<DeadLetter, Damaged> {
        let record = Record::decode(bytes).map_err(|_| Damaged)?;
        Ok(DeadLetter {
            death: Death::from_code(record.death),
            last: record.last.clone(),
            attempts: record.attempts,
            dead_ms: record.dead_ms,
            parcel: record.parcel()?,
        })
    }
}

#[cfg(test)]
mod tests;
