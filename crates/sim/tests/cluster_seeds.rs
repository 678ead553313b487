//! Seeds of a cluster hold, the same seed plays the same, and bugs that are built in are found.

use campanile_sim::{
    cluster::{self, Options},
    fleet::sabotage::Sabotage,
    seeds,
    world::{Failure, Outcome},
};

fn play(seeds: std::ops::Range<u64>, options: Options) -> Result<Vec<Outcome>, Failure> {
    seeds::play(seeds, |seed| cluster::run(seed, options))
}

#[test]
fn seeds_of_a_cluster_hold() {
    let outcomes = play(0..250, Options::default()).unwrap_or_else(|Failure { seed, text }| {
        panic!("seed {seed}: {text}\nreplay: cargo xtask sim --world cluster --from {seed} --seeds 1 --trace")
    });
    let arrivals: u64 = outcomes.iter().map(|outcome| outcome.arrivals).sum();
    assert!(arrivals > 5000, "little has happened: {arrivals} arrivals");
}

#[test]
fn a_word_that_comes_after_its_device_has_moved_holds() {
    // That of an instant push goes over a slow link, to a node that has the device by then.
    play(3027..3028, Options::default()).expect("it holds");
}

#[test]
fn two_nodes_that_have_a_member_do_not_pass_its_messages_to_and_fro() {
    // One of them has not heard yet that the client was claimed by the other.
    play(676..677, Options::default()).expect("it holds");
}

#[test]
fn a_member_that_has_not_heard_that_it_is_connected_keeps_what_another_passes_on() {
    play(10424..10425, with_campaigns()).expect("it holds");
}

#[test]
fn a_node_that_has_not_heard_of_another_does_not_answer_subscribers_before_that_one_knows() {
    // It is cut off from the ensemble when the others come back.
    play(9549..9550, Options::default()).expect("it holds");
}

#[test]
fn a_node_that_was_given_up_while_it_stood_still_hears_what_became_of_its_devices_without_sessions()
{
    play(13362..13363, Options::default()).expect("it holds");
}

#[test]
fn a_will_is_not_lost_to_a_node_whose_clock_is_behind() {
    play(16792..16793, Options::default()).expect("it holds");
}

#[test]
fn a_device_that_moves_with_a_campaign_under_way_gets_it_from_a_node_that_hears_of_it_later() {
    play(10506..10507, with_campaigns()).expect("it holds");
}

fn with_campaigns() -> Options {
    Options {
        campaigns: true,
        ..Options::default()
    }
}

#[test]
fn a_seed_of_a_cluster_plays_the_same_again() {
    for seed in 0..10 {
        let play = || cluster::run(seed, Options::default()).expect("seeds hold");
        assert_eq!(play(), play(), "seed {seed}");
    }
}

/// Each bug with the seeds among which it is found. What [`BY_HAND`] lists needs a failover in the same millisecond as what it takes away, or as the message that
/// overtakes: `cluster.rs` makes it.
const BUGS: &[(Sabotage, std::ops::Range<u64>)] = &[
    (Sabotage::NoFencing, 0..20),
    (Sabotage::AnswerBeforeSync, 100..110),
    (Sabotage::HideLogEntries, 25..45),
    (Sabotage::AnswerBeforeKnown, 1105..1115),
    (Sabotage::LoseInboxes, 0..40),
    (Sabotage::VoidTheLiving, 0..20),
    (Sabotage::KeepSpentWills, 0..40),
    (Sabotage::IgnorePolls, 0..40),
    (Sabotage::NeverVoid, 0..40),
    (Sabotage::SkipRestamps, 40..60),
    (Sabotage::SkipReread, 30..50),
    (Sabotage::LoseHandOvers, 30..50),
    (Sabotage::IgnoreReleases, 30..50),
    (Sabotage::ForgetShared, 340..350),
    (Sabotage::ForgetMemories, 40..50),
];

const BY_HAND: &[Sabotage] = &[Sabotage::TellUnsafe, Sabotage::OvertakeFailures];

#[test]
fn bugs_that_are_built_in_between_nodes_are_found() {
    let known = BUGS.len() + BY_HAND.len();
    assert_eq!(known, Sabotage::ALL.len(), "each is looked for");
    let mut survived = Vec::new();
    for (sabotage, seeds) in BUGS {
        let options = Options {
            sabotage: Some(*sabotage),
            campaigns: *sabotage == Sabotage::ForgetMemories,
            ..Options::default()
        };
        match play(seeds.clone(), options) {
            Ok(_) => survived.push((sabotage, seeds)),
            Err(Failure { seed, text }) => {
                let text: String = text.chars().take(150).collect();
                println!("{sabotage:?}: seed {seed}: {text}");
            }
        }
    }
    assert!(survived.is_empty(), "not found: {survived:?}");
}
