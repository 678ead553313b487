//! What a run found out, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::account::Tally;

/// The result of one scenario against one server.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario with its sizes; outcomes of the same scenario stand side by side.
    pub scenario: String,
    /// The server's name.
    pub target: String,
    /// Figures. The first is the one to compare.
    pub metrics: Vec<Metric>,
    /// What was sent against what arrived.
    pub tally: Option<Tally>,
    /// Everything that went wrong beside the tally, in words.
    pub problems: Vec<String>,
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// What it says.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit, empty for a bare count.
    pub unit: &'static str,
}

impl Metric {
    /// A figure.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Metric {
        Metric {
            name: name.into(),
            value,
            unit,
        }
    }
}

impl Outcome {
    /// Whether nothing went wrong.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.tally.is_none_or(|tally| tally.is_exact())
    }

    fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    fn account(&self) -> String {
        match self.tally {
            None => "-".into(),
            Some(tally) if tally.is_exact() => "exact".into(),
            Some(tally) => tally.to_string(),
        }
    }
}

/// The run in the middle by its first metric, but one that went wrong if there is one.
pub fn median(mut repeats: Vec<Outcome>) -> Option<Outcome> {
    if let Some(bad) = repeats.iter().position(|outcome| !outcome.is_good()) {
        return Some(repeats.swap_remove(bad));
    }
    let first = |outcome: &Outcome| outcome.metrics.first().map_or(0.0, |metric| metric.value);
    repeats.sort_by(|a, b| first(a).total_cmp(&first(b)));
    let middle = repeats.len() / 2;
    (!repeats.is_empty()).then(|| repeats.swap_remove(middle))
}

/// Outcomes as tables, one per scenario, a column per server.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut scenarios: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !scenarios.contains(&outcome.scenario.as_str()) {
            scenarios.push(&outcome.scenario);
        }
    }
    let mut text = String::new();
    for scenario in scenarios {
        let columns: Vec<&Outcome> = outcomes
            .iter()
            .filter(|outcome| outcome.scenario == scenario)
            .collect();
        one_table(scenario, &columns, &mut text);
    }
    text
}

fn one_table(scenario: &str, columns: &[&Outcome], text: &mut String) {
    let mut rows = vec![Row {
        label: scenario.into(),
        cells: columns.iter().map(|column| column.target.clone()).collect(),
    }];
    let mut metrics: Vec<&Metric> = Vec::new();
    for metric in columns.iter().flat_map(|column| &column.metrics) {
        if !metrics.iter().any(|known| known.name == metric.name) {
            metrics.push(metric);
        }
    }
    for (index, metric) in metrics.iter().enumerate() {
        let unit = match metric.unit {
            "" => String::new(),
            unit => format!(", {unit}"),
        };
        let values: Vec<Option<f64>> = columns
            .iter()
            .map(|column| column.metric(&metric.name).map(|metric| metric.value))
            .collect();
        rows.push(Row {
            label: format!("  {}{unit}", metric.name),
            cells: values.iter().map(|value| cell(*value)).collect(),
        });
        if let (0, [Some(base), _, ..]) = (index, values.as_slice()) {
            rows.push(Row {
                label: format!("    of {}", columns[0].target),
                cells: values.iter().map(|value| ratio(*value, *base)).collect(),
            });
        }
    }
    rows.push(Row {
        label: "  account".into(),
        cells: columns.iter().map(|column| column.account()).collect(),
    });
    write_rows(&rows, text);
    for column in columns {
        for problem in &column.problems {
            let _ = writeln!(text, "  ! {}: {problem}", column.target);
        }
    }
    text.push('\n');
}

struct Row {
    label: String,
    cells: Vec<String>,
}

fn write_rows(rows: &[Row], text: &mut String) {
    let width = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let label_width = width(&mut rows.iter().map(|row| &row.label));
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|index| width(&mut rows.iter().filter_map(|row| row.cells.get(index))).max(10))
        .collect();
    for row in rows {
        let _ = write!(text, "{:label_width$}", row.label);
        for (cell, width) in row.cells.iter().zip(&widths) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
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

fn ratio(value: Option<f64>, base: f64) -> String {
    match value {
        Some(value) if base > 0.0 => format!("x {:.2}", value / base),
        _ => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(target: &str, value: f64) -> Outcome {
        Outcome {
            scenario: "fanout".into(),
            target: target.into(),
            metrics: vec![Metric::new("server CPU", value, "s/million")],
            tally: Some(Tally {
                expected: 2,
                delivered: 2,
                ..Tally::default()
            }),
            problems: Vec::new(),
        }
    }

    fn lossy(target: &str) -> Outcome {
        Outcome {
            tally: Some(Tally {
                expected: 2,
                delivered: 1,
                lost: 1,
                ..Tally::default()
            }),
            ..outcome(target, 1.0)
        }
    }

    #[test]
    fn servers_stand_side_by_side_with_their_ratio_to_the_first() {
        let text = table(&[outcome("floor", 5.0), outcome("ours", 6.5)]);
        let expect = "\
fanout                        floor        ours
  server CPU, s/million        5.00        6.50
    of floor                 x 1.00      x 1.30
  account                     exact       exact

";
        assert_eq!(text, expect);
    }

    #[test]
    fn a_loss_shows_and_is_not_good() {
        assert!(outcome("ours", 1.0).is_good());
        assert!(!lossy("ours").is_good());
        assert!(table(&[lossy("ours")]).contains("1 of 2, 1 lost"));
    }

    #[test]
    fn a_problem_shows_and_is_not_good() {
        let mut bad = outcome("ours", 1.0);
        bad.problems.push("connection reset".into());
        assert!(!bad.is_good());
        assert!(table(&[bad]).contains("  ! ours: connection reset"));
    }

    #[test]
    fn the_middle_repeat_counts_unless_one_went_wrong() {
        let repeats = |values: &[f64]| values.iter().map(|&v| outcome("ours", v)).collect();
        assert_eq!(
            median(repeats(&[3.0, 1.0, 2.0])).unwrap().metrics[0].value,
            2.0
        );
        let mut with_bad: Vec<Outcome> = repeats(&[1.0, 2.0]);
        with_bad.push(lossy("ours"));
        assert!(!median(with_bad).unwrap().is_good());
        assert!(median(Vec::new()).is_none());
    }
}
