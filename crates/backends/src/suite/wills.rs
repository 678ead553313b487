//! Wills: kept, owed, spent.

use std::sync::Arc;

use campanile_broker::{
    ids::{Millis, Offset},
    message::Message,
    store::{Claimed, Command, LogKind, Outcome, Publish, Release, Will},
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

/// The node that the client comes back to may have a clock that is behind that of the one that it left.
pub fn a_will_without_a_delay_is_owed_whatever_the_clock_says(world: &mut World) {
    let testament = world.testament(0);
    let first = world.claim_with_will("a", 60, &testament);
    let ahead = world.now.plus_seconds(1);
    world.release_with_will("a", &first, 60, Some(ahead));
    let second = world.claim("a", 60);
    assert!(second.resumed.is_some());
    assert_eq!(second.owed_will, Some(testament));
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
    for (client_id, expiry_seconds) in [("a", 60), ("b", 0)] {
        assert_eq!(world.claim(client_id, expiry_seconds).owed_will, None);
    }
}

impl World {
    /// A will with a delay.
    pub fn testament(&mut self, delay_seconds: u32) -> Will {
        will(self.message("w", "will"), delay_seconds)
    }

    /// Claims a session with a will.
    pub fn claim_with_will(
        &mut self,
        client_id: &str,
        expiry_seconds: u32,
        will: &Will,
    ) -> Claimed {
        self.claim_with(client_id, |claim| {
            (claim.expiry_seconds, claim.will) = (expiry_seconds, Some(will.clone()));
        })
    }

    /// Releases a session whose will is owed from a time on, or dropped.
    pub fn release_with_will(
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
}
