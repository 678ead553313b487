//! The fuzz target `decode` over its corpus and over mutations of it, without a fuzzer.

mod common;

#[path = "../../../fuzz/src/decode.rs"]
mod decode;

use std::{fs, path::PathBuf};

use campanile_mqtt::Version;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/decode")
}

/// The golden packets as inputs of the fuzz target.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let seeds = common::golden::goldens().into_iter().map(|golden| {
        let (first, suffix) = match golden.version {
            Version::V31 => (0, "v31"),
            Version::V311 => (1, "v311"),
            Version::V5 => (2, "v5"),
        };
        let name = golden.name.trim_end_matches(suffix).trim_end_matches('_');
        (
            format!("{name}_{suffix}"),
            [&[first][..], &common::bytes(golden.bytes)].concat(),
        )
    });
    seeds.collect()
}

/// With `CAMPANILE_UPDATE_CORPUS` set it writes what is missing.
#[test]
fn the_corpus_holds_every_golden_packet() {
    for (name, input) in seeds() {
        let path = corpus().join(&name);
        if std::env::var_os("CAMPANILE_UPDATE_CORPUS").is_some() {
            fs::write(&path, &input).unwrap();
        }
        let found = fs::read(&path).unwrap_or_default();
        assert_eq!(
            found, input,
            "{name}; run again with CAMPANILE_UPDATE_CORPUS=1"
        );
    }
}

#[test]
fn the_corpus_is_harmless() {
    for entry in fs::read_dir(corpus()).unwrap() {
        decode::check(&fs::read(entry.unwrap().path()).unwrap());
    }
}

#[test]
fn mutations_of_the_corpus_are_harmless() {
    let seeds = seeds();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..20_000 {
        let mut input = seeds[random.below(seeds.len())].1.clone();
        for _ in 0..=random.below(3) {
            mutate(&mut input, &seeds, &mut random);
        }
        // Most mutations change the length; with one that fits again, the rest of the decoder sees them too.
        if round % 2 == 0 && input.len() > 3 {
            input = [&input[..1], &common::frame_of(input[1], &input[3..])].concat();
        }
        decode::check(&input);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[(String, Vec<u8>)], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(6) {
        0 => input[at] = random.next() as u8,
        1 => input[at] ^= 1 << random.below(8),
        2 => input.insert(at, random.next() as u8),
        3 if input.len() > 1 => drop(input.remove(at)),
        4 => input.truncate(at.max(1)),
        _ => {
            let (_, other) = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let to = from + random.below(other.len() - from) + 1;
            input.splice(at..at, other[from..to].iter().copied());
        }
    }
}

/// xorshift64*: the same mutations every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
}
