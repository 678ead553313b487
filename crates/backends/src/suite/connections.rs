//! Whose connection a client has, in a store that nodes share.

use campanile_broker::{
    ids::Generation,
    store::{
        Command, LogKind, Notice, Outcome, Previous, QoS, Source, StoreError, Subscribe, Unfinished,
    },
};

use campanile_push::receipt::Mark;

use super::{World, client, cursor, message_id, subscription};

const ONE: Generation = Generation(0x101);
const OTHER: Generation = Generation(0x102);

/// Whatever it writes from then on.
pub fn a_claim_by_another_node_fences_the_first(world: &mut World) {
    for expiry_seconds in [60, 0] {
        let first = world.claim_by(ONE, "a", expiry_seconds);
        let second = world.claim_by(OTHER, "a", expiry_seconds);
        assert!(second.epoch > first.epoch);
        assert_eq!(second.resumed.is_some(), expiry_seconds > 0);
        assert_eq!(second.ordinal, first.ordinal);
        assert_eq!(world.progress("a", &first, |_| {}), Err(StoreError::Fenced));
        let late = Command::Subscribe(Subscribe {
            client: client("a"),
            epoch: first.epoch,
            add: vec![subscription("x")],
            remove: vec![],
            inbox: vec![],
        });
        assert_eq!(world.run(late), Err(StoreError::Fenced));
        assert_eq!(world.progress("a", &second, |_| {}), Ok(Outcome::Done));
        world.release("a", &second, 0);
    }
}

/// With its node and epoch, whatever kinds of session the two have; who was away had none.
pub fn a_claim_names_the_connection_that_it_takes_over(world: &mut World) {
    assert_eq!(world.claim_by(ONE, "a", 60).previous, None);
    let mut last = (ONE, world.claim_by(ONE, "a", 60));
    for (node, expiry_seconds, clean_start) in [
        (OTHER, 60, false),
        (OTHER, 60, true),
        (ONE, 0, true),
        (ONE, 0, false),
        (OTHER, 0, false),
        (ONE, 60, false),
    ] {
        let claimed = world.claim_with("a", |claim| {
            (claim.owner, claim.expiry_seconds) = (node, expiry_seconds);
            claim.clean_start = clean_start;
        });
        let (generation, epoch) = (last.0, last.1.epoch);
        assert_eq!(claimed.previous, Some(Previous { generation, epoch }));
        last = (node, claimed);
    }
    world.release("a", &last.1, 60);
    let durable = world.claim_by(OTHER, "a", 60);
    assert_eq!(durable.previous, None);
    world.release("a", &durable, 0);
    let ephemeral = world.claim_by(OTHER, "a", 0);
    assert_eq!(ephemeral.previous, None);
    world.release("a", &ephemeral, 0);
    assert_eq!(world.claim_by(OTHER, "a", 0).previous, None);
}

/// The end of the old one does not concern it any more, that of the new one does.
pub fn a_restamped_connection_is_that_of_the_new_generation(world: &mut World) {
    let durable = world.claim_by(ONE, "durable", 60);
    let ephemeral = world.claim_by(ONE, "ephemeral", 0);
    for (client_id, claimed) in [("durable", &durable), ("ephemeral", &ephemeral)] {
        for _ in 0..2 {
            let outcome = world.restamp(client_id, claimed, OTHER);
            assert_eq!(outcome, Ok(Outcome::Done));
        }
    }
    assert_eq!(
        world.session("durable").map(|session| session.owner),
        Some(Some(OTHER))
    );
    world.void(ONE);
    for (client_id, claimed) in [("durable", &durable), ("ephemeral", &ephemeral)] {
        let outcome = world.progress(client_id, claimed, |_| {});
        assert_eq!(outcome, Ok(Outcome::Done));
    }
    world.void(OTHER);
    assert_eq!(
        world.session("durable").map(|session| session.owner),
        Some(None)
    );
    let outcome = world.progress("ephemeral", &ephemeral, |_| {});
    assert_eq!(outcome, Err(StoreError::Fenced));

    let claimed = world.claim_by(ONE, "durable", 60);
    assert_eq!(world.restamp("durable", &claimed, OTHER), Ok(Outcome::Done));
    let previous = Previous {
        generation: OTHER,
        epoch: claimed.epoch,
    };
    assert_eq!(world.claim_by(ONE, "durable", 60).previous, Some(previous));
}

/// Somebody else has it, or nobody.
pub fn a_restamp_of_an_old_epoch_is_fenced(world: &mut World) {
    for expiry_seconds in [60, 0] {
        let first = world.claim_by(ONE, "a", expiry_seconds);
        let second = world.claim_by(OTHER, "a", expiry_seconds);
        assert_eq!(world.restamp("a", &first, ONE), Err(StoreError::Fenced));
        assert!(world.void(ONE).ended.is_empty());
        assert_eq!(world.progress("a", &second, |_| {}), Ok(Outcome::Done));
        world.release("a", &second, 0);
        assert_eq!(world.restamp("a", &second, OTHER), Err(StoreError::Fenced));
    }
}

/// A node that was given up while it served goes on with what has not ended meanwhile.
pub fn a_restamped_session_is_connected_again(world: &mut World) {
    let claimed = world.claim_by(ONE, "a", 60);
    let ephemeral = world.claim_by(ONE, "b", 0);
    world.void(ONE);
    world.pass_seconds(10);
    assert_eq!(world.restamp("a", &claimed, OTHER), Ok(Outcome::Done));
    assert_eq!(
        world.restamp("b", &ephemeral, OTHER),
        Err(StoreError::Fenced)
    );
    world.pass_seconds(1000);
    assert_eq!(world.sweep().ended, vec![]);
    let session = world.session("a").expect("it goes on");
    assert_eq!((session.owner, session.epoch), (Some(OTHER), claimed.epoch));
    world.void(OTHER);
    world.pass_seconds(60);
    assert_eq!(world.sweep().ended, vec![(client("a"), vec![])]);
}

/// Who is connected without a session has a number for that long. Another device gets it afterwards, but for one whose node may go on to report under
/// it: it was given up, or somebody else took the client over.
pub fn a_number_is_given_again_once_nobody_reports_under_it(world: &mut World) {
    let released = world.claim_by(ONE, "released", 0);
    world.release("released", &released, 0);
    let next = world.claim_by(ONE, "next", 0);
    assert_eq!(next.ordinal, released.ordinal);

    world.void(ONE);
    let other = world.claim_by(ONE, "other", 0);
    assert_ne!(other.ordinal, next.ordinal);

    let taken = world.claim_by(OTHER, "other", 0);
    assert_eq!(taken.ordinal, other.ordinal);
    world.release("other", &taken, 0);
    assert_ne!(world.claim_by(OTHER, "last", 0).ordinal, other.ordinal);
}

/// Whatever number the client has by now.
pub fn what_a_lost_node_reports_is_of_its_client(world: &mut World) {
    let lost = world.claim_by(ONE, "a", 0);
    let before = world.push(Some(&["a"]), 100);
    world.void(ONE);
    let others = ["z", "a", "b"];
    let after = world.push(Some(&others), 100);
    let outcome = world.progress("a", &lost, |progress| {
        progress.receipts = [before, after].map(message_id).into();
    });
    assert_eq!(outcome, Err(StoreError::Fenced));
    world.told("a", &lost, &format!(r#"{{"clicked":["{after}"]}}"#));
    let clicked = [
        Mark::Targeted,
        Mark::Delivered,
        Mark::Displayed,
        Mark::Clicked,
    ];
    assert_eq!(world.at_device(after, "a").marks, clicked.into());
    for device in ["z", "b"] {
        let at = world.at_device(after, device);
        assert_eq!(at.marks, [Mark::Targeted].into(), "{device}");
    }
    assert_eq!([before, after].map(|id| world.report(id).delivered), [1, 1]);
}

/// Everything that a claim would resume, without taking it.
pub fn a_stored_session_is_read_as_it_is(world: &mut World) {
    assert_eq!(world.session("a"), None);
    world.claim_by(ONE, "ephemeral", 0);
    assert_eq!(world.session("ephemeral"), None);

    let claimed = world.claim_by(ONE, "a", 60);
    let fresh = world.session("a").expect("it is stored");
    assert_eq!((fresh.epoch, fresh.owner), (claimed.epoch, Some(ONE)));
    assert_eq!(fresh.push_cursor, claimed.push_cursor);
    assert!(fresh.inbox_waiting.is_empty());
    world.subscribe("a", claimed.epoch, &["x"]);
    world.receive_qos_2("a", claimed.epoch, 5);
    world.send("a", "waits");
    let place = world.inbox("a")[0].offset;
    let exchange = Unfinished {
        packet_id: campanile_broker::store::PacketId::new(3).expect("not 0"),
        source: Source::Inbox,
        offset: place,
        qos: QoS::ExactlyOnce,
        released: true,
    };
    let (topics, push) = (
        cursor(LogKind::Topic(0), place),
        cursor(LogKind::Push, place),
    );
    let saved = world.progress("a", &claimed, |progress| {
        progress.cursors = Some(vec![topics.clone(), push.clone()]);
        progress.unfinished = Some(vec![exchange]);
    });
    assert_eq!(saved, Ok(Outcome::Done));
    let session = world.session("a").expect("it is stored");
    assert_eq!(session.state.subscriptions, [subscription("x")]);
    assert_eq!(session.state.cursors, [topics]);
    assert_eq!(session.state.unfinished, [exchange]);
    assert_eq!(session.state.received.len(), 1);
    assert_eq!(session.push_cursor, push);
    assert!(!session.inbox_waiting.is_empty());
    world.release("a", &claimed, 60);
    let away = world.session("a").expect("it is stored");
    assert_eq!((away.owner, away.epoch), (None, claimed.epoch));
    assert_eq!(away.state, session.state);
    let resumed = world.claim_by(OTHER, "a", 60);
    assert_eq!(resumed.resumed, Some(session.state));
}

/// So that whoever wrote it knows whom to tell; nobody, if the client is away.
pub fn an_inbox_notice_names_the_node_of_the_connection(world: &mut World) {
    let durable = world.claim_by(ONE, "durable", 60);
    world.claim_by(OTHER, "ephemeral", 0);
    let away = world.claim_by(OTHER, "away", 60);
    world.release("away", &away, 60);
    world.take_notices();
    for client_id in ["durable", "ephemeral", "away"] {
        world.send(client_id, "x");
    }
    world.push(Some(&["durable", "ephemeral", "away", "unknown"]), 60);
    world
        .restamp("durable", &durable, OTHER)
        .expect("it is the owner");
    world.send("durable", "x");
    let owner = |notice| match notice {
        Notice::Inbox { client, owner, .. } => (client.client_id.to_string(), owner),
        other => panic!("no inbox: {other:?}"),
    };
    let owners: Vec<_> = world.take_notices().into_iter().map(owner).collect();
    let expected = [
        ("durable", ONE),
        ("ephemeral", OTHER),
        ("away", Generation::ALONE),
        ("durable", ONE),
        ("ephemeral", OTHER),
        ("away", Generation::ALONE),
        ("unknown", Generation::ALONE),
        ("durable", OTHER),
    ];
    assert_eq!(
        owners,
        expected.map(|(client_id, owner)| (client_id.to_owned(), owner))
    );
}

/// The store was opened anew, the nodes go on.
pub fn connections_outlive_the_store(world: &mut World) {
    let durable = world.claim_by(ONE, "durable", 60);
    let ephemeral = world.claim_by(ONE, "ephemeral", 0);
    world.reopen();
    for (client_id, claimed) in [("durable", &durable), ("ephemeral", &ephemeral)] {
        let outcome = world.progress(client_id, claimed, |_| {});
        assert_eq!(outcome, Ok(Outcome::Done));
        let next = world.claim_by(OTHER, client_id, 60);
        assert!(next.epoch > claimed.epoch);
        let (generation, epoch) = (ONE, claimed.epoch);
        assert_eq!(next.previous, Some(Previous { generation, epoch }));
    }
}
