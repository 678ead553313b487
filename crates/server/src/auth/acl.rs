//! The ACL file: who may publish and subscribe where.
//!
//! ```text
//! topic read news/#                  # before the first user: anonymous clients
//! pattern readwrite devices/%c/#     # everybody; %c is the client id, %u the user name
//!
//! user ann
//! topic write orders/+/state
//! topic deny orders/secret/#
//! ```
//!
//! What no rule allows is forbidden, and `deny` wins over everything. A subscription is allowed only if one rule covers all of its filter, and if
//! nothing that it could match is denied: there is no further check per message.

use std::{collections::HashMap, sync::Arc};

use campanile_mqtt::topic::validate_filter;

use super::LineProblem;

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Needs `write`.
    Publish,
    /// Needs `read`.
    Subscribe,
}

/// An ACL file's content.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    anonymous: Vec<Rule>,
    users: HashMap<Arc<str>, Vec<Rule>>,
    patterns: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    right: Right,
    levels: Vec<Level>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Read,
    Write,
    ReadWrite,
    Deny,
}

#[derive(Clone, Debug, PartialEq)]
enum Level {
    Exact(Box<str>),
    /// `+`
    One,
    /// `#`
    Rest,
    /// With `%c` or `%u`.
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(Box<str>),
    ClientId,
    Username,
}

impl Acl {
    /// Reads an ACL file. Errors are all lines that are wrong.
    pub fn parse(text: &str) -> Result<Acl, Vec<LineProblem>> {
        let mut acl = Acl::default();
        let mut user: Option<Arc<str>> = None;
        let mut problems = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim_start();
            let read = match keyword {
                "user" if rest.is_empty() => Err("a user name must follow".to_owned()),
                "user" => {
                    user = Some(rest.into());
                    acl.users.entry(rest.into()).or_default();
                    Ok(())
                }
                "topic" => Rule::parse(rest, false).map(|rule| match &user {
                    Some(user) => acl.users.entry(user.clone()).or_default().push(rule),
                    None => acl.anonymous.push(rule),
                }),
                "pattern" => Rule::parse(rest, true).map(|rule| acl.patterns.push(rule)),
                _ => Err(format!(
                    "{keyword:?} is none of \"user\", \"topic\", \"pattern\""
                )),
            };
            if let Err(message) = read {
                problems.push((index + 1, message));
            }
        }
        if problems.is_empty() {
            Ok(acl)
        } else {
            Err(problems)
        }
    }

    /// Whether a client may publish to a topic name, or subscribe to a topic filter. The topic is valid.
    pub fn allows(
        &self,
        action: Action,
        username: Option<&str>,
        client_id: &str,
        topic: &str,
    ) -> bool {
        let own = match username {
            Some(name) => self.users.get(name).map_or(&[][..], Vec::as_slice),
            None => &self.anonymous,
        };
        let who = Who {
            username,
            client_id,
        };
        let rules = || own.iter().chain(&self.patterns);
        let denied =
            || rules().any(|rule| rule.right == Right::Deny && overlaps(&rule.levels, topic, who));
        let right = match action {
            Action::Publish => Right::Write,
            Action::Subscribe => Right::Read,
        };
        let grants = |rule: &Rule| rule.right == right || rule.right == Right::ReadWrite;
        rules().any(|rule| grants(rule) && covers(&rule.levels, topic, who)) && !denied()
    }
}

impl Acl {
    /// Whether a `deny` for everybody forbids it.
    pub fn denies_everybody(&self, client_id: &str, topic: &str) -> bool {
        let who = Who {
            username: None,
            client_id,
        };
        self.patterns
            .iter()
            .any(|rule| rule.right == Right::Deny && overlaps(&rule.levels, topic, who))
    }
}

impl Rule {
    fn parse(text: &str, is_pattern: bool) -> Result<Rule, String> {
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let right = match first {
            "read" => Some(Right::Read),
            "write" => Some(Right::Write),
            "readwrite" => Some(Right::ReadWrite),
            "deny" => Some(Right::Deny),
            _ => None,
        };
        let filter = if right.is_some() {
            rest.trim_start()
        } else {
            text
        };
        if filter.is_empty() {
            return Err("a topic filter must follow".to_owned());
        }
        let wrong = |rule: &str| Err(format!("topic filter {filter:?}: {rule}"));
        if filter.starts_with("$share/") {
            return wrong(
                "name the filter behind the group, it is what counts for shared subscriptions",
            );
        }
        let has_placeholder = filter.contains("%c") || filter.contains("%u");
        if has_placeholder && !is_pattern {
            return wrong("%c and %u stand for something only after \"pattern\"");
        }
        if let Err(error) = validate_filter(&filter.replace("%c", "c").replace("%u", "u")) {
            return wrong(error.rule());
        }
        let levels = filter.split('/').map(Level::parse).collect();
        Ok(Rule {
            right: right.unwrap_or(Right::ReadWrite),
            levels,
        })
    }
}

impl Level {
    fn parse(text: &str) -> Level {
        match text {
            "+" => return Level::One,
            "#" => return Level::Rest,
            _ if !text.contains("%c") && !text.contains("%u") => return Level::Exact(text.into()),
            _ => {}
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let placeholder = ["%c", "%u"]
                .into_iter()
                .filter_map(|name| rest.find(name))
                .min();
            let (before, after) = rest.split_at(placeholder.unwrap_or(rest.len()));
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            if !after.is_empty() {
                pieces.push(if after.starts_with("%c") {
                    Piece::ClientId
                } else {
                    Piece::Username
                });
            }
            rest = after.get(2..).unwrap_or("");
        }
        Level::Template(pieces)
    }

    /// Whether what it matches may begin with `$`. Placeholders never do, see [`Who::value`].
    fn is_dollar(&self) -> bool {
        match self {
            Level::Exact(text) => text.starts_with('$'),
            Level::Template(pieces) => {
                matches!(pieces.first(), Some(Piece::Text(text)) if text.starts_with('$'))
            }
            Level::One | Level::Rest => false,
        }
    }
}

/// Whom the placeholders stand for.
#[derive(Clone, Copy)]
struct Who<'a> {
    username: Option<&'a str>,
    client_id: &'a str,
}

enum Filled {
    /// The level is this text.
    Matches(bool),
    /// There is no such value: nobody is meant.
    Nobody,
    /// The value would not be one level, or be a wildcard.
    Unsafe,
}

impl<'a> Who<'a> {
    fn value(&self, piece: &Piece) -> Option<&'a str> {
        match piece {
            Piece::ClientId => Some(self.client_id),
            Piece::Username => self.username,
            Piece::Text(_) => None,
        }
    }

    /// Compares a template with a level of a topic.
    fn fill(&self, pieces: &[Piece], mut level: &str, is_first: bool) -> Filled {
        let mut same = true;
        for (index, piece) in pieces.iter().enumerate() {
            let text = match piece {
                Piece::Text(text) => text,
                placeholder => match self.value(placeholder) {
                    None => return Filled::Nobody,
                    Some(value) if value.is_empty() || value.contains(['+', '#', '/', '\0']) => {
                        return Filled::Unsafe;
                    }
                    // Would reach into topics of the server, which wildcards do not either.
                    Some(value) if is_first && index == 0 && value.starts_with('$') => {
                        return Filled::Unsafe;
                    }
                    Some(value) => value,
                },
            };
            match level.strip_prefix(text) {
                Some(rest) => level = rest,
                None => same = false, // The others may still be unsafe.
            }
        }
        Filled::Matches(same && level.is_empty())
    }
}

/// Whether a rule covers every topic that `filter` matches.
fn covers(rule: &[Level], filter: &str, who: Who<'_>) -> bool {
    let mut parts = filter.split('/');
    for (depth, level) in rule.iter().enumerate() {
        let part = parts.next();
        let is_dollar = depth == 0 && part.is_some_and(|part| part.starts_with('$'));
        let covered = match (level, part) {
            // "a/#" covers "a" too.
            (Level::Rest, _) => return !is_dollar,
            (_, None) => false,
            (Level::One, Some(part)) => part != "#" && !is_dollar,
            (Level::Exact(text), Some(part)) => **text == *part,
            (Level::Template(pieces), Some(part)) => {
                matches!(who.fill(pieces, part, depth == 0), Filled::Matches(true))
            }
        };
        if !covered {
            return false;
        }
    }
    parts.next().is_none()
}

/// Whether there is a topic that both a rule and `filter` match. In doubt, yes: it is asked for what is denied.
fn overlaps(rule: &[Level], filter: &str, who: Who<'_>) -> bool {
    let mut levels = rule.iter();
    let mut parts = filter.split('/');
    let mut is_first = true;
    loop {
        let (level, part) = (levels.next(), parts.next());
        let part_is_dollar = is_first && part.is_some_and(|part| part.starts_with('$'));
        let level_is_dollar = is_first && level.is_some_and(Level::is_dollar);
        let meet = match (level, part) {
            (None, None) => return true,
            (Some(Level::Rest), _) => return !part_is_dollar,
            (_, Some("#")) => return !level_is_dollar,
            (None, Some(_)) | (Some(_), None) => false,
            (Some(Level::Template(pieces)), Some(part)) => match who.fill(pieces, part, is_first) {
                Filled::Nobody => false,
                Filled::Unsafe => return true,
                Filled::Matches(same) => same || (part == "+" && !level_is_dollar),
            },
            (Some(Level::One), Some(_)) => !part_is_dollar,
            (Some(Level::Exact(_)), Some("+")) => !level_is_dollar,
            (Some(Level::Exact(text)), Some(part)) => **text == *part,
        };
        if !meet {
            return false;
        }
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use campanile_mqtt::topic::matches;
    use proptest::prelude::*;

    use super::*;

    fn acl(text: &str) -> Acl {
        Acl::parse(text).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[track_caller]
    fn check(
        acl: &Acl,
        user: Option<&str>,
        client_id: &str,
        action: Action,
        topic: &str,
        expected: bool,
    ) {
        assert_eq!(
            acl.allows(action, user, client_id, topic),
            expected,
            "{user:?} {client_id:?} {action:?} {topic:?}"
        );
    }

    use Action::{Publish, Subscribe};

    #[test]
    fn rules_before_the_first_user_are_for_anonymous_clients_and_patterns_for_all() {
        let acl = acl(
            "topic read news/#\npattern readwrite devices/%c/#\nuser ann\ntopic write orders/+/state\n",
        );
        check(&acl, None, "c", Subscribe, "news/a", true);
        check(&acl, None, "c", Publish, "news/a", false);
        check(&acl, Some("ann"), "c", Subscribe, "news/a", false);
        check(&acl, Some("ann"), "c", Publish, "orders/7/state", true);
        check(&acl, Some("ann"), "c", Publish, "orders/7", false);
        check(&acl, Some("bob"), "c", Publish, "orders/7/state", false);
        for user in [None, Some("ann"), Some("bob")] {
            check(&acl, user, "c", Subscribe, "devices/c/#", true);
            check(&acl, user, "c", Publish, "devices/c/x/y", true);
            check(&acl, user, "c", Publish, "devices/d/x", false);
        }
    }

    #[test]
    fn a_subscription_must_be_covered_entirely() {
        let acl = acl("topic read a/+/c\ntopic read b/#\n");
        for (filter, expected) in [
            ("a/b/c", true),
            ("a/+/c", true),
            ("a/#", false),
            ("a/+/+", false),
            ("+/b/c", false),
            ("#", false),
            ("b", true),
            ("b/#", true),
            ("b/+/x", true),
            ("+/#", false),
            ("a/b", false),
            ("a/b/c/d", false),
        ] {
            check(&acl, None, "c", Subscribe, filter, expected);
        }
    }

    #[test]
    fn deny_wins_and_forbids_subscriptions_that_could_see_it() {
        let acl = acl("topic readwrite #\ntopic deny secret/#\ntopic deny a/+/key\n");
        for (filter, expected) in [
            ("news", true),
            ("secret", false),
            ("secret/x", false),
            ("#", false),
            ("+", false),
            ("+/x", false),
            ("a/b/key", false),
            ("a/b/lock", true),
            ("a/b/#", false),
            ("a/+", true),
            ("news/#", true),
            ("$SYS/#", false),
        ] {
            check(&acl, None, "c", Subscribe, filter, expected);
        }
        check(&acl, None, "c", Publish, "secret", false);
        check(&acl, None, "c", Publish, "news", true);
    }

    #[test]
    fn topics_of_the_server_need_a_rule_that_names_them() {
        let acl = acl("topic read #\ntopic read +/x\ntopic read $SYS/broker/#\n");
        check(&acl, None, "c", Subscribe, "$SYS/#", false);
        check(&acl, None, "c", Subscribe, "$SYS/x", false);
        check(&acl, None, "c", Subscribe, "$SYS/broker/uptime", true);
        check(&acl, None, "c", Subscribe, "#", true);
    }

    #[test]
    fn client_ids_and_user_names_never_widen_a_rule() {
        let acl =
            acl("pattern readwrite d/%c/x\npattern readwrite u/%u/#\npattern readwrite %c/own\n");
        for id in ["+", "#", "a/b", "a+", "", "a\0"] {
            for topic in ["d/+/x", "d/a/x", "d/#", "d/a/b/x", "d/a+/x", "d//x"] {
                check(&acl, Some("ann"), id, Subscribe, topic, false);
            }
            check(&acl, Some(id), "c", Subscribe, "u/a/b", false);
            check(&acl, Some(id), "c", Subscribe, "u/#", false);
        }
        check(&acl, None, "c", Subscribe, "u/ann/x", false);
        check(&acl, Some("ann"), "c", Subscribe, "u/ann/x", true);
        check(&acl, Some("ann"), "$SYS", Subscribe, "$SYS/own", false);
        check(&acl, Some("ann"), "c", Subscribe, "c/own", true);
    }

    #[test]
    fn client_ids_never_slip_out_of_what_is_denied() {
        let acl = acl("topic readwrite #\npattern deny d/%c/x\npattern deny u/%u/x\n");
        check(&acl, None, "a", Publish, "d/a/x", false);
        check(&acl, None, "a", Publish, "d/b/x", true);
        check(&acl, None, "a", Subscribe, "d/+/x", false);
        check(&acl, None, "a", Subscribe, "u/ann/x", true);
        check(&acl, None, "a/b", Publish, "d/a/b/x", false);
        check(&acl, None, "a/b", Publish, "e/x", true);
    }

    #[test]
    fn placeholders_may_be_parts_of_a_level() {
        let acl = acl("pattern write in/dev-%c-%u!/x\n");
        check(&acl, Some("ann"), "7", Publish, "in/dev-7-ann!/x", true);
        check(&acl, Some("ann"), "7", Publish, "in/dev-7-ann/x", false);
        check(&acl, Some("ann"), "8", Publish, "in/dev-7-ann!/x", false);
    }

    #[test]
    fn a_rule_without_access_is_for_both_and_topics_may_contain_spaces() {
        let acl = acl("topic my own topic\ntopic read  read me\n");
        check(&acl, None, "c", Publish, "my own topic", true);
        check(&acl, None, "c", Subscribe, "read me", true);
        check(&acl, None, "c", Publish, "read me", false);
    }

    #[test]
    fn an_empty_file_forbids_everything() {
        check(&acl("# nothing\n"), None, "c", Publish, "a", false);
    }

    #[test]
    fn all_wrong_lines_are_reported() {
        let problems = Acl::parse("topic\nuser\ntopic read\nacl x\ntopic a/#/b\ntopic d/%c\ntopic $share/g/a\n\n# fine\ntopic ok\n").unwrap_err();
        let lines: Vec<_> = problems.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(
            problems[4].1,
            "topic filter \"a/#/b\": \"#\" must be the last level [MQTT-4.7.1-1]"
        );
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "+", "$s", ""]);
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "$s", ""]), 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a name", |name| !name.is_empty())
    }

    proptest! {
        #[test]
        fn covering_and_overlapping_agree_with_matching(rule in filter(), filter in filter(), name in name()) {
            prop_assume!(!rule.is_empty() && !filter.is_empty());
            let levels: Vec<Level> = rule.split('/').map(Level::parse).collect();
            let who = Who { username: None, client_id: "c" };
            if matches(&filter, &name) {
                if covers(&levels, &filter, who) {
                    prop_assert!(matches(&rule, &name), "{rule} covers {filter} but not {name}");
                }
                if matches(&rule, &name) {
                    prop_assert!(overlaps(&levels, &filter, who), "{rule} and {filter} share {name}");
                }
            }
            prop_assert_eq!(covers(&levels, &name, who), matches(&rule, &name));
            prop_assert_eq!(overlaps(&levels, &name, who), matches(&rule, &name));
        }

        #[test]
        fn no_file_makes_it_panic(text in "((topic|user|pattern)? ?(read|deny)? ?[a-z%cu/+#$\\PC]{0,12}\n){0,5}") {
            if let Ok(acl) = Acl::parse(&text) {
                acl.allows(Subscribe, Some("u"), "c", "a/+");
            }
        }
    }
}
