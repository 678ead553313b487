//! Reads raw values into settings, key by key, and remembers everything that is wrong.
//!
//! A section names each of its keys once, in one function; that function is at the same time the list of known keys.

use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, time::Duration};

use super::{
    Secret,
    problem::{Origin, Problem, nearest},
    tree::{Entry, Table, Value},
    units::{parse_bytes, parse_duration, show_bytes, show_duration},
};

/// What reading found out beside the values.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Where keys were set, by full path. Keys left at their default are absent.
    pub origins: BTreeMap<String, Origin>,
    /// All keys that exist, by full path, with `[]` for an index.
    pub known: Vec<String>,
    /// Keys that exist and were not set.
    pub unset: Vec<String>,
    unknown: Vec<(String, Origin)>,
}

impl Findings {
    /// Turns unknown keys into problems, now that all known ones are known.
    pub fn name_unknown_keys(&mut self) {
        for (path, origin) in std::mem::take(&mut self.unknown) {
            let message = suggestion(&path, &self.known);
            self.problems.push(Problem {
                key: path,
                origin,
                message,
            });
        }
    }
}

fn suggestion(path: &str, known: &[String]) -> String {
    let plain = without_indices(path);
    let (parent, name) = plain.rsplit_once('.').unwrap_or(("", &plain));
    let siblings = known.iter().filter_map(|key| {
        let (other, name) = key.rsplit_once('.').unwrap_or(("", key));
        (other == parent).then_some(name)
    });
    if let Some(near) = nearest(name, siblings) {
        return format!("unknown key; did you mean \"{near}\"?");
    }
    let elsewhere = known.iter().find(|key| {
        key.rsplit_once('.')
            .is_some_and(|(other, last)| other != parent && last == name)
    });
    match elsewhere {
        Some(key) => format!("unknown key here; did you mean \"{key}\"?"),
        None => "unknown key; \"campanile check-config --print-defaults\" shows all".to_owned(),
    }
}

fn without_indices(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            ']' => inside = false,
            _ if inside => continue,
            '[' => inside = true,
            _ => {}
        }
        plain.push(c);
    }
    plain
}

/// Reads one table.
pub struct Reader<'a> {
    path: String,
    table: Table,
    findings: &'a mut Findings,
}

impl<'a> Reader<'a> {
    /// A reader of the whole configuration.
    pub fn root(table: Table, findings: &'a mut Findings) -> Reader<'a> {
        Reader {
            path: String::new(),
            table,
            findings,
        }
    }

    /// Reads the table of that name, which may be absent.
    pub fn section(&mut self, name: &str, read: impl FnOnce(&mut Reader<'_>)) {
        let path = self.path_of(name);
        self.findings.known.push(without_indices(&path));
        let table = match self.table.remove(name) {
            None => Table::new(),
            Some(Entry {
                value: Value::Table(table),
                ..
            }) => table,
            Some(entry) => {
                self.wrong(
                    &path,
                    &entry,
                    &format!(
                        "a table is expected, found {}: write [{path}]",
                        entry.value.kind()
                    ),
                );
                return;
            }
        };
        let mut inner = Reader {
            path,
            table,
            findings: self.findings,
        };
        read(&mut inner);
        inner.finish();
    }

    /// Reads a list of tables. Without one, `target` stays; with one, each element is read over `T::default()`.
    pub fn sections<T: Default>(
        &mut self,
        name: &str,
        target: &mut Vec<T>,
        read: impl Fn(&mut T, &mut Reader<'_>),
    ) {
        let path = self.path_of(name);
        self.findings.known.push(without_indices(&path));
        let list = match self.table.remove(name) {
            Some(Entry {
                value: Value::List(list),
                ..
            }) => list,
            other => {
                if let Some(entry) = other {
                    self.wrong(
                        &path,
                        &entry,
                        &format!(
                            "a list of tables is expected, found {}: write [[{path}]]",
                            entry.value.kind()
                        ),
                    );
                }
                // Nothing set: still learn the keys.
                let mut unused = Findings::default();
                read(
                    &mut T::default(),
                    &mut Reader {
                        path: format!("{path}[]"),
                        table: Table::new(),
                        findings: &mut unused,
                    },
                );
                self.findings.known.append(&mut unused.known);
                self.findings.unset.append(&mut unused.unset);
                return;
            }
        };
        target.clear();
        for (index, entry) in list.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.findings
                .origins
                .insert(path.clone(), entry.origin.clone());
            let mut item = T::default();
            if let Value::Table(table) = entry.value {
                let mut inner = Reader {
                    path,
                    table,
                    findings: self.findings,
                };
                read(&mut item, &mut inner);
                inner.finish();
            } else {
                self.wrong(
                    &path,
                    &entry,
                    &format!("a table is expected, found {}", entry.value.kind()),
                );
            }
            target.push(item);
        }
    }

    /// Reads a string that passes `check`.
    pub fn text(
        &mut self,
        key: &str,
        target: &mut String,
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        self.value(key, target, |value| match value {
            Value::Text(text) => check(text).map(|()| text.clone()),
            other => Err(format!("a string is expected, found {}", other.kind())),
        });
    }

    /// Reads a password that passes `check`, whose messages must not show it.
    pub fn secret(
        &mut self,
        key: &str,
        target: &mut Secret,
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        self.value(key, target, |value| match value {
            Value::Text(text) => check(text).map(|()| text.clone().into()),
            other => Err(format!("a string is expected, found {}", other.kind())),
        });
    }

    /// Reads a list of strings that each pass `check`; from the environment one string, with commas between them.
    pub fn texts(
        &mut self,
        key: &str,
        target: &mut Vec<String>,
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        let mut mistakes = Vec::new();
        let path = self.path_of(key);
        self.value(key, target, |value| {
            let texts = strings_of(value)?;
            for (index, text) in texts.iter().enumerate() {
                if let Err(message) = check(text) {
                    mistakes.push((format!("{path}[{index}]"), message));
                }
            }
            Ok(texts)
        });
        for (element, message) in mistakes {
            let origin = self.findings.origins.get(&path).cloned();
            self.findings.problems.push(Problem {
                key: element,
                origin: origin.unwrap_or(Origin::Default),
                message,
            });
        }
    }

    /// Reads a path; "" is none.
    pub fn path(&mut self, key: &str, target: &mut Option<std::path::PathBuf>) {
        self.value(key, target, |value| match value {
            Value::Text(text) if text.is_empty() => Ok(None),
            Value::Text(text) if text.contains('\0') => {
                Err("a path cannot contain a NUL".to_owned())
            }
            Value::Text(text) => Ok(Some(text.into())),
            other => Err(format!("a path is expected, found {}", other.kind())),
        });
    }

    /// Reads an address with a port, such as `127.0.0.1:1883` or `[::]:1883`.
    pub fn address(&mut self, key: &str, target: &mut SocketAddr) {
        self.value(key, target, |value| match value {
            Value::Text(text) => parse_address(text),
            other => Err(format!(
                "an address such as \"127.0.0.1:1883\" is expected, found {}",
                other.kind()
            )),
        });
    }

    /// Reads an address with a port; "" is none.
    pub fn address_or_none(&mut self, key: &str, target: &mut Option<SocketAddr>) {
        self.value(key, target, |value| match value {
            Value::Text(text) if text.is_empty() => Ok(None),
            Value::Text(text) => parse_address(text).map(Some),
            other => Err(format!(
                "an address such as \"10.0.0.1:7883\" is expected, found {}",
                other.kind()
            )),
        });
    }

    /// Reads a truth value.
    pub fn boolean(&mut self, key: &str, target: &mut bool) {
        self.value(key, target, |value| match value {
            Value::Boolean(boolean) => Ok(*boolean),
            Value::Text(text) if text == "true" => Ok(true),
            Value::Text(text) if text == "false" => Ok(false),
            Value::Text(text) => Err(format!("{text:?} is neither true nor false")),
            other => Err(format!("true or false is expected, found {}", other.kind())),
        });
    }

    /// Reads a whole number within a range.
    pub fn integer<T: Number>(&mut self, key: &str, target: &mut T, range: RangeInclusive<T>) {
        self.value(key, target, |value| {
            let number = match value {
                Value::Integer(integer) => u64::try_from(*integer)
                    .map_err(|_| format!("{integer} is below {}", range.start().as_u64()))?,
                Value::Text(text) => text
                    .replace('_', "")
                    .parse()
                    .map_err(|_| format!("{text:?} is not a whole number"))?,
                other => {
                    return Err(format!(
                        "a whole number is expected, found {}",
                        other.kind()
                    ));
                }
            };
            within(number, &range, |number| number.to_string())
        });
    }

    /// Reads a size in bytes within a range: an integer, or a string with a unit.
    pub fn bytes<T: Number>(&mut self, key: &str, target: &mut T, range: RangeInclusive<T>) {
        self.value(key, target, |value| {
            let bytes = match value {
                Value::Integer(integer) => u64::try_from(*integer).map_err(|_| {
                    format!("{integer} is below {}", show_bytes(range.start().as_u64()))
                })?,
                Value::Text(text) => parse_bytes(text)?,
                other => {
                    return Err(format!(
                        "a size such as \"1 MiB\" is expected, found {}",
                        other.kind()
                    ));
                }
            };
            within(bytes, &range, show_bytes)
        });
    }

    /// Reads a duration within a range.
    pub fn duration(&mut self, key: &str, target: &mut Duration, range: RangeInclusive<Duration>) {
        self.value(key, target, |value| {
            let duration = duration_of(value)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            Err(format!(
                "{} is not within {} and {}",
                show_duration(duration),
                show_duration(*range.start()),
                show_duration(*range.end())
            ))
        });
    }

    /// Reads a duration into whole seconds within a range.
    pub fn seconds<T: Number>(&mut self, key: &str, target: &mut T, range: RangeInclusive<T>) {
        self.value(key, target, |value| seconds_of(value, &range));
    }

    /// Like [`Reader::seconds`]; the word `unlimited` stands for the largest number of the type.
    pub fn seconds_or_unlimited(&mut self, key: &str, target: &mut u32) {
        self.value(key, target, |value| match value {
            Value::Text(text) if text == "unlimited" => Ok(u32::MAX),
            value => seconds_of(value, &(0..=u32::MAX - 1))
                .map_err(|error| format!("{error}, or \"unlimited\"")),
        });
    }

    /// Reads one of several words.
    pub fn choice<T: Copy>(&mut self, key: &str, target: &mut T, choices: &[(&'static str, T)]) {
        let names = || {
            choices
                .iter()
                .map(|(name, _)| format!("{name:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        self.value(key, target, |value| match value {
            Value::Text(text) => match choices.iter().find(|(name, _)| name == text) {
                Some((_, choice)) => Ok(*choice),
                None => Err(format!("{text:?} is none of {}", names())),
            },
            other => Err(format!(
                "one of {} is expected, found {}",
                names(),
                other.kind()
            )),
        });
    }

    fn value<T>(
        &mut self,
        key: &str,
        target: &mut T,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) {
        let path = self.path_of(key);
        self.findings.known.push(without_indices(&path));
        let Some(entry) = self.table.remove(key) else {
            self.findings.unset.push(path);
            return;
        };
        match read(&entry.value) {
            Ok(value) => *target = value,
            Err(message) => self.wrong(&path, &entry, &message),
        }
        self.findings.origins.insert(path, entry.origin);
    }

    fn wrong(&mut self, path: &str, entry: &Entry, message: &str) {
        self.findings.problems.push(Problem {
            key: path.to_owned(),
            origin: entry.origin.clone(),
            message: message.to_owned(),
        });
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Ends the reading of a table: whatever is left in it is unknown.
    pub fn finish(self) {
        for (key, entry) in self.table {
            let path = if self.path.is_empty() {
                key
            } else {
                format!("{}.{key}", self.path)
            };
            self.findings.unknown.push((path, entry.origin));
        }
    }
}

/// An unsigned number of a setting.
pub trait Number: Copy + PartialOrd {
    /// As the widest of them.
    fn as_u64(self) -> u64;
    /// From the widest of them, if it fits.
    fn from_u64(wide: u64) -> Option<Self>;
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl Number for $type {
            fn as_u64(self) -> u64 {
                self as u64
            }

            fn from_u64(wide: u64) -> Option<Self> {
                wide.try_into().ok()
            }
        }
    )*};
}

number!(u8 u16 u32 u64 usize);

fn within<T: Number>(
    wide: u64,
    range: &RangeInclusive<T>,
    show: impl Fn(u64) -> String,
) -> Result<T, String> {
    T::from_u64(wide)
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "{} is not within {} and {}",
                show(wide),
                show(range.start().as_u64()),
                show(range.end().as_u64())
            )
        })
}

/// Most elements of a list of strings.
const LONGEST_LIST: usize = 256;

fn strings_of(value: &Value) -> Result<Vec<String>, String> {
    let texts: Vec<String> = match value {
        Value::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Text(text) => Ok(text.clone()),
                other => Err(format!(
                    "a list of strings is expected, found {} in it",
                    other.kind()
                )),
            })
            .collect::<Result<_, _>>()?,
        other => {
            return Err(format!(
                "a list of strings is expected, found {}",
                other.kind()
            ));
        }
    };
    if texts.len() > LONGEST_LIST {
        return Err(format!(
            "{} elements are too many: at most {LONGEST_LIST}",
            texts.len()
        ));
    }
    Ok(texts)
}

fn duration_of(value: &Value) -> Result<Duration, String> {
    match value {
        Value::Text(text) => parse_duration(text),
        Value::Integer(integer) => Err(format!(
            "{integer} lacks a unit: write \"{integer}s\" for seconds, in quotes"
        )),
        other => Err(format!(
            "a duration such as \"10s\" is expected, found {}",
            other.kind()
        )),
    }
}

fn seconds_of<T: Number>(value: &Value, range: &RangeInclusive<T>) -> Result<T, String> {
    let duration = duration_of(value)?;
    if duration.subsec_millis() != 0 {
        return Err(format!(
            "{} is not a whole number of seconds",
            show_duration(duration)
        ));
    }
    within(duration.as_secs(), range, |seconds| {
        show_duration(Duration::from_secs(seconds))
    })
}

/// Reads an address with a port.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let way_out = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
        Some(("" | "*", port)) => {
            format!("write \"0.0.0.0:{port}\" or \"[::]:{port}\" for all interfaces")
        }
        _ => "an IP address and a port are expected, such as \"127.0.0.1:1883\" or \"[::1]:1883\""
            .to_owned(),
    };
    Err(format!("{text:?} is not an address: {way_out}"))
}
