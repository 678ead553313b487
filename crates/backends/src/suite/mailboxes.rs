//! Notes that wait for a node whose clients' inboxes got something.

use campanile_broker::{
    ids::{AppId, ClientKey, Generation, Offset},
    lane::{Lane, LaneSet},
    store::{Changes, ChangesQuery, Command, Cursor, LogKind, Progress, Publish, StoreError},
};
use campanile_push::lanes::Priority;

use super::{APP, World, client, item, progress, publish};
use crate::{MAX_NOTES, Request};

const NODE: Generation = Generation(0x301);
const OTHER: Generation = Generation(0x302);

/// One for each entry, in the order of the entries; none for a client that is away.
pub fn notes_wait_for_the_node_of_a_connection(world: &mut World) {
    let durable = world.claim_by(NODE, "durable", 60);
    world.claim_by(NODE, "ephemeral", 0);
    world.claim_by(OTHER, "elsewhere", 60);
    let away = world.claim_by(NODE, "away", 60);
    world.release("away", &away, 60);
    for client_id in ["ephemeral", "durable", "away", "elsewhere", "durable"] {
        world.send(client_id, "x");
    }
    world.push(Some(&["ephemeral", "away"]), 60);
    world
        .restamp("durable", &durable, OTHER)
        .expect("it is the owner");
    world.send("durable", "x");
    let news = world.notes(NODE, Offset(0), 100);
    assert_eq!(
        clients(&news),
        ["ephemeral", "durable", "durable", "ephemeral"].map(client)
    );
    assert!(news.notes.is_sorted_by(|a, b| a.offset < b.offset));
    assert_eq!((news.notes_lost, news.more), (false, false));
    let news = world.notes(OTHER, Offset(0), 100);
    assert_eq!(clients(&news), ["elsewhere", "durable"].map(client));
    let news = world.notes(Generation(0x303), Offset(0), 100);
    assert_eq!((news.notes, news.notes_lost), (vec![], false));
}

/// So that the node knows which lane to read.
pub fn a_note_tells_the_lane(world: &mut World) {
    let claimed = world.claim_by(OTHER, "a", 60);
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        world.push_with(&["a"], Some(priority), None);
    }
    let notes = world.notes(OTHER, Offset(0), 100).notes;
    let places: Vec<_> = world.inbox("a").iter().map(|entry| entry.offset).collect();
    let told: Vec<_> = notes.iter().map(|note| (note.entry, note.lane)).collect();
    let expected: Vec<_> = places.into_iter().zip(Lane::ALL).collect();
    assert_eq!(told, expected);
    let session = world.session("a").expect("it is stored");
    assert_eq!(
        (session.epoch, session.inbox_waiting),
        (claimed.epoch, LaneSet::ALL)
    );
}

/// Should nobody be able to tell it, it finds the note; its own claims leave none.
pub fn a_claim_leaves_word_for_the_node_that_had_the_client(world: &mut World) {
    for (client_id, expiry_seconds) in [("durable", 60), ("ephemeral", 0)] {
        world.claim_by(NODE, client_id, expiry_seconds);
        world.claim_by(NODE, client_id, expiry_seconds);
        world.claim_by(OTHER, client_id, expiry_seconds);
    }
    let news = world.notes(NODE, Offset(0), 100);
    assert_eq!(clients(&news), ["durable", "ephemeral"].map(client));
    assert!(news.notes.iter().all(|note| note.entry == Offset(0)));
    assert_eq!(world.notes(OTHER, Offset(0), 100).notes, vec![]);
}

/// Later it would set the session back. Its receipts count all the same.
pub fn a_hand_over_comes_before_the_owner_has_saved_anything(world: &mut World) {
    let cursor = |done| Cursor {
        log: LogKind::Push,
        done: Offset(done),
        done_above: vec![],
    };
    let save = |client_id, claimed: &_, done| Progress {
        cursors: Some(vec![cursor(done)]),
        ..progress(client_id, claimed)
    };
    world.claim_by(NODE, "a", 60);
    let second = world.claim_by(OTHER, "a", 60);
    world.done(Command::HandOver(save("a", &second, 7)));
    let late = Command::HandOver(save("a", &second, 5));
    assert_eq!(world.run(late.clone()), Err(StoreError::Fenced));
    world.done(Command::Progress(save("a", &second, 9)));
    assert_eq!(world.run(late), Err(StoreError::Fenced));

    // The owner was faster, or has subscribed.
    let third = world.claim_by(NODE, "a", 60);
    world.done(Command::Progress(save("a", &third, 11)));
    let late = Command::HandOver(save("a", &third, 5));
    assert_eq!(world.run(late), Err(StoreError::Fenced));
    let fourth = world.claim_by(OTHER, "a", 60);
    world.subscribe("a", fourth.epoch, &["x"]);
    let late = Command::HandOver(save("a", &fourth, 5));
    assert_eq!(world.run(late), Err(StoreError::Fenced));

    // Nobody had it, or the node itself.
    let fifth = world.claim_by(OTHER, "a", 60);
    let late = Command::HandOver(save("a", &fifth, 5));
    assert_eq!(world.run(late), Err(StoreError::Fenced));
    assert_eq!(world.claim_by(OTHER, "a", 60).push_cursor, cursor(11));
}

/// A reader says what it knows, reads what is new in bounded pages, and does not see the rest again.
pub fn notes_that_are_known_are_removed(world: &mut World) {
    world.claim_by(NODE, "a", 60);
    world.claim_by(NODE, "b", 60);
    for client_id in ["a", "b", "a"] {
        world.send(client_id, "x");
    }
    let first = world.notes(NODE, Offset(0), 2);
    assert_eq!(
        (clients(&first), first.more),
        (["a", "b"].map(client).to_vec(), true)
    );
    // An answer may get lost: until the next question nothing is removed.
    let again = world.notes(NODE, Offset(0), 2);
    assert_eq!(again.notes, first.notes);
    let rest = world.notes(NODE, first.notes[1].offset, 2);
    assert_eq!((clients(&rest), rest.more), (vec![client("a")], false));
    let known = rest.notes[0].offset;
    assert_eq!(world.notes(NODE, known, 2).notes, vec![]);
    world.send("b", "x");
    let news = world.notes(NODE, known, 2);
    assert_eq!(
        (clients(&news), news.notes_lost),
        (vec![client("b")], false)
    );
    let from_the_start = world.notes(NODE, Offset(0), 10);
    assert_eq!(from_the_start.notes, news.notes);
}

/// A reader that has not seen them is told.
pub fn a_full_mailbox_forgets_the_oldest(world: &mut World) {
    world.config.inbox_max_entries = 10;
    world.reopen();
    world.claim_by(NODE, "a", 60);
    world.send("a", "x");
    let first = world.notes(NODE, Offset(0), 1).notes[0].offset;
    let mut left = MAX_NOTES as usize + 10;
    while left > 0 {
        let count = left.min(1000);
        left -= count;
        let message = std::sync::Arc::new(world.message("t", "x"));
        let send = Publish {
            inboxes: vec![("a".into(), item(&message))],
            ..publish(&message)
        };
        let batch = vec![Request::Broker(Command::Publish(send)); count];
        assert!(world.commit(batch).iter().all(Result::is_ok));
        world.take_notices();
    }
    for known in [Offset(0), first] {
        let news = world.notes(NODE, known, 1);
        assert_eq!((news.notes_lost, news.notes.len()), (true, 1));
        assert!(news.notes[0].offset > first);
    }
    let known = world.notes(NODE, first, 100).notes[50].offset;
    let news = world.notes(NODE, known, 1);
    assert_eq!((news.notes_lost, news.more), (false, true));
}

/// Nobody will read it.
pub fn a_void_removes_the_mailbox(world: &mut World) {
    world.claim_by(NODE, "a", 60);
    world.claim_by(NODE, "b", 60);
    world.send("a", "x");
    assert!(world.void_some(NODE, 1).more);
    assert_eq!(world.notes(NODE, Offset(0), 10).notes.len(), 1);
    assert!(!world.void_some(NODE, 1).more);
    let news = world.notes(NODE, Offset(0), 10);
    assert_eq!((news.notes, news.notes_lost), (vec![], false));
}

fn clients(news: &Changes) -> Vec<ClientKey> {
    news.notes.iter().map(|note| note.client.clone()).collect()
}

impl World {
    fn notes(&mut self, mailbox: Generation, notes: Offset, limit: u32) -> Changes {
        self.changes(ChangesQuery {
            app: AppId::new(APP),
            changes: Offset(0),
            logs: vec![],
            mailbox,
            notes,
            limit,
        })
    }
}
