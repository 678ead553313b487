//! Seeds hold, the same seed plays the same, and bugs that are built in are found.

use campanile_sim::{
    sabotage::Sabotage,
    seeds,
    world::{self, Failure, Options, Outcome},
};

fn play(seeds: std::ops::Range<u64>, options: Options) -> Result<Vec<Outcome>, Failure> {
    seeds::play(seeds, |seed| world::run(seed, options))
}

#[test]
fn seeds_hold() {
    let outcomes = play(0..1500, Options::default()).unwrap_or_else(|Failure { seed, text }| {
        panic!("seed {seed}: {text}\nreplay: cargo xtask sim --from {seed} --seeds 1 --trace")
    });
    let arrivals: u64 = outcomes.iter().map(|outcome| outcome.arrivals).sum();
    assert!(
        arrivals > 10_000,
        "little has happened: {arrivals} arrivals"
    );
}

#[test]
fn what_is_heard_late_of_an_earlier_connection_does_not_hide_a_device_from_its_audiences() {
    let campaigns = Options {
        campaigns: true,
        ..Options::default()
    };
    play(11517..11518, campaigns).expect("it holds");
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in 0..20 {
        let play = || world::run(seed, Options::default()).expect("seeds hold");
        assert_eq!(play(), play(), "seed {seed}");
    }
}

#[test]
fn bugs_that_are_built_in_are_found() {
    /// Seeds within which each must be found.
    const WITHIN: u64 = 150;
    let survived: Vec<Sabotage> = Sabotage::ALL
        .iter()
        .copied()
        .filter(|&sabotage| {
            let options = Options {
                sabotage: Some(sabotage),
                campaigns: sabotage.is_of_campaigns(),
                ..Options::default()
            };
            match play(0..WITHIN, options) {
                Ok(_) => true,
                Err(Failure { seed, text }) => {
                    let text: String = text.chars().take(150).collect();
                    println!("{sabotage:?}: seed {seed}: {text}");
                    false
                }
            }
        })
        .collect();
    assert!(
        survived.is_empty(),
        "not found within {WITHIN} seeds: {survived:?}"
    );
}
