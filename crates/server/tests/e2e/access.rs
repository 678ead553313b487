//! Who may connect, and what they may do.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::{Client, Kind, Node, NodeOptions, Protocol, Session, Transport};

const ACL: &str = "\
# Everybody: a corner of their own.
pattern readwrite corner/%c/#

user alice
topic read news/#
topic deny news/secret/#
pattern readwrite home/%u/#
";

/// A node that knows Alice and Bob, and the directory with its files.
fn guarded_node() -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let passwords = directory.path().join("passwords");
    let acl = directory.path().join("acl");
    fs::write(&acl, ACL).expect("the file can be written");
    set_password(&passwords, "alice", "wonderland");
    set_password(&passwords, "bob", "builder");
    let settings = format!(
        "[clients]\nallow_anonymous = false\npassword_file = {passwords:?}\nacl_file = {acl:?}\n"
    );
    let node = Node::with(NodeOptions {
        settings,
        ..NodeOptions::default()
    });
    (directory, node)
}

/// As an operator does it: `campanile passwd`, the password on its standard input.
fn set_password(file: &Path, user: &str, password: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile"));
    command
        .args(["passwd", "--password-stdin", "--scram"])
        .arg(file)
        .arg(user)
        .stdin(Stdio::piped());
    let mut passwd = command.spawn().expect("the binary starts");
    let mut input = passwd.stdin.take().expect("the input is piped");
    writeln!(input, "{password}").expect("the password is read");
    drop(input);
    assert!(passwd.wait().expect("the tool ends").success());
}

/// The code that the server answers CONNECT with.
fn code(node: &Node, kind: Kind, protocol: Protocol, session: Session) -> u64 {
    let mut client = Client::start(node, kind, protocol, Transport::Tcp);
    let connack = client.try_connect(session).expect("the server answers");
    connack["code"].as_u64().expect("an answer has a code")
}

#[test]
fn only_who_knows_the_password_is_let_in() {
    let (_files, node) = guarded_node();
    let alice = |password| Session::clean("a").credentials("alice", password);
    let nobody = Session::clean("a").credentials("nobody", "wonderland");
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V5, alice("wonderland")),
        0
    );
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V5, alice("builder")),
        0x86
    );
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V5, nobody.clone()),
        0x86
    );
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V311, alice("wonderland")),
        0
    );
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V311, alice("builder")),
        4
    );
    assert_eq!(code(&node, Kind::MqttJs, Protocol::V31, nobody), 4);
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V5, Session::clean("a")),
        0x87
    );
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V311, Session::clean("a")),
        5
    );
    // Paho reports a refusal of 5.0 as it came.
    assert_eq!(
        code(&node, Kind::Paho, Protocol::V5, alice("builder")),
        0x86
    );
}

#[test]
fn clients_may_do_what_the_acl_file_says() {
    let (_files, node) = guarded_node();
    let connect =
        |id, user, password| Client::v5(&node, Session::clean(id).credentials(user, password));
    let mut alice = connect("phone", "alice", "wonderland");
    let mut bob = connect("tablet", "bob", "builder");
    assert_eq!(alice.subscribe("news/sport", 1), 1);
    assert_eq!(
        alice.subscribe("news/#", 1),
        0x87,
        "it would match what is denied"
    );
    assert_eq!(bob.subscribe("news/sport", 1), 0x87);
    assert_eq!(alice.subscribe("home/alice/+", 1), 1);
    assert_eq!(alice.subscribe("home/bob/+", 1), 0x87);
    assert_eq!(bob.subscribe("corner/tablet/#", 1), 1);
    assert_eq!(bob.subscribe("$share/g/corner/phone/#", 1), 0x87);

    assert_eq!(alice.publish("news/sport", "forged", 1), 0x87);
    assert_eq!(bob.publish("home/alice/door", "forged", 1), 0x87);
    assert_eq!(bob.publish("corner/tablet/a", "mine", 1), 0);
    assert_eq!(bob.next_message().payload, "mine");
    alice.publish("home/alice/door", "open", 1);
    assert_eq!(
        alice.next_message().payload,
        "open",
        "and nothing that was forged"
    );
}

#[test]
fn a_client_can_prove_its_password_without_sending_it() {
    let (_files, node) = guarded_node();
    let session = |password| {
        Session::clean("phone")
            .credentials("alice", password)
            .scram()
    };
    let mut alice = Client::connect(
        &node,
        Kind::MqttJs,
        Protocol::V5,
        Transport::Tcp,
        session("wonderland"),
    );
    assert_eq!(
        alice.connack["server_proven"], true,
        "the server proves that it knows the verifier"
    );
    assert_eq!(
        alice.subscribe("home/alice/door", 1),
        1,
        "the proven name counts"
    );
    assert_eq!(
        code(&node, Kind::MqttJs, Protocol::V5, session("builder")),
        0x87
    );
    let unknown = Session::clean("phone")
        .credentials("nobody", "wonderland")
        .scram();
    assert_eq!(code(&node, Kind::MqttJs, Protocol::V5, unknown), 0x87);
}

#[test]
fn pushes_need_no_permission_of_the_acl_file() {
    let (_files, node) = guarded_node();
    let bob = Client::v5(
        &node,
        Session::clean("tablet").credentials("bob", "builder"),
    );
    crate::harness::Push::to_device("tablet", 1).send(&node);
    assert_eq!(bob.next_message().topic, "push/in");
}
