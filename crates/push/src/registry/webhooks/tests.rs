use super::*;
use crate::{
    event::{Draft, Event, Filter, What},
    id::PushId,
    registry::testing::World,
    webhook::{courier::Parcel, delivery::Death},
};

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn id(number: u64) -> EventId {
    EventId::new(1, number)
}

fn webhook(number: u64) -> Webhook {
    let body = br#"{"url": "https://example.com/hook", "events": ["push.*"]}"#;
    let secret = Secret::from_random([number as u8; 32]);
    Webhook::create(body, false, id(number), secret, 1000).unwrap()
}

fn parcel(place: u64) -> Parcel {
    let event = Event {
        id: id(place),
        at_ms: 1,
        draft: Draft::new(Some(&"d".into()), Some(PushId(9)), &What::PushDelivered),
    };
    Parcel::of(&event, &shop())
}

fn dead(place: u64) -> DeadLetter {
    DeadLetter {
        parcel: parcel(place),
        death: Death::Refused,
        last: "HTTP 400".into(),
        attempts: 1,
        dead_ms: 5,
    }
}

impl World {
    fn create_webhook(&mut self, number: u64) -> Result<String, Refusal> {
        let webhook = webhook(number);
        self.run(|context| create(context, &shop(), &webhook))?;
        Ok(webhook.id.to_string())
    }

    /// Whether nobody else had saved.
    fn save(&mut self, of: &str, told: Version, saving: &Saving) -> bool {
        let saved = self.run(|context| {
            let change = save(context, &shop(), of, told, saving, None)?;
            let (record, _) = context.record::<ToldRecord>(&scope_of(&shop()), &told_row(of))?;
            match record {
                // Done, or somebody else's.
                Some(record) if record.read == saving.read => Ok(Planned::nothing(())),
                _ => Ok(Planned::change(change, ())),
            }
        });
        saved.is_ok()
    }

    fn dead(&self, of: &str) -> Vec<DeadLetter> {
        let dead = self.ask(|context| dead_letters(context, &shop(), of, None, 2000));
        dead.unwrap().0
    }
}

#[test]
fn a_webhook_is_kept_changed_and_removed() {
    let mut world = World::default();
    let id = world.create_webhook(1).unwrap();
    let change = webhook::Change::parse(br#"{"state": "paused"}"#, false).unwrap();
    let edited = world
        .run(|context| edit(context, &shop(), &id, &Edit::Fields(change.clone())))
        .unwrap();
    assert_eq!(edited.state, webhook::State::Paused);
    let rotated = Secret::from_random([9; 32]);
    let edited = world
        .run(|context| edit(context, &shop(), &id, &Edit::Rotate(rotated.clone())))
        .unwrap();
    assert_eq!(edited.secret, rotated);
    let listed = world.read(|context| list(context, &shop()));
    assert_eq!(
        listed.iter().map(|(it, _)| it).collect::<Vec<_>>(),
        [&edited]
    );
    assert!(edited.events != Filter::all());
    let told = world.read(|context| kept(context, &shop(), &id)).told;
    let saving = Saving {
        read: 7,
        dead: vec![dead(3)],
        ..Saving::default()
    };
    assert!(world.save(&id, told, &saving));
    world.run(|context| delete(context, &shop(), &id)).unwrap();
    assert!(world.read(|context| list(context, &shop())).is_empty());
    let gone = world.ask(|context| dead_letters(context, &shop(), &id, None, 9));
    assert_eq!(gone, Err(missing(&id)));
}

#[test]
fn an_app_has_so_many_webhooks() {
    let mut world = World::default();
    for number in 0..MAX_WEBHOOKS as u64 {
        world.create_webhook(number + 1).unwrap();
    }
    let full = Refusal::Full {
        what: "webhooks",
        limit: MAX_WEBHOOKS as u64,
    };
    assert_eq!(world.create_webhook(99), Err(full));
}

#[test]
fn a_courier_goes_on_where_it_was_saved() {
    let mut world = World::default();
    let of = world.create_webhook(1).unwrap();
    let first = world.read(|context| kept(context, &shop(), &of));
    assert_eq!(first.courier.read_to(), first.told.0, "from its beginning");
    let retry = Retry {
        parcel: parcel(4),
        delivery: Delivery {
            attempts: 2,
            since_ms: 1,
            next_ms: 77,
        },
    };
    let saving = Saving {
        read: 40,
        keep: vec![retry.clone()],
        ..Saving::default()
    };
    assert!(world.save(&of, first.told, &saving));
    let mut second = world.read(|context| kept(context, &shop(), &of));
    assert_eq!(second.courier.read_to(), 40);
    assert_eq!(second.courier.next_ms(), Some(77));
    assert_eq!(second.courier.take_due(77), Some(retry.parcel));
    // Who still believes to lead has nothing to say.
    let late = Saving {
        read: 41,
        ..Saving::default()
    };
    assert!(!world.save(&of, first.told, &late));
    assert!(world.save(&of, second.told, &late));
}

#[test]
fn dead_letters_are_bounded_and_replayed() {
    let mut world = World::default();
    let of = world.create_webhook(1).unwrap();
    for part in 0..3 {
        let told = world.read(|context| kept(context, &shop(), &of)).told;
        let places = 1 + part * 500..=500 + part * 500;
        let saving = Saving {
            read: 1 + part,
            dead: places.map(dead).collect(),
            ..Saving::default()
        };
        assert!(world.save(&of, told, &saving));
    }
    let all = world.dead(&of);
    assert_eq!((all.len(), all[0].parcel.id), (MAX_DEAD_LETTERS, id(501)));
    let ids = [id(1), id(501), id(502)];
    let before = world.read(|context| list(context, &shop()))[0].1;
    let count = world
        .run(|context| replay(context, &shop(), &of, &ids))
        .unwrap();
    assert_eq!(count, 2, "the first is gone");
    assert_ne!(world.read(|context| list(context, &shop()))[0].1, before);
    let mut kept = world.read(|context| kept(context, &shop(), &of));
    let due = kept.courier.take_due(world.now_ms);
    assert_eq!(due.map(|parcel| parcel.id), Some(id(501)));
    let rest = world.run(|context| replay(context, &shop(), &of, &[]));
    assert_eq!(rest, Ok(998));
    assert_eq!(world.dead(&of), []);
}

#[test]
fn callbacks_have_one_secret_that_can_be_rotated() {
    let mut world = World::default();
    let first = world
        .run(|context| callback_signer(context, &shop(), [1; 32]))
        .unwrap();
    let same = world
        .run(|context| callback_signer(context, &shop(), [2; 32]))
        .unwrap();
    assert_eq!(first, same);
    let rotated = world
        .run(|context| rotate_callback_secret(context, &shop(), [3; 32]))
        .unwrap();
    assert_eq!(
        rotated.previous.map(|(secret, _)| secret),
        Some(first.secret)
    );
}

#[test]
fn apps_are_put_onto_the_list_once() {
    let mut world = World::default();
    for _ in 0..2 {
        world.run(|context| announce(context, &shop())).unwrap();
    }
    let listed = world.read(|context| tellers(context, None, 9));
    assert_eq!(listed, (vec![shop()], false));
    // A plan that has nothing to do makes no change.
    let nothing = world.ask(|context| announce(context, &shop()));
    assert!(nothing.unwrap().change.is_none());
}
