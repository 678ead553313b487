//! Wills: kept, owed, spent.

use std::sync::Arc;

use campanile_broker::{
    ids::{Millis, Offset},
    message::Message,
    store::{Claimed, Command, LogKind, Outcome, OwedWill, Publish, Release, Will},
};

use super::{World, client, progress, publish, will};

const TOPICS: LogKind = LogKind::Topic(0);

/// A client that is back in time, with its session, keeps its peace; later, the will is owed.
pub fn a_will_waits_for_its_delay(world: &mut World) {
    for (away_seconds, owed) in [(29, false), (30, true)] {
        let testament = world.testament(30);
        let first = world.claim_with_will("a", 60, &testament);
        let due = world.now.plus_seconds(30);
        world.release_with_will("a", &first, 60, Some(due));
        world.pass_seconds(away_seconds);
        let second = world.claim("a", 60);
        assert!(second.resumed.is_some());
        assert_eq!(second.owed_will, owed.then_some(testament));
        assert_eq!(world.claim("a", 60).owed_will, None);
    }
}

/// Whatever its delay: by clean start, by expiry, or with the connection.
pub fn a_will_is_owed_when_the_session_ends(world: &mut World) {
    let testament = world.testament(1000);
    let first = world.claim_with_will("a", 60, &testament);
    let due = world.now.plus_seconds(1000);
    world.release_with_will("a", &first, 60, Some(due));
    let second = world.claim_with("a", |claim| {
        (claim.clean_start, claim.expiry_seconds, claim.will) = (true, 60, Some(testament.clone()));
    });
    assert_eq!(second.owed_will, Some(testament.clone()));
    world.release_with_will("a", &second, 60, Some(due));
    world.pass_seconds(60);
    assert_eq!(world.claim("a", 0).owed_will, Some(testament.clone()));

    let first = world.claim_with_will("b", 0, &testament);
    world.release_with_will("b", &first, 0, Some(due));
    assert_eq!(world.claim("b", 0).owed_will, Some(testament.clone()));
    // A connection that another one replaces ends too.
    world.claim_with_will("c", 0, &testament);
    assert_eq!(world.claim("c", 0).owed_will, Some(testament));
}

/// A second publication finds nothing to spend; nor does one of another will.
pub fn a_spent_will_is_published_once(world: &mut World) {
    let testament = world.testament(0);
    let claimed = world.claim_with_will("a", 60, &testament);
    let publication = |message: &Arc<Message>| {
        Command::Publish(Publish {
            log: Some(TOPICS),
            spends_will: Some(("a".into(), message.id)),
            ..publish(message)
        })
    };
    let other = Arc::new(world.message("w", "of another connection"));
    assert_eq!(world.run(publication(&other)), Ok(Outcome::Nothing));
    world.done(publication(&testament.message));
    let again = world.run(publication(&testament.message));
    assert_eq!(again, Ok(Outcome::Nothing));
    assert_eq!(world.log_payloads(TOPICS, Offset(0)), ["will"]);
    world.release("a", &claimed, 60);
    assert_eq!(world.claim("a", 60).owed_will, None);
}

/// By a release without will, by a claim without one, by command.
pub fn a_dropped_will_is_gone(world: &mut World) {
    let testament = world.testament(0);
    let claimed = world.claim_with_will("a", 60, &testament);
    world.release_with_will("a", &claimed, 60, None);
    world.claim_with_will("b", 60, &testament);
    world.done(Command::DropWill {
        client: client("b"),
    });
    world.done(Command::DropWill {
        client: client("b"),
    });
    world.restart();
    assert_eq!(world.recovery.wills, vec![]);
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
    fn testament(&mut self, delay_seconds: u32) -> Will {
        will(self.message("w", "will"), delay_seconds)
    }

    fn claim_with_will(&mut self, client_id: &str, expiry_seconds: u32, will: &Will) -> Claimed {
        self.claim_with(client_id, |claim| {
            (claim.expiry_seconds, claim.will) = (expiry_seconds, Some(will.clone()));
        })
    }

    fn release_with_will(
        &mut self,
        client_id: &str,
        claimed: &Claimed,
        expiry_seconds: u32,
        will_at: Option<Millis>,
    ) {
        let expires_at = Some(self.now.plus_seconds(expiry_seconds));
        let progress = progress(client_id, claimed);
        self.done(Command::Release(Release {
            progress,
            expires_at,
            now: self.now,
            will_at,
        }));
    }

    fn check_recovered_wills(&mut self, expected: &[OwedWill]) {
        self.restart();
        let mut wills = self.recovery.wills.clone();
        wills.sort_by(|a, b| a.client.cmp(&b.client));
        assert_eq!(wills, expected);
    }
}
