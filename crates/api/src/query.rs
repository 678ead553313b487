//! Parameters of a query, strictly: what is misspelt is refused, not ignored.

use std::{fmt::Display, str::FromStr};

use crate::problem::{Code, Problem};

/// Reads `name=value&..` with percent-encoding. Each name is one of `known` and occurs once.
pub(crate) fn parse<'k>(text: &str, known: &[&'k str]) -> Result<Vec<(&'k str, String)>, Problem> {
    let mut pairs: Vec<(&'k str, String)> = Vec::new();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let Some(name) = known.iter().copied().find(|known| *known == name) else {
            let known = known.join(", ");
            return Err(wrong(
                name,
                format_args!("there is no such parameter; there are: {known}"),
            ));
        };
        if pairs.iter().any(|(earlier, _)| *earlier == name) {
            return Err(wrong(name, "it occurs twice"));
        }
        let value = decode(value)
            .ok_or_else(|| wrong(name, "the value is not UTF-8 with percent-encoding"))?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Which part of a list is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Paging {
    /// From the first after this one.
    pub after: Option<String>,
    /// At most this many.
    pub limit: usize,
}

/// Parameters and their values, in the order in which they were given.
pub(crate) type Given<'k> = Vec<(&'k str, String)>;

impl Paging {
    /// The id that the page begins after.
    pub(crate) fn after_id<T>(&self) -> Result<Option<T>, Problem>
    where
        T: FromStr<Err: Display>,
    {
        let after = self.after.as_deref().map(str::parse);
        after.transpose().map_err(|bad| wrong("after", bad))
    }

    /// Entries of a page, unless the caller says how many.
    pub const USUAL: usize = 100;
    /// Most entries of a page.
    pub const MOST: usize = 1000;

    /// Reads `limit` and `after`.
    pub(crate) fn parse(text: Option<&str>) -> Result<Paging, Problem> {
        Ok(Paging::with(text, "")?.0)
    }

    /// Reads `limit` and `after`, and one more parameter.
    pub(crate) fn with(
        text: Option<&str>,
        more: &str,
    ) -> Result<(Paging, Option<String>), Problem> {
        let more = match more {
            "" => &[][..],
            _ => &[more],
        };
        let (paging, given) = Paging::with_all(text, more)?;
        Ok((paging, given.into_iter().next().map(|(_, value)| value)))
    }

    /// Reads `limit` and `after`, and more parameters, in the order in which they are given.
    pub(crate) fn with_all<'k>(
        text: Option<&str>,
        more: &[&'k str],
    ) -> Result<(Paging, Given<'k>), Problem> {
        let mut paging = Paging {
            after: None,
            limit: Paging::USUAL,
        };
        let mut known = vec!["limit", "after"];
        known.extend_from_slice(more);
        let mut given = parse(text.unwrap_or_default(), &known)?;
        for (name, value) in &mut given {
            match *name {
                "limit" => paging.limit = limit(value, Paging::MOST)?,
                "after" => paging.after = Some(std::mem::take(value)),
                _ => {}
            }
        }
        given.retain(|(name, _)| more.contains(name));
        Ok((paging, given))
    }
}

/// A parameter that is not as it should be.
pub(crate) fn wrong(name: &str, rule: impl Display) -> Problem {
    Problem::new(
        Code::InvalidParameter,
        format!("query parameter {name:?}: {rule}"),
    )
}

/// How many items a page may have: 1 to `most`.
fn limit(value: &str, most: usize) -> Result<usize, Problem> {
    let limit = value
        .parse()
        .ok()
        .filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| {
        wrong(
            "limit",
            format_args!("{value:?} is no whole number from 1 to {most}"),
        )
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_one_to_a_thousand_entries() {
        let paging = |after: Option<&str>, limit| Paging {
            after: after.map(str::to_owned),
            limit,
        };
        assert_eq!(Paging::parse(None).unwrap(), paging(None, 100));
        assert_eq!(
            Paging::with(Some("limit=7&filter=vip&after=d%201"), "filter").unwrap(),
            (paging(Some("d 1"), 7), Some("vip".into()))
        );
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=", "filter=vip"] {
            assert!(Paging::parse(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_strangers_are_refused() {
        let parsed = parse("app=shop&device=a%2Fb+%C3%A9", &["app", "device"]).unwrap();
        assert_eq!(
            parsed,
            [("app", "shop".to_owned()), ("device", "a/b é".to_owned())]
        );
        assert_eq!(parse("", &["app"]).unwrap(), []);
        for bad in [
            "ap=1",
            "app=1&app=2",
            "app=%",
            "app=%zz",
            "app=%ff",
            "app=%+1",
        ] {
            let problem = parse(bad, &["app"]).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidParameter, "{bad}");
        }
    }
}
