//! What a node alone finds when it starts. Nodes that share a store are told by other means: snapshots, and voids by name.

use std::sync::Arc;

use campanile_broker::{
    ids::{AppId, Millis, Offset},
    store::{Command, LogKind, Outcome, OwedWill, Publish, Will},
};

use super::{APP, World, client, publish, subscription};

const TOPICS: LogKind = LogKind::Topic(0);

/// With their filters, however long the names; those that ended with a connection are not there.
pub fn sessions_are_recovered(world: &mut World) {
    let long = "x".repeat(65_535);
    for (client_id, filter) in [("a", "y"), ("b", "z"), (&long, &long)] {
        let claimed = world.claim(client_id, 60);
        world.subscribe(client_id, claimed.epoch, &[filter]);
    }
    world.claim("b", 0);
    world.restart();
    let expected = [("a", "y"), (&long, &long)]
        .map(|(client_id, filter)| (client(client_id), vec![subscription(filter)]));
    assert_eq!(world.recovery.sessions, expected);
}

/// Of each app.
pub fn ends_of_logs_are_recovered(world: &mut World) {
    world.append(TOPICS, "topic 0");
    world.append(LogKind::Topic(1), "topic 1");
    world.append(LogKind::Push, "push");
    let message = Arc::new(world.message("t", "of another app"));
    let other = AppId::new("other");
    world.done(Command::Publish(Publish {
        app: other.clone(),
        log: Some(TOPICS),
        ..publish(&message)
    }));
    world.restart();
    let mut ends = world.recovery.log_ends.clone();
    ends.sort();
    for (app, log, end) in &ends[..3] {
        let (_, last, _) = world.read_log(*log, Offset(0), 10);
        assert_eq!((app.as_str(), *end), (APP, last));
    }
    let logs: Vec<_> = ends.iter().map(|(_, log, _)| *log).collect();
    assert_eq!(logs, [LogKind::Push, TOPICS, LogKind::Topic(1), TOPICS]);
    assert_eq!(ends[3].0, other);
}

/// With everything that belongs to them.
pub fn retained_messages_are_recovered(world: &mut World) {
    let mut message = world.message("r", "kept");
    (message.retain, message.expires_at) = (true, Some(world.now.plus_seconds(10)));
    let message = Arc::new(message);
    world.done(Command::Publish(Publish {
        retain: true,
        ..publish(&message)
    }));
    world.restart();
    assert_eq!(world.recovery.retained, vec![(AppId::new(APP), message)]);
    world.pass_seconds(10);
    world.restart();
    assert_eq!(world.recovery.retained, vec![]);
}

/// Those of connections that were up, and those whose delay ran.
pub fn wills_of_the_last_run_are_recovered(world: &mut World) {
    let testament = world.testament(30);
    world.claim_with_will("ephemeral", 0, &testament);
    world.claim_with_will("up", 60, &testament);
    let away = world.claim_with_will("away", 600, &testament);
    let due = world.now.plus_seconds(30);
    let ends = world.now.plus_seconds(600);
    world.release_with_will("away", &away, 600, Some(due));
    world.pass_seconds(10);
    let owed = |client_id: &str, at: Option<Millis>, session_expires_at: Millis| OwedWill {
        client: client(client_id),
        will: testament.clone(),
        at,
        session_expires_at: Some(session_expires_at),
        is_final: false,
    };
    let now = world.now;
    world.check_recovered_wills(&[
        owed("away", Some(due), ends),
        owed("ephemeral", None, now),
        owed("up", None, now.plus_seconds(60)),
    ]);
    // A crash soon after does not begin the delay again.
    world.pass_seconds(5);
    let later = world.now;
    world.check_recovered_wills(&[
        owed("away", Some(due), ends),
        owed("ephemeral", Some(now.plus_seconds(30)), later),
        owed("up", Some(now.plus_seconds(30)), now.plus_seconds(60)),
    ]);
}

/// Whoever was to publish it may have died: it comes back at each start until its publication spends it, whatever the client did since.
pub fn an_owed_will_is_kept_until_it_is_published(world: &mut World) {
    let first = world.testament(1000);
    let claimed = world.claim_with_will("a", 60, &first);
    let due = world.now.plus_seconds(1000);
    world.release_with_will("a", &claimed, 60, Some(due));
    world.pass_seconds(60);
    let second = world.testament(0);
    let taken_at = world.now;
    let claimed = world.claim_with_will("a", 60, &second);
    assert_eq!(claimed.owed_will, Some(first.clone()));
    let owed = |will: &Will| OwedWill {
        client: client("a"),
        will: will.clone(),
        at: Some(taken_at),
        session_expires_at: None,
        is_final: true,
    };
    // The next connection's own will is another one; so is the next that is owed.
    world.release_with_will("a", &claimed, 60, None);
    world.check_recovered_wills(&[owed(&first)]);
    world.claim_with_will("a", 0, &second);
    let claimed = world.claim_with_will("a", 60, &second);
    assert_eq!(claimed.owed_will, Some(second.clone()));
    world.release_with_will("a", &claimed, 60, None);
    world.check_recovered_wills(&[owed(&first), owed(&second)]);
    for (will, left) in [(&first, vec![owed(&second)]), (&second, vec![])] {
        for outcome in [Outcome::Done, Outcome::Nothing] {
            let publication = Command::Publish(Publish {
                log: Some(TOPICS),
                spends_will: Some(("a".into(), will.message.id)),
                ..publish(&will.message)
            });
            assert_eq!(world.run(publication), Ok(outcome));
        }
        world.check_recovered_wills(&left);
    }
    assert_eq!(world.log_payloads(TOPICS, Offset(0)), ["will", "will"]);
}

impl World {
    fn check_recovered_wills(&mut self, expected: &[OwedWill]) {
        self.restart();
        let mut wills = self.recovery.wills.clone();
        wills.sort_by(|a, b| a.client.cmp(&b.client));
        assert_eq!(wills, expected);
    }
}
