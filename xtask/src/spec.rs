//! Coverage of the MQTT specifications by tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail, ensure};
use proc_macro2::{TokenStream, TokenTree};
use serde::Deserialize;

/// A version of the specification: how it is called, and the modules or files that hold its tests.
const VERSIONS: [(&str, &str, &[&str]); 2] = [
    ("mqtt-5.0", "docs/spec/mqtt-5.0.toml", &["v5", "spec_v5"]),
    (
        "mqtt-3.1.1",
        "docs/spec/mqtt-3.1.1.toml",
        &["v311", "spec_v311"],
    ),
];

/// A list of normative statements, as it stands in `docs/spec`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statements {
    ids: Vec<String>,
    reasons: BTreeMap<String, String>,
}

/// A test that bears an id.
#[derive(Debug, PartialEq)]
struct SpecTest {
    /// The id that its name begins with: `MQTT-3.3.1-2`.
    id: String,
    /// Its name, behind the file and modules that it is in.
    path: String,
}

/// Prints the coverage of every version; fails if a statement has neither test nor reason, or the lists contradict the tests.
pub fn run(root: &Path, list: bool) -> anyhow::Result<()> {
    let tests = tests_under(&root.join("crates"))?;
    let mut faults = unplaced(&tests);
    let mut missing_in_all = 0;
    for (name, file, modules) in VERSIONS {
        let text =
            fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        let statements: Statements =
            toml::from_str(&text).with_context(|| format!("cannot parse {file}"))?;
        let coverage = Coverage::of(&statements, &tests, modules);
        println!(
            "{name}: {} covered, {} with a reason, {} missing of {}",
            coverage.covered,
            coverage.excused,
            coverage.missing.len(),
            statements.ids.len()
        );
        if list {
            coverage.missing.iter().for_each(|id| println!("  {id}"));
        }
        missing_in_all += coverage.missing.len();
        faults.extend(
            coverage
                .faults
                .into_iter()
                .map(|fault| format!("{file}: {fault}")),
        );
    }
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    ensure!(
        faults.is_empty(),
        "{} contradictions between the lists and the tests",
        faults.len()
    );
    ensure!(
        missing_in_all == 0,
        "{missing_in_all} statements have neither a test nor a reason; --list names them"
    );
    Ok(())
}

/// How a version's statements are covered.
#[derive(Debug, Default, PartialEq)]
struct Coverage {
    covered: usize,
    excused: usize,
    missing: Vec<String>,
    faults: Vec<String>,
}

impl Coverage {
    fn of(statements: &Statements, tests: &[SpecTest], modules: &[&str]) -> Coverage {
        let mine = tests.iter().filter(|test| is_within(&test.path, modules));
        let tested: BTreeMap<&str, &str> = mine
            .map(|test| (test.id.as_str(), test.path.as_str()))
            .collect();
        let known: BTreeSet<&str> = statements.ids.iter().map(String::as_str).collect();
        let mut coverage = Coverage::default();
        for id in &statements.ids {
            match (tested.get(id.as_str()), statements.reasons.contains_key(id)) {
                (Some(path), true) => coverage
                    .faults
                    .push(format!("{id} has a reason, and a test: {path}")),
                (Some(_), false) => coverage.covered += 1,
                (None, true) => coverage.excused += 1,
                (None, false) => coverage.missing.push(id.clone()),
            }
        }
        for (id, path) in tested.iter().filter(|(id, _)| !known.contains(*id)) {
            coverage
                .faults
                .push(format!("there is no statement {id}, but a test: {path}"));
        }
        for (id, reason) in &statements.reasons {
            if !known.contains(id.as_str()) {
                coverage
                    .faults
                    .push(format!("there is no statement {id}, but a reason"));
            } else if reason.trim().is_empty() {
                coverage.faults.push(format!("the reason of {id} is empty"));
            }
        }
        if known.len() != statements.ids.len() {
            coverage.faults.push("an id is listed twice".to_owned());
        }
        coverage
    }
}

/// Tests that bear an id and are in no version's module: the same id means different things in different versions.
fn unplaced(tests: &[SpecTest]) -> Vec<String> {
    let placed = |test: &&SpecTest| {
        VERSIONS
            .iter()
            .any(|(_, _, modules)| is_within(&test.path, modules))
    };
    let stray = tests.iter().filter(|test| !placed(test));
    stray
        .map(|test| format!("{} is in the module of no version (v5, v311)", test.path))
        .collect()
}

fn is_within(path: &str, modules: &[&str]) -> bool {
    path.split("::").any(|part| modules.contains(&part))
}

/// All tests that bear an id in the Rust sources below a directory.
fn tests_under(directory: &Path) -> anyhow::Result<Vec<SpecTest>> {
    let mut tests = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in
            fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path)?;
                let Ok(tokens) = source.parse::<TokenStream>() else {
                    bail!("{} is not Rust", path.display())
                };
                let below = path
                    .strip_prefix(directory)
                    .expect("the walk began at that directory")
                    .with_extension("");
                let module = below
                    .iter()
                    .map(|part| part.to_string_lossy())
                    .collect::<Vec<_>>()
                    .join("::");
                collect(tokens, &module, &mut tests);
            }
        }
    }
    Ok(tests)
}

/// Finds `#[test] fn mqtt_...` in tokens, so that tests inside macros such as `proptest!` count as well.
fn collect(tokens: TokenStream, module: &str, tests: &mut Vec<SpecTest>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut is_test = false;
    for (index, token) in tokens.iter().enumerate() {
        let before = |back: usize| index.checked_sub(back).map(|at| tokens[at].to_string());
        match token {
            TokenTree::Group(group) if before(1).as_deref() == Some("#") => {
                is_test |= is_test_attribute(group.stream());
            }
            TokenTree::Group(group) => {
                let inner = match (before(2).as_deref(), before(1)) {
                    (Some("mod"), Some(name)) => format!("{module}::{name}"),
                    _ => module.to_owned(),
                };
                collect(group.stream(), &inner, tests);
            }
            TokenTree::Ident(name) if before(1).as_deref() == Some("fn") => {
                let path = format!("{module}::{name}");
                let id = id_of(&name.to_string()).filter(|_| std::mem::take(&mut is_test));
                tests.extend(id.map(|id| SpecTest { id, path }));
            }
            _ => {}
        }
    }
}

/// `test`, `tokio::test` and the like; `ignore` does not count as running.
fn is_test_attribute(attribute: TokenStream) -> bool {
    let path = attribute
        .into_iter()
        .take_while(|token| !matches!(token, TokenTree::Group(_)));
    path.last().is_some_and(|token| token.to_string() == "test")
}

/// The id that a test's name begins with: `mqtt_3_3_1_2_dup_is_zero` bears `MQTT-3.3.1-2`.
fn id_of(name: &str) -> Option<String> {
    let numbers: Vec<&str> = name.strip_prefix("mqtt_")?.split('_').take(4).collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match numbers[..] {
        [a, b, c, d] if numbers.iter().all(is_number) => Some(format!("MQTT-{a}.{b}.{c}-{d}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(ids: &[&str], reasons: &[(&str, &str)]) -> Statements {
        let owned = |(id, reason): &(&str, &str)| ((*id).to_owned(), (*reason).to_owned());
        Statements {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            reasons: reasons.iter().map(owned).collect(),
        }
    }

    fn found(source: &str) -> Vec<String> {
        let mut tests = Vec::new();
        collect(source.parse().expect("the source is Rust"), "f", &mut tests);
        tests
            .into_iter()
            .map(|test| format!("{} {}", test.id, test.path))
            .collect()
    }

    #[test]
    fn tests_are_found_by_attribute_name_and_module() {
        let source = "
            mod v5 {
                #[test] // a comment
                fn mqtt_3_3_1_2_dup_is_zero() { let x = 1; }
                fn mqtt_1_1_1_1_is_a_helper() {}
                #[cfg(test)] fn mqtt_1_1_1_2_is_a_helper_too() {}
                #[test] fn another() {}
                mod deeper { proptest! { #[test] fn mqtt_2_2_2_2_x(a in 0..1) {} } }
            }
            mod v311 { #[test] #[should_panic] fn mqtt_4_7_1_1() {} }";
        assert_eq!(
            found(source),
            [
                "MQTT-3.3.1-2 f::v5::mqtt_3_3_1_2_dup_is_zero",
                "MQTT-2.2.2-2 f::v5::deeper::mqtt_2_2_2_2_x",
                "MQTT-4.7.1-1 f::v311::mqtt_4_7_1_1",
            ]
        );
    }

    #[test]
    fn a_statement_needs_a_test_or_a_reason_but_not_both() {
        let test = |id: &str| SpecTest {
            id: id.to_owned(),
            path: format!("v5::{id}"),
        };
        let list = statements(
            &["A", "B", "C", "D"],
            &[("B", "why"), ("D", "why"), ("E", "why")],
        );
        let coverage = Coverage::of(&list, &[test("A"), test("D"), test("F")], &["v5"]);
        assert_eq!(
            (coverage.covered, coverage.excused, coverage.missing),
            (1, 1, vec!["C".to_owned()])
        );
        assert_eq!(
            coverage.faults,
            [
                "D has a reason, and a test: v5::D",
                "there is no statement F, but a test: v5::F",
                "there is no statement E, but a reason",
            ]
        );
    }

    #[test]
    fn every_normative_statement_has_a_test_or_a_reason() {
        if let Err(fault) = run(crate::root(), true) {
            panic!("{fault:#}");
        }
    }
}
