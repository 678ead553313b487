//! The port to whoever knows whom a push is for.
//!
//! The push log has one entry for a push to any number of devices. What it says of its audience, and what is known of a device (its *profile*), are bytes to the
//! shards; one [`Audiences`] per shard understands both. It keeps an index of the shard's live devices that have a profile. One without, as every plain MQTT
//! client, is not told of: it costs nothing until an audience may include devices of which nothing is known.
//!
//! A *campaign* is a push whose devices have their turns at different times. It is a row instead of an entry; what a device is done with of campaigns is its
//! *memory*. Both are bytes to the shards, too.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use campanile_mqtt::QoS;

use crate::{
    ids::{AppId, MessageId, Millis},
    lane::Lane,
    message::{Kind, Message},
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

    /// The row of a push is this now, or (`None`) there is none any more. What it means to the shard.
    fn row(&mut self, app: &AppId, push: MessageId, row: Option<&Bytes>) -> Standing;

    /// What a campaign is to a live device with that memory now. `under_way`: campaigns that were sent to it and that it has not acknowledged.
    fn turn(
        &mut self,
        app: &AppId,
        device: &Device<'_>,
        push: MessageId,
        memory: &Bytes,
        under_way: &[MessageId],
        now: Millis,
    ) -> Turn;

    /// The memory of a device after a campaign is over for it. `reached`: it has it.
    fn remember(
        &mut self,
        app: &AppId,
        push: MessageId,
        memory: &Bytes,
        reached: bool,
        now: Millis,
    ) -> Bytes;

    /// The memory of a device that is first seen now, if it has one already that too.
    fn begin(&mut self, app: &AppId, memory: &Bytes, now: Millis) -> Bytes;
}

/// What the row of a push means to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A campaign: what devices get, whom it may be for, and before what it goes.
    Campaign(Arc<Message>, Lane),
    /// The push ended before its time: what still waits of it is not sent.
    Ended,
    /// There is nothing about it.
    Nothing,
}

/// Why a device does not get a message that is larger than its client takes, as a [`Turn::Never`]; a code of the push domain.
pub const TOO_LARGE: u8 = 32;

/// What a campaign is to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is its turn.
    Now,
    /// Its turn comes then.
    At(Millis),
    /// It is to be asked again when another campaign that is under way is over.
    Behind,
    /// It will not get it, for this reason; a code of the push domain.
    Never(u8),
    /// Nothing, until the row or the profile changes.
    No,
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

    fn row(&mut self, _: &AppId, _: MessageId, _: Option<&Bytes>) -> Standing {
        Standing::Nothing
    }

    fn turn(
        &mut self,
        _: &AppId,
        _: &Device<'_>,
        _: MessageId,
        _: &Bytes,
        _: &[MessageId],
        _: Millis,
    ) -> Turn {
        Turn::No
    }

    fn remember(&mut self, _: &AppId, _: MessageId, memory: &Bytes, _: bool, _: Millis) -> Bytes {
        memory.clone()
    }

    fn begin(&mut self, _: &AppId, memory: &Bytes, _: Millis) -> Bytes {
        memory.clone()
    }
}

/// Audiences of one word, for tests and the simulation.
///
/// A profile is words with spaces between them; `word@ms` has it since that time. An audience is a word, which a device must have had when the push was made, or
/// `!word`, which it must not have.
///
/// The row of a campaign is `LANE AT AUDIENCE TEXT`: `low 500 vip hello` is for those with the word, from 500 ms on; `-` is everybody. For AT, `held` is nobody's
/// turn, and `never` that of none, for reason 21. The row `ended` is of a push that ended. A memory is the ids that a device is done with, and `@ms`, before which
/// nothing is for it.
#[derive(Debug, Default)]
pub struct Words {
    joined: HashMap<AppId, BTreeMap<u32, Bytes>>,
    rows: HashMap<(AppId, MessageId), Vec<String>>,
}

impl Words {
    /// The row of a campaign as it is read.
    fn campaign(push: MessageId, row: &[u8]) -> Option<(Vec<String>, Message)> {
        let row = String::from_utf8(row.to_vec()).ok()?;
        let parts: Vec<String> = row.splitn(4, ' ').map(str::to_owned).collect();
        let [_, _, audience, text] = parts.as_slice() else {
            return None;
        };
        let mut message = Message::new(push, Kind::Push, "push/in", &[], text.as_bytes());
        message.qos = QoS::AtLeastOnce;
        let everybody = "!-";
        let audience = if audience == "-" { everybody } else { audience };
        message.audience = Some(audience.to_owned().into());
        Some((parts, message))
    }
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

    fn row(&mut self, app: &AppId, push: MessageId, row: Option<&Bytes>) -> Standing {
        self.rows.remove(&(app.clone(), push));
        let Some(row) = row else {
            return Standing::Nothing;
        };
        let Some((parts, message)) = Words::campaign(push, row) else {
            return Standing::Ended;
        };
        let lane = match parts[0].as_str() {
            "high" => Lane::High,
            "low" => Lane::Low,
            _ => Lane::Normal,
        };
        self.rows.insert((app.clone(), push), parts);
        Standing::Campaign(Arc::new(message), lane)
    }

    fn turn(
        &mut self,
        app: &AppId,
        device: &Device<'_>,
        push: MessageId,
        memory: &Bytes,
        _: &[MessageId],
        now: Millis,
    ) -> Turn {
        let Some(parts) = self.rows.get(&(app.clone(), push)) else {
            return Turn::No;
        };
        let at = parts[1].clone();
        let memory = String::from_utf8_lossy(memory);
        let made_at = push.place() >> 16;
        let is_over = memory.split(' ').any(|word| match word.strip_prefix('@') {
            Some(since) => since.parse().is_ok_and(|since: u64| made_at < since),
            None => word == push.to_string(),
        });
        let audience = parts[2].clone();
        let mut message = Message::new(push, Kind::Push, "", &[], &[]);
        message.audience = Some(audience.clone().into());
        if is_over || audience != "-" && !self.admits(app, device, &message, now) {
            return Turn::No;
        }
        match at.as_str() {
            "held" => Turn::No,
            "never" => Turn::Never(21),
            at => match at.parse().map(Millis) {
                Ok(at) if at > now => Turn::At(at),
                _ => Turn::Now,
            },
        }
    }

    fn remember(
        &mut self,
        _: &AppId,
        push: MessageId,
        memory: &Bytes,
        _: bool,
        _: Millis,
    ) -> Bytes {
        format!("{} {push}", String::from_utf8_lossy(memory)).into()
    }

    fn begin(&mut self, _: &AppId, memory: &Bytes, now: Millis) -> Bytes {
        format!("{} @{}", String::from_utf8_lossy(memory), now.0).into()
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
