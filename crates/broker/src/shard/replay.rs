//! Sending from logs and inbox by cursor, to clients that lag or have returned.
//!
//! A client that has read a log to its end gets new entries straight from the notice. One that has no room, or was away, *lags*: it keeps only the place up to
//! which it has read, and reads on from the shard's tail or from the store when there is room. So a slow client costs a number, not a queue.

use std::collections::VecDeque;

use campanile_mqtt::{QoS, topic};
use smallvec::SmallVec;

use super::{
    Pending, Shard,
    conn::{Live, PAGE, Queued, Tag, TagSource},
    live_in,
    outgoing::receipt_of,
};
use crate::{
    ids::{ConnId, Offset},
    lane::{Lane, LaneSet},
    message::Message,
    store::{Cursor, InboxEntry, LogEntry, LogKind, Page, Query, Source, Unfinished},
};

/// Entries of the push log that were not for a client after which others have their turn.
const PASSED_AT_ONCE: u32 = 1024;
/// Entries behind the end of a topic log up to which a client looks at each of them; beyond, the store is asked for those that match.
const SHORT_LAG: usize = 256;
/// Filters of a session above which looking at each entry is cheaper than asking for each filter.
const MANY_FILTERS: usize = 64;

/// What all of a client's matching subscriptions say about a message.
pub(super) struct Effective {
    pub qos: QoS,
    pub retain: bool,
    pub subscription_ids: SmallVec<[u32; 1]>,
}

/// The next step of a replay.
enum Step {
    Inbox(InboxEntry),
    Log(LogEntry),
    /// A campaign of this lane, if it is still the client's turn in one.
    Campaign(Lane),
    Wait,
    Done,
}

impl Shard {
    /// How a message of a topic log goes to a durable client; `None` if it does not. `again`: subscriptions made since count too.
    pub(super) fn effective(&self, slot: u32, message: &Message, again: bool) -> Option<Effective> {
        let live = self.live(slot)?;
        let routes = &self.apps[usize::from(live.app)].routes;
        let own = message.publisher.as_ref() == Some(&live.client_id);
        let mut found: Option<Effective> = None;
        // Without one of these, it was sent when it was published.
        let mut from_log = again;
        for subscription in &live.subscriptions {
            let applies = subscription.shared.is_none()
                && (again || subscription.since <= message.id.place())
                && !(own && subscription.options.no_local)
                && topic::matches(&routes.filter(subscription.filter).text, message.topic());
            if !applies {
                continue;
            }
            let found = found.get_or_insert(Effective {
                qos: QoS::AtMostOnce,
                retain: false,
                subscription_ids: SmallVec::new(),
            });
            found.qos = found.qos.max(subscription.options.qos.min(message.qos));
            from_log |= subscription.counted;
            found.retain |= subscription.options.retain_as_published && message.retain;
            found.subscription_ids.extend(subscription.id);
        }
        // As QoS 0 it was sent when it was published.
        found.filter(|found| from_log && found.qos > QoS::AtMostOnce)
    }

    /// Sends pushes to a client that lags: inbox, push log and campaigns, lane by lane; what is kept of a lane in the order of acceptance, and campaigns of it by their
    /// [share](crate::lane::CampaignShare).
    pub(super) fn pump_pushes(&mut self, slot: u32) {
        let mut passed = 0;
        loop {
            let Some((conn, live)) = live_in(&mut self.conns, slot) else {
                return;
            };
            if live.push.replay.is_none() || !live.has_room() {
                return;
            }
            if passed == PASSED_AT_ONCE {
                self.unfinished_replays.push(conn);
                return;
            }
            match self.next_push(slot) {
                Step::Inbox(entry) => {
                    self.count_turn(slot, entry.item.lane);
                    self.send_inbox_entry(slot, entry);
                }
                Step::Log(entry) if self.is_for(slot, &entry.message) => {
                    self.count_turn(slot, Lane::Normal);
                    self.send_push_entry(slot, &entry);
                }
                Step::Log(_) => {
                    passed += 1;
                    self.mark_dirty(slot);
                }
                Step::Campaign(lane) => self.send_next_campaign(slot, lane),
                Step::Wait => return,
                Step::Done => {
                    let live = self.live_mut(slot).expect("just seen");
                    live.push.replay = None;
                    return;
                }
            }
        }
    }

    fn next_push(&mut self, slot: u32) -> Step {
        // What is high does not even wait for what is being read.
        let at_hand = match self.replay(slot).lane(Lane::High).entries.is_empty() {
            true => LaneSet::NONE,
            false => LaneSet::from(Lane::High),
        };
        if self.is_campaigns_turn(slot, Lane::High, at_hand) {
            return Step::Campaign(Lane::High);
        }
        if let Some(entry) = self.replay(slot).lane(Lane::High).entries.pop_front() {
            return Step::Inbox(entry);
        }
        loop {
            let live = self.live(slot).expect("the caller looked");
            let replay = live.push.replay.as_ref().expect("the caller looked");
            if replay.reading {
                return Step::Wait;
            }
            let kept = replay.waiting(live.push.position.lagging);
            if kept.is_empty() {
                return Step::Done;
            }
            let mut waiting = kept;
            waiting.add(live.campaigns_due());
            let next = match replay.turns.next(waiting) {
                Some(lane) if self.is_campaigns_turn(slot, lane, kept) => {
                    Some(Step::Campaign(lane))
                }
                Some(Lane::Normal) => self.next_normal(slot),
                Some(lane) => Some(self.next_of_lane(slot, lane)),
                None => return Step::Done,
            };
            if let Some(step) = next {
                return step;
            }
        }
    }

    /// Notes that something of a lane is sent.
    fn count_turn(&mut self, slot: u32, lane: Lane) {
        let live = self.live_mut(slot).expect("the caller looked");
        let lagging = live.push.position.lagging;
        let due = live.campaigns_due();
        if due.contains(lane)
            && let Some(of) = &mut live.campaigns
        {
            of.share.passed_over(lane);
        }
        let replay = live.push.replay.as_mut().expect("the caller looked");
        let mut waiting = replay.waiting(lagging);
        waiting.add(due);
        replay.turns.sent(lane, waiting);
    }

    /// Whether a campaign of a lane goes next. `kept`: lanes in which something else waits.
    fn is_campaigns_turn(&self, slot: u32, lane: Lane, kept: LaneSet) -> bool {
        let of = self.live(slot).and_then(|live| live.campaigns.as_ref());
        of.is_some_and(|of| of.due_lanes().contains(lane) && of.share.is_due(lane, kept))
    }

    /// Sends a campaign of a lane between what else waits for a client that lags.
    fn send_next_campaign(&mut self, slot: u32, lane: Lane) {
        // The campaign's own turn may have passed by now; then it waits no longer.
        if self.pump_campaign(slot, lane) {
            let live = self.live_mut(slot).expect("the caller looked");
            let lagging = live.push.position.lagging;
            if let Some(replay) = &mut live.push.replay {
                let waiting = replay.waiting(lagging);
                replay.turns.sent(lane, waiting);
            }
        }
    }

    /// The next of a lane of the inbox in which something waits.
    fn next_of_lane(&mut self, slot: u32, lane: Lane) -> Step {
        let inbox = self.replay(slot).lane(lane);
        if let Some(entry) = inbox.entries.pop_front() {
            return Step::Inbox(entry);
        }
        let live = self.live(slot).expect("the caller looked");
        let conn = live.conn;
        let query = Query::Inbox {
            client: self.key_of(live),
            lane,
            after: live.inbox_read(lane),
            limit: PAGE as u32,
        };
        self.replay(slot).reading = true;
        self.query(query, Pending::InboxPage(conn, lane));
        Step::Wait
    }

    /// The next of the inbox's normal lane and the push log, in the order of acceptance; `None` if there is none after all.
    fn next_normal(&mut self, slot: u32) -> Option<Step> {
        let live = self.live(slot).expect("the caller looked");
        let (conn, app) = (live.conn, live.app);
        let replay = live.push.replay.as_ref().expect("the caller looked");
        let inbox = &replay.inbox[usize::from(Lane::Normal.code())];
        if inbox.entries.is_empty() && inbox.more {
            return Some(self.next_of_lane(slot, Lane::Normal));
        }
        let read = live.push.position.read;
        if replay.log.is_empty() && live.push.position.lagging {
            let tail = &self.apps[usize::from(app)].push_tail;
            let end = tail.end();
            if !tail.covers(read) {
                let app = self.apps[usize::from(app)].id.clone();
                let query = Query::Log {
                    app,
                    log: LogKind::Push,
                    after: read,
                    limit: PAGE as u32,
                };
                self.replay(slot).reading = true;
                self.query(query, Pending::PushPage(conn));
                return Some(Step::Wait);
            }
            let entries: VecDeque<LogEntry> = tail.after(read, PAGE).cloned().collect();
            let live = self.live_mut(slot).expect("the caller looked");
            if entries.is_empty() {
                live.push.position.read = read.max(end);
                live.push.position.lagging = false;
            }
            self.replay(slot).log = entries;
        }
        let live = self.live(slot).expect("the caller looked");
        let replay = live.push.replay.as_ref().expect("the caller looked");
        let inbox = &replay.inbox[usize::from(Lane::Normal.code())];
        match (inbox.entries.front(), replay.log.front()) {
            (None, None) => return None,
            (Some(inbox), log) if log.is_none_or(|log| inbox.offset < log.offset) => {
                return Some(self.next_of_lane(slot, Lane::Normal));
            }
            (_, Some(next)) if self.is_unjudged(live, &next.message) => return Some(Step::Wait),
            _ => {}
        }
        let live = self.live_mut(slot).expect("the caller looked");
        let replay = live.push.replay.as_mut().expect("the caller looked");
        let entry = replay.log.pop_front().expect("just seen");
        live.push.position.read = entry.offset;
        Some(Step::Log(entry))
    }

    fn replay(&mut self, slot: u32) -> &mut super::conn::Replay {
        let live = self.live_mut(slot).expect("the caller looked");
        live.push.replay.as_mut().expect("the caller looked")
    }

    /// Sends an entry of the client's inbox; the caller has seen that there is room.
    pub(super) fn send_inbox_entry(&mut self, slot: u32, entry: InboxEntry) {
        let now = self.now;
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        let resent = live.rare.as_ref().map(|rare| &rare.resent_inbox);
        if is_under_way(live, TagSource::Inbox, entry.offset)
            || resent.is_some_and(|resent| resent.binary_search(&entry.offset).is_ok())
        {
            return;
        }
        let InboxEntry { offset, item } = entry;
        let tag = Tag {
            source: TagSource::Inbox,
            offset,
            push: receipt_of(&item.message),
        };
        let is_ended = self.apps[usize::from(live.app)]
            .campaigns
            .is_ended(&item.message);
        if item.message.is_expired(now) || is_ended {
            self.stats.dropped_expired += u64::from(!is_ended);
            return self.finished(slot, tag, false);
        }
        let queued = Queued {
            message: item.message,
            qos: item.qos,
            retain: item.retain,
            subscription_ids: item.subscription_ids,
            shared: None,
            keeper: None,
        };
        self.send_kept(slot, tag, queued);
    }

    /// Sends an entry of the push log; the caller has seen that there is room.
    pub(super) fn send_push_entry(&mut self, slot: u32, entry: &LogEntry) {
        let source = TagSource::Log(LogKind::Push);
        let now = self.now;
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        if is_under_way(live, source, entry.offset)
            || live
                .push
                .position
                .done_above
                .binary_search(&entry.offset)
                .is_ok()
        {
            return;
        }
        let is_ended = self.apps[usize::from(live.app)]
            .campaigns
            .is_ended(&entry.message);
        if entry.message.is_expired(now) || is_ended {
            self.stats.dropped_expired += u64::from(!is_ended);
            return self.mark_dirty(slot);
        }
        let tag = Tag {
            source,
            offset: entry.offset,
            push: entry.message.id,
        };
        let queued = Queued {
            message: entry.message.clone(),
            qos: entry.message.qos,
            retain: false,
            subscription_ids: SmallVec::new(),
            shared: None,
            keeper: None,
        };
        self.send_kept(slot, tag, queued);
    }

    /// Sends a message that is kept in the store.
    fn send_kept(&mut self, slot: u32, tag: Tag, queued: Queued) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        let packet_id = match queued.qos {
            QoS::AtMostOnce => None,
            qos => live.outbound.send(qos, tag),
        };
        if queued.qos == QoS::ExactlyOnce && live.is_durable() {
            let packet_id = packet_id.expect("the caller has seen that there is room");
            return self.save_and_send(slot, vec![(packet_id, queued, tag.offset)]);
        }
        let now = self.now;
        let mut properties = Vec::new();
        let outgoing =
            super::outgoing::outgoing_of(&queued.message, tag.offset, now, &mut properties);
        let delivery = super::outgoing::Delivery {
            qos: queued.qos,
            retain: queued.retain,
            dup: false,
            packet_id,
            subscription_ids: &queued.subscription_ids,
        };
        let sent = super::outgoing::write_publish(
            live,
            &mut self.outbox,
            &mut self.stats,
            &outgoing,
            &delivery,
            Some(&queued.message),
        );
        if sent == super::outgoing::Sent::TooLarge {
            super::outgoing::give_back(live, packet_id, queued.qos);
            self.finished(slot, tag, false);
        } else if packet_id.is_none() {
            self.finished(slot, tag, true);
        }
    }

    /// Sends from the topic logs to a client that lags in them.
    pub(super) fn pump_topics(&mut self, slot: u32) {
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        for partition in 0..live.topics.len() as u8 {
            self.pump_topic(slot, partition);
        }
    }

    fn pump_topic(&mut self, slot: u32, partition: u8) {
        let at = usize::from(partition);
        // QoS 2 of one pump are saved in one go.
        let mut to_save = Vec::new();
        loop {
            let Some((conn, live)) = live_in(&mut self.conns, slot) else {
                return;
            };
            let app = usize::from(live.app);
            let room = live.has_room();
            let stream = &mut live.topics[at];
            if !stream.position.lagging || stream.reading || !room {
                break;
            }
            if let Some(entry) = stream.page.pop_front() {
                stream.position.read = entry.offset;
                self.offer_topic_entry(slot, partition, &entry, &mut to_save);
                continue;
            }
            stream.position.read = stream.position.read.max(stream.page_end);
            let read = stream.position.read;
            let tail = &self.apps[app].topic_tails[at];
            if read >= tail.end() {
                stream.position.lagging = false;
                break;
            }
            if tail.covers(read)
                && (tail.count_after(read) <= SHORT_LAG || live.subscriptions.len() > MANY_FILTERS)
            {
                stream.page = tail.after(read, PAGE).cloned().collect();
                continue;
            }
            stream.reading = true;
            let query = self.topic_query(slot, partition, read);
            self.query(query, Pending::TopicPage { conn, partition });
        }
        self.save_and_send(slot, to_save);
    }

    /// How to read on in a topic log: by the session's filters, unless it has too many.
    fn topic_query(&self, slot: u32, partition: u8, after: Offset) -> Query {
        let live = self.live(slot).expect("the caller looked");
        let app = &self.apps[usize::from(live.app)];
        let (log, limit) = (LogKind::Topic(partition), PAGE as u32);
        if live.subscriptions.len() > MANY_FILTERS {
            return Query::Log {
                app: app.id.clone(),
                log,
                after,
                limit,
            };
        }
        let own = live
            .subscriptions
            .iter()
            .filter(|subscription| subscription.shared.is_none());
        let filters = own
            .map(|subscription| app.routes.filter(subscription.filter).text.clone())
            .collect();
        Query::Matching {
            app: app.id.clone(),
            log,
            filters,
            after,
            limit,
        }
    }

    /// Sends an entry of a topic log to a durable client if it matches; QoS 2 is put into `to_save`. The caller has seen that there is room.
    pub(super) fn offer_topic_entry(
        &mut self,
        slot: u32,
        partition: u8,
        entry: &LogEntry,
        to_save: &mut Vec<(campanile_mqtt::PacketId, Queued, Offset)>,
    ) {
        let source = TagSource::Log(LogKind::Topic(partition));
        let Some(found) = self.effective(slot, &entry.message, false) else {
            return;
        };
        let now = self.now;
        let Some((_, live)) = live_in(&mut self.conns, slot) else {
            return;
        };
        let stream = &live.topics[usize::from(partition)];
        if stream
            .position
            .done_above
            .binary_search(&entry.offset)
            .is_ok()
            || is_under_way(live, source, entry.offset)
        {
            return;
        }
        if entry.message.is_expired(now) {
            self.stats.dropped_expired += 1;
            return;
        }
        let tag = Tag {
            source,
            offset: entry.offset,
            push: super::leave::NO_PUSH,
        };
        let queued = Queued {
            message: entry.message.clone(),
            qos: found.qos,
            retain: found.retain,
            subscription_ids: found.subscription_ids,
            shared: None,
            keeper: None,
        };
        if queued.qos == QoS::ExactlyOnce {
            let packet_id = live
                .outbound
                .send(queued.qos, tag)
                .expect("the caller has seen that there is room");
            to_save.push((packet_id, queued, entry.offset));
        } else {
            self.send_kept(slot, tag, queued);
        }
    }

    /// A page of a lane of the inbox was read for a replay.
    pub(super) fn on_inbox_page(&mut self, conn: ConnId, lane: Lane, page: Option<Page>) {
        let Some(live) = self.answered(conn) else {
            return;
        };
        let Some(Page::Inbox {
            entries,
            more,
            lanes,
        }) = page
        else {
            return self.read_push_later(conn);
        };
        if let Some(last) = entries.last() {
            live.note_inbox_read(lane, last.offset);
        }
        if let Some(replay) = &mut live.push.replay {
            replay.take_page(lane, entries, more, lanes);
        }
        self.pump(conn.slot);
    }

    /// The store cannot be read now: the next acknowledgement, notice or second tries again.
    fn read_push_later(&mut self, conn: ConnId) {
        let live = self.live_mut(conn.slot).expect("the caller looked");
        if let Some(replay) = &mut live.push.replay {
            replay.reading = false;
        }
        self.retry_later(conn);
    }

    /// A page of a log was read for a replay; of the push log without a partition.
    pub(super) fn on_replay_page(
        &mut self,
        conn: ConnId,
        partition: Option<u8>,
        page: Option<Page>,
    ) {
        let Some(live) = self.answered(conn) else {
            return;
        };
        let mut lost = false;
        match (partition, page) {
            (
                None,
                Some(Page::Log {
                    entries,
                    read_to,
                    gap,
                }),
            ) => {
                let replay = live.push.replay.as_mut();
                let outdated = replay.is_some_and(|replay| {
                    replay.reading = false;
                    std::mem::take(&mut replay.outdated)
                });
                if !outdated {
                    lost = gap;
                    if entries.is_empty() {
                        live.push.position.read = live.push.position.read.max(read_to);
                    }
                    if let Some(replay) = &mut live.push.replay {
                        replay.log = entries.into();
                    }
                }
            }
            (
                Some(partition),
                Some(Page::Log {
                    entries,
                    read_to,
                    gap,
                }),
            ) => {
                let stream = &mut live.topics[usize::from(partition)];
                stream.reading = false;
                if !std::mem::take(&mut stream.outdated) {
                    lost = gap;
                    stream.page_end = read_to;
                    stream.page = entries.into();
                }
            }
            (None, _) => return self.read_push_later(conn),
            (Some(partition), _) => {
                let stream = &mut live.topics[usize::from(partition)];
                (stream.reading, stream.outdated) = (false, false);
                return self.retry_later(conn);
            }
        }
        if lost {
            self.stats.dropped_gap += 1;
            self.tell_gap(conn.slot, partition.map_or("push", |_| "topics"));
            tracing::warn!(
                slot = conn.slot,
                "a log was trimmed past a client's cursor: messages were lost to it"
            );
        }
        self.pump(conn.slot);
    }

    /// The cursors of a durable session as they are to be saved.
    pub(super) fn cursors_of(&self, live: &mut Live) -> Vec<Cursor> {
        let app = &self.apps[usize::from(live.app)];
        let mut cursors = Vec::with_capacity(1 + live.topics.len());
        let lowest = |live: &Live, log| {
            let of_log = live
                .outbound
                .unfinished()
                .filter(|u| u.tag.source == TagSource::Log(log));
            of_log.map(|u| u.tag.offset).min()
        };
        let first = lowest(live, LogKind::Push);
        let position = &mut live.push.position;
        cursors.push(cursor(LogKind::Push, first, position, app.push_tail.end()));
        for partition in 0..live.topics.len() {
            let log = LogKind::Topic(partition as u8);
            let first = lowest(live, log);
            let position = &mut live.topics[partition].position;
            cursors.push(cursor(
                log,
                first,
                position,
                app.topic_tails[partition].end(),
            ));
        }
        cursors
    }

    /// Exchanges that the store can take up again.
    pub(super) fn unfinished_of(live: &Live) -> Vec<Unfinished> {
        let kept = live.outbound.unfinished().filter_map(|u| {
            let source = match u.tag.source {
                TagSource::Log(log) => Source::Log(log),
                TagSource::Inbox => Source::Inbox,
                TagSource::Campaign => Source::Campaign(u.tag.push),
                TagSource::Memory => return None,
            };
            Some(Unfinished {
                packet_id: u.packet_id,
                source,
                offset: u.tag.offset,
                qos: u.qos,
                released: u.released,
            })
        });
        kept.collect()
    }
}

pub(super) fn cursor(
    log: LogKind,
    lowest_unfinished: Option<Offset>,
    position: &mut super::conn::Position,
    end: Offset,
) -> Cursor {
    let read = position.reached(end);
    let done = lowest_unfinished.map_or(read, |lowest| Offset(lowest.0 - 1).min(read));
    position.done_above.retain(|offset| *offset > done);
    Cursor {
        log,
        done,
        done_above: position.done_above.clone(),
    }
}

/// Whether an entry is being delivered already.
fn is_under_way(live: &Live, source: TagSource, offset: Offset) -> bool {
    !live.outbound.is_empty()
        && live
            .outbound
            .unfinished()
            .any(|u| u.tag.source == source && u.tag.offset == offset)
}
