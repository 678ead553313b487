//! The port to whoever knows whom a push is for.
//!
//! The push log has one entry for a push to any number of devices. What it says of its audience, and what is known of a device (its *profile*), are bytes to the
//! shards; one [`Audiences`] per shard understands both. It keeps an index of the shard's live devices that have a profile. One without, as every plain MQTT
//! client, is not told of: it costs nothing until an audience may include devices of which nothing is known.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    ids::{AppId, Millis},
    message::Message,
};

/// Decides which of a shard's live devices a push is for. Called on the shard's thread.
pub trait Audiences: Send {
    /// A device is live and has a profile, or has another one than before, which this replaces.
    fn join(&mut self, app: &AppId, device: &Device<'_>, profile: &Bytes);

    /// A device that had joined has left, or has no profile any more.
    fn leave(&mut self, app: &AppId, slot: u32);

    /// Adds to `slots` the joined devices that a message with an audience is for now, each once. Returns whether it may be for devices that have not joined: the
    /// shard then asks [`Audiences::admits`] for each.
    fn select(&mut self, app: &AppId, message: &Message, now: Millis, slots: &mut Vec<u32>)
    -> bool;

    /// Whether a message with an audience is for this live device now. One that has not joined has no profile.
    fn admits(&mut self, app: &AppId, device: &Device<'_>, message: &Message, now: Millis) -> bool;
}

/// A live device of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Its number within the shard, small and dense; another device's once it has left.
    pub slot: u32,
    /// Its client identifier.
    pub client_id: &'a Arc<str>,
    /// Its number within the app.
    pub ordinal: u32,
}

/// Every push is for everybody, whatever its audience. For a node whose app servers do not address audiences.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everybody;

impl Audiences for Everybody {
    fn join(&mut self, _: &AppId, _: &Device<'_>, _: &Bytes) {}

    fn leave(&mut self, _: &AppId, _: u32) {}

    fn select(&mut self, _: &AppId, _: &Message, _: Millis, _: &mut Vec<u32>) -> bool {
        true
    }

    fn admits(&mut self, _: &AppId, _: &Device<'_>, _: &Message, _: Millis) -> bool {
        true
    }
}

/// Audiences of one word, for tests and the simulation.
///
/// A profile is words with spaces between them; `word@ms` has it since that time. An audience is a word, which a device must have had when the push was made, or
/// `!word`, which it must not have.
#[derive(Debug, Default)]
pub struct Words {
    joined: HashMap<AppId, BTreeMap<u32, Bytes>>,
}

impl Audiences for Words {
    fn join(&mut self, app: &AppId, device: &Device<'_>, profile: &Bytes) {
        let joined = self.joined.entry(app.clone()).or_default();
        joined.insert(device.slot, profile.clone());
    }

    fn leave(&mut self, app: &AppId, slot: u32) {
        let left = self.joined.get_mut(app).and_then(|app| app.remove(&slot));
        assert!(
            left.is_some(),
            "slot {slot} of {app} leaves but never joined"
        );
    }

    fn select(&mut self, app: &AppId, message: &Message, _: Millis, slots: &mut Vec<u32>) -> bool {
        let joined = self.joined.get(app).into_iter().flatten();
        slots.extend(
            joined
                .filter(|(_, profile)| matches(message, profile))
                .map(|(slot, _)| *slot),
        );
        matches(message, b"")
    }

    fn admits(&mut self, app: &AppId, device: &Device<'_>, message: &Message, _: Millis) -> bool {
        let profile = self.joined.get(app).and_then(|app| app.get(&device.slot));
        matches(message, profile.map_or(b"", |profile| profile))
    }
}

/// Whether the audience of a message takes a profile in.
fn matches(message: &Message, profile: &[u8]) -> bool {
    let audience = message.audience.as_deref().unwrap_or_default();
    let made_at = message.id.place() >> 16;
    let has = |word: &[u8]| {
        profile.split(|byte| *byte == b' ').any(|entry| {
            let mut parts = entry.split(|byte| *byte == b'@');
            let name = parts.next();
            let since = parts.next().and_then(|ms| std::str::from_utf8(ms).ok());
            let since: u64 = since.and_then(|ms| ms.parse().ok()).unwrap_or(0);
            name == Some(word) && since <= made_at
        })
    };
    match audience.strip_prefix(b"!") {
        Some(word) => !has(word),
        None => has(audience),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::MessageId, message::Kind};

    fn push(audience: &'static str, at_ms: u64) -> Message {
        let id = MessageId::first_at(at_ms << 16);
        let mut message = Message::new(id, Kind::Push, "push/in", &[], b"");
        message.audience = Some(Bytes::from_static(audience.as_bytes()));
        message
    }

    #[test]
    fn words_take_in_who_had_them_in_time() {
        let app = AppId::new("app");
        let mut words = Words::default();
        let names: [Arc<str>; 3] = ["a".into(), "b".into(), "plain".into()];
        let device = |slot: u32| Device {
            slot,
            client_id: &names[slot as usize],
            ordinal: slot,
        };
        words.join(&app, &device(0), &Bytes::from_static(b"vip beta@70"));
        words.join(&app, &device(1), &Bytes::from_static(b"beta"));
        let mut check = |audience, at_ms, expected: &[u32]| {
            let message = push(audience, at_ms);
            let mut slots = Vec::new();
            let others = words.select(&app, &message, Millis(100), &mut slots);
            slots.extend(others.then_some(2));
            assert_eq!(slots, expected, "{audience} at {at_ms}");
            for slot in 0..3 {
                let admitted = words.admits(&app, &device(slot), &message, Millis(100));
                assert_eq!(admitted, expected.contains(&slot), "{audience} {slot}");
            }
        };
        check("vip", 0, &[0]);
        check("beta", 69, &[1]);
        check("beta", 70, &[0, 1]);
        check("!vip", 0, &[1, 2]);
        check("none", 0, &[]);
    }
}
