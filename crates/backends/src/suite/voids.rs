//! What becomes of the connections of a node that is gone, and of their wills.

use std::sync::Arc;

use bytes::Bytes;

use campanile_broker::{
    ids::{Generation, Millis, Offset},
    store::{
        Change, Claimed, Command, LogKind, Outcome, OwedWill, Publish, StoreError, Voided, Will,
    },
};

use super::{World, client, publish};
use crate::{WILL_AGAIN_MS, WILL_GRACE_MS};

const GONE: Generation = Generation(0x201);
const OTHER: Generation = Generation(0x202);
const TOPICS: LogKind = LogKind::Topic(0);

/// From the time of the void; one that never expires does not.
pub fn a_void_lets_sessions_begin_to_expire(world: &mut World) {
    let claimed = world.claim_by(GONE, "a", 60);
    world.subscribe("a", claimed.epoch, &["x"]);
    world.claim_by(GONE, "forever", u32::MAX);
    world.pass_seconds(1000);
    assert_eq!(world.sweep().ended, vec![]);
    assert_eq!(world.void(GONE), Voided::default());
    assert_eq!(world.session("a").map(|session| session.owner), Some(None));
    world.pass_seconds(59);
    assert_eq!(world.sweep().ended, vec![]);
    world.pass_seconds(1);
    assert_eq!(world.sweep().ended, vec![(client("a"), vec!["x".into()])]);
    world.pass_seconds(u32::MAX);
    assert_eq!(world.sweep().ended, vec![]);
    assert!(world.claim_by(OTHER, "forever", 60).resumed.is_some());
}

/// It was the last one that the session had.
pub fn a_void_ends_what_ends_with_the_connection(world: &mut World) {
    let first = world.claim_by(OTHER, "stored", 60);
    world.subscribe("stored", first.epoch, &["y", "x"]);
    let stored = world.claim_by(GONE, "stored", 0);
    let ephemeral = world.claim_by(GONE, "ephemeral", 0);
    world.send("ephemeral", "ends with it");
    let mut voided = world.void(GONE);
    let (who, filters) = voided.ended.pop().expect("one has ended");
    let mut filters: Vec<&str> = filters.iter().map(|filter| &**filter).collect();
    filters.sort_unstable();
    assert_eq!((who, &filters[..]), (client("stored"), &["x", "y"][..]));
    assert_eq!(voided, Voided::default());
    assert_eq!(world.session("stored"), None);
    for (client_id, claimed) in [("stored", &stored), ("ephemeral", &ephemeral)] {
        let outcome = world.progress(client_id, claimed, |_| {});
        assert_eq!(outcome, Err(StoreError::Fenced));
        let next = world.claim_by(OTHER, client_id, 60);
        assert_eq!((next.resumed, next.previous), (None, None));
        assert!(next.inbox_waiting.is_empty());
    }
}

/// Those of other nodes stay, also if they were its own before.
pub fn a_void_concerns_one_generation(world: &mut World) {
    let mut stay = Vec::new();
    for (client_id, expiry_seconds) in [("durable", 60), ("ephemeral", 0)] {
        world.claim_by(GONE, client_id, expiry_seconds);
        stay.push((client_id, world.claim_by(OTHER, client_id, expiry_seconds)));
    }
    let away = world.claim_by(GONE, "away", 10);
    world.release("away", &away, 10);
    world.pass_seconds(5);
    assert_eq!(world.void(GONE), Voided::default());
    world.pass_seconds(5);
    assert_eq!(world.sweep().ended, vec![(client("away"), vec![])]);
    for (client_id, claimed) in &stay {
        let outcome = world.progress(client_id, claimed, |_| {});
        assert_eq!(outcome, Ok(Outcome::Done));
    }
}

/// Asked for again until nothing is left; then it finds nothing.
pub fn a_void_is_bounded_and_may_be_repeated(world: &mut World) {
    let testament = world.testament(0);
    for number in 0..7 {
        let (client_id, expiry_seconds) = (format!("c{number}"), 60 * (number % 2));
        world.claim_with(&client_id, |claim| {
            (claim.owner, claim.expiry_seconds) = (GONE, expiry_seconds);
            claim.will = Some(testament.clone());
        });
    }
    let mut clients = Vec::new();
    for (calls, count) in [(1, 3), (2, 3), (3, 1)] {
        let voided = world.void_some(GONE, 3);
        assert_eq!((voided.wills.len(), voided.more), (count, calls < 3));
        clients.extend(voided.wills.into_iter().map(|owed| owed.client));
    }
    clients.sort();
    let all: Vec<_> = (0..7).map(|number| client(&format!("c{number}"))).collect();
    assert_eq!(clients, all);
    assert_eq!(world.void_some(GONE, 3), Voided::default());
}

/// Due after their delay, or with the session if that ends before.
pub fn a_void_gives_out_the_wills(world: &mut World) {
    let cases = [
        ("at once", 60, 0),
        ("ephemeral", 0, 30),
        ("later", 60, 30),
        ("never ends", u32::MAX, 30),
        ("with the session", 20, 30),
    ];
    let mut expected = Vec::new();
    let now = world.now.plus_seconds(100);
    for (client_id, expiry_seconds, delay_seconds) in cases {
        let testament = world.testament(delay_seconds);
        world.claim_with_will_by(GONE, client_id, expiry_seconds, &testament);
        expected.push(OwedWill {
            client: client(client_id),
            will: testament,
            at: Some(now.plus_seconds(delay_seconds.min(expiry_seconds))),
            session_expires_at: (expiry_seconds != u32::MAX)
                .then(|| now.plus_seconds(expiry_seconds)),
            is_final: false,
        });
    }
    world.claim_by(GONE, "without", 60);
    world.pass_seconds(100);
    let mut wills = world.void(GONE).wills;
    wills.sort_by(|a, b| a.client.cmp(&b.client));
    assert_eq!(wills, expected);
    assert_eq!(world.void(GONE), Voided::default());
}

/// Whoever publishes it first has done so; a client that is back in time with its session averts it.
pub fn a_will_of_a_lost_connection_is_published_once_or_averted(world: &mut World) {
    let published = world.testament(0);
    let averted = world.testament(30);
    let late = world.testament(30);
    world.claim_with_will_by(GONE, "published", 60, &published);
    world.claim_with_will_by(GONE, "averted", 60, &averted);
    world.claim_with_will_by(GONE, "late", 60, &late);
    assert_eq!(world.void(GONE).wills.len(), 3);
    assert_eq!(world.publish_will("published", &published), Outcome::Done);
    assert_eq!(
        world.publish_will("published", &published),
        Outcome::Nothing
    );
    assert_eq!(world.claim_by(OTHER, "published", 60).owed_will, None);
    world.pass_seconds(29);
    let back = world.claim_by(OTHER, "averted", 60);
    assert_eq!((back.resumed.is_some(), back.owed_will), (true, None));
    world.pass_seconds(1);
    assert_eq!(
        world.claim_by(OTHER, "late", 60).owed_will,
        Some(late.clone())
    );
    assert_eq!(world.publish_will("averted", &averted), Outcome::Nothing);
    assert_eq!(world.publish_will("late", &late), Outcome::Done);
    assert_eq!(world.publish_will("late", &late), Outcome::Nothing);
    world.pass_seconds(1000);
    assert_eq!(world.sweep().wills, vec![]);
    assert_eq!(world.log_payloads(TOPICS, Offset(0)), ["will", "will"]);
}

/// First a while after it was due, then now and again, until somebody has published it.
pub fn a_will_that_nobody_publishes_is_handed_out(world: &mut World) {
    let testament = world.testament(10);
    world.claim_with_will_by(GONE, "a", 600, &testament);
    let owed = world.void(GONE).wills.remove(0);
    world.pass_ms(10_000 + WILL_GRACE_MS - 1);
    assert_eq!(world.sweep().wills, vec![]);
    world.pass_ms(1);
    for _ in 0..3 {
        assert_eq!(world.sweep().wills, std::slice::from_ref(&owed));
        assert_eq!(world.sweep().wills, vec![]);
        world.pass_ms(WILL_AGAIN_MS - 1);
        assert_eq!(world.sweep().wills, vec![]);
        world.pass_ms(1);
    }
    assert_eq!(world.publish_will("a", &testament), Outcome::Done);
    world.pass_seconds(1000);
    assert_eq!(world.sweep().wills, vec![]);
}

/// The node that got it with the claim has died.
pub fn a_will_that_a_claim_gave_out_is_handed_out(world: &mut World) {
    let testament = world.testament(0);
    world.claim_with_will_by(OTHER, "a", 60, &testament);
    let taken_at = world.now;
    let claimed = world.claim_by(GONE, "a", 60);
    assert_eq!(claimed.owed_will, Some(testament.clone()));
    assert_eq!(world.void(GONE).wills, vec![]);
    world.pass_ms(WILL_GRACE_MS);
    let wills = world.sweep().wills;
    assert_eq!(wills.len(), 1);
    assert_eq!(
        (&wills[0].client, &wills[0].will),
        (&client("a"), &testament)
    );
    assert_eq!((wills[0].at, wills[0].is_final), (Some(taken_at), true));
    // That the client is there again changes nothing.
    world.claim_by(OTHER, "a", 60);
    world.pass_ms(WILL_AGAIN_MS);
    assert_eq!(world.sweep().wills.len(), 1);
    assert_eq!(world.publish_will("a", &testament), Outcome::Done);
    world.pass_ms(WILL_AGAIN_MS);
    assert_eq!(world.sweep().wills, vec![]);
}

/// Its node died between the release and the publication; a will that was dropped, or whose connection is up, is nobody's to publish.
pub fn a_released_will_is_handed_out(world: &mut World) {
    let testament = world.testament(0);
    let due = Some(world.now);
    let released = world.claim_with_will_by(GONE, "released", 600, &testament);
    world.release_with_will("released", &released, 600, due);
    let dropped = world.claim_with_will_by(GONE, "dropped", 600, &testament);
    world.release_with_will("dropped", &dropped, 600, None);
    let other = world.claim_with_will_by(GONE, "dropped later", 600, &testament);
    world.release_with_will("dropped later", &other, 600, due);
    world.done(Command::DropWill {
        client: client("dropped later"),
    });
    world.claim_with_will_by(OTHER, "up", 600, &testament);
    world.pass_ms(WILL_GRACE_MS);
    let wills = world.sweep().wills;
    assert_eq!(wills.len(), 1);
    assert_eq!((&wills[0].client, wills[0].at), (&client("released"), due));
}

/// A bound of the sweep holds for wills too.
pub fn wills_are_handed_out_within_the_bound(world: &mut World) {
    let testament = world.testament(0);
    for client_id in ["a", "b", "c"] {
        world.claim_with_will_by(GONE, client_id, 600, &testament);
    }
    world.void(GONE);
    world.pass_ms(WILL_GRACE_MS);
    let swept = world.sweep_some(2);
    assert_eq!((swept.wills.len(), swept.more), (2, true));
    let swept = world.sweep_some(2);
    assert_eq!((swept.wills.len(), swept.more), (1, false));
}

impl World {
    fn claim_with_will_by(
        &mut self,
        node: Generation,
        client_id: &str,
        expiry_seconds: u32,
        will: &Will,
    ) -> Claimed {
        self.claim_with(client_id, |claim| {
            (claim.owner, claim.expiry_seconds) = (node, expiry_seconds);
            claim.will = Some(will.clone());
        })
    }

    fn publish_will(&mut self, client_id: &str, will: &Will) -> Outcome {
        let message = Arc::new(self.message("w", "will"));
        let publication = Command::Publish(Publish {
            log: Some(TOPICS),
            spends_will: Some((client_id.into(), will.message.id)),
            ..publish(&message)
        });
        self.run(publication).expect("the store answers")
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now = Millis(self.now.0 + ms);
    }
}

/// Since it may still serve the device, and serves it again when it is back.
pub fn a_profile_is_announced_to_a_node_that_was_given_up(world: &mut World) {
    let change = |profile: &'static [u8]| Change::Profile {
        client_id: "a".into(),
        profile: Some(Bytes::from_static(profile)),
    };
    let back = Generation(world.node.0 + 1);
    let claimed = world.claim("a", 60);
    world.set_profile("a", Some(b"one"));
    world.void(world.node);
    world.set_profile("a", Some(b"two"));
    let outcome = world.restamp("a", &claimed, back);
    assert_eq!(outcome, Ok(Outcome::Done));
    world.set_profile("a", Some(b"three"));
    world.void(back);
    world.release("a", &claimed, 60);
    world.set_profile("a", Some(b"nobody serves it"));
    world.claim("a", 60);
    world.void(world.node);
    let claimed = world.claim("a", 60);
    world.release("a", &claimed, 60);
    world.set_profile("a", Some(b"nor now"));
    let announced = [&b"one"[..], b"two", b"three"].map(change);
    assert_eq!(world.take_changes(), announced);
}

/// Without a session that outlives the connection, too, as long as the device is registered and nobody else has claimed it.
pub fn a_profile_is_announced_to_a_node_that_was_given_up_without_a_session(world: &mut World) {
    let change = |profile: Option<&'static [u8]>| Change::Profile {
        client_id: "a".into(),
        profile: profile.map(Bytes::from_static),
    };
    world.set_profile("a", Some(b"registered"));
    let lose = |world: &mut World| {
        world.claim("a", 0);
        world.void(world.node);
        world.take_notices();
    };
    lose(world);
    world.set_profile("a", Some(b"other"));
    assert_eq!(world.take_changes(), [change(Some(b"other"))]);
    let claimed = world.claim("a", 0);
    world.release("a", &claimed, 0);
    world.set_profile("a", Some(b"nobody serves it"));
    assert_eq!(world.take_changes(), []);
    lose(world);
    world.set_profile("a", None);
    assert_eq!(world.take_changes(), [change(None)]);
}
