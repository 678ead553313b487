//! When a webhook's request is sent, sent again, and given up.
//!
//! Requests with the same [key](crate::event::Event::key) go one after the other: the next waits until the one before was taken or given up. Others do
//! not wait for it. A request that is given up goes to the dead letters, from where it can be replayed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::event::Key;

/// Requests for one event, the first included, before it is given up.
pub const MAX_ATTEMPTS: u32 = 20;
/// Milliseconds from the first request until the event is given up.
pub const MAX_AGE_MS: u64 = 72 * 60 * 60 * 1000;
/// Milliseconds before the second request; each later wait is three times as long, up to [`MAX_WAIT_MS`].
pub const FIRST_WAIT_MS: u64 = 5_000;
/// The longest wait, before jitter; also the longest `Retry-After` that is obeyed.
pub const MAX_WAIT_MS: u64 = 6 * 60 * 60 * 1000;
/// Milliseconds that a webhook may do nothing but fail before it is switched off.
pub const DISABLE_AFTER_MS: u64 = MAX_AGE_MS;
/// Requests that must have failed in a row as well, so that one event in a quiet week does not switch it off.
pub const DISABLE_AFTER_FAILURES: u32 = MAX_ATTEMPTS;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP status.
    Status {
        /// The code.
        code: u16,
        /// Seconds of `Retry-After`.
        retry_after_seconds: Option<u64>,
    },
    /// No connection, or it broke, or TLS failed.
    Unreachable,
    /// No status in time.
    Timeout,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Taken: any 2xx.
    Taken,
    /// Try again: whatever may be different the next time. Redirects are not followed and count here too, as somebody may correct the address.
    Again,
    /// This event will never be taken: 400, 413, 415, 422.
    Never,
    /// The receiver is gone for good: 410.
    Gone,
}

impl Answer {
    /// What it means.
    pub fn meaning(self) -> Meaning {
        match self {
            Answer::Status { code, .. } => match code {
                200..=299 => Meaning::Taken,
                400 | 413 | 415 | 422 => Meaning::Never,
                410 => Meaning::Gone,
                _ => Meaning::Again,
            },
            Answer::Unreachable | Answer::Timeout => Meaning::Again,
        }
    }
}

/// Where an event stands on its way to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Requests made so far.
    pub attempts: u32,
    /// Unix milliseconds since when it could be sent.
    pub since_ms: u64,
    /// Unix milliseconds of the next request.
    pub next_ms: u64,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing more to do.
    Taken,
    /// Another request.
    Again(Delivery),
    /// To the dead letters.
    Dead(Death),
}

/// Why an event was given up. Numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Death {
    /// The answer was final.
    Refused = 0,
    /// [`MAX_ATTEMPTS`].
    TooOften = 1,
    /// [`MAX_AGE_MS`].
    TooLong = 2,
}

impl Death {
    /// As callers and labels have it.
    pub fn text(self) -> &'static str {
        match self {
            Death::Refused => "refused",
            Death::TooOften => "too_often",
            Death::TooLong => "too_long",
        }
    }

    /// The one of a number.
    pub fn from_code(code: u32) -> Death {
        match code {
            0 => Death::Refused,
            1 => Death::TooOften,
            _ => Death::TooLong,
        }
    }
}

impl Delivery {
    /// Of an event that can be sent now; also of one that is replayed.
    pub fn new(now_ms: u64) -> Delivery {
        Delivery {
            attempts: 0,
            since_ms: now_ms,
            next_ms: now_ms,
        }
    }

    /// After an answer. `jitter` in 0..=1 spreads the next request over 80 to 120 % of the wait, so that a receiver that comes back is
    /// not met by all at once.
    pub fn on_answer(self, answer: Answer, now_ms: u64, jitter: f64) -> Next {
        match answer.meaning() {
            Meaning::Taken => return Next::Taken,
            Meaning::Never | Meaning::Gone => return Next::Dead(Death::Refused),
            Meaning::Again => {}
        }
        let attempts = self.attempts.saturating_add(1);
        if attempts >= MAX_ATTEMPTS {
            return Next::Dead(Death::TooOften);
        }
        let asked_ms = match answer {
            Answer::Status {
                retry_after_seconds: Some(seconds),
                ..
            } => seconds.saturating_mul(1000).min(MAX_WAIT_MS),
            _ => 0,
        };
        let wait_ms = spread(wait_ms(attempts), jitter).max(asked_ms);
        let next_ms = now_ms.saturating_add(wait_ms);
        if next_ms.saturating_sub(self.since_ms) > MAX_AGE_MS {
            return Next::Dead(Death::TooLong);
        }
        Next::Again(Delivery {
            attempts,
            next_ms,
            ..self
        })
    }
}

/// Milliseconds between a request and the next, before jitter, after so many requests.
pub fn wait_ms(attempts: u32) -> u64 {
    3u64.saturating_pow(attempts.saturating_sub(1))
        .saturating_mul(FIRST_WAIT_MS)
        .min(MAX_WAIT_MS)
}

fn spread(wait_ms: u64, jitter: f64) -> u64 {
    let fifth = wait_ms / 5;
    wait_ms - fifth + (2.0 * fifth as f64 * jitter.clamp(0.0, 1.0)) as u64
}

/// Whether a webhook works at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Unix milliseconds of the first failure after the last success.
    pub failing_since_ms: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
}

impl Health {
    /// After an answer; true if the webhook is to be switched off: it is gone, or only fails. An answer that refuses one event counts as a
    /// sign of life.
    #[must_use]
    pub fn on_answer(&mut self, answer: Answer, now_ms: u64) -> bool {
        match answer.meaning() {
            Meaning::Taken | Meaning::Never => {
                *self = Health::default();
                false
            }
            Meaning::Gone => true,
            Meaning::Again => {
                let since_ms = *self.failing_since_ms.get_or_insert(now_ms);
                self.failures = self.failures.saturating_add(1);
                self.failures >= DISABLE_AFTER_FAILURES
                    && now_ms.saturating_sub(since_ms) >= DISABLE_AFTER_MS
            }
        }
    }
}

/// What a webhook has to be told, in order per key.
#[derive(Debug)]
pub struct Outbox<T> {
    limit: usize,
    count: usize,
    lanes: BTreeMap<Key, Lane<T>>,
    /// The heads that nobody is sending.
    due: BTreeSet<(u64, Key)>,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    /// Of the first.
    delivery: Delivery,
}

/// What became of an event after an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<T> {
    /// It was taken.
    Taken(T),
    /// It will be sent again.
    Again(Delivery),
    /// It was given up.
    Dead(T, Death),
}

impl<T> Outbox<T> {
    /// An empty one that holds at most `limit` events. What does not fit stays in the log that it was read from.
    pub fn new(limit: usize) -> Outbox<T> {
        Outbox {
            limit,
            count: 0,
            lanes: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends an event, or gives it back if there is no room.
    pub fn append(&mut self, key: Key, event: T, now_ms: u64) -> Result<(), T> {
        match self.room() {
            0 => Err(event),
            _ => {
                self.restore(key, event, Delivery::new(now_ms));
                Ok(())
            }
        }
    }

    /// How many more there is room for.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.count)
    }

    /// Appends an event that was in it before, room or not. Where it is not the first of its key, `delivery` means nothing.
    pub fn restore(&mut self, key: Key, event: T, delivery: Delivery) {
        self.count += 1;
        match self.lanes.get_mut(&key) {
            Some(lane) => lane.waiting.push_back(event),
            None => {
                self.due.insert((delivery.next_ms, key.clone()));
                let waiting = [event].into();
                self.lanes.insert(key, Lane { waiting, delivery });
            }
        }
    }

    /// The events of each key in order, with where the first stands.
    pub fn lanes(&self) -> impl Iterator<Item = (Delivery, impl Iterator<Item = &T>)> {
        let lanes = self.lanes.values();
        lanes.map(|lane| (lane.delivery, lane.waiting.iter()))
    }

    /// Takes the key of an event that is to be sent now. Its lane stands still until [settled](Outbox::settle).
    pub fn take_due(&mut self, now_ms: u64) -> Option<(Key, &T)> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let event = self.lanes.get(&key)?.waiting.front()?;
        Some((key, event))
    }

    /// Requests that were made for the first of a key.
    pub fn attempts(&self, key: &Key) -> u32 {
        self.lanes.get(key).map_or(0, |lane| lane.delivery.attempts)
    }

    /// When the next is due, in Unix milliseconds.
    pub fn next_ms(&self) -> Option<u64> {
        self.due.first().map(|(next_ms, _)| *next_ms)
    }

    /// After the answer to what [`take_due`](Outbox::take_due) gave; `None` for a key that it did not give.
    pub fn settle(
        &mut self,
        key: &Key,
        answer: Answer,
        now_ms: u64,
        jitter: f64,
    ) -> Option<Settled<T>> {
        let lane = self.lanes.get_mut(key)?;
        if self.due.contains(&(lane.delivery.next_ms, key.clone())) {
            return None;
        }
        let next = lane.delivery.on_answer(answer, now_ms, jitter);
        if let Next::Again(delivery) = next {
            lane.delivery = delivery;
            self.due.insert((delivery.next_ms, key.clone()));
            return Some(Settled::Again(delivery));
        }
        let event = lane.waiting.pop_front()?;
        self.count -= 1;
        if lane.waiting.is_empty() {
            self.lanes.remove(key);
        } else {
            lane.delivery = Delivery::new(now_ms);
            self.due.insert((now_ms, key.clone()));
        }
        Some(match next {
            Next::Dead(death) => Settled::Dead(event, death),
            Next::Taken | Next::Again(_) => Settled::Taken(event),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: Answer = Answer::Status {
        code: 204,
        retry_after_seconds: None,
    };

    fn status(code: u16) -> Answer {
        Answer::Status {
            code,
            retry_after_seconds: None,
        }
    }

    #[test]
    fn what_an_answer_means() {
        for (codes, meaning) in [
            (&[200, 201, 202, 204, 299][..], Meaning::Taken),
            (&[400, 413, 415, 422], Meaning::Never),
            (&[410], Meaning::Gone),
            (
                &[
                    100, 301, 308, 401, 403, 404, 405, 408, 409, 425, 429, 500, 501, 502, 503, 504,
                ],
                Meaning::Again,
            ),
        ] {
            for code in codes {
                assert_eq!(status(*code).meaning(), meaning, "{code}");
            }
        }
        assert_eq!(Answer::Timeout.meaning(), Meaning::Again);
    }

    #[test]
    fn waits_grow_to_six_hours_and_end_within_three_days() {
        let (mut delivery, mut now_ms, mut seconds) = (Delivery::new(0), 0, Vec::new());
        let death = loop {
            match delivery.on_answer(status(500), now_ms, 0.5) {
                Next::Again(next) => {
                    seconds.push((next.next_ms - now_ms) / 1000);
                    (delivery, now_ms) = (next, next.next_ms);
                }
                Next::Dead(death) => break death,
                Next::Taken => unreachable!("it was refused"),
            }
        };
        assert_eq!(
            seconds[..10],
            [5, 15, 45, 135, 405, 1215, 3645, 10_935, 21_600, 21_600]
        );
        assert_eq!((seconds.len(), death), (19, Death::TooOften));
        assert!(now_ms < MAX_AGE_MS);
    }

    #[test]
    fn jitter_spreads_and_retry_after_is_obeyed() {
        let next = |answer, jitter| match Delivery::new(0).on_answer(answer, 0, jitter) {
            Next::Again(delivery) => delivery.next_ms,
            other => panic!("{other:?}"),
        };
        assert_eq!(next(status(500), 0.0), 4000);
        assert_eq!(next(status(500), 1.0), 6000);
        let asked = |seconds| Answer::Status {
            code: 503,
            retry_after_seconds: Some(seconds),
        };
        assert_eq!(next(asked(60), 0.5), 60_000);
        assert_eq!(next(asked(1), 0.5), 5000);
        assert_eq!(next(asked(u64::MAX), 0.5), MAX_WAIT_MS);
    }

    #[test]
    fn too_long_is_given_up_before_too_often() {
        let old = Delivery {
            attempts: 3,
            since_ms: 0,
            next_ms: 0,
        };
        assert_eq!(
            old.on_answer(status(500), MAX_AGE_MS, 0.5),
            Next::Dead(Death::TooLong)
        );
        assert_eq!(
            old.on_answer(status(422), 0, 0.5),
            Next::Dead(Death::Refused)
        );
    }

    #[test]
    fn a_webhook_that_only_fails_is_switched_off() {
        let mut health = Health::default();
        for n in 0..100 {
            assert!(!health.on_answer(Answer::Timeout, n));
        }
        assert!(!health.on_answer(status(400), 100), "it lives");
        assert!(!health.on_answer(Answer::Timeout, 200));
        assert!(
            !health.on_answer(Answer::Timeout, 200 + DISABLE_AFTER_MS),
            "twice is not often"
        );
        for _ in 2..DISABLE_AFTER_FAILURES - 1 {
            assert!(!health.on_answer(Answer::Timeout, 200 + DISABLE_AFTER_MS));
        }
        assert!(health.on_answer(Answer::Timeout, 200 + DISABLE_AFTER_MS));
        assert!(Health::default().on_answer(status(410), 0));
    }

    #[test]
    fn a_lane_waits_for_its_head_and_the_others_do_not() {
        let (a, b) = (Key::Device("a".into()), Key::Device("b".into()));
        let mut outbox = Outbox::new(3);
        for (key, event) in [(&a, 1), (&a, 2), (&b, 3)] {
            outbox.append(key.clone(), event, 0).unwrap();
        }
        assert_eq!(outbox.append(b.clone(), 4, 0), Err(4), "no room");
        assert_eq!(outbox.take_due(0), Some((a.clone(), &1)));
        assert_eq!(outbox.settle(&b, OK, 0, 0.5), None, "nobody sends it");
        assert_eq!(outbox.take_due(0), Some((b.clone(), &3)));
        assert_eq!(outbox.take_due(0), None);
        assert!(matches!(
            outbox.settle(&a, Answer::Timeout, 0, 0.5),
            Some(Settled::Again(_))
        ));
        assert_eq!(outbox.take_due(4999), None);
        assert_eq!(outbox.take_due(5000), Some((a.clone(), &1)));
        assert_eq!(
            outbox.settle(&a, status(422), 5000, 0.5),
            Some(Settled::Dead(1, Death::Refused))
        );
        assert_eq!(outbox.take_due(5000), Some((a.clone(), &2)));
        assert_eq!(outbox.settle(&a, OK, 5000, 0.5), Some(Settled::Taken(2)));
        assert_eq!(outbox.settle(&b, OK, 5000, 0.5), Some(Settled::Taken(3)));
        assert!(outbox.is_empty());
    }

    proptest! {
        #[test]
        fn every_event_is_told_once_and_in_order_per_key(
            events in prop::collection::vec(0u8..4, 0..60),
            answers in prop::collection::vec(prop_oneof![Just(OK), Just(Answer::Timeout), Just(status(422))], 1..40),
        ) {
            let mut outbox = Outbox::new(usize::MAX);
            for (number, lane) in events.iter().enumerate() {
                outbox.append(Key::Device(lane.to_string().into()), (*lane, number), 0).unwrap();
            }
            let (mut settled, mut now_ms) = (Vec::new(), 0);
            let mut answers = answers.into_iter().chain([OK]).cycle();
            while let Some(next_ms) = outbox.next_ms() {
                now_ms = now_ms.max(next_ms);
                // All that are due are under way together.
                let mut under_way = Vec::new();
                while let Some((key, _)) = outbox.take_due(now_ms) {
                    prop_assert!(!under_way.contains(&key));
                    under_way.push(key);
                }
                for key in under_way {
                    match outbox.settle(&key, answers.next().unwrap(), now_ms, 0.5).unwrap() {
                        Settled::Taken(event) | Settled::Dead(event, _) => settled.push(event),
                        Settled::Again(_) => {}
                    }
                }
            }
            prop_assert_eq!(settled.len(), events.len());
            for lane in 0..4 {
                let numbers: Vec<_> = settled.iter().filter(|(l, _)| *l == lane).map(|(_, n)| *n).collect();
                prop_assert!(numbers.is_sorted());
            }
        }
    }
}
