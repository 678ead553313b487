//! The fuzz target `session` over its corpus, over mutations of it and over random bytes, without a fuzzer.

use std::{fs, path::PathBuf};

use campanile_mqtt::Reason;
use campanile_sim::{
    operations,
    packets::{connect, hex, publish},
    pair::Pair,
    rng::Rng,
};

/// The inputs of the corpus, in the order of their names.
fn corpus() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/session");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// How many inputs a test makes: `CAMPANILE_FUZZ_INPUTS`, or what takes a few seconds.
fn inputs() -> u64 {
    let count = std::env::var("CAMPANILE_FUZZ_INPUTS").ok();
    count.map_or(4000, |count| count.parse().unwrap())
}

/// Runs an input; if it breaks a rule, prints it as hexadecimal digits.
fn check(input: &[u8]) {
    struct Shown<'a>(&'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("input: {digits}");
            }
        }
    }
    let shown = Shown(input);
    operations::run(input);
    drop(shown);
}

#[test]
fn the_corpus_is_harmless() {
    for input in corpus() {
        check(&input);
    }
}

#[test]
fn mutations_of_the_corpus_are_harmless() {
    let seeds = corpus();
    for seed in 0..inputs() {
        let mut rng = Rng::new(seed);
        let mut input = rng.pick(&seeds).clone();
        for _ in 0..=rng.below(6) {
            mutate(&mut input, &seeds, &mut rng);
        }
        check(&input);
    }
}

#[test]
fn random_operations_are_harmless() {
    for seed in 0..inputs() {
        let mut rng = Rng::new(0x5EED_0000_0000 + seed);
        let len = rng.range(20, 400);
        let input: Vec<u8> = (0..len).map(|_| rng.draw() as u8).collect();
        check(&input);
    }
}

#[test]
fn a_second_connect_that_is_wrong_in_itself_is_a_protocol_error() {
    let mut pair = Pair::new();
    // 3.1 without a client identifier; a protocol level that does not exist.
    for wrong in [
        "10 0e 00 06 4d 51 49 73 64 70 03 02 00 0a 00 00",
        "10 0d 00 04 4d 51 54 54 09 02 00 00 00 00 00",
    ] {
        let wire = pair.connect(connect("a"));
        pair.send_bytes(wire, &hex(wrong));
        pair.expect_disconnect(wire, Reason::ProtocolError);
    }
}

#[test]
fn a_repeated_message_is_acknowledged_after_those_before_it() {
    let mut pair = Pair::new();
    let wire = pair.connect(connect("a").durable());
    pair.send(wire, publish("t", "first").qos2(6));
    assert!(!pair.expect_pubrec(wire, 6).is_error());
    pair.cut(wire);
    let wire = pair.connect_present(connect("a").durable(), true);
    pair.post(wire, publish("t", "second").qos2(5));
    pair.send(wire, publish("t", "first").qos2(6).dup());
    pair.expect_pubrec(wire, 5);
    pair.expect_pubrec(wire, 6);
    pair.expect_silence(wire);
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.index(input.len() + 1);
    match rng.below(4) {
        0 if at < input.len() => input[at] = rng.draw() as u8,
        1 if at < input.len() => drop(input.remove(at)),
        2 => input.insert(at, rng.draw() as u8),
        _ => {
            let other = rng.pick(seeds);
            let from = rng.index(other.len());
            let to = from + rng.index(other.len() - from) + 1;
            input.splice(at..at, other[from..to].iter().copied());
        }
    }
}
