//! What a device remembers of campaigns: which it is done with, and how many of a kind it got lately.

use std::collections::BTreeSet;

use prost::Message;

use crate::{
    frequency::{FrequencyCap, History},
    hash,
    id::PushId,
};

/// How long a campaign that a node does not know may be one that it has still to hear of, in milliseconds.
const UNHEARD_MS: u64 = 60_000;

/// What a device remembers. Empty at most devices, which is no bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    since_ms: u64,
    done: BTreeSet<u64>,
    history: History,
}

impl Memory {
    /// That of a device that is first seen then: what was pushed before is not for it.
    pub fn since(self, now_ms: u64) -> Memory {
        Memory {
            since_ms: now_ms,
            ..self
        }
    }

    /// When it was first seen, in Unix milliseconds; 0: it has always been there.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Whether it is done with a campaign: it has it, or never gets it.
    pub fn is_done(&self, push: PushId) -> bool {
        self.done.contains(&note(push))
    }

    /// It is done with a campaign.
    pub fn add(&mut self, push: PushId) {
        self.done.insert(note(push));
    }

    /// It got a push of this kind.
    pub fn count(&mut self, cap: &FrequencyCap, now_ms: u64) {
        self.history.remember(cap, now_ms);
    }

    /// Until when a cap holds the device back.
    pub fn capped_until(&self, cap: &FrequencyCap, now_ms: u64) -> Option<u64> {
        self.history.capped_until(cap, now_ms)
    }

    /// Forgets what no campaign of these needs any more: all that the node knows, with their times of acceptance. One that was accepted just now may be unheard of.
    pub fn tidy(&mut self, known: impl Iterator<Item = (PushId, u64)>, now_ms: u64) {
        let mut needs_since = self.since_ms + UNHEARD_MS > now_ms;
        let mut kept = BTreeSet::new();
        for (push, accepted_ms) in known {
            needs_since |= accepted_ms <= self.since_ms;
            kept.insert(note(push));
        }
        let fresh_ms = now_ms.saturating_sub(UNHEARD_MS);
        self.done
            .retain(|note| kept.contains(note) || note >> NOTE_SALT_BITS >= low_ms(fresh_ms));
        if !needs_since {
            self.since_ms = 0;
        }
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        Record {
            since_ms: self.since_ms,
            done: self.done.iter().copied().collect(),
            history: self.history.encode(),
        }
        .encode_to_vec()
    }

    /// What was stored.
    pub fn decode(bytes: &[u8]) -> Result<Memory, prost::DecodeError> {
        let record = Record::decode(bytes)?;
        Ok(Memory {
            since_ms: record.since_ms,
            done: record.done.into_iter().collect(),
            history: History::decode(&record.history)?,
        })
    }
}

/// Bits of a note beside the time.
const NOTE_SALT_BITS: u32 = 24;

/// What is remembered of a push: the lower 40 bits of its time, which go round in 34 years, and a hash. Of two campaigns of an app in the same millisecond, one in
/// 16 million has the note of the other.
fn note(push: PushId) -> u64 {
    let made_ms = (push.0 >> 80) as u64;
    low_ms(made_ms) << NOTE_SALT_BITS | hash::position(push, "") >> (64 - NOTE_SALT_BITS)
}

fn low_ms(ms: u64) -> u64 {
    ms & ((1 << (64 - NOTE_SALT_BITS)) - 1)
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    since_ms: u64,
    #[prost(fixed64, repeated, tag = "2")]
    done: Vec<u64>,
    #[prost(bytes = "vec", tag = "3")]
    history: Vec<u8>,
}
