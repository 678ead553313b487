//! Whom a push is for: what is known of the live devices, kept up with what the store says.
//!
//! A claim brings the profile of its device. Later changes come as notices, and both may be under way at the same time, in either order. The places of changes
//! tell which is newer.

use std::{collections::BTreeSet, mem::take, sync::Arc};

use bytes::Bytes;

use super::{Pending, Phase, Shard, conn::Live, live_in};
use crate::{
    audience::Device,
    cluster::peer::{Imagined, LiveCount},
    ids::Offset,
    message::{Kind, Message},
    store::{Page, Query, StoreError},
};

/// Devices whose profiles are read in one go.
const PROFILES_AT_ONCE: usize = 500;

/// A profile that came while a claim was under way.
#[derive(Debug)]
pub(super) struct Noticed {
    profile: Option<Bytes>,
    /// The place of the change.
    change: Offset,
}

/// What a shard knows of an app's changes, as far as profiles need it.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    /// The last change that was taken.
    seen: Offset,
    /// Clients whose claims have seen changes that this shard has still to hear of.
    ahead: BTreeSet<(Offset, Arc<str>)>,
    /// Changes before this one were missed.
    missed_to: Offset,
    /// Clients whose profiles are being read for that reason.
    outdated: BTreeSet<Arc<str>>,
}

impl Profiles {
    /// All changes up to here are known.
    fn see(&mut self, change: Offset) {
        self.seen = self.seen.max(change);
        while self
            .ahead
            .first()
            .is_some_and(|(until, _)| *until <= self.seen)
        {
            self.ahead.pop_first();
        }
    }

    /// Whether no profile is being read.
    pub(super) fn are_known(&self) -> bool {
        self.outdated.is_empty()
    }

    /// Whether the profile of a client is being read.
    pub(super) fn is_outdated(&self, client_id: &str) -> bool {
        self.outdated.contains(client_id)
    }

    fn is_old(&self, client_id: &str, change: Offset) -> bool {
        let mut ahead = self.ahead.iter();
        ahead.any(|(until, ahead)| change <= *until && **ahead == *client_id)
    }
}

impl Shard {
    /// A claimed device is taken up: what of its profile, from the claim and from notices since, is the newest.
    pub(super) fn join_audiences(
        &mut self,
        slot: u32,
        live: &mut Live,
        claimed: Option<Bytes>,
        changes: Offset,
        noticed: Option<Box<Noticed>>,
    ) {
        let profiles = &mut self.apps[usize::from(live.app)].profiles;
        if changes >= profiles.missed_to {
            profiles.outdated.remove(&live.client_id);
        }
        if changes > profiles.seen {
            profiles.ahead.insert((changes, live.client_id.clone()));
        }
        let profile = match noticed.map(|noticed| *noticed) {
            Some(Noticed { profile, change }) if change > changes => profile,
            _ => claimed,
        };
        self.set_profile(slot, live, profile);
    }

    /// A device that was taken up leaves.
    pub(super) fn leave_audiences(&mut self, slot: u32, live: &Live) {
        let app = &mut self.apps[usize::from(live.app)];
        app.profiles.ahead.retain(|(_, id)| *id != live.client_id);
        if live.has_profile {
            self.audiences.leave(&app.id, slot);
        }
    }

    fn set_profile(&mut self, slot: u32, live: &mut Live, profile: Option<Bytes>) {
        let app = &self.apps[usize::from(live.app)].id;
        match profile {
            Some(ref profile) => self.audiences.join(app, &device(slot, live), profile),
            None if live.has_profile => self.audiences.leave(app, slot),
            None => return,
        }
        live.has_profile = profile.is_some();
    }

    /// Something changed in the store; all before it is known.
    pub(super) fn note_change(&mut self, app: u16, change: Offset) {
        self.apps[usize::from(app)].profiles.see(change);
    }

    /// The push domain knows something else of a device.
    pub(super) fn on_profile(
        &mut self,
        app: u16,
        client_id: &Arc<str>,
        profile: Option<Bytes>,
        change: Offset,
    ) {
        let state = &mut self.apps[usize::from(app)];
        state.profiles.outdated.remove(client_id);
        let Some(&slot) = state.clients.get(client_id) else {
            return;
        };
        if state.profiles.is_old(client_id, change) {
            return;
        }
        let Some(mut conn) = self.conns[slot as usize].take() else {
            return;
        };
        match &mut conn.phase {
            Phase::Claiming(connecting) => {
                connecting.profile_noticed = Some(Box::new(Noticed { profile, change }));
            }
            Phase::Announcing(live) | Phase::Live(live) => self.set_profile(slot, live, profile),
            _ => {}
        }
        self.conns[slot as usize] = Some(conn);
        if self.consider_all(slot) {
            self.pump(slot);
        }
    }

    /// Changes of an app may have been missed up to here: the profiles of its devices are read.
    pub(super) fn read_profiles(&mut self, app: u16, changes: Offset) {
        let state = &mut self.apps[usize::from(app)];
        state.profiles.see(changes);
        state.profiles.missed_to = changes;
        let clients: BTreeSet<Arc<str>> = state.clients.keys().cloned().collect();
        state.profiles.outdated.clone_from(&clients);
        self.ask_for_profiles(app, &clients.into_iter().collect::<Vec<_>>());
    }

    fn ask_for_profiles(&mut self, app: u16, clients: &[Arc<str>]) {
        let id = self.apps[usize::from(app)].id.clone();
        for clients in clients.chunks(PROFILES_AT_ONCE) {
            let query = Query::Profiles {
                app: id.clone(),
                clients: clients.to_vec(),
            };
            self.query(query, Pending::Profiles(app, clients.to_vec()));
        }
    }

    /// Profiles were read.
    pub(super) fn on_profiles_page(
        &mut self,
        app: u16,
        clients: Vec<Arc<str>>,
        page: Result<Page, StoreError>,
    ) {
        let Ok(Page::Profiles { profiles, changes }) = page else {
            return self.unread_profiles.entry(app).or_default().extend(clients);
        };
        if changes < self.apps[usize::from(app)].profiles.missed_to {
            // It was asked for before more was missed.
            return;
        }
        for (client_id, profile) in clients.iter().zip(profiles) {
            // What was said of the others meanwhile goes on to what is newest.
            let state = &self.apps[usize::from(app)];
            if state.profiles.outdated.contains(client_id) {
                self.on_profile(app, client_id, profile, changes);
            }
            let state = &self.apps[usize::from(app)];
            if let Some(&slot) = state.clients.get(client_id) {
                // Its replay may have waited for this.
                self.pump(slot);
            }
        }
    }

    /// Reads profiles again that could not be read.
    pub(super) fn read_profiles_again(&mut self) {
        for (app, mut clients) in take(&mut self.unread_profiles) {
            let profiles = &self.apps[usize::from(app)].profiles;
            clients.retain(|id| profiles.outdated.contains(id));
            self.ask_for_profiles(app, &clients);
        }
    }

    /// Slots of the live devices that a message with an audience is for.
    pub(super) fn select(&mut self, app: u16, message: &Message) -> Vec<u32> {
        let state = &self.apps[usize::from(app)];
        let mut slots = Vec::new();
        let audiences = &mut self.audiences;
        if audiences.select(&state.id, message, self.now, &mut slots) {
            for &slot in state.clients.values() {
                let Some((_, live)) = live_in(&mut self.conns, slot) else {
                    continue;
                };
                let device = device(slot, live);
                if !live.has_profile && audiences.admits(&state.id, &device, message, self.now) {
                    slots.push(slot);
                }
            }
        }
        slots
    }

    /// How many live devices a push would be for.
    pub(super) fn count_live(&mut self, imagined: &Imagined) -> LiveCount {
        let app = self.app(&imagined.app);
        let Some(audience) = &imagined.audience else {
            let clients = self.apps[usize::from(app)].clients.values();
            let known = clients.filter(|slot| self.live(**slot).is_some()).count() as u64;
            return LiveCount { known, others: 0 };
        };
        let mut message = Message::new(imagined.push, Kind::Push, "", &[], &[]);
        message.audience = Some(audience.clone());
        let selected = self.select(app, &message);
        let is_known = |slot: &&u32| self.live(**slot).is_some_and(|live| live.has_profile);
        let known = selected.iter().filter(is_known).count() as u64;
        LiveCount {
            known,
            others: selected.len() as u64 - known,
        }
    }

    /// Whether it cannot be said now if a message is for a live client.
    pub(super) fn is_unjudged(&self, live: &Live, message: &Message) -> bool {
        let profiles = &self.apps[usize::from(live.app)].profiles;
        message.audience.is_some() && !profiles.are_known() && profiles.is_outdated(&live.client_id)
    }

    /// Whether an entry of the push log that is replayed is for a live client. What goes to nobody any more is not judged.
    pub(super) fn is_for(&mut self, slot: u32, message: &Message) -> bool {
        if message.audience.is_none() || message.is_expired(self.now) {
            return true;
        }
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return false;
        };
        let app = &self.apps[usize::from(live.app)].id;
        self.audiences
            .admits(app, &device(slot, live), message, self.now)
    }
}

pub(super) fn device(slot: u32, live: &Live) -> Device<'_> {
    Device {
        slot,
        client_id: &live.client_id,
        ordinal: live.ordinal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_a_claim_has_seen_is_old_until_all_have_come() {
        let mut profiles = Profiles::default();
        profiles.see(Offset(3));
        profiles.ahead.insert((Offset(7), "claimed".into()));
        profiles.ahead.insert((Offset(9), "later".into()));
        for (client_id, change, is_old) in [
            ("claimed", 5, true),
            ("claimed", 7, true),
            ("claimed", 8, false),
            ("later", 8, true),
            ("other", 5, false),
        ] {
            let judged = profiles.is_old(client_id, Offset(change));
            assert_eq!(judged, is_old, "{client_id} {change}");
        }
        profiles.see(Offset(7));
        assert_eq!(profiles.ahead.len(), 1);
        profiles.see(Offset(9));
        assert!(profiles.ahead.is_empty());
    }
}
