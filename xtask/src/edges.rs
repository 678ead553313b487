//! Which crate may know of which.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::Value;

/// What a crate may depend on.
struct Rule {
    name: &'static str,
    /// Crates of ours that it may use directly.
    ours: &'static [&'static str],
    /// Crates of others that must not be in it, however they get there.
    never: &'static [&'static str],
}

const IO: &[&str] = &[
    "tokio",
    "mio",
    "fjall",
    "axum",
    "hyper",
    "socket2",
    "rustix",
    "redis",
    "zookeeper-client",
    "rustls",
];

/// The table of `ARCHITECTURE.md`. `campanile-sim` and `xtask` may use everything.
const RULES: &[Rule] = &[
    Rule {
        name: "campanile-mqtt",
        ours: &[],
        never: IO,
    },
    Rule {
        name: "campanile-broker",
        ours: &["campanile-mqtt"],
        never: IO,
    },
    Rule {
        name: "campanile-push",
        ours: &[],
        never: IO,
    },
    Rule {
        name: "campanile-backends",
        ours: &["campanile-broker", "campanile-push"],
        // rustls comes with the clients of ZooKeeper and Redis, mio with their tokio: nothing here listens, or drives a connection itself.
        never: &["axum", "hyper"],
    },
    Rule {
        name: "campanile-api",
        ours: &["campanile-push", "campanile-broker"],
        never: &["fjall", "redis", "zookeeper-client", "rustls"],
    },
    Rule {
        name: "campanile",
        ours: &[
            "campanile-mqtt",
            "campanile-broker",
            "campanile-push",
            "campanile-backends",
            "campanile-api",
            "campanile-bench",
        ],
        never: &["campanile-client"],
    },
    Rule {
        name: "campanile-bench",
        ours: &["campanile-mqtt"],
        never: &["fjall", "axum"],
    },
    Rule {
        name: "campanile-testbed",
        ours: &["campanile-mqtt"],
        never: &["redis", "zookeeper-client"],
    },
];

/// Crates that no rule is needed for.
const FREE: &[&str] = &["campanile-sim", "xtask"];

/// Fails if a crate depends on what it must not; names each such edge.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let graph = Graph::of(&metadata(root)?)?;
    let faults = graph.faults();
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    ensure!(faults.is_empty(), "{} forbidden edges", faults.len());
    println!(
        "edges: {} crates, none knows what it must not",
        graph.members.len()
    );
    Ok(())
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let output = command
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
}

/// Normal dependencies (neither of tests nor of build scripts) by package name.
struct Graph {
    members: BTreeSet<String>,
    direct: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn of(metadata: &Value) -> anyhow::Result<Graph> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name_of: BTreeMap<String, String> = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let name = |id: &Value| {
            name_of
                .get(&text(id))
                .cloned()
                .context("a package without a name")
        };
        let members = list(&metadata["workspace_members"])
            .iter()
            .map(name)
            .collect::<anyhow::Result<_>>()?;
        let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let is_normal = |dependency: &Value| {
                list(&dependency["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            };
            let uses = direct.entry(name(&node["id"])?).or_default();
            for dependency in list(&node["deps"])
                .iter()
                .filter(|dependency| is_normal(dependency))
            {
                uses.insert(name(&dependency["pkg"])?);
            }
        }
        Ok(Graph { members, direct })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for member in &self.members {
            let Some(rule) = RULES.iter().find(|rule| rule.name == member) else {
                if !FREE.contains(&member.as_str()) {
                    faults.push(format!("{member} has no rule in xtask/src/edges.rs"));
                }
                continue;
            };
            let direct = self.direct.get(member).into_iter().flatten();
            let ours = direct
                .filter(|name| self.members.contains(*name) && !rule.ours.contains(&name.as_str()));
            faults.extend(ours.map(|name| format!("{member} must not depend on {name}")));
            for name in rule.never {
                faults.extend(
                    self.way(member, name)
                        .map(|way| format!("{member} must not contain {name}: {way}")),
                );
            }
        }
        faults
    }

    /// How a package gets to use another, if it does: the names along the way.
    fn way(&self, from: &str, to: &str) -> Option<String> {
        let mut seen = BTreeSet::from([from.to_owned()]);
        let mut ways = vec![vec![from.to_owned()]];
        while let Some(way) = ways.pop() {
            let last = way.last().expect("a way has a start");
            for next in self.direct.get(last).into_iter().flatten() {
                let longer = [way.as_slice(), std::slice::from_ref(next)].concat();
                if next == to {
                    return Some(longer.join(" -> "));
                }
                if seen.insert(next.clone()) {
                    ways.push(longer);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let members = edges
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| name.starts_with("campanile"));
        Graph {
            members: members.map(str::to_owned).collect(),
            direct: edges
                .iter()
                .map(|(name, uses)| ((*name).to_owned(), owned(uses)))
                .collect(),
        }
    }

    #[test]
    fn a_forbidden_edge_is_named_with_its_way() {
        let graph = graph(&[
            ("campanile-mqtt", &["bytes", "campanile-push"]),
            ("campanile-push", &[]),
            ("campanile-broker", &["campanile-mqtt", "futures"]),
            ("campanile-new", &[]),
            ("futures", &["tokio"]),
        ]);
        assert_eq!(
            graph.faults(),
            [
                "campanile-broker must not contain tokio: campanile-broker -> futures -> tokio",
                "campanile-mqtt must not depend on campanile-push",
                "campanile-new has no rule in xtask/src/edges.rs",
            ]
        );
    }

    #[test]
    fn no_crate_depends_on_what_it_must_not_know() {
        if let Err(fault) = run(crate::root()) {
            panic!("{fault:#}");
        }
    }
}
