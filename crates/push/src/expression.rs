//! The audience language: which devices, by what is known of them.
//!
//! ```text
//! (vip || beta) && !muted && platform == "ios" && app_version >= "3.2"
//! ```
//!
//! `docs/audiences.md` defines it. Start at [`Expression::parse`]; `Display` writes the one canonical text of an expression, which parses
//! back to an equal one and is what the push log keeps.

use std::sync::Arc;

use crate::device::{Fact, Facts, Number, Value, Version};

mod fault;
mod lexer;
mod parser;
mod read;
mod write;

pub use fault::{Fault, SyntaxError};
pub use read::ReadOnce;

/// Bytes of an expression as it is asked for: a page of text, more than anybody reads.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Bytes of the canonical text: each entry of the push log carries one, and each node reads it.
pub const MAX_CANONICAL_BYTES: usize = 16 * 1024;
/// Tests and values in lists together: all may be looked at for each device and push.
pub const MAX_TESTS: usize = 256;
/// Negations and parentheses within each other, in the canonical text.
pub const MAX_DEPTH: usize = 32;

/// A checked expression, within all bounds above. Clones share the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    term: Arc<Term>,
}

/// The tree. `all_of`, `any_of` and `not` build it in normal form: no list in a list of its kind, none of a single term, no double negation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// All of two or more, none of which is `All`.
    All(Vec<Term>),
    /// Any of two or more, none of which is `Any`.
    Any(Vec<Term>),
    /// Not this one, which is not `Not`.
    Not(Box<Term>),
    /// A look at one fact.
    Test(Test),
}

/// A look at one fact. A fact that is not known passes no test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) fact: Fact,
    pub(crate) check: Check,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// It is known; a tag is there.
    Known,
    /// It is one of these, 1 or more different ones.
    OneOf(Vec<Value>),
    /// It compares so with a number.
    Number(Order, Number),
    /// It compares so with a version.
    Version(Order, Version),
}

/// An order of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Expression {
    /// Reads and checks an expression of at most [`MAX_TEXT_BYTES`].
    pub fn parse(text: &str) -> Result<Expression, SyntaxError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(SyntaxError::at_start(Fault::TooLong {
                bytes: text.len(),
                most: MAX_TEXT_BYTES,
            }));
        }
        Expression::parse_canonical(text)
    }

    /// Reads what `Display` wrote, which may be longer than what may be asked for.
    pub fn parse_canonical(text: &str) -> Result<Expression, SyntaxError> {
        // Nodes do this for each push that a device has missed: what is canonical need not be written again to see how long it is.
        Expression::within_bounds(parser::parse(text)?, |_| text.len())
    }

    /// The devices with a topic.
    pub fn topic(topic: &str) -> Expression {
        Expression {
            term: Term::topic(topic).into(),
        }
    }

    /// The devices that all of these are for, 1 or more: a segment and an expression, say.
    pub fn all_of(
        expressions: impl IntoIterator<Item = Expression>,
    ) -> Result<Expression, SyntaxError> {
        Expression::of(Term::all_of(
            expressions
                .into_iter()
                .map(|expression| Arc::unwrap_or_clone(expression.term))
                .collect(),
        ))
    }

    /// Takes a tree that keeps the bounds.
    pub(crate) fn of(term: Term) -> Result<Expression, SyntaxError> {
        Expression::within_bounds(term, |expression| expression.to_string().len())
    }

    fn within_bounds(
        term: Term,
        bytes: impl FnOnce(&Expression) -> usize,
    ) -> Result<Expression, SyntaxError> {
        let fault = |fault| Err(SyntaxError::at_start(fault));
        let tests = term.tests();
        if tests > MAX_TESTS {
            return fault(Fault::TooManyTests { tests });
        }
        if term.depth() > MAX_DEPTH {
            return fault(Fault::TooDeep);
        }
        let expression = Expression { term: term.into() };
        let bytes = bytes(&expression);
        if bytes > MAX_CANONICAL_BYTES {
            return fault(Fault::TooLong {
                bytes,
                most: MAX_CANONICAL_BYTES,
            });
        }
        Ok(expression)
    }

    pub(crate) fn term(&self) -> &Term {
        &self.term
    }

    /// Whether a device of which this is known is in the audience.
    pub fn matches(&self, facts: Facts<'_>) -> bool {
        self.term.holds(facts)
    }

    /// The facts that it looks at, some perhaps more than once.
    pub fn facts(&self) -> Vec<&Fact> {
        let mut facts = Vec::new();
        self.term.each_test(&mut |test| facts.push(&test.fact));
        facts
    }
}

impl Term {
    pub(crate) fn tag(tag: &str) -> Term {
        Term::known(Fact::Tag(tag.into()))
    }

    pub(crate) fn topic(topic: &str) -> Term {
        Term::known(Fact::Topic(topic.into()))
    }

    pub(crate) fn known(fact: Fact) -> Term {
        Term::Test(Test {
            fact,
            check: Check::Known,
        })
    }

    /// Terms of 1 or more.
    pub(crate) fn all_of(terms: Vec<Term>) -> Term {
        let is_nested = terms.iter().any(|term| matches!(term, Term::All(_)));
        let flat = match is_nested {
            false => terms,
            true => terms
                .into_iter()
                .flat_map(|term| match term {
                    Term::All(inner) => inner,
                    other => vec![other],
                })
                .collect(),
        };
        single(flat).unwrap_or_else(Term::All)
    }

    /// Terms of 1 or more.
    pub(crate) fn any_of(terms: Vec<Term>) -> Term {
        let is_nested = terms.iter().any(|term| matches!(term, Term::Any(_)));
        let flat = match is_nested {
            false => terms,
            true => terms
                .into_iter()
                .flat_map(|term| match term {
                    Term::Any(inner) => inner,
                    other => vec![other],
                })
                .collect(),
        };
        single(flat).unwrap_or_else(Term::Any)
    }

    /// The opposite.
    pub(crate) fn negated(self) -> Term {
        match self {
            Term::Not(inner) => *inner,
            other => Term::Not(Box::new(other)),
        }
    }

    fn holds(&self, facts: Facts<'_>) -> bool {
        match self {
            Term::All(terms) => terms.iter().all(|term| term.holds(facts)),
            Term::Any(terms) => terms.iter().any(|term| term.holds(facts)),
            Term::Not(term) => !term.holds(facts),
            Term::Test(test) => facts
                .value(&test.fact)
                .is_some_and(|value| test.accepts(value)),
        }
    }

    fn each_test<'t>(&'t self, see: &mut impl FnMut(&'t Test)) {
        match self {
            Term::All(terms) | Term::Any(terms) => {
                terms.iter().for_each(|term| term.each_test(see));
            }
            Term::Not(term) => term.each_test(see),
            Term::Test(test) => see(test),
        }
    }

    fn tests(&self) -> usize {
        let mut count = 0;
        self.each_test(&mut |test| {
            count += match &test.check {
                Check::OneOf(values) => values.len(),
                _ => 1,
            };
        });
        count
    }

    /// Negations and parentheses around the innermost test. It may count a few that the text does without.
    fn depth(&self) -> usize {
        let deepest = |terms: &[Term]| terms.iter().map(Term::depth).max().unwrap_or(0);
        match self {
            Term::All(terms) | Term::Any(terms) => 1 + deepest(terms),
            Term::Not(term) => 1 + term.depth(),
            Term::Test(_) => 0,
        }
    }
}

/// The only one, or all.
fn single(mut terms: Vec<Term>) -> Result<Term, Vec<Term>> {
    match terms.len() {
        1 => Ok(terms.remove(0)),
        _ => Err(terms),
    }
}

impl Test {
    /// Whether the fact passes if this is what it says.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        match (&self.check, value) {
            (Check::Known, _) => true,
            (Check::OneOf(values), value) => values.iter().any(|wanted| self.equals(wanted, value)),
            (Check::Number(order, bound), Value::Number(number)) => order.admits(number, bound),
            (Check::Version(order, bound), Value::Text(text)) => {
                Version::reported(text).is_some_and(|version| order.admits(&version, bound))
            }
            (Check::Number(..) | Check::Version(..), _) => false,
        }
    }

    /// Whether a value is accepted only if it is the one in the expression.
    pub(crate) fn is_literal(&self) -> bool {
        !matches!(self.fact, Fact::AppVersion | Fact::Language)
    }

    fn equals(&self, wanted: &Value, value: &Value) -> bool {
        match (&self.fact, wanted, value) {
            (Fact::AppVersion, Value::Text(wanted), Value::Text(text)) => {
                match Version::exact(wanted) {
                    Some(version) => Version::reported(text) == Some(version),
                    None => wanted == text,
                }
            }
            (Fact::Language, Value::Text(wanted), Value::Text(text)) => is_within(text, wanted),
            _ => wanted == value,
        }
    }
}

/// Whether a language is the range or more special than it: basic filtering of RFC 4647 section 3.3.1.
fn is_within(language: &Arc<str>, range: &Arc<str>) -> bool {
    let (language, range) = (language.as_bytes(), range.as_bytes());
    language.len() >= range.len()
        && language[..range.len()].eq_ignore_ascii_case(range)
        && matches!(language.get(range.len()), None | Some(b'-'))
}

impl Order {
    pub(crate) fn admits<T: Ord>(self, value: &T, bound: &T) -> bool {
        match self {
            Order::Less => value < bound,
            Order::AtMost => value <= bound,
            Order::Greater => value > bound,
            Order::AtLeast => value >= bound,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
