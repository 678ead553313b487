//! What was accepted, who is owed it, and what arrived.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// After this time, a connection whose client is connected elsewhere must be closed.
const TWO_LIVE_MAX: Duration = Duration::from_secs(2);
/// The same, from the end of a fault: what was cut off must hear of it first.
const TWO_LIVE_AFTER_FAULT: Duration = Duration::from_secs(8);
/// Violations that are kept as text.
const SHOWN: usize = 50;

/// A sequence of messages that has an order: of one publisher and QoS, or one caller of the API and kind of audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub usize);

/// Who receives: a session, or a group of sessions that share a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverId(pub usize);

/// What is promised for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// QoS 0.
    Nothing,
    /// QoS 1, pushes.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

#[derive(Debug)]
struct Stream {
    name: String,
    promise: Promise,
    /// By the message's number.
    messages: Vec<Offered>,
    /// Who gets all of it.
    receivers: Vec<ReceiverId>,
}

#[derive(Debug)]
struct Offered {
    accepted: bool,
    /// Who gets it, if not all receivers of the stream.
    only: Option<Vec<ReceiverId>>,
}

#[derive(Debug)]
struct Receiver {
    name: String,
    /// A group has no order: its members are served beside each other.
    is_ordered: bool,
    got: HashMap<StreamId, Got>,
}

#[derive(Debug, Default)]
struct Got {
    /// How often, by number.
    times: Vec<u16>,
    /// Number of the last first delivery, plus one.
    next: usize,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages of QoS 0 that were sent.
    pub sent_qos0: u64,
    /// Messages and pushes that were accepted.
    pub accepted: u64,
    /// Messages that were refused, with a word.
    pub refused: u64,
    /// First deliveries of what was accepted or sent.
    pub received: u64,
    /// First deliveries of QoS 0.
    pub received_qos0: u64,
    /// Further deliveries of QoS 1 messages.
    pub duplicates_qos1: u64,
    /// Further deliveries of pushes and at groups.
    pub duplicates_other: u64,
    /// Connections that were replaced by another one of the same client.
    pub takeovers: u64,
    /// Of those, how many were told so with 0x8E.
    pub told_taken_over: u64,
    /// The longest time that two connections of one client lived beside each other, without a fault, in milliseconds.
    pub two_live_ms: u64,
    /// Connections made.
    pub connects: u64,
}

#[derive(Debug)]
struct Books {
    began: Instant,
    streams: Vec<Stream>,
    receivers: Vec<Receiver>,
    figures: Figures,
    violations: Vec<String>,
    violations_count: usize,
    /// Connections that are to be closed, since their client is elsewhere.
    superseded: BTreeMap<u64, (String, Instant)>,
    next_superseded: u64,
    /// Faults that go on now.
    faults: u32,
    last_heal: Option<Instant>,
}

/// The account of a fleet.
#[derive(Debug)]
pub struct Account(Mutex<Books>);

impl Default for Account {
    fn default() -> Account {
        Account(Mutex::new(Books {
            began: Instant::now(),
            streams: Vec::new(),
            receivers: Vec::new(),
            figures: Figures::default(),
            violations: Vec::new(),
            violations_count: 0,
            superseded: BTreeMap::new(),
            next_superseded: 0,
            faults: 0,
            last_heal: None,
        }))
    }
}

impl Account {
    /// Opens a stream.
    pub fn stream(&self, name: &str, promise: Promise) -> StreamId {
        let mut books = self.books();
        books.streams.push(Stream {
            name: name.to_owned(),
            promise,
            messages: Vec::new(),
            receivers: Vec::new(),
        });
        StreamId(books.streams.len() - 1)
    }

    /// Notes a receiver.
    pub fn receiver(&self, name: &str, is_ordered: bool) -> ReceiverId {
        let mut books = self.books();
        books.receivers.push(Receiver {
            name: name.to_owned(),
            is_ordered,
            got: HashMap::new(),
        });
        ReceiverId(books.receivers.len() - 1)
    }

    /// From now on the receiver is owed all of the stream.
    pub fn owe(&self, receiver: ReceiverId, stream: StreamId) {
        self.books().streams[stream.0].receivers.push(receiver);
    }

    /// A message is about to be sent: its number in the stream.
    pub fn offer(&self, stream: StreamId, only: Option<Vec<ReceiverId>>) -> usize {
        let mut books = self.books();
        let stream = &mut books.streams[stream.0];
        stream.messages.push(Offered {
            accepted: false,
            only,
        });
        let (number, promise) = (stream.messages.len() - 1, stream.promise);
        if promise == Promise::Nothing {
            books.figures.sent_qos0 += 1;
        }
        number
    }

    /// The cluster has accepted a message.
    pub fn accept(&self, stream: StreamId, number: usize) {
        let mut books = self.books();
        books.streams[stream.0].messages[number].accepted = true;
        books.figures.accepted += 1;
    }

    /// The cluster has refused a message.
    pub fn refuse(&self) {
        self.books().figures.refused += 1;
    }

    /// A message has arrived.
    pub fn receive(&self, receiver: ReceiverId, stream: StreamId, number: usize, dup: bool) {
        let mut books = self.books();
        let books = &mut *books;
        let Some(sent) = books.streams.get(stream.0) else {
            return books.violate(format!("stream {} was never opened", stream.0));
        };
        let (promise, count) = (sent.promise, sent.messages.len());
        let word = match sent.messages.get(number) {
            Some(message) if message.accepted => "accepted",
            _ => "not accepted yet",
        };
        let who = &mut books.receivers[receiver.0];
        if number >= count {
            let text = format!(
                "{} got {}:{number}, which was never sent",
                who.name, sent.name
            );
            return books.violate(text);
        }
        let got = who.got.entry(stream).or_default();
        if got.times.len() <= number {
            got.times.resize(number + 1, 0);
        }
        got.times[number] = got.times[number].saturating_add(1);
        if got.times[number] > 1 {
            match promise {
                Promise::ExactlyOnce => {
                    let text = format!(
                        "{} got {}:{number} twice, QoS 2, DUP {dup}",
                        who.name, sent.name
                    );
                    books.violate(text);
                }
                Promise::AtLeastOnce if who.is_ordered => books.figures.duplicates_qos1 += 1,
                _ => books.figures.duplicates_other += 1,
            }
            return;
        }
        books.figures.received += 1;
        if promise == Promise::Nothing {
            books.figures.received_qos0 += 1;
        }
        let (next, is_ordered) = (got.next, who.is_ordered);
        got.next = next.max(number + 1);
        if is_ordered && number < next {
            let text = format!(
                "{} got {}:{number}, {word}, after {}:{}",
                who.name,
                sent.name,
                sent.name,
                next - 1
            );
            books.violate(text);
        }
    }

    /// A connection of a session was made. QoS 0 has no order across connections: what was under way to the node before, on a link that hung, may come
    /// after what another node gave out meanwhile.
    pub fn connected(&self, receiver: ReceiverId) {
        let mut books = self.books();
        let books = &mut *books;
        books.figures.connects += 1;
        for (stream, got) in &mut books.receivers[receiver.0].got {
            if books.streams[stream.0].promise == Promise::Nothing {
                got.next = 0;
            }
        }
    }

    /// A promise was broken.
    pub fn violate(&self, text: String) {
        self.books().violate(text);
    }

    /// A client is connected elsewhere; its connection of before is still open.
    pub fn supersede(&self, client: &str) -> u64 {
        let mut books = self.books();
        books.figures.takeovers += 1;
        books.next_superseded += 1;
        let id = books.next_superseded;
        books
            .superseded
            .insert(id, (client.to_owned(), Instant::now()));
        id
    }

    /// That connection was closed.
    pub fn closed(&self, id: u64, was_told: bool) {
        let mut books = self.books();
        books.figures.told_taken_over += u64::from(was_told);
        let Some((client, since)) = books.superseded.remove(&id) else {
            return;
        };
        let after_fault = books.faults > 0 || books.last_heal.is_some_and(|heal| heal > since);
        let lived = since.elapsed();
        if after_fault {
            return;
        }
        books.figures.two_live_ms = books.figures.two_live_ms.max(lived.as_millis() as u64);
        if lived > TWO_LIVE_MAX {
            books.violate(format!("{client} had two connections for {lived:?}"));
        }
    }

    /// Something is being broken: what is late now has a reason.
    pub fn fault_begins(&self) {
        self.books().faults += 1;
    }

    /// It is mended.
    pub fn fault_ends(&self) {
        let mut books = self.books();
        books.faults = books.faults.saturating_sub(1);
        books.last_heal = Some(Instant::now());
    }

    /// Connections that should have been closed by now.
    pub fn overdue(&self) -> Vec<String> {
        let books = self.books();
        let late = |since: &Instant| match books.last_heal {
            Some(heal) if heal > *since => heal.elapsed() > TWO_LIVE_AFTER_FAULT,
            _ => since.elapsed() > TWO_LIVE_MAX,
        };
        let overdue = books.superseded.values();
        overdue
            .filter(|(_, since)| books.faults == 0 && late(since))
            .map(|(client, since)| {
                format!("{client} has two connections since {:?}", since.elapsed())
            })
            .collect()
    }

    /// Connections that wait for being closed.
    pub fn superseded(&self) -> usize {
        self.books().superseded.len()
    }

    /// What was accepted and has not arrived: how much, and some of it.
    pub fn missing(&self) -> (usize, Vec<String>) {
        let books = self.books();
        let (mut count, mut shown) = (0, Vec::new());
        for (id, stream) in books.streams.iter().enumerate() {
            if stream.promise == Promise::Nothing {
                continue;
            }
            for (number, message) in stream.messages.iter().enumerate() {
                if !message.accepted {
                    continue;
                }
                for receiver in message.only.as_ref().unwrap_or(&stream.receivers) {
                    let receiver = &books.receivers[receiver.0];
                    let got = receiver.got.get(&StreamId(id));
                    if got.is_some_and(|got| got.times.get(number).is_some_and(|times| *times > 0))
                    {
                        continue;
                    }
                    count += 1;
                    if shown.len() < SHOWN {
                        shown.push(format!("{} lacks {}:{number}", receiver.name, stream.name));
                    }
                }
            }
        }
        (count, shown)
    }

    /// Promises that were broken: how often, and the first of them.
    pub fn violations(&self) -> (usize, Vec<String>) {
        let books = self.books();
        (books.violations_count, books.violations.clone())
    }

    /// Totals.
    pub fn figures(&self) -> Figures {
        self.books().figures
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn violate(&mut self, text: String) {
        self.violations_count += 1;
        if self.violations.len() < SHOWN {
            let at = self.began.elapsed().as_secs_f64();
            self.violations.push(format!("{at:7.3} {text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(promise: Promise) -> (Account, StreamId, ReceiverId) {
        let account = Account::default();
        let stream = account.stream("s", promise);
        let receiver = account.receiver("r", true);
        account.owe(receiver, stream);
        for number in 0..3 {
            assert_eq!(account.offer(stream, None), number);
        }
        (account, stream, receiver)
    }

    #[test]
    fn what_was_accepted_is_missing_until_it_arrives() {
        let (account, stream, receiver) = account(Promise::AtLeastOnce);
        assert_eq!(account.missing().0, 0);
        account.accept(stream, 1);
        assert_eq!(account.missing(), (1, vec!["r lacks s:1".to_owned()]));
        account.receive(receiver, stream, 1, false);
        assert_eq!(account.missing().0, 0);
    }

    #[test]
    fn what_is_repeated_is_counted_or_a_violation() {
        for (promise, violations) in [(Promise::AtLeastOnce, 0), (Promise::ExactlyOnce, 1)] {
            let (account, stream, receiver) = account(promise);
            account.receive(receiver, stream, 0, false);
            account.receive(receiver, stream, 0, false);
            assert_eq!(account.violations().0, violations);
            assert_eq!(account.figures().duplicates_qos1, 1 - violations as u64);
        }
    }

    #[test]
    fn first_deliveries_have_an_order() {
        let (account, stream, receiver) = account(Promise::AtLeastOnce);
        for number in [0, 2, 0, 2] {
            account.receive(receiver, stream, number, false);
        }
        assert_eq!(account.violations().0, 0, "repeats may be in any order");
        account.receive(receiver, stream, 1, false);
        assert!(account.violations().1[0].ends_with("r got s:1, not accepted yet, after s:2"));
        account.receive(receiver, stream, 7, false);
        assert_eq!(account.violations().0, 2, "never sent");
    }
}
