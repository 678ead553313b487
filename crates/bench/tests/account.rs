//! Scenarios against the bare loop, straight and through a relay that spoils what it passes on: each kind of fault must show.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use campanile_bench::{Common, Nodes, Outcome, Scenario, Source, Tally, Target, floor};
use campanile_mqtt::{Split, split};
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    scenario: Scenario,
}

/// Runs a scenario, given as its command line, against a server.
fn run(line: &str, mqtt: SocketAddr) -> Outcome {
    let line = Line::parse_from(format!("bench --stall 2 {line}").split(' '));
    let nodes = Nodes {
        mqtt: vec![mqtt],
        ..Nodes::default()
    };
    let target = Target::open("floor", &Source::Running(nodes)).unwrap();
    line.scenario.run(&target, &line.common).unwrap()
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A bare loop of its own for each test; it ends with the process.
fn floor() -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || floor::serve(listener));
    address
}

#[track_caller]
fn check_exact(line: &str) {
    let outcome = run(line, floor());
    assert!(outcome.is_good(), "{line}: {outcome:?}");
    assert!(
        outcome.tally.is_none_or(|tally| tally.delivered > 0),
        "{line}: {outcome:?}"
    );
}

#[test]
fn exchanges_with_the_floor_are_exact() {
    for qos in 0..=2 {
        check_exact(&format!(
            "fanout --subscribers 20 --messages 20 --qos {qos}"
        ));
        check_exact(&format!("pairs --pairs 5 --messages 500 --qos {qos}"));
        check_exact(&format!("fanin --publishers 5 --messages 500 --qos {qos}"));
    }
    check_exact("--protocol 5 pairs --pairs 5 --messages 500 --qos 1");
}

#[test]
fn connections_to_the_floor_are_all_there() {
    check_exact("idle --connections 50 --keep-alive 1 --hold 1");
    check_exact("storm --clients 200");
}

/// What becomes of the PUBLISH number n that goes to a client.
type Spoil = fn(n: usize, frame: &[u8], held: &mut Vec<u8>) -> Vec<u8>;

/// One message of QoS 0 after another to one subscriber, through a relay that spoils them.
fn spoiled(spoil: Spoil) -> Tally {
    let (listener, address) = listen();
    let server = floor();
    thread::spawn(move || {
        for client in listener.incoming() {
            relay(client.unwrap(), TcpStream::connect(server).unwrap(), spoil);
        }
    });
    let outcome = run("pairs --pairs 1 --messages 100 --window 8", address);
    assert!(!outcome.is_good(), "{outcome:?}");
    outcome.tally.unwrap()
}

fn relay(client: TcpStream, server: TcpStream, spoil: Spoil) {
    let (client, server) = (Arc::new(client), Arc::new(server));
    let (from, to) = (client.clone(), server.clone());
    thread::spawn(move || {
        let _ = std::io::copy(&mut &*from, &mut &*to);
        let _ = to.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
        let (mut publishes, mut held) = (0, Vec::new());
        while let Ok(bytes @ 1..) = (&*server).read(&mut chunk) {
            input.extend_from_slice(&chunk[..bytes]);
            while let Ok(Split::Packet {
                first_byte,
                total_len,
                ..
            }) = split(&input, u32::MAX)
            {
                let frame: Vec<u8> = input.drain(..total_len).collect();
                let is_publish = first_byte >> 4 == 3;
                let frame = if is_publish {
                    publishes += 1;
                    spoil(publishes, &frame, &mut held)
                } else {
                    frame
                };
                if (&*client).write_all(&frame).is_err() {
                    return;
                }
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
}

fn expect() -> Tally {
    Tally {
        expected: 100,
        delivered: 100,
        ..Tally::default()
    }
}

#[test]
fn a_dropped_message_is_lost() {
    let tally = spoiled(|n, frame, _| if n == 50 { Vec::new() } else { frame.into() });
    let (delivered, lost) = (99, 1);
    assert_eq!(
        tally,
        Tally {
            delivered,
            lost,
            ..expect()
        }
    );
}

#[test]
fn a_doubled_message_is_a_duplicate() {
    let tally = spoiled(|n, frame, _| {
        if n == 50 {
            frame.repeat(2)
        } else {
            frame.into()
        }
    });
    let duplicated = 1;
    assert_eq!(
        tally,
        Tally {
            duplicated,
            ..expect()
        }
    );
}

#[test]
fn a_duplicate_after_the_last_message_is_noticed() {
    let tally = spoiled(|n, frame, _| {
        if n == 100 {
            frame.repeat(2)
        } else {
            frame.into()
        }
    });
    assert_eq!(tally.duplicated, 1);
}

#[test]
fn two_swapped_messages_are_reordered() {
    let tally = spoiled(|n, frame, held| match n {
        50 => {
            held.extend_from_slice(frame);
            Vec::new()
        }
        51 => [frame, held].concat(),
        _ => frame.into(),
    });
    let reordered = 1;
    assert_eq!(
        tally,
        Tally {
            reordered,
            ..expect()
        }
    );
}

#[test]
fn a_changed_bit_is_corrupted_and_lost() {
    let tally = spoiled(|n, frame, _| {
        let mut frame = frame.to_vec();
        if n == 50 {
            *frame.last_mut().unwrap() ^= 1;
        }
        frame
    });
    let (delivered, lost, corrupted) = (99, 1, 1);
    assert_eq!(
        tally,
        Tally {
            delivered,
            lost,
            corrupted,
            ..expect()
        }
    );
}
