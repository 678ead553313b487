//! All that is kept of an app goes, a part at a time, and nothing of another.

use std::sync::Arc;

use campanile_broker::{
    ids::{AppId, Offset},
    store::{Change, Command, LogKind, Outcome, Publish, Swept},
};
use campanile_push::{
    app::AppName,
    event::Kind,
    rows::{self, Key, Scope, Table},
    store::{self as push, Audience, EventPage, Idempotency},
};

use super::{APP, World, client, publish, will};

const TOPICS: LogKind = LogKind::Topic(0);

impl World {
    fn erase_some(&mut self, limit: u32) -> Swept {
        let erase = Command::Erase {
            app: AppId::new(APP),
            now: self.now,
            limit,
        };
        match self.run(erase) {
            Ok(Outcome::Swept(swept)) => swept,
            other => panic!("not erased: {other:?}"),
        }
    }

    /// Until nothing is left; all that was told.
    fn erase(&mut self, limit: u32) -> Swept {
        let mut all = Swept::default();
        for _ in 0..10_000 {
            let swept = self.erase_some(limit);
            all.ended.extend(swept.ended);
            all.removed += swept.removed;
            if !swept.more {
                return all;
            }
        }
        panic!("it never ends");
    }

    fn keep_rows(&mut self, app: &str, rows: &[(Table, &str)]) {
        let app = AppName::new(app).expect("a good name");
        let mut change = rows::Change::new(Scope::App(app), self.now.0);
        for (table, name) in rows {
            change = change.put(Key::new(*table, *name), &b"value"[..]);
        }
        let outcome = self.run_push(push::Command::Change(Box::new(change)));
        assert!(matches!(outcome, push::Outcome::Changed { .. }));
    }

    fn rows_of(&mut self, app: &str) -> u64 {
        let scope = Scope::App(AppName::new(app).expect("a good name"));
        let reader = self.backend().reader();
        let count = |table| reader.count_rows(&scope, table).expect("the backend reads");
        Table::ALL.into_iter().map(count).sum()
    }

    fn retain_in(&mut self, app: &str) {
        let mut message = self.message("r", "retained");
        message.retain = true;
        self.done(Command::Publish(Publish {
            app: AppId::new(app),
            retain: true,
            ..publish(&Arc::new(message))
        }));
    }

    /// Something of each kind. Answers a request with an idempotency key.
    fn furnish(&mut self) -> push::Accept {
        self.keep_rows(
            APP,
            &[
                (Table::Webhook, "w"),
                (Table::Device, "away"),
                (Table::Device, "never connected"),
                (Table::CallbackSecret, "s"),
                (Table::DeviceToken, "away"),
                (Table::Schedule, "7"),
                (Table::Audit, "1"),
                (Table::Campaign, "00000000000000000000000009"),
            ],
        );
        let away = self.claim("away", 3600);
        self.subscribe("away", away.epoch, &["t", "$share/g/t"]);
        self.append(TOPICS, "topic");
        self.send("away", "publish");
        self.release("away", &away, 3600);
        let for_ever = self.claim("for ever", u32::MAX);
        self.subscribe("for ever", for_ever.epoch, &["t"]);
        self.release("for ever", &for_ever, u32::MAX);
        let last_words = self.message("w", "will");
        let testament = will(last_words, 60);
        self.claim_with("connected", |claim| {
            (claim.expiry_seconds, claim.will) = (60, Some(testament));
        });
        self.claim("passing", 0);
        self.push(None, 600);
        self.push(Some(&["away"]), 600);
        self.push(Some(&["away", "unseen"]), 600);
        let mut accept = self.accept(None, 600);
        accept.audience = Audience::Matching(bytes::Bytes::from_static(b"vip"));
        accept.watched = true;
        self.run_push(push::Command::Accept(Box::new(accept)));
        let mut accept = self.accept(Some(&["away"]), 600);
        accept.idempotency = Some(Idempotency {
            key: "key".to_owned(),
            body_hash: [7; 32],
            expires_ms: self.now.0 + 1_000_000,
        });
        self.run_push(push::Command::Accept(Box::new(accept.clone())));
        self.retain_in(APP);
        accept
    }

    fn events_of(&mut self, app: &str) -> EventPage {
        let app = AppName::new(app).expect("a good name");
        let reader = self.backend().reader();
        reader.events(&app, 0, 100).expect("the backend reads")
    }

    fn pushes_of(&mut self) -> usize {
        let app = AppName::new(APP).expect("a good name");
        let reader = self.backend().reader();
        reader
            .pushes(&app, None, 100)
            .expect("the backend reads")
            .0
            .len()
    }
}

/// Whatever it is, in however small steps, and for good.
pub fn nothing_of_an_erased_app_is_left(world: &mut World) {
    for limit in [1, 7, 1000] {
        let first = world.furnish();
        assert!(world.rows_of(APP) > 0 && world.pushes_of() > 0);
        assert!(!world.events_of(APP).events.is_empty());
        world.take_notices();
        let erased = world.erase(limit);
        let mut ended: Vec<_> = erased
            .ended
            .iter()
            .map(|(client, _)| client.clone())
            .collect();
        ended.sort();
        assert_eq!(ended, ["away", "connected", "for ever"].map(client));
        let told: Vec<Change> = world.take_changes();
        let retained = told.iter().any(
            |change| matches!(change, Change::Retained { topic, message: None } if &**topic == "r"),
        );
        let campaign = told
            .iter()
            .any(|change| matches!(change, Change::Campaign { row: None, .. }));
        assert!(retained && campaign, "{told:?}");
        assert_eq!(world.erase(limit).removed, 0);
        for _ in 0..2 {
            assert_eq!((world.rows_of(APP), world.pushes_of()), (0, 0));
            assert_eq!(world.stored(), push::Stored::default());
            assert_eq!(world.answered(&first), None);
            assert_eq!(world.try_report(first.id), None);
            for name in ["away", "for ever", "connected", "passing", "unseen"] {
                // A node alone does not ask for sessions that it does not hold.
                if world.config.shared {
                    assert_eq!(world.session(name), None, "{name}");
                }
                assert_eq!(world.inbox_payloads(name), [""; 0], "{name}");
            }
            for log in [LogKind::Push, TOPICS] {
                assert_eq!(world.log_payloads(log, Offset(0)), [""; 0]);
            }
            world.reopen();
            let recovery = &world.recovery;
            assert_eq!(
                (&recovery.sessions[..], &recovery.wills[..]),
                (&[][..], &[][..])
            );
            assert_eq!(
                (&recovery.retained[..], &recovery.campaigns[..]),
                (&[][..], &[][..])
            );
        }
        // What is left of the expiry index does no harm.
        world.pass_seconds(40 * 86_400);
        while world.sweep_some(1000).more {}
        world.take_notices();
    }
}

/// Its devices begin anew, and get what is pushed from then on.
pub fn an_app_of_an_erased_name_begins_anew(world: &mut World) {
    let accept = world.furnish();
    world.erase(1000);
    let away = world.claim("away", 60);
    assert_eq!(
        (&away.resumed, &away.profile, &away.memory),
        (&None, &None, &None)
    );
    assert!(away.begins && away.owed_will.is_none());
    assert_eq!(away.inbox_waiting, Default::default());
    let end = away.push_cursor.done;
    assert_eq!(world.log_payloads(LogKind::Push, end), [""; 0]);
    let id = world.push(None, 60);
    assert_eq!(world.report(id).targeted, 1);
    assert_eq!(
        world.log_payloads(LogKind::Push, end),
        [format!("push {id}")]
    );
    // The same request is another one now.
    let outcome = world.run_push(push::Command::Accept(Box::new(accept)));
    assert_eq!(outcome, push::Outcome::Accepted { targeted: Some(1) });
    assert_eq!(world.inbox_payloads("away").len(), 1);
    world.keep_rows(APP, &[(Table::Listener, "l")]);
    let news = world.claim("news", 60);
    let page = world.events_of(APP);
    let told: Vec<_> = page.events.iter().map(|event| event.draft.kind).collect();
    assert_eq!(told, [Kind::DeviceConnected]);
    assert!(news.epoch > away.epoch);
}

/// One whose name begins with the other's, too.
pub fn an_erasure_leaves_other_apps_alone(world: &mut World) {
    let others = ["apps", "ap", "other"];
    for other in others {
        world.keep_rows(other, &[(Table::Device, "d"), (Table::Webhook, "w")]);
        world.retain_in(other);
    }
    world.furnish();
    world.erase(3);
    for other in others {
        assert_eq!(world.rows_of(other), 2, "{other}");
    }
    if !world.config.shared {
        world.reopen();
        let mut kept: Vec<_> = world
            .recovery
            .retained
            .iter()
            .map(|(app, _)| app.as_str())
            .collect();
        kept.sort_unstable();
        assert_eq!(kept, ["ap", "apps", "other"]);
    }
}

/// Who still holds a session of it is fenced.
pub fn connections_of_an_erased_app_are_fenced(world: &mut World) {
    let kept = world.claim("kept", 60);
    let passing = world.claim("passing", 0);
    world.erase(1000);
    for (name, claimed) in [("kept", kept), ("passing", passing)] {
        let progress = super::progress(name, &claimed);
        let outcome = world.run(Command::Progress(progress));
        assert_eq!(
            outcome,
            Err(campanile_broker::store::StoreError::Fenced),
            "{name}"
        );
    }
}
