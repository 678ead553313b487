//! Raw values with where they came from: the file's, with the environment laid over it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem};

/// Most elements of a list that the environment may make.
const LONGEST_LIST: usize = 256;
/// First part of the names of environment variables that set a key.
const PREFIX: &str = "CAMPANILE_";

/// A table of values by key.
pub type Table = BTreeMap<String, Entry>;

/// A value and its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Where it was set; of a table, where it begins.
    pub origin: Origin,
}

/// A value that nobody has looked at yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string; from the environment also what stands for another kind.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
    /// A list.
    List(Vec<Entry>),
    /// A table.
    Table(Table),
    /// A number with a fraction, a date: no key wants them.
    Other(&'static str),
}

impl Value {
    /// What it is, with its article, for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

/// Reads TOML. What cannot be read becomes problems; the rest is returned all the same, so that more mistakes are found at once.
pub fn parse_toml(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Table {
    let file = File {
        path: path.into(),
        text,
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let origin = file.origin(error.span().map_or(0, |span| span.start));
        problems.push(Problem {
            key: String::new(),
            origin,
            message: format!("not TOML: {}", error.message()),
        });
    }
    file.table(root.get_ref())
}

struct File<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Origin::File {
            path: self.path.clone(),
            line: 1 + before.iter().filter(|b| **b == b'\n').count(),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entry = |(key, value): (
            &toml::Spanned<std::borrow::Cow<'_, str>>,
            &toml::Spanned<DeValue<'_>>,
        )| {
            (
                key.get_ref().to_string(),
                self.entry(value.get_ref(), key.span().start),
            )
        };
        table.iter().map(entry).collect()
    }

    fn entry(&self, value: &DeValue<'_>, offset: usize) -> Entry {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(integer) => Value::Integer(integer),
                    Err(_) => Value::Other("an integer beyond 64 bits"),
                }
            }
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Array(list) => Value::List(
                list.iter()
                    .map(|item| self.entry(item.get_ref(), item.span().start))
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Entry {
            value,
            origin: self.origin(offset),
        }
    }
}

/// Lays `CAMPANILE_SECTION__KEY` variables over a table; `CAMPANILE_LISTENERS__0__ADDRESS` reaches into a list.
///
/// Variables without a double underscore are left alone: they are not settings (`CAMPANILE_LOG`, and what orchestrators invent).
pub fn overlay_environment(
    root: &mut Table,
    variables: impl IntoIterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
) {
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX).filter(|path| path.contains("__")) else {
            continue;
        };
        let path = path.to_ascii_lowercase();
        let segments: Vec<&str> = path.split("__").collect();
        let origin = Origin::Environment(name.clone());
        if let Err(message) = insert(root, &segments, text, &origin) {
            problems.push(Problem {
                key: segments.join("."),
                origin,
                message,
            });
        }
    }
}

fn insert(table: &mut Table, path: &[&str], text: String, origin: &Origin) -> Result<(), String> {
    let (first, rest) = path.split_first().ok_or("an empty name")?;
    if first.is_empty() {
        return Err("a name between two double underscores is missing".to_owned());
    }
    if rest.is_empty() {
        table.insert(
            (*first).to_owned(),
            Entry {
                value: Value::Text(text),
                origin: origin.clone(),
            },
        );
        return Ok(());
    }
    let is_list = rest[0].bytes().all(|b| b.is_ascii_digit()) && !rest[0].is_empty();
    let empty = if is_list {
        Value::List(Vec::new())
    } else {
        Value::Table(Table::new())
    };
    let entry = table.entry((*first).to_owned()).or_insert(Entry {
        value: empty,
        origin: origin.clone(),
    });
    match &mut entry.value {
        Value::Table(inner) => insert(inner, rest, text, origin),
        Value::List(items) if is_list && rest.len() > 1 => {
            let index = rest[0]
                .parse()
                .ok()
                .filter(|index| *index < LONGEST_LIST)
                .ok_or_else(|| format!("the index is above {}", LONGEST_LIST - 1))?;
            while items.len() <= index {
                items.push(Entry {
                    value: Value::Table(Table::new()),
                    origin: origin.clone(),
                });
            }
            match &mut items[index].value {
                Value::Table(inner) => insert(inner, &rest[1..], text, origin),
                other => Err(format!(
                    "{first}[{index}] is {}, it has no keys",
                    other.kind()
                )),
            }
        }
        Value::List(_) => Err(format!(
            "\"{first}\" is a list: name an element and its key, as in {PREFIX}{}__0__NAME",
            first.to_ascii_uppercase()
        )),
        other => Err(format!("\"{first}\" is {}, it has no keys", other.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn lines_are_those_of_the_keys() {
        let mut problems = Vec::new();
        let table = parse_toml(
            Path::new("c.toml"),
            "# one\n[limits]\n\nmax_inflight = 5\n",
            &mut problems,
        );
        assert_eq!(problems, []);
        let Value::Table(limits) = &table["limits"].value else {
            panic!("a table")
        };
        assert_eq!(
            limits["max_inflight"],
            Entry {
                value: Value::Integer(5),
                origin: Origin::File {
                    path: Path::new("c.toml").into(),
                    line: 4
                }
            }
        );
    }

    #[test]
    fn every_syntax_error_is_reported_and_the_rest_is_kept() {
        let mut problems = Vec::new();
        let table = parse_toml(
            Path::new("c.toml"),
            "[a]\nx = \ny = 1\n[b\nz = 2\n",
            &mut problems,
        );
        assert!(problems.len() >= 2, "{problems:?}");
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| problem.origin.to_string())
            .collect();
        assert!(
            lines.contains(&"c.toml:2".to_owned()) && lines.contains(&"c.toml:4".to_owned()),
            "{lines:?}"
        );
        assert!(table.contains_key("a"));
    }

    #[test]
    fn environment_wins_and_reaches_into_lists() {
        let mut problems = Vec::new();
        let mut table = parse_toml(
            Path::new("c.toml"),
            "[[listeners]]\nname = 'a'\n[log]\nlevel = 'info'\n",
            &mut problems,
        );
        let set = vars(&[
            ("CAMPANILE_LOG__LEVEL", "debug"),
            ("CAMPANILE_LISTENERS__0__ADDRESS", "[::1]:1883"),
            ("CAMPANILE_LISTENERS__1__NAME", "b"),
            ("CAMPANILE_LOG", "ignored"),
            ("CAMPANILE_SERVICE_HOST", "ignored"),
            ("OTHER__THING", "ignored"),
        ]);
        overlay_environment(&mut table, set, &mut problems);
        assert_eq!(problems, []);
        let Value::List(listeners) = &table["listeners"].value else {
            panic!("a list")
        };
        assert_eq!(listeners.len(), 2);
        let Value::Table(log) = &table["log"].value else {
            panic!("a table")
        };
        assert_eq!(log["level"].value, Value::Text("debug".to_owned()));
    }

    #[test]
    fn misdirected_variables_are_problems() {
        for name in [
            "CAMPANILE_LOG__LEVEL__X",
            "CAMPANILE_LISTENERS__NAME",
            "CAMPANILE_LISTENERS__0",
            "CAMPANILE_LISTENERS__9999__NAME",
            "CAMPANILE___LOG",
        ] {
            let mut problems = Vec::new();
            let mut table = parse_toml(
                Path::new("c.toml"),
                "[[listeners]]\n[log]\nlevel = 'info'\n",
                &mut problems,
            );
            overlay_environment(&mut table, vars(&[(name, "x")]), &mut problems);
            assert_eq!(problems.len(), 1, "{name}");
            assert_eq!(problems[0].origin, Origin::Environment(name.to_owned()));
        }
    }
}
