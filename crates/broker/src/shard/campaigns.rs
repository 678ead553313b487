//! Campaigns: pushes whose devices have their turns at different times, each when [`Audiences`](crate::audience::Audiences) says so.
//!
//! A campaign is the same message for all, and no entry of a log: no cursor waits for it, and a device may have its turn long after others. The shard keeps, of its
//! live devices only, who waits for which time. A device that comes looks at all campaigns, of which there are few; one that leaves is forgotten, and its memory
//! says what it is done with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Shard,
    audiences::device,
    conn::{Live, Queued, Tag, TagSource},
    live_in,
    outgoing::{self, Delivery, Sent},
};
use crate::{
    audience::{Standing, Turn},
    ids::{AppId, ClientKey, MessageId, Millis, Offset},
    lane::{CampaignShare, Lane, LaneSet, NORMAL_BEFORE_LOW},
    message::Message,
    store::{Claimed, InboxItem, Progress},
};

/// What a shard knows of an app's campaigns.
#[derive(Debug, Default)]
pub(super) struct Campaigns {
    running: BTreeMap<MessageId, Running>,
    /// Pushes that ended before their time, and of which something may still wait.
    ended: BTreeSet<MessageId>,
}

#[derive(Debug)]
struct Running {
    message: Arc<Message>,
    lane: Lane,
    /// Live devices that wait for their turn.
    turns: BTreeSet<(Millis, u32)>,
}

/// What campaigns are to a live device.
#[derive(Debug, Default)]
pub(super) struct OfDevice {
    /// What it is done with.
    memory: Bytes,
    /// How often that has changed here.
    pub changes: u64,
    /// As of which change the store has it.
    pub saved: u64,
    /// It waits for its turn in these.
    waits: SmallVec<[(MessageId, Millis); 1]>,
    /// It is its turn in these: they wait for room.
    due: BTreeSet<(Lane, MessageId)>,
    /// It is to be asked of these when one that is under way is over.
    behind: BTreeSet<MessageId>,
    /// How much of other things it got meanwhile.
    pub share: CampaignShare,
    /// How often something else was sent in a row while a low one waited.
    low_passed_over: u8,
}

impl OfDevice {
    /// The memory, unless the store is known to have it.
    pub fn unsaved_memory(&self) -> Option<Bytes> {
        (self.changes > self.saved).then(|| self.memory.clone())
    }

    /// Lanes in which it is its turn.
    pub fn due_lanes(&self) -> LaneSet {
        self.due.iter().map(|(lane, _)| *lane).collect()
    }

    fn set_memory(&mut self, memory: Bytes) {
        self.memory = memory;
        self.changes += 1;
    }

    fn forget(&mut self, push: MessageId) -> Option<Millis> {
        self.due.retain(|(_, due)| *due != push);
        self.behind.remove(&push);
        let at = self.waits.iter().position(|(of, _)| *of == push)?;
        Some(self.waits.swap_remove(at).1)
    }
}

impl Campaigns {
    /// Whether a push ended before its time.
    pub fn is_ended(&self, message: &Message) -> bool {
        !self.ended.is_empty() && self.ended.contains(&message.id)
    }

    /// Whether the row of a push is known.
    pub fn has_heard_of(&self, push: MessageId) -> bool {
        self.running.contains_key(&push) || self.ended.contains(&push)
    }
}

impl Shard {
    /// A device is taken up with what it remembers. `begins`: it was never seen before.
    pub(super) fn join_campaigns(&mut self, live: &mut Live, memory: Option<Bytes>, begins: bool) {
        let app = self.apps[usize::from(live.app)].id.clone();
        let begun = self.begun(&app, memory.as_ref(), begins);
        if memory.is_none() && begun.is_none() {
            return;
        }
        let mut of = OfDevice {
            memory: memory.unwrap_or_default(),
            ..OfDevice::default()
        };
        if let Some(begun) = begun {
            of.set_memory(begun);
        }
        live.campaigns = Some(Box::new(of));
    }

    /// What a device remembers that begins, if there is anything that was there before it.
    pub(super) fn begun(
        &mut self,
        app: &AppId,
        memory: Option<&Bytes>,
        begins: bool,
    ) -> Option<Bytes> {
        let index = self.app(app);
        let running = &self.apps[usize::from(index)].campaigns.running;
        let begins = begins && !running.is_empty();
        let nothing = Bytes::new();
        let memory = memory.unwrap_or(&nothing);
        begins.then(|| self.audiences.begin(app, memory, self.now))
    }

    /// Whether a device begins although the store has seen it: with an earlier claim, of which nothing has come but that. If another node has served it since, it
    /// does not.
    pub(super) fn still_begins(&mut self, client: &ClientKey, claimed: &Claimed) -> bool {
        // What an earlier claim left behind is worth nothing from now on.
        self.forget_last_words(client);
        let earlier = self.beginnings.remove(client);
        earlier.is_some_and(|epoch| epoch < claimed.epoch)
            && claimed.memory.is_none()
            && self.elsewhere(claimed).is_none()
    }

    /// The store has what a device remembers that began with a claim, or a later claim has: it was answered before this.
    pub(super) fn beginning_is_known(&mut self, progress: &Progress) {
        if self.beginnings.get(&progress.client) == Some(&progress.epoch) {
            self.beginnings.remove(&progress.client);
        }
    }

    /// A device is in service: what campaigns are to it, and that it begins, if it does.
    pub(super) fn take_up_campaigns(&mut self, slot: u32) {
        self.consider_all(slot);
        let is_unsaved = self.live(slot).is_some_and(|live| {
            let of = live.campaigns.as_ref();
            live.is_durable() && of.is_some_and(|of| of.changes > of.saved)
        });
        if is_unsaved {
            self.mark_dirty(slot);
        }
    }

    /// A device that was taken up leaves.
    pub(super) fn leave_campaigns(&mut self, slot: u32, live: &Live) {
        let Some(of) = &live.campaigns else { return };
        let campaigns = &mut self.apps[usize::from(live.app)].campaigns;
        for (push, at) in &of.waits {
            if let Some(running) = campaigns.running.get_mut(push) {
                running.turns.remove(&(*at, slot));
            }
        }
    }

    /// The row of a push is another one.
    pub(super) fn on_campaign(&mut self, app: u16, push: MessageId, row: Option<Bytes>) {
        let state = &mut self.apps[usize::from(app)];
        let standing = self.audiences.row(&state.id, push, row.as_ref());
        let waited = state.campaigns.running.remove(&push);
        state.campaigns.ended.remove(&push);
        let mut slots: Vec<u32> = Vec::new();
        for (_, slot) in waited.into_iter().flat_map(|running| running.turns) {
            slots.push(slot);
        }
        match standing {
            Standing::Campaign(message, lane) => {
                let running = Running {
                    message: message.clone(),
                    lane,
                    turns: BTreeSet::new(),
                };
                state.campaigns.running.insert(push, running);
                slots.extend(self.select(app, &message));
            }
            Standing::Ended => {
                state.campaigns.ended.insert(push);
            }
            Standing::Nothing => {}
        }
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            if self.consider(slot, push) {
                self.pump(slot);
            }
        }
    }

    /// All rows of an app's pushes are these, instead of what was known.
    pub(super) fn on_all_campaigns(&mut self, app: u16, rows: &[(MessageId, Bytes)]) {
        let campaigns = &self.apps[usize::from(app)].campaigns;
        let known = campaigns.running.keys().chain(&campaigns.ended);
        let gone: Vec<MessageId> = known
            .filter(|push| rows.iter().all(|(of, _)| of != *push))
            .copied()
            .collect();
        for push in gone {
            self.on_campaign(app, push, None);
        }
        for (push, row) in rows {
            self.on_campaign(app, *push, Some(row.clone()));
        }
    }

    /// Asks of every campaign what it is to a device. Whether it is its turn in any.
    pub(super) fn consider_all(&mut self, slot: u32) -> bool {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return false;
        };
        let running = &self.apps[usize::from(live.app)].campaigns.running;
        if running.is_empty() {
            return false;
        }
        let pushes: Vec<MessageId> = running.keys().copied().collect();
        let due = pushes.into_iter().filter(|push| self.consider(slot, *push));
        due.count() > 0
    }

    /// Asks what a campaign is to a device, and remembers that. Whether it is its turn.
    fn consider(&mut self, slot: u32, push: MessageId) -> bool {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return false;
        };
        let app = &mut self.apps[usize::from(live.app)];
        if let Some(of) = &mut live.campaigns
            && let Some(at) = of.forget(push)
            && let Some(running) = app.campaigns.running.get_mut(&push)
        {
            running.turns.remove(&(at, slot));
        }
        let Some(running) = app.campaigns.running.get_mut(&push) else {
            return false;
        };
        if !app.profiles.are_known() && app.profiles.is_outdated(&live.client_id) {
            // It is asked again when its profile is known.
            return false;
        }
        let under_way = under_way(live);
        if under_way.contains(&push) {
            return false;
        }
        let nothing = Bytes::new();
        let memory = live.campaigns.as_ref().map_or(&nothing, |of| &of.memory);
        let device = device(slot, live);
        let turn = self
            .audiences
            .turn(&app.id, &device, push, memory, &under_way, self.now);
        match turn {
            Turn::No => return false,
            Turn::Now => {
                let lane = running.lane;
                live.campaigns
                    .get_or_insert_default()
                    .due
                    .insert((lane, push));
                return true;
            }
            Turn::At(at) => {
                running.turns.insert((at, slot));
                let of = live.campaigns.get_or_insert_default();
                of.waits.push((push, at));
                self.turns_due = Some(self.turns_due.map_or(at, |due| due.min(at)));
            }
            Turn::Behind => {
                let of = live.campaigns.get_or_insert_default();
                of.behind.insert(push);
            }
            Turn::Never(reason) => self.settle(slot, push, reason),
        }
        false
    }

    /// A device will not get a campaign.
    fn settle(&mut self, slot: u32, push: MessageId, reason: u8) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        live.unsaved
            .get_or_insert_default()
            .settled
            .push((push, reason));
        self.note_over(slot, push, false);
    }

    /// A campaign that was sent to a device is over for it. `reached`: it has it.
    pub(super) fn campaign_over(&mut self, slot: u32, push: MessageId, reached: bool) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if reached {
            live.unsaved.get_or_insert_default().receipts.push(push);
            self.stats.pushes_acknowledged += 1;
        }
        self.note_over(slot, push, reached);
        self.consider_what_is_behind(slot);
    }

    /// Asks again of campaigns that wait until another one is no more under way.
    pub(super) fn consider_what_is_behind(&mut self, slot: u32) {
        let of = self.live_mut(slot).and_then(|live| live.campaigns.as_mut());
        for push in of
            .map(|of| std::mem::take(&mut of.behind))
            .into_iter()
            .flatten()
        {
            self.consider(slot, push);
        }
    }

    fn note_over(&mut self, slot: u32, push: MessageId, reached: bool) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        let app = &self.apps[usize::from(live.app)].id;
        let of = live.campaigns.get_or_insert_default();
        let memory = self
            .audiences
            .remember(app, push, &of.memory, reached, self.now);
        of.set_memory(memory);
        self.mark_dirty(slot);
    }

    /// Devices whose time has come have their turns.
    pub(super) fn take_turns(&mut self) {
        if self.turns_due.is_none_or(|due| due > self.now) {
            return;
        }
        let mut due: Vec<(u32, MessageId)> = Vec::new();
        let mut next: Option<Millis> = None;
        for app in &mut self.apps {
            for (push, running) in &mut app.campaigns.running {
                let later = running.turns.split_off(&(Millis(self.now.0 + 1), 0));
                let now = std::mem::replace(&mut running.turns, later);
                due.extend(now.into_iter().map(|(_, slot)| (slot, *push)));
                let first = running.turns.first().map(|(at, _)| *at);
                next = next.into_iter().chain(first).min();
            }
        }
        self.turns_due = next;
        for (slot, push) in due {
            if self.consider(slot, push) {
                self.pump(slot);
            }
        }
    }

    /// Sends the campaigns of a lane in which it is a device's turn, as far as there is room, to one for which nothing else waits that goes before them.
    pub(super) fn pump_campaigns(&mut self, slot: u32, lane: Lane) {
        let goes = |live: &Live| match lane {
            Lane::High | Lane::Normal => live.push.replay.is_none(),
            Lane::Low => live.push.replay.is_none() && !live.has_queue(),
        };
        while self.live(slot).is_some_and(goes) && self.pump_campaign(slot, lane) {}
    }

    /// Sends the next campaign of a lane in which it is a device's turn, if there is room. Whether it did.
    pub(super) fn pump_campaign(&mut self, slot: u32, lane: Lane) -> bool {
        loop {
            let Some((_, live)) = live_in(&mut self.conns, slot) else {
                return false;
            };
            let has_room = live.has_room();
            let Some(of) = &mut live.campaigns else {
                return false;
            };
            let first = of.due.iter().find(|(of, _)| *of == lane).copied();
            let Some((_, push)) = first.filter(|_| has_room) else {
                return false;
            };
            of.share.sent(lane);
            if lane == Lane::Low {
                of.low_passed_over = 0;
            }
            // Much may have changed while it waited for room.
            if self.consider(slot, push) {
                self.send_campaign(slot, push);
                return true;
            }
        }
    }

    /// Low campaigns wait for topics and for what is in memory. They have a share of the room, too, lest a client that always has something waiting never gets them:
    /// one goes first after so many acknowledgements that let others go.
    pub(super) fn pump_low_share(&mut self, slot: u32) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        let has_room = live.has_room() && live.push.replay.is_none();
        let Some(of) = live.campaigns.as_mut().filter(|_| has_room) else {
            return;
        };
        if !of.due_lanes().contains(Lane::Low) {
            return;
        }
        of.low_passed_over += 1;
        if of.low_passed_over > NORMAL_BEFORE_LOW {
            self.pump_campaign(slot, Lane::Low);
        }
    }

    fn send_campaign(&mut self, slot: u32, push: MessageId) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if let Some(of) = &mut live.campaigns {
            of.forget(push);
        }
        let running = &self.apps[usize::from(live.app)].campaigns.running;
        let Some(message) = running.get(&push).map(|running| running.message.clone()) else {
            return;
        };
        let tag = Tag {
            source: TagSource::Campaign,
            offset: Offset(0),
            push,
        };
        let queued = Queued {
            qos: message.qos,
            message,
            retain: false,
            subscription_ids: SmallVec::new(),
            shared: None,
            keeper: None,
        };
        let packet_id = live.outbound.send(queued.qos, tag);
        let mut properties = Vec::new();
        let outgoing =
            outgoing::outgoing_of(&queued.message, tag.offset, self.now, &mut properties);
        let delivery = Delivery {
            qos: queued.qos,
            retain: false,
            dup: false,
            packet_id,
            subscription_ids: &[],
        };
        let sent = outgoing::write_publish(
            live,
            &mut self.outbox,
            &mut self.stats,
            &outgoing,
            &delivery,
            Some(&queued.message),
        );
        if sent == Sent::TooLarge {
            outgoing::give_back(live, packet_id, queued.qos);
            self.settle(slot, push, crate::audience::TOO_LARGE);
        }
    }

    /// The message of a campaign that was sent to a device over an earlier connection, if it goes on.
    pub(super) fn campaign_item(&self, slot: u32, push: MessageId) -> Option<InboxItem> {
        let live = self.live(slot)?;
        let running = &self.apps[usize::from(live.app)].campaigns.running;
        let message = running.get(&push)?.message.clone();
        Some(InboxItem {
            qos: message.qos,
            message,
            retain: false,
            subscription_ids: SmallVec::new(),
            lane: Lane::Normal,
        })
    }
}

/// Campaigns that were sent to a device and that it has not acknowledged.
fn under_way(live: &Live) -> SmallVec<[MessageId; 4]> {
    let of_campaigns = live
        .outbound
        .unfinished()
        .filter(|u| u.tag.source == TagSource::Campaign);
    of_campaigns.map(|u| u.tag.push).collect()
}
