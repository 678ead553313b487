//! The event log: what happened, for whoever listens.

use bytes::Bytes;
use campanile_broker::store::{Outcome, StoreError};
use campanile_push::{
    app::AppName,
    event::{Draft, Event, Kind, What},
    id::PushId,
    receipt::{DropReason, FailReason, Mark},
    rows::{self, Key, Scope, Table},
    store::{self as push, EventPage, Listed, Past},
};

use super::{APP, World, message_id};
use crate::{Reply, Request};

/// Who is told nothing before, and nothing after.
pub fn what_happens_is_written_down_while_somebody_listens(world: &mut World) {
    let a = world.claim("a", 60);
    let before = world.push(Some(&["a"]), 100);
    let begun = world.listen(true);
    let all = world.push(None, 100);
    let audience = world.push_to_audience(100);
    world.acknowledge("a", &a, all);
    world.acknowledge("a", &a, before);
    world.acknowledge("a", &a, audience);
    let expected = [
        told(Kind::PushAccepted, None, all, Some(r#"{"targeted":1}"#)),
        told(Kind::PushAccepted, None, audience, None),
        told(Kind::PushDelivered, Some("a"), all, None),
        told(Kind::PushDelivered, Some("a"), before, None),
        told(Kind::PushDelivered, Some("a"), audience, None),
    ];
    let page = world.events(begun, 100);
    assert_eq!(drafts(&page.events), expected);
    assert!(!page.gap);
    assert_eq!(page.read_to, page.end);
    let rising = page.events.windows(2);
    assert!(rising.clone().all(|pair| pair[0].id < pair[1].id));
    world.restart();
    assert_eq!(drafts(&world.events(begun, 100).events), expected);

    let first = world.events(begun, 2);
    assert_eq!(drafts(&first.events), expected[..2]);
    assert_eq!(first.read_to, page.events[1].id.place());
    let rest = world.events(first.read_to, 2);
    assert_eq!(drafts(&rest.events), expected[2..4]);

    // The restart has told of connections.
    let end = world.events(begun, 100).read_to;
    world.listen(false);
    world.push(None, 100);
    let after = world.events(end, 100);
    assert_eq!((after.events, after.end), (vec![], end));
}

/// However often it tells, and whatever else it tells at the same time.
pub fn a_device_tells_once_in_the_event_log_too(world: &mut World) {
    let [a, b] = ["a", "b"].map(|name| world.claim(name, 60));
    let begun = world.listen(true);
    let ids = [
        world.push(None, 100),
        world.push(Some(&["a", "b"]), 100),
        world.push(Some(&["a"]), 100),
    ];
    let after_accepted = world.events(begun, 100).read_to;
    for _ in 0..2 {
        for id in ids {
            world.acknowledge("a", &a, id);
            let clicked = format!(r#"{{"clicked":["{id}",{{"id":"{id}","action":"reply"}}]}}"#);
            world.told("a", &a, &clicked);
        }
        let dismissed = format!(r#"{{"dismissed":["{}"],"displayed":["{0}"]}}"#, ids[0]);
        world.told("b", &b, &dismissed);
    }
    let events = world.events(after_accepted, 100).events;
    let of = |device: &str, id: PushId| -> Vec<_> {
        drafts(&events)
            .into_iter()
            .filter(|event| event.device.as_deref() == Some(device) && event.push == Some(id))
            .map(|event| (event.kind, event.data))
            .collect()
    };
    let action = Some(r#"{"action":"reply"}"#.into());
    for id in ids {
        let mut kinds = of("a", id);
        assert_eq!(kinds.remove(0), (Kind::PushDelivered, None));
        kinds.sort();
        let expected = [
            (Kind::PushDisplayed, None),
            (Kind::PushClicked, action.clone()),
        ];
        assert_eq!(kinds, expected);
    }
    let mut kinds: Vec<Kind> = of("b", ids[0]).into_iter().map(|(kind, _)| kind).collect();
    kinds.sort();
    assert_eq!(
        kinds,
        [
            Kind::PushDelivered,
            Kind::PushDisplayed,
            Kind::PushDismissed
        ]
    );
    assert_eq!(events.len(), 12);
}

/// Dropped, expired.
pub fn events_tell_what_became_of_a_push_at_its_devices(world: &mut World) {
    world.config.inbox_max_entries = 1;
    world.restart();
    let begun = world.listen(true);
    let first = world.push(Some(&["a"]), 100);
    let second = world.push(Some(&["a", "b"]), 100);
    let collapsed = [(); 2].map(|()| {
        let accept = push::Accept {
            collapse_key: Some("score".into()),
            ..world.accept(Some(&["c"]), 200)
        };
        let id = accept.id;
        world.run_push(push::Command::Accept(Box::new(accept)));
        id
    });
    world.pass_seconds(100);
    while world.sweep().more {}
    let told_of = |event: &Draft| (event.kind, event.device.clone(), event.push);
    let mut events: Vec<_> = drafts(&world.events(begun, 100).events)
        .iter()
        .filter(|event| event.kind != Kind::PushAccepted)
        .map(told_of)
        .collect();
    events.sort();
    let of = |kind, device: &str, id| (kind, Some(device.into()), Some(id));
    assert_eq!(
        events,
        [
            of(Kind::PushExpired, "a", second),
            of(Kind::PushExpired, "b", second),
            of(Kind::PushCollapsed, "c", collapsed[0]),
            of(Kind::PushDropped, "a", first),
        ]
    );
    let by = drafts(&world.events(begun, 100).events)
        .into_iter()
        .find(|event| event.kind == Kind::PushCollapsed)
        .and_then(|event| event.data);
    let expected = format!(r#"{{"by":"{}"}}"#, collapsed[1]);
    assert_eq!(by.as_deref(), Some(expected.as_str()));
    let dropped = drafts(&world.events(begun, 100).events)
        .into_iter()
        .find(|event| event.kind == Kind::PushDropped);
    let data = dropped.and_then(|event| event.data);
    assert_eq!(data.as_deref(), Some(r#"{"reason":"inbox_full"}"#));
}

/// Of those that it is for, and once, however often the node says so.
pub fn why_a_device_will_not_get_a_push_is_told(world: &mut World) {
    let reasons = [
        (Mark::Failed(FailReason::TooLarge), "too_large"),
        (Mark::Dropped(DropReason::FrequencyCap), "frequency_cap"),
        (Mark::Dropped(DropReason::QuietHours), "quiet_hours"),
        (Mark::Dropped(DropReason::LocalTimePast), "local_time_past"),
    ];
    let [a, b] = ["a", "b"].map(|name| world.claim(name, 60));
    let begun = world.listen(true);
    let mut expected = Vec::new();
    for (mark, reason) in reasons {
        for devices in [None, Some(&["a", "c"][..]), Some(&["a"])] {
            let id = world.push(devices, 100);
            for (name, claimed) in [("a", &a), ("a", &a), ("b", &b)] {
                let settled = world.progress(name, claimed, |progress| {
                    progress.settled = vec![(message_id(id), mark.code())];
                });
                assert_eq!(settled, Ok(Outcome::Done));
            }
            let kind = match mark {
                Mark::Failed(_) => Kind::PushFailed,
                _ => Kind::PushDropped,
            };
            let data = format!(r#"{{"reason":"{reason}"}}"#);
            let is_for_both = devices.is_none();
            let named = ["a", "b"].into_iter().take(1 + usize::from(is_for_both));
            expected.extend(named.map(|name| told(kind, Some(name), id, Some(&data))));
        }
    }
    let mut events = drafts(&world.events(begun, 100).events);
    events.retain(|event| event.kind != Kind::PushAccepted);
    assert_eq!(events, expected);
}

/// Nor does a request that is refused; but a receipt in it does.
pub fn strangers_make_no_events(world: &mut World) {
    let old = world.claim("a", 60);
    let begun = world.listen(true);
    let ids = [
        world.push(Some(&["a"]), 100),
        world.push(Some(&["a", "b"]), 100),
        world.push(None, 100),
    ];
    let accepted = world.events(begun, 100).read_to;
    let stranger = world.claim("stranger", 60);
    for id in ids {
        world.acknowledge("stranger", &stranger, id);
    }
    assert_eq!(drafts(&world.events(accepted, 100).events), []);
    world.claim("a", 60);
    let outcome = world.progress("a", &old, |progress| {
        progress.receipts = vec![message_id(ids[0])];
    });
    assert_eq!(outcome, Err(StoreError::Fenced));
    let kinds: Vec<Kind> = drafts(&world.events(accepted, 100).events)
        .iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, [Kind::PushDelivered]);
}

/// Not a single record, neither of the log nor of where it stands.
pub fn an_app_without_listeners_costs_nothing(world: &mut World) {
    let a = world.claim("a", 60);
    let writes = |world: &mut World| -> Vec<u32> {
        let accept = world.accept(Some(&["a"]), 100);
        let id = accept.id;
        let accept = push::Command::Accept(Box::new(accept));
        let accepted = world.backend().commit(vec![Request::Push(accept)]);
        let mut progress = super::progress("a", &a);
        progress.receipts = vec![message_id(id)];
        let progress = campanile_broker::store::Command::Progress(progress);
        let received = world.backend().commit(vec![Request::Broker(progress)]);
        vec![accepted.writes, received.writes]
    };
    // What is made with the first is not counted.
    writes(world);
    let before = writes(world);
    let page = world.events(0, 100);
    assert_eq!(page, EventPage::default());
    world.listen(true);
    let listening = writes(world);
    assert!(before.iter().zip(&listening).all(|(b, l)| b < l));
    world.listen(false);
    assert_eq!(writes(world), before);
}

/// Whoever has not read them is told.
pub fn a_full_event_log_forgets_the_oldest_loudly(world: &mut World) {
    world.config.events_max_entries = 3;
    world.restart();
    let begun = world.listen(true);
    for _ in 0..5 {
        world.push(None, 100);
    }
    let page = world.events(begun, 100);
    assert_eq!((page.events.len(), page.gap), (3, true));
    let first = page.events[0].id.place();
    assert!(!world.events(first, 100).gap);
    assert_eq!(world.past(None, None, 100).events.len(), 3);
}

/// By the store's own clock.
pub fn old_events_are_swept_loudly(world: &mut World) {
    world.config.events_max_age_ms = 0;
    world.restart();
    let begun = world.listen(true);
    world.push(None, 100);
    let page = world.events(begun, 100);
    assert_eq!((page.events.len(), page.gap), (1, false));
    while world.sweep().more {}
    let page = world.events(begun, 100);
    assert_eq!((page.events.len(), page.gap), (0, true));
    assert!(!world.events(page.read_to, 100).gap);
    world.push(None, 100);
    let page = world.events(page.read_to, 100);
    assert_eq!((page.events.len(), page.gap), (1, false));
}

/// What happened while nobody listened is in no log.
pub fn who_listens_anew_is_told_of_the_gap(world: &mut World) {
    let begun = world.listen(true);
    world.push(None, 100);
    let read_to = world.events(begun, 100).read_to;
    world.listen(false);
    world.push(None, 100);
    assert!(!world.events(read_to, 100).gap);
    let anew = world.listen(true);
    assert!(world.events(read_to, 100).gap);
    let end = world.events(read_to, 100).end;
    assert_eq!(end, anew);
    assert!(!world.events(anew, 100).gap);
    // One more listener changes nothing.
    world.push(None, 100);
    let end = world.events(anew, 100).end;
    world.change_webhook("w", true);
    assert!(!world.events(anew, 100).gap);
    world.listen(false);
    world.push(None, 100);
    assert_eq!(
        world.events(end, 100).events.len(),
        1,
        "the webhook listens"
    );
}

/// With the claim and the release; a connection that is taken over does not end.
pub fn connections_are_told_of(world: &mut World) {
    let begun = world.listen(true);
    let kept = world.claim("kept", 60);
    let brief = world.claim("brief", 0);
    world.release("brief", &brief, 0);
    let again = world.claim("kept", 60);
    let stale = campanile_broker::store::Release {
        progress: super::progress("kept", &kept),
        expires_at: None,
        now: world.now,
        will_at: None,
    };
    let stale = campanile_broker::store::Command::Release(stale);
    assert_eq!(world.run(stale), Err(StoreError::Fenced));
    world.release("kept", &again, 60);
    let told: Vec<_> = world
        .events(begun, 100)
        .events
        .into_iter()
        .map(|event| (event.draft.kind, event.draft.device.unwrap_or_default()))
        .collect();
    let (on, off) = (Kind::DeviceConnected, Kind::DeviceDisconnected);
    let expected = [
        (on, "kept"),
        (on, "brief"),
        (off, "brief"),
        (on, "kept"),
        (off, "kept"),
    ];
    assert_eq!(told, expected.map(|(kind, device)| (kind, device.into())));
}

/// Or not at all, if nobody listens or the change meets a conflict.
pub fn a_change_tells_in_its_own_commit(world: &mut World) {
    let change = |expected: u64| {
        let what = What::DeviceUpdated {
            changed: vec!["tags".into()],
        };
        let key = || Key::new(Table::Segment, "s");
        rows::Change::new(app_scope(), 1)
            .expect(key(), rows::Version(expected))
            .put(key(), "value")
            .tell(Draft::new(Some(&"d".into()), None, &what))
    };
    let run = |world: &mut World, change| {
        let command = push::Command::Change(Box::new(change));
        world.run_push(command)
    };
    assert_eq!(run(world, change(77)), push::Outcome::Conflict);
    let push::Outcome::Changed { version } = run(world, change(0)) else {
        panic!("nothing stood in the way");
    };
    let begun = world.listen(true);
    assert_eq!(run(world, change(77)), push::Outcome::Conflict);
    run(world, change(version.0));
    let events = drafts(&world.events(begun, 100).events);
    let expected = Draft {
        device: Some("d".into()),
        push: None,
        kind: Kind::DeviceUpdated,
        data: Some(r#"{"changed":["tags"]}"#.into()),
    };
    assert_eq!(events, [expected]);
    assert_eq!(version.0.cmp(&begun), std::cmp::Ordering::Less);
}

/// Of all devices, or of one, a page at a time.
pub fn the_past_is_read_newest_first(world: &mut World) {
    let [a, b] = ["a", "b"].map(|name| world.claim(name, 60));
    world.listen(true);
    let ids: Vec<_> = (0..3).map(|_| world.push(Some(&["a", "b"]), 100)).collect();
    for id in &ids {
        world.acknowledge("a", &a, *id);
        world.acknowledge("b", &b, *id);
    }
    assert_eq!(
        world.past(None, None, 100).events.len(),
        9,
        "3 accepted, 6 delivered"
    );
    let page = world.past(Some("a"), None, 2);
    let pushes = |page: &Past| -> Vec<_> {
        let drafts = page.events.iter().map(|event| event.draft.clone());
        drafts.filter_map(|draft| draft.push).collect()
    };
    assert_eq!(pushes(&page), [ids[2], ids[1]]);
    let page = world.past(Some("a"), page.before, 2);
    assert_eq!((pushes(&page), page.before), (vec![ids[0]], None));
    assert_eq!(world.past(Some("c"), None, 2), Past::default());
}

/// One that is watched always; one to an audience while somebody listens.
pub fn a_push_whose_end_is_to_be_told_is_open(world: &mut World) {
    world.push(None, 100);
    let watched = push::Accept {
        watched: true,
        info: Bytes::from_static(b"info"),
        ..world.accept(Some(&["a"]), 100)
    };
    let id = watched.id;
    for _ in 0..2 {
        world.run_push(push::Command::Accept(Box::new(watched.clone())));
    }
    let open = world.open();
    assert_eq!(open, [(id, Bytes::from_static(b"info"))]);
    assert_eq!(&world.report(id).info[..], b"info");
    world.listen(true);
    world.push(Some(&["a"]), 100);
    let all = world.push(None, 100);
    let audience = world.push_to_audience(100);
    let ids: Vec<PushId> = world.open().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [id, all, audience]);
}

/// With what their sender wants to find again, until they are forgotten.
pub fn pushes_are_listed_newest_first(world: &mut World) {
    let mut ids = Vec::new();
    for (number, devices) in [Some(&["a"][..]), None, Some(&["a", "b"])]
        .iter()
        .enumerate()
    {
        let accept = push::Accept {
            info: Bytes::from(vec![b'i'; number]),
            ..world.accept(*devices, 100 * (number as u32 + 1))
        };
        ids.push(accept.id);
        world.run_push(push::Command::Accept(Box::new(accept)));
    }
    let (page, more) = world.pushes(None, 2);
    assert_eq!((listed(&page), more), (vec![ids[2], ids[1]], true));
    assert_eq!(
        (&page[0].info[..], &page[1].info[..]),
        (&b"ii"[..], &b"i"[..])
    );
    assert_eq!(page[0].expires_ms, page[0].accepted_ms + 300_000);
    let (page, more) = world.pushes(Some(ids[1]), 2);
    assert_eq!((listed(&page), more), (vec![ids[0]], false));
    world.pass_seconds(101 + (world.config.push_retention_ms / 1000) as u32);
    for _ in 0..2 {
        while world.sweep().more {}
    }
    assert_eq!(listed(&world.pushes(None, 9).0), [ids[2], ids[1]]);
}

fn listed(page: &[Listed]) -> Vec<PushId> {
    page.iter().map(|push| push.id).collect()
}

fn told(kind: Kind, device: Option<&str>, push: PushId, data: Option<&str>) -> Draft {
    Draft {
        device: device.map(Into::into),
        push: Some(push),
        kind,
        data: data.map(Into::into),
    }
}

/// Without the connections that come and go meanwhile.
fn drafts(events: &[Event]) -> Vec<Draft> {
    let drafts = events.iter().map(|event| event.draft.clone());
    drafts.filter(|draft| !is_connection(draft)).collect()
}

fn is_connection(draft: &Draft) -> bool {
    matches!(draft.kind, Kind::DeviceConnected | Kind::DeviceDisconnected)
}

fn app() -> AppName {
    AppName::new(APP).expect("a good name")
}

fn app_scope() -> Scope {
    Scope::App(app())
}

impl World {
    /// Somebody reads the event stream, or nobody does any more. Returns the place of that.
    fn listen(&mut self, listens: bool) -> u64 {
        self.change_listener(Table::Listener, "stream", listens)
    }

    fn change_webhook(&mut self, name: &str, is_there: bool) -> u64 {
        self.change_listener(Table::Webhook, name, is_there)
    }

    fn change_listener(&mut self, table: Table, name: &str, is_there: bool) -> u64 {
        let change = rows::Change::new(app_scope(), self.now.0);
        let key = Key::new(table, name);
        let change = match is_there {
            true => change.put(key, ""),
            false => change.remove(key),
        };
        let change = Request::Push(push::Command::Change(Box::new(change)));
        match self.commit(vec![change]).remove(0) {
            Ok(Reply::Push(push::Outcome::Changed { version })) => version.0,
            other => panic!("not changed: {other:?}"),
        }
    }

    fn events(&mut self, after: u64, limit: usize) -> EventPage {
        let reader = self.backend().reader();
        let page = reader.events(&app(), after, limit);
        page.expect("the backend reads")
    }

    fn past(&mut self, device: Option<&str>, before: Option<u64>, limit: usize) -> Past {
        let reader = self.backend().reader();
        let past = reader.past(&app(), device, before, limit);
        past.expect("the backend reads")
    }

    fn pushes(&mut self, before: Option<PushId>, limit: usize) -> (Vec<Listed>, bool) {
        let reader = self.backend().reader();
        let page = reader.pushes(&app(), before, limit);
        page.expect("the backend reads")
    }

    /// Pushes whose end is to be told.
    fn open(&mut self) -> Vec<(PushId, Bytes)> {
        let range = rows::Range {
            scope: app_scope(),
            table: Table::Open,
            prefix: String::new(),
            after: None,
            limit: 100,
        };
        let now_ms = self.now.0;
        let reader = self.backend().reader();
        let (rows, _) = reader.rows(&range, now_ms).expect("the backend reads");
        let id = |name: &str| u128::from_str_radix(name, 16).map(PushId);
        rows.into_iter()
            .map(|row| (id(&row.name).expect("an id"), row.value))
            .collect()
    }
}
