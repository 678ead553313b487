//! How everything that is not a socket reaches a shard.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use campanile_broker::{
    access::Verdict,
    effects::Ticket,
    ids::ConnId,
    mail::Mail,
    store::{Outcome, Page, StoreError},
};

use super::connection::Connection;

/// One thing for a shard.
#[derive(Debug)]
pub enum Letter {
    /// From another shard, the store or the node.
    Mail(Mail),
    /// The store's answer to a write.
    Outcome(Ticket, Result<Outcome, StoreError>),
    /// The store's answer to a read.
    Page(Ticket, Result<Page, StoreError>),
    /// Credentials were judged.
    Verdict(ConnId, Verdict),
    /// A connection moves in.
    Arrival(Box<Connection>),
    /// Say goodbye to all, then end.
    Stop,
}

/// The mailbox of one shard: anybody posts, its driver takes.
///
/// Not bounded by itself, since nothing in it may be lost and a shard that waited for another's mailbox could wait for ever. Instead, drivers stop
/// reading sockets while any mailbox of the node is [congested](Mailbox::is_congested); whatever fills mailboxes comes from there.
#[derive(Debug)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    waiting: AtomicUsize,
    waker: mio::Waker,
}

#[derive(Debug, Default)]
struct Inner {
    letters: Vec<Letter>,
    asleep: bool,
}

/// Letters in a mailbox above which the node stops reading from clients.
const CONGESTED: usize = 65_536;
/// Capacity that an emptied mailbox may keep.
const KEPT_CAPACITY: usize = 4096;

impl Mailbox {
    /// A mailbox whose owner sleeps in a poll that this waker ends.
    pub fn new(waker: mio::Waker) -> Mailbox {
        Mailbox {
            inner: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waker,
        }
    }

    /// Posts one letter.
    pub fn post(&self, letter: Letter) {
        self.post_all([letter]);
    }

    /// Posts letters in order, with one wake-up at most.
    pub fn post_all(&self, letters: impl IntoIterator<Item = Letter>) {
        let mut inner = self.lock();
        inner.letters.extend(letters);
        let wake = inner.asleep && !inner.letters.is_empty();
        inner.asleep &= !wake;
        self.waiting.store(inner.letters.len(), Ordering::Relaxed);
        drop(inner);
        if wake && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a shard cannot be woken");
        }
    }

    /// Moves all letters into `empty`; the owner is awake.
    pub fn take(&self, empty: &mut Vec<Letter>) {
        empty.shrink_to(KEPT_CAPACITY);
        let mut inner = self.lock();
        inner.asleep = false;
        std::mem::swap(&mut inner.letters, empty);
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// The owner wants to sleep: `false` if there are letters to read first.
    pub fn fall_asleep(&self) -> bool {
        let mut inner = self.lock();
        inner.asleep = inner.letters.is_empty();
        inner.asleep
    }

    /// Letters that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether more wait than should.
    pub fn is_congested(&self) -> bool {
        self.waiting() > CONGESTED
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned mailbox belongs to a node that is stopping because of the panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::driver::seat;

    fn tickets(letters: &[Letter]) -> Vec<u64> {
        let ticket = |letter: &Letter| match letter {
            Letter::Mail(Mail::InterestKnown { ticket }) => *ticket,
            other => panic!("{other:?}"),
        };
        letters.iter().map(ticket).collect()
    }

    fn letter(ticket: u64) -> Letter {
        Letter::Mail(Mail::InterestKnown { ticket })
    }

    #[test]
    fn letters_come_in_order_and_only_a_sleeper_is_woken() {
        let (mut poll, mailbox) = seat().unwrap();
        let mut events = mio::Events::with_capacity(4);
        let mut woken = |poll: &mut mio::Poll| {
            poll.poll(&mut events, Some(std::time::Duration::ZERO))
                .unwrap();
            !events.is_empty()
        };
        mailbox.post(letter(1));
        mailbox.post_all([letter(2), letter(3)]);
        assert!(!woken(&mut poll), "the owner is awake");
        assert!(!mailbox.fall_asleep(), "there is something to read");
        assert_eq!(mailbox.waiting(), 3);
        let mut letters = Vec::new();
        mailbox.take(&mut letters);
        assert_eq!(tickets(&letters), [1, 2, 3]);
        letters.clear();
        assert!(mailbox.fall_asleep());
        mailbox.post_all([]);
        assert!(!woken(&mut poll), "nothing to wake up for");
        mailbox.post(letter(4));
        assert!(woken(&mut poll));
        mailbox.post(letter(5));
        assert!(!woken(&mut poll), "once is enough");
    }

    #[test]
    fn mailbox_is_congested_above_its_bound() {
        let (_poll, mailbox) = seat().unwrap();
        mailbox.post_all((0..CONGESTED as u64).map(letter));
        assert!(!mailbox.is_congested());
        mailbox.post(letter(0));
        assert!(mailbox.is_congested());
        mailbox.take(&mut Vec::new());
        assert!(!mailbox.is_congested());
    }
}
