//! A tree to its canonical text.

use std::fmt::{self, Write};

use super::{Check, Expression, Order, Term, Test, lexer};
use crate::device::{Fact, Number, Value};

impl fmt::Display for Expression {
    /// The canonical text: equal expressions have the same, and it parses back to an equal one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.term.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Any(terms) => joined(f, terms, " || "),
            Term::All(terms) => joined(f, terms, " && "),
            Term::Not(term) => match &**term {
                Term::Test(test) => test.write(f, true),
                other => write!(f, "!({other})"),
            },
            Term::Test(test) => test.write(f, false),
        }
    }
}

/// `&&` binds tighter than `||`, but readers are not made to know it.
fn joined(f: &mut fmt::Formatter<'_>, terms: &[Term], operator: &str) -> fmt::Result {
    for (index, term) in terms.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        match term {
            Term::Any(_) | Term::All(_) => write!(f, "({term})")?,
            other => write!(f, "{other}")?,
        }
    }
    Ok(())
}

impl Test {
    fn write(&self, f: &mut fmt::Formatter<'_>, negated: bool) -> fmt::Result {
        let fact = &self.fact;
        let not = if negated { "!" } else { "" };
        match &self.check {
            Check::Known if matches!(fact, Fact::Tag(_) | Fact::Topic(_)) => {
                write!(f, "{not}{fact}")
            }
            Check::Known => write!(f, "{not}has({fact})"),
            Check::OneOf(values) => match &values[..] {
                [value] if negated => write!(f, "{fact} != {value}"),
                [value] => write!(f, "{fact} == {value}"),
                values => {
                    let not = if negated { "not " } else { "" };
                    write!(f, "{fact} {not}in [")?;
                    for (index, value) in values.iter().enumerate() {
                        f.write_str(if index > 0 { ", " } else { "" })?;
                        write!(f, "{value}")?;
                    }
                    f.write_str("]")
                }
            },
            Check::Number(order, bound) if negated => write!(f, "!({fact} {order} {bound})"),
            Check::Number(order, bound) => write!(f, "{fact} {order} {bound}"),
            Check::Version(order, bound) if negated => write!(f, "!({fact} {order} \"{bound}\")"),
            Check::Version(order, bound) => write!(f, "{fact} {order} \"{bound}\""),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Attribute(name) => write!(f, "attr.{name}"),
            Fact::Tag(name) if lexer::is_bare(name) => f.write_str(name),
            Fact::Tag(name) => {
                f.write_str("tag:")?;
                quoted(f, name)
            }
            Fact::Topic(name) => {
                f.write_str("topic:")?;
                quoted(f, name)
            }
            built_in => {
                let mut names = Fact::BUILT_IN.iter();
                let found = names.find(|(_, fact)| fact == built_in);
                f.write_str(found.map_or("", |(name, _)| name))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Text(text) => quoted(f, text),
        }
    }
}

impl fmt::Display for Number {
    /// The shortest text that reads back to the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value() {
            tiny if tiny != 0.0 && tiny.abs() < 1e-6 => write!(f, "{tiny:e}"),
            value => write!(f, "{value}"),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Order::Less => "<",
            Order::AtMost => "<=",
            Order::Greater => ">",
            Order::AtLeast => ">=",
        })
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}
