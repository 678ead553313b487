//! The QoS 1 and 2 messages that this end sends. MQTT 5.0 sections 2.2.1, 4.3, 4.4, 4.6 and 4.9.

use crate::{PacketId, QoS};

/// Packet identifiers and send window of the outgoing QoS 1 and 2 exchanges of one session.
///
/// `T` is the owner's tag of a message, such as where it is stored. Before 5.0 the window is the owner's own choice.
///
/// Invariants: live entries are `entries[head..]` in the order of first sending, except that identifiers without a
/// message come first; those not yet sent again on this connection are the last `unsent` ones.
#[derive(Clone, Debug)]
pub struct Outbound<T> {
    entries: Vec<Entry<T>>,
    next_id: u16,
    /// PUBLISHes that the window still allows on this connection.
    quota: u16,
    unsent: u16,
    /// Entries at the front that have ended; their memory is reclaimed in batches.
    head: u8,
    /// Whether the live identifiers ascend cyclically from the first, so that a binary search finds them.
    ascending: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    packet_id: PacketId,
    state: State,
    /// Whether it takes a place in the window of this connection.
    counted: bool,
    /// `None` only in [`State::Acquired`].
    tag: Option<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Of a SUBSCRIBE or UNSUBSCRIBE.
    Acquired,
    /// QoS 1 PUBLISH sent.
    AwaitsPubAck,
    /// QoS 2 PUBLISH sent.
    AwaitsPubRec,
    /// PUBREL sent.
    AwaitsPubComp,
}

/// What a PUBREC means for its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PubRec<T> {
    /// The message arrived: send PUBREL.
    Released(T),
    /// The message had arrived before: send PUBREL again.
    AlreadyReleased,
    /// The receiver refused the message; the exchange is over and its identifier free.
    Ended(T),
    /// No such QoS 2 exchange: send PUBREL with reason 0x92 (before 5.0 without a reason).
    Unknown,
}

/// No exchange waits for this acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no exchange waits for this acknowledgement")]
pub struct Unknown;

/// A message whose exchange is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished<T> {
    /// Identifier of the exchange.
    pub packet_id: PacketId,
    /// 1 or 2.
    pub qos: QoS,
    /// Whether PUBREL is due instead of PUBLISH.
    pub released: bool,
    /// The owner's tag.
    pub tag: T,
}

/// Ended entries at the front before their memory is reclaimed.
const MAX_HEAD: u8 = u8::MAX;

impl<T: Copy> Outbound<T> {
    /// No exchanges, and room for `window` at a time.
    pub const fn new(window: u16) -> Outbound<T> {
        Outbound {
            entries: Vec::new(),
            next_id: 1,
            quota: window,
            unsent: 0,
            head: 0,
            ascending: true,
        }
    }

    /// Begins a connection whose peer takes `window` messages at a time, its receive maximum.
    ///
    /// All unfinished exchanges wait to be taken up again by [`Outbound::poll_resend`]; nothing new can be sent before. Identifiers
    /// from [`Outbound::acquire`] are free again, since their packets are not repeated.
    pub fn reconnect(&mut self, window: u16) {
        self.entries.drain(..usize::from(self.head));
        self.head = 0;
        self.entries.retain(|entry| entry.state != State::Acquired);
        for entry in &mut self.entries {
            entry.counted = false;
        }
        self.quota = window;
        self.unsent = self.entries.len() as u16;
        self.reclaim();
    }

    /// The next exchange to take up again on this connection, in the order of first sending [MQTT-4.4.0-1]
    /// [MQTT-4.6.0-1]: as PUBREL if it was released, else as PUBLISH with DUP.
    ///
    /// `None` when all are under way, or as long as the window is full.
    pub fn poll_resend(&mut self) -> Option<Unfinished<T>> {
        let index = self.entries.len() - usize::from(self.unsent);
        let entry = self.entries.get_mut(index)?;
        let unfinished = entry.unfinished()?;
        if !unfinished.released {
            self.quota = self.quota.checked_sub(1)?;
            entry.counted = true;
        }
        self.unsent -= 1;
        Some(unfinished)
    }

    /// How many exchanges of an earlier connection still wait for [`Outbound::poll_resend`].
    pub fn resends_left(&self) -> usize {
        usize::from(self.unsent)
    }

    /// How many new messages may be sent now.
    pub fn free(&self) -> usize {
        if self.unsent > 0 {
            return 0;
        }
        usize::from(self.quota).min(usize::from(u16::MAX) - self.len())
    }

    /// Identifiers in use.
    pub fn len(&self) -> usize {
        self.live().len()
    }

    /// Whether no identifier is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins the exchange of a new message of QoS 1 or 2: its identifier, or `None` when the window is full or
    /// exchanges of the last connection still wait to be taken up again.
    ///
    /// Identifiers are given out in a circle, so that one which has just ended is not used again soon.
    pub fn send(&mut self, qos: QoS, tag: T) -> Option<PacketId> {
        debug_assert_ne!(qos, QoS::AtMostOnce, "QoS 0 has no exchange");
        if self.free() == 0 {
            return None;
        }
        let packet_id = self.next_free_id()?;
        self.quota -= 1;
        self.push(Entry {
            packet_id,
            state: State::first(qos),
            counted: true,
            tag: Some(tag),
        });
        Some(packet_id)
    }

    /// Adds an exchange from storage, after those already there. It waits for [`Outbound::poll_resend`], so call this
    /// before or after [`Outbound::reconnect`], but not between sends. An identifier that is in use already is ignored.
    pub fn restore(&mut self, packet_id: PacketId, qos: QoS, released: bool, tag: T) {
        if self.position(packet_id).is_some() {
            return;
        }
        let state = match released {
            true => State::AwaitsPubComp,
            false => State::first(qos),
        };
        self.push(Entry {
            packet_id,
            state,
            counted: false,
            tag: Some(tag),
        });
        self.unsent += 1;
        self.next_id = following(packet_id.get());
    }

    /// Takes an identifier for a SUBSCRIBE or UNSUBSCRIBE, which the window does not limit; `None` while all are in use.
    pub fn acquire(&mut self) -> Option<PacketId> {
        if self.len() == usize::from(u16::MAX) {
            return None;
        }
        let packet_id = self.next_free_id()?;
        let entry = Entry {
            packet_id,
            state: State::Acquired,
            counted: false,
            tag: None,
        };
        self.entries.insert(usize::from(self.head), entry);
        self.ascending = self.is_ascending();
        Some(packet_id)
    }

    /// Gives back an identifier of [`Outbound::acquire`]; whether it was one.
    pub fn release(&mut self, packet_id: PacketId) -> bool {
        match self.find(packet_id, State::Acquired) {
            Some(index) => {
                self.remove(index);
                true
            }
            None => false,
        }
    }

    /// PUBACK, of whatever reason, ends a QoS 1 exchange.
    pub fn on_puback(&mut self, packet_id: PacketId) -> Result<T, Unknown> {
        let index = self.find(packet_id, State::AwaitsPubAck).ok_or(Unknown)?;
        self.remove(index).ok_or(Unknown)
    }

    /// PUBREC moves a QoS 2 exchange on, or ends it when its reason is an error.
    pub fn on_pubrec(&mut self, packet_id: PacketId, success: bool) -> PubRec<T> {
        let Some(index) = self.position(packet_id) else {
            return PubRec::Unknown;
        };
        match self.entries[index].state {
            State::Acquired | State::AwaitsPubAck => PubRec::Unknown,
            State::AwaitsPubRec | State::AwaitsPubComp if !success => {
                self.remove(index).map_or(PubRec::Unknown, PubRec::Ended)
            }
            State::AwaitsPubRec => {
                let entry = &mut self.entries[index];
                entry.state = State::AwaitsPubComp;
                entry.tag.map_or(PubRec::Unknown, PubRec::Released)
            }
            State::AwaitsPubComp => PubRec::AlreadyReleased,
        }
    }

    /// PUBCOMP, of whatever reason, ends a released QoS 2 exchange. `None` if there is none.
    pub fn on_pubcomp(&mut self, packet_id: PacketId) -> Option<T> {
        let index = self.find(packet_id, State::AwaitsPubComp)?;
        self.remove(index)
    }

    /// All messages whose exchange is not over, in the order of first sending.
    pub fn unfinished(&self) -> impl Iterator<Item = Unfinished<T>> {
        self.live().iter().filter_map(Entry::unfinished)
    }

    /// The unfinished exchange of this identifier.
    pub fn get(&self, packet_id: PacketId) -> Option<Unfinished<T>> {
        self.entries[self.position(packet_id)?].unfinished()
    }

    /// Gives the unfinished exchange of this identifier another tag; without one, nothing changes.
    pub fn retag(&mut self, packet_id: PacketId, tag: T) {
        if let Some(index) = self.position(packet_id)
            && let Some(known) = &mut self.entries[index].tag
        {
            *known = tag;
        }
    }

    fn live(&self) -> &[Entry<T>] {
        &self.entries[usize::from(self.head)..]
    }

    /// The next identifier in the circle that is not in use; the caller made sure that there is one.
    fn next_free_id(&mut self) -> Option<PacketId> {
        loop {
            let candidate = PacketId::new(self.next_id)?;
            self.next_id = following(self.next_id);
            if self.position(candidate).is_none() {
                return Some(candidate);
            }
        }
    }

    fn find(&self, packet_id: PacketId, state: State) -> Option<usize> {
        self.position(packet_id)
            .filter(|&index| self.entries[index].state == state)
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        let live = self.live();
        let first = live.first()?.packet_id;
        let index = if self.ascending {
            live.binary_search_by_key(&distance(first, packet_id), |entry| {
                distance(first, entry.packet_id)
            })
            .ok()?
        } else {
            live.iter().position(|entry| entry.packet_id == packet_id)?
        };
        Some(index + usize::from(self.head))
    }

    fn push(&mut self, entry: Entry<T>) {
        if let [first, .., last] = self.live() {
            let first = first.packet_id;
            self.ascending &= distance(first, last.packet_id) < distance(first, entry.packet_id);
        }
        self.entries.push(entry);
    }

    fn remove(&mut self, index: usize) -> Option<T> {
        let entry = self.entries[index];
        if index >= self.entries.len() - usize::from(self.unsent) {
            self.unsent -= 1;
        }
        self.quota += u16::from(entry.counted);
        if index == usize::from(self.head) && self.head < MAX_HEAD {
            self.head += 1;
        } else {
            self.entries.remove(index);
        }
        self.reclaim();
        entry.tag
    }

    fn reclaim(&mut self) {
        let ended = usize::from(self.head);
        if ended == self.entries.len() {
            // Sessions are idle most of the time: an empty one keeps no memory.
            self.entries = Vec::new();
            self.head = 0;
        } else if self.head == MAX_HEAD || ended > self.entries.len() / 2 {
            self.entries.drain(..ended);
            self.head = 0;
        }
        if !self.ascending {
            self.ascending = self.is_ascending();
        }
    }

    fn is_ascending(&self) -> bool {
        let live = self.live();
        live.is_sorted_by_key(|entry| distance(live[0].packet_id, entry.packet_id))
    }
}

impl State {
    fn first(qos: QoS) -> State {
        match qos {
            QoS::ExactlyOnce => State::AwaitsPubRec,
            _ => State::AwaitsPubAck,
        }
    }
}

impl<T: Copy> Entry<T> {
    fn unfinished(&self) -> Option<Unfinished<T>> {
        Some(Unfinished {
            packet_id: self.packet_id,
            qos: match self.state {
                State::AwaitsPubAck => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            released: self.state == State::AwaitsPubComp,
            tag: self.tag?,
        })
    }
}

fn following(id: u16) -> u16 {
    match id {
        u16::MAX => 1,
        _ => id + 1,
    }
}

/// Steps around the circle; that 0 is not an identifier changes no order.
fn distance(from: PacketId, to: PacketId) -> u16 {
    to.get().wrapping_sub(from.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    #[test]
    fn empty_is_small() {
        assert!(size_of::<Outbound<u64>>() <= 32);
        assert_eq!(Outbound::<u64>::new(10).entries.capacity(), 0);
    }

    #[test]
    fn memory_goes_with_the_last_exchange() {
        let mut outbound = Outbound::new(300);
        let ids: Vec<_> = (0..300)
            .map(|tag| outbound.send(QoS::AtLeastOnce, tag).unwrap())
            .collect();
        for id in ids {
            outbound.on_puback(id).unwrap();
        }
        assert!(outbound.is_empty());
        assert_eq!(outbound.entries.capacity(), 0);
    }

    #[test]
    fn identifiers_go_round_and_pass_those_in_use() {
        let mut outbound = Outbound::new(u16::MAX);
        assert_eq!(outbound.send(QoS::AtLeastOnce, 0), Some(id(1)));
        for expected in 2..=u16::MAX {
            assert_eq!(outbound.send(QoS::AtLeastOnce, 0), Some(id(expected)));
            assert_eq!(outbound.on_puback(id(expected)), Ok(0));
        }
        assert_eq!(outbound.send(QoS::AtLeastOnce, 7), Some(id(2)));
        assert_eq!(outbound.send(QoS::AtLeastOnce, 8), Some(id(3)));
        assert_eq!(outbound.on_puback(id(3)), Ok(8));
        assert_eq!(outbound.on_puback(id(1)), Ok(0));
        assert_eq!(outbound.on_puback(id(2)), Ok(7));
    }

    #[test]
    fn all_identifiers_can_be_under_way() {
        let mut outbound = Outbound::new(u16::MAX);
        for expected in 1..=u16::MAX {
            assert_eq!(outbound.send(QoS::ExactlyOnce, ()), Some(id(expected)));
        }
        assert_eq!(outbound.free(), 0);
        assert_eq!(outbound.send(QoS::ExactlyOnce, ()), None);
        assert_eq!(outbound.acquire(), None);
        assert_eq!(outbound.on_pubrec(id(40_000), false), PubRec::Ended(()));
        assert_eq!(outbound.acquire(), Some(id(40_000)));
    }

    #[test]
    fn window_counts_until_the_exchange_ends() {
        let mut outbound = Outbound::new(2);
        assert_eq!(outbound.send(QoS::ExactlyOnce, 'a'), Some(id(1)));
        assert_eq!(outbound.send(QoS::AtLeastOnce, 'b'), Some(id(2)));
        assert_eq!(outbound.send(QoS::AtLeastOnce, 'c'), None);
        assert_eq!(outbound.on_pubrec(id(1), true), PubRec::Released('a'));
        assert_eq!(outbound.free(), 0);
        assert_eq!(outbound.on_pubrec(id(1), true), PubRec::AlreadyReleased);
        assert_eq!(outbound.on_pubcomp(id(1)), Some('a'));
        assert_eq!(outbound.free(), 1);
        assert_eq!(outbound.on_pubcomp(id(1)), None);
    }

    #[test]
    fn acknowledgements_of_the_wrong_kind_change_nothing() {
        let mut outbound = Outbound::new(9);
        let one = outbound.send(QoS::AtLeastOnce, 1).unwrap();
        let two = outbound.send(QoS::ExactlyOnce, 2).unwrap();
        let subscribe = outbound.acquire().unwrap();
        assert_eq!(outbound.on_pubrec(one, true), PubRec::Unknown);
        assert_eq!(outbound.on_puback(two), Err(Unknown));
        assert_eq!(outbound.on_pubcomp(two), None);
        assert_eq!(outbound.on_puback(subscribe), Err(Unknown));
        assert!(!outbound.release(one));
        assert!(outbound.release(subscribe));
        assert_eq!(outbound.unfinished().count(), 2);
    }

    #[test]
    fn resends_keep_order_and_obey_a_smaller_window() {
        let mut outbound = Outbound::new(5);
        for tag in ['a', 'b', 'c', 'd'] {
            outbound.send(QoS::ExactlyOnce, tag).unwrap();
        }
        outbound.on_pubrec(id(2), true);
        outbound.acquire().unwrap();
        outbound.reconnect(2);
        assert_eq!(outbound.len(), 4, "a SUBSCRIBE is not repeated");
        assert_eq!(outbound.send(QoS::AtLeastOnce, 'e'), None);
        let mut resend = || {
            outbound
                .poll_resend()
                .map(|again| (again.tag, again.released))
        };
        assert_eq!(resend(), Some(('a', false)));
        assert_eq!(resend(), Some(('b', true)));
        assert_eq!(resend(), Some(('c', false)));
        assert_eq!(resend(), None, "the window is full");
        outbound.on_pubrec(id(1), false);
        assert_eq!(outbound.poll_resend().unwrap().tag, 'd');
        assert_eq!(outbound.poll_resend(), None);
        assert_eq!(outbound.free(), 0);
        assert_eq!(
            outbound.on_pubcomp(id(2)),
            Some('b'),
            "its PUBREL took no place"
        );
        assert_eq!(outbound.free(), 0);
        outbound.on_pubrec(id(3), false);
        assert_eq!(outbound.send(QoS::AtLeastOnce, 'e'), Some(id(6)));
    }

    #[test]
    fn restored_exchanges_go_on_with_their_identifiers() {
        let mut outbound = Outbound::new(10);
        outbound.restore(id(65_535), QoS::AtLeastOnce, false, 'a');
        outbound.restore(id(9), QoS::ExactlyOnce, true, 'b');
        outbound.restore(id(4), QoS::ExactlyOnce, false, 'c');
        outbound.restore(id(4), QoS::ExactlyOnce, false, 'd');
        outbound.reconnect(10);
        let tags: Vec<_> =
            std::iter::from_fn(|| outbound.poll_resend().map(|again| again.tag)).collect();
        assert_eq!(tags, ['a', 'b', 'c']);
        assert_eq!(outbound.send(QoS::AtLeastOnce, 'e'), Some(id(5)));
        assert_eq!(outbound.on_pubcomp(id(9)), Some('b'));
        assert_eq!(outbound.get(id(4)).unwrap().tag, 'c');
        assert_eq!(outbound.free(), 7);
    }
}
