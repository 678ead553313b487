use proptest::prelude::*;

use super::*;

const OK: Answer = Answer::Status {
    code: 204,
    retry_after_seconds: None,
};
const FAILS: Answer = Answer::Timeout;
const NEVER: Answer = Answer::Status {
    code: 422,
    retry_after_seconds: None,
};

fn parcel(place: u64, device: &str) -> Parcel {
    Parcel {
        id: EventId::new(1000, place),
        key: Key::Device(device.into()),
        body: format!("{device}{place}"),
        url: None,
    }
}

fn settle(courier: &mut Courier, device: &str, answer: Answer, now_ms: u64) -> Option<Death> {
    courier.settle(&Key::Device(device.into()), answer, "said", now_ms, 0.5)
}

/// What a store would have of it.
#[derive(Default)]
struct Store {
    read: u64,
    kept: BTreeMap<EventId, Vec<u8>>,
    dead: Vec<DeadLetter>,
}

impl Store {
    fn save(&mut self, courier: &mut Courier) {
        let Some(saving) = courier.saving() else {
            return;
        };
        assert!(saving.read >= self.read);
        self.read = saving.read;
        for retry in &saving.keep {
            self.kept.insert(retry.parcel.id, retry.encode());
        }
        for id in &saving.forget {
            self.kept.remove(id);
        }
        self.dead.extend(saving.dead.iter().cloned());
        courier.on_saved(&saving);
    }

    fn courier(&self) -> Courier {
        let kept = self.kept.values().map(|bytes| Retry::decode(bytes));
        Courier::new(self.read, kept.collect::<Result<_, _>>().unwrap())
    }
}

#[test]
fn what_is_settled_moves_the_place_on() {
    let (mut store, mut courier) = (Store::default(), Courier::new(0, vec![]));
    courier.take([parcel(1, "a"), parcel(2, "b"), parcel(4, "a")], 5, 0);
    assert_eq!(courier.take_due(0).unwrap().id.place(), 1);
    assert_eq!(courier.take_due(0).unwrap().id.place(), 2);
    assert_eq!(courier.take_due(0), None, "4 waits for 1");
    settle(&mut courier, "b", OK, 0);
    store.save(&mut courier);
    assert_eq!(store.read, 0, "1 is under way");
    settle(&mut courier, "a", OK, 0);
    store.save(&mut courier);
    assert_eq!(store.read, 3, "4 is to be sent");
    courier.take_due(0).unwrap();
    settle(&mut courier, "a", OK, 0);
    store.save(&mut courier);
    assert_eq!((store.read, store.kept.len()), (5, 0));
    assert_eq!(courier.saving(), None);
}

#[test]
fn what_fails_is_kept_apart_with_what_waits_behind_it() {
    let (mut store, mut courier) = (Store::default(), Courier::new(0, vec![]));
    courier.take([parcel(1, "a"), parcel(2, "a"), parcel(3, "b")], 3, 0);
    courier.take_due(0).unwrap();
    settle(&mut courier, "a", FAILS, 0);
    store.save(&mut courier);
    assert_eq!((store.read, store.kept.len()), (2, 2));

    let mut courier = store.courier();
    assert_eq!(courier.take_due(4999), None);
    courier.take([parcel(3, "b")], 3, 4999);
    assert_eq!(courier.take_due(4999).unwrap().id.place(), 3);
    settle(&mut courier, "b", OK, 4999);
    assert_eq!(courier.take_due(5000).unwrap().body, "a1");
    settle(&mut courier, "a", OK, 5000);
    store.save(&mut courier);
    assert_eq!((store.read, store.kept.len()), (3, 1));
    assert_eq!(courier.take_due(5000).unwrap().body, "a2");
    assert_eq!(settle(&mut courier, "a", NEVER, 5000), Some(Death::Refused));
    store.save(&mut courier);
    assert_eq!((store.kept.len(), courier.saving()), (0, None));
    let dead = &store.dead[0];
    assert_eq!((dead.parcel.body.as_str(), dead.attempts), ("a2", 1));
    assert_eq!(dead.last, "said");
    assert_eq!(DeadLetter::decode(&dead.encode()), Ok(dead.clone()));
}

#[test]
fn what_is_kept_for_it_by_others_is_taken_once() {
    let mut courier = Courier::new(0, vec![]);
    let retry = Retry {
        parcel: Parcel {
            url: Some("https://example.com/done".into()),
            ..parcel(7, "a")
        },
        delivery: WAITS,
    };
    assert_eq!(Retry::decode(&retry.encode()), Ok(retry.clone()));
    courier.take_kept(vec![retry.clone()]);
    courier.take_kept(vec![retry.clone()]);
    assert_eq!(courier.take_due(0), Some(retry.parcel.clone()));
    settle(&mut courier, "a", OK, 0);
    courier.take_kept(vec![retry]);
    assert_eq!(courier.take_due(0), None);
    assert_eq!(courier.saving().unwrap().forget.len(), 1);
}

proptest! {
    /// With nodes that die at any time. Each event arrives or is given up, in order per device but for what a dead node had not saved.
    #[test]
    fn nothing_is_lost_by_those_who_take_over(
        devices in prop::collection::vec(0u8..4, 1..50),
        steps in prop::collection::vec((0u8..10, prop_oneof![Just(OK), Just(OK), Just(FAILS), Just(NEVER)]), 1..200),
    ) {
        let log: Vec<Parcel> = (1..).zip(&devices).map(|(place, device)| parcel(place, &device.to_string())).collect();
        let (mut store, mut now_ms) = (Store::default(), 0);
        let mut courier = store.courier();
        let mut arrived: Vec<Parcel> = Vec::new();
        let mut under_way: Vec<Parcel> = Vec::new();
        // Perhaps by a node that died before it had saved that.
        let mut given_up = BTreeSet::new();
        for (step, answer) in steps.into_iter().chain(std::iter::repeat_n((9, OK), 4000)) {
            match step {
                0 => {
                    // What was under way may have arrived.
                    arrived.append(&mut under_way);
                    courier = store.courier();
                }
                1 => store.save(&mut courier),
                2 | 3 => {
                    let from = courier.read_to() as usize;
                    let part: Vec<_> = log[from..].iter().take(7).cloned().collect();
                    let read_to = (from + part.len()) as u64;
                    courier.take(part, read_to, now_ms);
                }
                4..=6 => under_way.extend(courier.take_due(now_ms)),
                7 | 8 => {
                    if let Some(parcel) = under_way.pop() {
                        if courier.settle(&parcel.key, answer, "", now_ms, 0.5).is_some() {
                            given_up.insert(parcel.id);
                        }
                        if answer == OK { arrived.push(parcel); }
                    }
                }
                _ => {
                    now_ms = courier.next_ms().unwrap_or(now_ms).max(now_ms);
                    let from = courier.read_to() as usize;
                    courier.take(log[from..].iter().cloned(), log.len() as u64, now_ms);
                    under_way.extend(courier.take_due(now_ms));
                    if let Some(parcel) = under_way.pop() {
                        courier.settle(&parcel.key, OK, "", now_ms, 0.5);
                        arrived.push(parcel);
                    }
                    store.save(&mut courier);
                }
            }
        }
        prop_assert_eq!(store.read, log.len() as u64);
        prop_assert_eq!(store.kept.len(), 0);
        for parcel in &log {
            let is_dead = store.dead.iter().any(|dead| dead.parcel == *parcel);
            prop_assert!(is_dead || arrived.contains(parcel), "{} is lost", parcel.body);
        }
        // The first arrivals of a device's events are in order, among those that were not given up.
        for device in 0..4u8 {
            let key = Key::Device(device.to_string().into());
            let mut seen = BTreeSet::new();
            let first: Vec<u64> = arrived.iter()
                .filter(|parcel| parcel.key == key && seen.insert(parcel.id))
                .filter(|parcel| !given_up.contains(&parcel.id))
                .map(|parcel| parcel.id.place())
                .collect();
            prop_assert!(first.is_sorted(), "{first:?}");
        }
    }
}
