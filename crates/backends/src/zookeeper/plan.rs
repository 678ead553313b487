//! What a node has to do about its own entries, given what the tree says.
//!
//! Nothing is remembered of what was tried: a request whose answer got lost with a connection shows in the next read, or is asked for again. Hence
//! no entry is ever created twice, and none of an earlier session stays.

use std::collections::BTreeMap;

use super::{payload, tree::Entry};

/// Who this node is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// This process, whatever its sessions.
    pub(super) instance: &'a str,
    /// Its current session.
    pub(super) session: i64,
    /// What its registration should say.
    pub(super) payload: &'a [u8],
}

/// One thing to do. Versions keep a step from hitting what came after the read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Create the registration.
    Register,
    /// Remove a registration of an earlier session of this process.
    RemoveRegistration { version: i32 },
    /// Another process has the name: wait.
    AwaitName { session: i64, peer_address: String },
    /// Write the payload.
    Update { version: i32 },
    /// Create a candidate.
    StandForLead,
    /// Remove a candidate of this process that is one too many.
    RemoveCandidate { entry: String },
}

/// What is left to do; nothing once the node is registered once, up to date, and a candidate once.
pub(super) fn plan(
    own: Own,
    nodes: &BTreeMap<String, Entry>,
    candidates: &BTreeMap<String, Entry>,
) -> Vec<Step> {
    let is_of_session = |entry: &Entry| entry.stat.ephemeral_owner == own.session;
    let is_ours =
        |entry: &Entry| payload::instance_of(&entry.data).is_some_and(|id| id == own.instance);
    let mut steps = Vec::new();
    let mut is_registered = false;
    match nodes.get(own.name) {
        None => steps.push(Step::Register),
        Some(entry) if is_of_session(entry) => {
            is_registered = true;
            if entry.data != own.payload {
                let version = entry.stat.version;
                steps.push(Step::Update { version });
            }
        }
        Some(entry) if is_ours(entry) => {
            let version = entry.stat.version;
            steps.push(Step::RemoveRegistration { version });
        }
        Some(entry) => steps.push(Step::AwaitName {
            session: entry.stat.ephemeral_owner,
            peer_address: payload::read_node(own.name, &entry.data).map_or_else(
                |_| "unknown".to_owned(),
                |info| info.peer_address.to_string(),
            ),
        }),
    }
    let mut is_candidate = false;
    for (name, entry) in candidates {
        let is_wanted = is_of_session(entry) && is_registered && !is_candidate;
        if is_wanted {
            is_candidate = true;
        } else if is_of_session(entry) || is_ours(entry) {
            steps.push(Step::RemoveCandidate {
                entry: name.clone(),
            });
        }
    }
    if is_registered && !is_candidate {
        steps.push(Step::StandForLead);
    }
    steps
}

#[cfg(test)]
mod tests {
    use zookeeper_client::Stat;

    use super::*;

    const OWN: Own = Own {
        name: "a",
        instance: "now",
        session: 7,
        payload: br#"{"instance":"now"}"#,
    };

    fn entry(instance: &str, session: i64) -> Entry {
        Entry {
            data: format!(r#"{{"instance":"{instance}"}}"#).into_bytes(),
            stat: Stat {
                czxid: 1,
                mzxid: 1,
                pzxid: 1,
                ctime: 0,
                mtime: 0,
                version: 4,
                cversion: 0,
                aversion: 0,
                ephemeral_owner: session,
                data_length: 0,
                num_children: 0,
            },
        }
    }

    fn check(nodes: &[(&str, Entry)], candidates: &[(&str, Entry)], expected: &[Step]) {
        let map = |entries: &[(&str, Entry)]| {
            entries
                .iter()
                .map(|(name, entry)| ((*name).to_owned(), entry.clone()))
                .collect()
        };
        assert_eq!(plan(OWN, &map(nodes), &map(candidates)), expected);
    }

    fn remove(entry: &str) -> Step {
        let entry = entry.to_owned();
        Step::RemoveCandidate { entry }
    }

    #[test]
    fn a_newcomer_registers_and_then_stands_for_lead() {
        check(&[], &[("n-1", entry("other", 3))], &[Step::Register]);
        check(&[("a", entry("now", 7))], &[], &[Step::StandForLead]);
        check(&[("a", entry("now", 7))], &[("n-2", entry("now", 7))], &[]);
    }

    #[test]
    fn what_an_earlier_session_of_this_process_left_is_removed() {
        let steps = [Step::RemoveRegistration { version: 4 }, remove("n-2")];
        check(
            &[("a", entry("now", 6))],
            &[("n-2", entry("now", 6))],
            &steps,
        );
    }

    #[test]
    fn the_name_of_another_process_is_waited_for() {
        let steps = [Step::AwaitName {
            session: 6,
            peer_address: "unknown".to_owned(),
        }];
        check(
            &[("a", entry("other", 6))],
            &[("n-2", entry("other", 6))],
            &steps,
        );
    }

    #[test]
    fn only_the_first_of_two_candidates_stays() {
        let twice = [("n-2", entry("now", 7)), ("n-3", entry("now", 7))];
        check(&[("a", entry("now", 7))], &twice, &[remove("n-3")]);
    }

    #[test]
    fn what_changed_is_written() {
        let mut old = entry("now", 7);
        old.data.push(b' ');
        let steps = [Step::Update { version: 4 }];
        check(&[("a", old)], &[("n-2", entry("now", 7))], &steps);
    }
}
