//! Shared subscriptions.

use crate::harness::{Client, Kind, Node, Protocol, Session, Transport};

#[test]
fn members_of_a_group_take_turns() {
    let node = Node::start();
    let mut members: Vec<_> = ["a", "b", "c"]
        .map(|id| Client::v5(&node, Session::clean(id)))
        .into();
    members
        .iter_mut()
        .for_each(|member| assert_eq!(member.subscribe("$share/workers/jobs/#", 1), 1));
    let mut other = Client::connect(
        &node,
        Kind::MqttJs,
        Protocol::V5,
        Transport::Tcp,
        Session::clean("other"),
    );
    other.subscribe("jobs/#", 1);
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    for n in 0..30 {
        publisher.publish("jobs/next", &n.to_string(), 1);
    }
    let mut done = Vec::new();
    for member in &members {
        let part: Vec<u32> = (0..10)
            .map(|_| member.next_message().payload.parse().expect("a number"))
            .collect();
        assert!(part.is_sorted(), "{part:?}");
        done.extend(part);
    }
    done.sort_unstable();
    assert_eq!(done, (0..30).collect::<Vec<_>>());
    let all: Vec<u32> = (0..30)
        .map(|_| other.next_message().payload.parse().expect("a number"))
        .collect();
    assert_eq!(
        all,
        (0..30).collect::<Vec<_>>(),
        "who is not in the group gets them all"
    );
}

#[test]
fn what_a_member_left_undone_goes_to_another() {
    let node = Node::start();
    // Takes one message and never acknowledges it.
    let mut lazy = crate::harness::Raw::connected(&node, 5, "lazy");
    lazy.send_packet(
        0x82,
        &[b"\0\x01\0\0\x12".as_slice(), b"$share/workers/job", b"\x01"].concat(),
    );
    assert_eq!(lazy.packet().map(|(kind, _)| kind), Some(0x90));
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    publisher.publish("job", "to be done", 1);
    assert_eq!(lazy.packet().map(|(kind, _)| kind), Some(0x32));
    let mut diligent = Client::v5(&node, Session::clean("diligent"));
    diligent.subscribe("$share/workers/job", 1);
    drop(lazy);
    assert_eq!(diligent.next_message().payload, "to be done");
}
