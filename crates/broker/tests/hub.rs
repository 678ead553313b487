//! What the hub does with entries that nobody announces, and with a store that does not tell of them yet.

use std::{mem::take, sync::Arc};

use campanile_broker::{
    cluster::{
        hub::{Hub, LEASE_MS, POLL_MS},
        membership::{Membership, NodeInfo, Registered},
        peer::{Load, PeerMessage},
    },
    ids::{AppId, Generation, MessageId, Millis, Offset},
    mail::{ClusterMail, Mail},
    message::{Kind, Message},
    store::{Changes, LogEntry, LogKind, LogNews, Notice, Page, Query, Snapshot, StoreError},
};

const LOG: LogKind = LogKind::Topic(0);

fn app() -> AppId {
    AppId::new("app")
}

fn entry(offset: u64) -> LogEntry {
    let message = Message::new(MessageId(offset.into()), Kind::Publish, "t", &[], b"");
    LogEntry {
        offset: Offset(offset),
        message: message.into(),
    }
}

fn announced(previous: u64, offset: u64) -> Notice {
    Notice::Log {
        changes: Offset(0),
        app: app(),
        log: LOG,
        previous: Offset(previous),
        entry: entry(offset),
    }
}

fn news(entries: &[u64]) -> Page {
    Page::Changes(Box::new(Changes {
        now: Millis(1),
        logs: vec![LogNews {
            log: LOG,
            entries: entries.iter().copied().map(entry).collect(),
            went_back: false,
        }],
        ..Changes::default()
    }))
}

/// The read that the hub has asked for.
fn asked(hub: &mut Hub<()>) -> (u64, Query) {
    let mut queries = take(&mut hub.effects().queries);
    assert_eq!(queries.len(), 1);
    queries.remove(0)
}

/// Entries that the shards were told of, with the one before each.
fn told(hub: &mut Hub<()>) -> Vec<(u64, u64)> {
    let letters = take(&mut hub.effects().letters);
    let entries = letters.into_iter().filter_map(|(_, mail)| match mail {
        Mail::Notice(Notice::Log {
            previous, entry, ..
        }) => Some((previous.0, entry.offset.0)),
        _ => None,
    });
    entries.collect()
}

/// A hub whose app was loaded, with its logs at place 10.
fn hub() -> Hub<()> {
    let mut hub = Hub::new(1, 1, Generation(1), [app()], Millis(1000));
    hub.on_tick(Millis(1000));
    let (ticket, query) = asked(&mut hub);
    assert!(matches!(query, Query::Snapshot { .. }));
    let snapshot = Snapshot {
        log_ends: vec![(LOG, Offset(10))],
        ..Snapshot::default()
    };
    hub.on_page(ticket, Ok(Page::Snapshot(Box::new(snapshot))), Millis(1000));
    hub
}

#[test]
fn what_replicas_had_too_late_comes_before_what_was_accepted_behind_it() {
    let mut hub = hub();
    // 11 was written, and nobody announced it, since replicas did not have it in time; they have it with 12.
    hub.on_commit(vec![announced(11, 12)], Vec::new(), &[], Millis(1001));
    assert_eq!(told(&mut hub), []);
    hub.on_tick(Millis(1001));
    let (ticket, _) = asked(&mut hub);
    hub.on_page(ticket, Ok(news(&[11, 12])), Millis(1002));
    assert_eq!(told(&mut hub), [(10, 11), (11, 12)]);
}

/// What the ensemble says: these nodes, of generations 1, 2 .., are members, the first of them is this one.
fn members(nodes: u64, reachable: bool) -> Arc<Membership> {
    let registered = |node: u64| {
        let name: Arc<str> = format!("n{node}").into();
        let info = NodeInfo {
            name: name.clone(),
            peer_address: ([127, 0, 0, 1], 1).into(),
            addresses: Vec::new(),
            http_address: "".into(),
            version: "".into(),
            started_ms: 0,
            load: Load::default(),
            draining: false,
        };
        let generation = Generation(node);
        (name, Registered { generation, info })
    };
    Arc::new(Membership {
        own: Some(Generation(1)),
        nodes: (1..=nodes).map(registered).collect(),
        reachable,
        ..Membership::default()
    })
}

#[test]
fn whoever_is_cut_off_from_the_ensemble_waits_for_nodes_that_it_does_not_know() {
    let mut hub = hub();
    // An answer that waits until all know what the store has: this node does.
    let ask = |hub: &mut Hub<()>, now| {
        hub.on_commit(Vec::new(), vec![()], &[(0, app(), Offset(0))], now);
        take(&mut hub.effects().ready).len()
    };
    hub.on_membership(members(1, true), Millis(1000));
    assert_eq!(ask(&mut hub, Millis(1001)), 1);
    hub.on_membership(members(1, false), Millis(1002));
    assert_eq!(ask(&mut hub, Millis(1003)), 0);
    hub.on_tick(Millis(1000 + LEASE_MS));
    assert_eq!(hub.effects().ready.len(), 0);
    hub.on_tick(Millis(1100 + LEASE_MS));
    assert_eq!(hub.effects().ready.len(), 1);
}

#[test]
fn whoever_has_registered_doubts_until_the_others_know_of_it() {
    let mut hub = hub();
    let is_trusted = |hub: &mut Hub<()>, now| {
        hub.on_tick(now);
        let (ticket, _) = asked(hub);
        hub.on_page(ticket, Ok(news(&[])), now);
        let until = |(_, mail): (_, Mail)| match mail {
            Mail::Cluster(ClusterMail::KnownUntil(until)) => Some(until),
            _ => None,
        };
        take(&mut hub.effects().letters).into_iter().find_map(until) > Some(now)
    };
    hub.on_membership(members(3, true), Millis(1000));
    assert!(!is_trusted(&mut hub, Millis(1000)));
    let greeting = PeerMessage::InterestBegins;
    hub.on_peer_up(Generation(2), Millis(1100));
    hub.on_peer(Generation(2), greeting, Load::default(), Millis(1101));
    assert!(!is_trusted(&mut hub, Millis(1250)));
    // The third is gone.
    hub.on_membership(members(2, true), Millis(1300));
    assert!(is_trusted(&mut hub, Millis(1500)));
    // Who comes later finds this node in the list.
    hub.on_membership(members(3, true), Millis(1600));
    assert!(is_trusted(&mut hub, Millis(1750)));
}

#[test]
fn a_read_that_is_not_known_to_last_leaves_everything_as_it_was() {
    let mut hub = hub();
    hub.on_tick(Millis(1000));
    let (ticket, before) = asked(&mut hub);
    let refused = StoreError::Unavailable("0 of 1 replicas have it".into());
    hub.on_page(ticket, Err(refused), Millis(1500));
    let is_trusted = |(_, mail): &(_, Mail)| matches!(mail, Mail::Cluster(ClusterMail::KnownUntil(until)) if until.0 > 0);
    assert!(!hub.effects().letters.iter().any(is_trusted));
    assert_eq!(told(&mut hub), []);
    hub.on_tick(Millis(1500 + POLL_MS));
    let (ticket, again) = asked(&mut hub);
    assert_eq!(again, before);
    // The lost entry had place 15; what was accepted instead is below it, and is not passed over.
    hub.on_page(ticket, Ok(news(&[12, 14])), Millis(1800));
    assert_eq!(told(&mut hub), [(10, 12), (12, 14)]);
}
