//! Results side by side, as Markdown.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What one run of one scenario on one site found out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Column {
    /// Columns of the same scenario stand side by side.
    pub scenario: String,
    /// The site's name.
    #[serde(alias = "target")]
    pub site: String,
    /// Figures; the first is the one to compare.
    pub metrics: Vec<Metric>,
    /// What was sent against what arrived.
    pub tally: Option<Tally>,
    /// Everything else that went wrong, in words.
    pub problems: Vec<String>,
}

/// A figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metric {
    name: String,
    value: f64,
    unit: String,
}

/// Deliveries, and what was wrong with them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Tally {
    expected: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    stray: u64,
}

impl Metric {
    /// A figure.
    pub fn new(name: &str, value: f64, unit: &str) -> Metric {
        Metric {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
        }
    }
}

impl Tally {
    fn faults(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.corrupted + self.stray
    }
}

impl Column {
    /// Reads what `campanile bench --json` prints of one scenario and one server.
    pub fn read(text: &str) -> Result<Column> {
        let columns: Vec<Column> = serde_json::from_str(text)?;
        columns.into_iter().next().context("the list is empty")
    }

    /// A run that could not be made.
    pub fn failed(error: &anyhow::Error) -> Column {
        Column {
            problems: vec![format!("{error:#}")],
            ..Column::default()
        }
    }

    /// Whether nothing went wrong.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.tally.is_none_or(|tally| tally.faults() == 0)
    }

    fn value(&self, name: &str) -> Option<f64> {
        let metric = self.metrics.iter().find(|metric| metric.name == name)?;
        Some(metric.value)
    }

    fn account(&self) -> String {
        match self.tally {
            None => "-".into(),
            Some(tally) if tally.faults() == 0 => format!("{} exact", tally.delivered),
            Some(tally) => format!("{tally:?}"),
        }
    }
}

/// Of each figure the one in the middle; the whole run that went wrong if there is one.
pub fn median(mut repeats: Vec<Column>) -> Option<Column> {
    if let Some(bad) = repeats.iter().position(|column| !column.is_good()) {
        return Some(repeats.swap_remove(bad));
    }
    let mut middle = repeats.first()?.clone();
    for metric in &mut middle.metrics {
        let values = repeats
            .iter()
            .filter_map(|column| column.value(&metric.name));
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        metric.value = values[values.len() / 2];
    }
    Some(middle)
}

/// A table for each scenario.
pub fn text(columns: &[Column]) -> String {
    let mut text = String::new();
    for same in columns.chunk_by(|one, next| one.scenario == next.scenario) {
        one_table(same, &mut text);
    }
    text
}

fn one_table(columns: &[Column], text: &mut String) {
    let mut row = |label: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.map(|cell| format!(" {cell} |")).collect();
        // Writing to memory does not fail.
        let _ = writeln!(text, "| {label} |{cells}");
    };
    row(
        &columns[0].scenario,
        &mut columns.iter().map(|column| column.site.clone()),
    );
    row("---", &mut columns.iter().map(|_| "---:".to_owned()));
    let mut names: Vec<&Metric> = Vec::new();
    for metric in columns.iter().flat_map(|column| &column.metrics) {
        if !names.iter().any(|known| known.name == metric.name) {
            names.push(metric);
        }
    }
    for Metric { name, unit, .. } in names {
        let comma = if unit.is_empty() { "" } else { ", " };
        let label = format!("{name}{comma}{unit}");
        row(
            &label,
            &mut columns.iter().map(|column| cell(column.value(name))),
        );
    }
    row("account", &mut columns.iter().map(Column::account));
    for column in columns {
        for problem in &column.problems {
            let _ = writeln!(text, "\n{}: {problem}", column.site);
        }
    }
    text.push('\n');
}

/// Three digits, more before the point if need be.
fn cell(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(0.0) => "0".into(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(site: &str, value: f64) -> Column {
        Column {
            scenario: "pushes".into(),
            site: site.into(),
            metrics: vec![Metric::new("CPU", value, "µs")],
            ..Column::default()
        }
    }

    #[test]
    fn sites_stand_side_by_side() {
        let expect = "| pushes | alone | cluster of 3 |\n| --- | ---: | ---: |\n\
            | CPU, µs | 5.00 | 12.3 |\n| account | - | - |\n\n";
        assert_eq!(
            text(&[column("alone", 5.0), column("cluster of 3", 12.34)]),
            expect
        );
    }

    #[test]
    fn the_middle_counts_unless_a_run_went_wrong() {
        let repeats = || [3.0, 1.0, 2.0].map(|value| column("alone", value)).to_vec();
        assert_eq!(median(repeats()).unwrap().value("CPU"), Some(2.0));
        let failed = Column::failed(&anyhow::anyhow!("no Redis"));
        let with_bad = [repeats(), vec![failed]].concat();
        assert!(!median(with_bad).unwrap().is_good());
    }
}
