//! How many connected devices of all nodes a push would be for, and where a client is, as the hub finds out.

use std::mem::take;

use campanile_broker::{
    cluster::{
        hub::{Counted, Found, Hub},
        peer::{Answer, Connected, Imagined, LiveCount, Load, PeerMessage, Question},
    },
    ids::{AppId, ClientKey, Generation, MessageId, Millis, ShardId},
    mail::{ClusterMail, Mail},
};

const NOW: Millis = Millis(1000);
const NEAR: Generation = Generation(2);
const FAR: Generation = Generation(3);

fn imagined() -> Imagined {
    Imagined {
        app: AppId::new("app"),
        push: MessageId(7),
        audience: Some("vip".into()),
    }
}

/// A hub of two shards and two peers that has said what it says first.
fn hub() -> Hub<()> {
    let mut hub = Hub::new(2, 1, Generation(1), [AppId::new("app")], NOW);
    hub.on_peer_up(NEAR, NOW);
    hub.on_peer_up(FAR, NOW);
    *hub.effects() = Default::default();
    hub
}

/// The ticket of what the shards are asked, each once.
fn asked_of_shards(hub: &mut Hub<()>) -> u64 {
    let letters = take(&mut hub.effects().letters);
    let questions = letters.into_iter().filter_map(|(shard, mail)| match mail {
        Mail::Cluster(ClusterMail::HowMany { ticket, .. }) => Some((shard, ticket)),
        _ => None,
    });
    let mut questions: Vec<_> = questions.collect();
    questions.sort_unstable();
    assert_eq!(
        questions
            .iter()
            .map(|(shard, _)| shard.0)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    questions[0].1
}

fn shard_has(hub: &mut Hub<()>, ticket: u64, known: u64) {
    let live = LiveCount { known, others: 1 };
    let mail = Mail::Cluster(ClusterMail::ThisMany { ticket, live });
    hub.on_mail(ShardId::HUB, mail, NOW);
}

fn peer_has(hub: &mut Hub<()>, peer: Generation, ticket: u64, known: u64) {
    let answer = Answer::ThisMany(LiveCount { known, others: 0 });
    let message = PeerMessage::Answer { ticket, answer };
    hub.on_peer(peer, message, Load::default(), NOW);
}

fn counted(hub: &mut Hub<()>) -> Vec<Counted> {
    take(&mut hub.effects().counted)
}

#[test]
fn all_shards_and_peers_count() {
    let mut hub = hub();
    hub.count(5, &imagined(), NOW);
    let ticket = asked_of_shards(&mut hub);
    let asked: Vec<_> = take(&mut hub.effects().peers)
        .into_iter()
        .filter(|(_, message)| matches!(message, PeerMessage::Ask { question: Question::HowMany(of), .. } if *of == imagined()))
        .map(|(peer, _)| peer)
        .collect();
    assert_eq!(asked, [NEAR, FAR]);
    peer_has(&mut hub, FAR, ticket, 100);
    // Once is enough.
    peer_has(&mut hub, FAR, ticket, 100);
    shard_has(&mut hub, ticket, 10);
    shard_has(&mut hub, ticket, 20);
    assert_eq!(counted(&mut hub), []);
    peer_has(&mut hub, NEAR, ticket, 1000);
    let live = LiveCount {
        known: 1130,
        others: 2,
    };
    let all = Counted {
        ticket: 5,
        live,
        silent: Vec::new(),
    };
    assert_eq!(counted(&mut hub), [all]);
}

#[test]
fn who_is_gone_or_late_is_silent() {
    let mut hub = hub();
    hub.count(5, &imagined(), NOW);
    let ticket = asked_of_shards(&mut hub);
    shard_has(&mut hub, ticket, 10);
    shard_has(&mut hub, ticket, 20);
    hub.on_peer_down(NEAR, NOW);
    assert_eq!(counted(&mut hub), []);
    let late = hub.next_deadline().max(Millis(NOW.0 + 1000));
    hub.on_tick(late);
    let found = counted(&mut hub);
    assert_eq!(
        (found[0].live.known, &found[0].silent),
        (30, &vec![NEAR, FAR])
    );
    peer_has(&mut hub, FAR, ticket, 100);
    assert_eq!(counted(&mut hub), []);
}

#[test]
fn who_does_not_say_in_time_where_a_client_is_is_silent() {
    let mut hub = hub();
    let client = ClientKey::new(&AppId::new("app"), "phone");
    hub.ask(5, &client, false, NOW);
    let letters = take(&mut hub.effects().letters);
    let [(_, Mail::Cluster(ClusterMail::WhereIs { ticket, .. }))] = letters[..] else {
        panic!("{letters:?}");
    };
    let here = ClusterMail::Here {
        ticket,
        conn: None,
        connected: None,
    };
    hub.on_mail(ShardId::HUB, Mail::Cluster(here), NOW);
    let answer = Answer::Here(Some(Connected::default()));
    hub.on_peer(
        NEAR,
        PeerMessage::Answer { ticket, answer },
        Load::default(),
        NOW,
    );
    assert_eq!(hub.effects().found, []);
    hub.on_tick(Millis(NOW.0 + 1000));
    let found = Found {
        connections: vec![(NEAR, Connected::default())],
        silent: vec![FAR],
    };
    assert_eq!(hub.effects().found, [(5, found)]);
}

#[test]
fn a_peer_is_told_of_the_own_devices() {
    let mut hub = hub();
    let message = PeerMessage::Ask {
        ticket: 9,
        question: Question::HowMany(imagined()),
    };
    hub.on_peer(NEAR, message, Load::default(), NOW);
    let ticket = asked_of_shards(&mut hub);
    shard_has(&mut hub, ticket, 1);
    shard_has(&mut hub, ticket, 2);
    let answers = take(&mut hub.effects().peers);
    let [(NEAR, PeerMessage::Answer { ticket: 9, answer })] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(
        *answer,
        Answer::ThisMany(LiveCount {
            known: 3,
            others: 2
        })
    );
}
