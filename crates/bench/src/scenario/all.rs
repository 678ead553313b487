//! The whole set.

use anyhow::{Result, bail};
use clap::Args;

use super::Scenario;

/// The set, as command lines.
const SET: &[&str] = &[
    "idle",
    "fanout --qos 0",
    "fanout --qos 1",
    "pairs --qos 0",
    "pairs --qos 1",
    "pairs --qos 2",
    "pairs --pairs 500 --messages 200000 --window 1 --qos 0",
    "pairs --pairs 500 --messages 200000 --window 1 --qos 1",
    "fanin",
    "storm",
    "storm --persistent",
    "offline",
    "push",
];

/// The same set in a tenth of the size, to see that all is well.
const QUICK: &[&str] = &[
    "idle --connections 1500 --hold 2 --keep-alive 2",
    "fanout --subscribers 1000 --qos 0",
    "fanout --subscribers 1000 --qos 1",
    "pairs --messages 100000 --qos 0",
    "pairs --messages 100000 --qos 1",
    "pairs --messages 50000 --qos 2",
    "pairs --pairs 50 --messages 20000 --window 1 --qos 1",
    "fanin --messages 50000",
    "storm --clients 1000",
    "storm --clients 1000 --persistent",
    "offline --sessions 500",
    "push --pushes 1000",
];

/// The whole set.
#[derive(Args, Clone, Debug)]
pub struct All {
    /// A tenth of the size: figures that say little, but the same account
    #[arg(long)]
    pub quick: bool,
    /// Only these scenarios, by name
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub only: Vec<String>,
}

impl All {
    /// The scenarios to run.
    pub(crate) fn scenarios(&self) -> Result<Vec<Scenario>> {
        let set = if self.quick { QUICK } else { SET };
        let name = |line: &str| line.split(' ').next().map(str::to_owned);
        if let Some(unknown) = self
            .only
            .iter()
            .find(|only| !set.iter().any(|line| name(line).as_ref() == Some(only)))
        {
            bail!("scenario {unknown:?}: there is none of that name");
        }
        set.iter()
            .filter(|line| {
                self.only.is_empty() || name(line).is_some_and(|name| self.only.contains(&name))
            })
            .map(|line| parse(line))
            .collect()
    }
}

/// A scenario from its command line.
fn parse(line: &str) -> Result<Scenario> {
    #[derive(clap::Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(subcommand)]
        scenario: Scenario,
    }
    let line: Line = clap::Parser::try_parse_from(line.split(' '))?;
    Ok(line.scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenarios(quick: bool, only: &[&str]) -> Result<Vec<Scenario>> {
        let only = only.iter().map(|&name| name.into()).collect();
        All { quick, only }.scenarios()
    }

    #[test]
    fn both_sets_can_be_read() {
        assert_eq!(scenarios(false, &[]).unwrap().len(), SET.len());
        assert_eq!(scenarios(true, &[]).unwrap().len(), QUICK.len());
    }

    #[test]
    fn no_two_scenarios_of_a_set_have_the_same_label() {
        for quick in [false, true] {
            let mut labels: Vec<String> = scenarios(quick, &[])
                .unwrap()
                .iter()
                .map(Scenario::label)
                .collect();
            let all = labels.len();
            labels.sort();
            labels.dedup();
            assert_eq!(labels.len(), all);
        }
    }

    #[test]
    fn a_choice_is_kept_to_and_must_exist() {
        assert_eq!(scenarios(false, &["fanout", "fanin"]).unwrap().len(), 3);
        assert!(scenarios(false, &["fanouts"]).is_err());
    }
}
