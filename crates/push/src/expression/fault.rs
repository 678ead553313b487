//! What is wrong with an expression, and where.

use std::fmt;

use super::{MAX_DEPTH, MAX_TESTS};

/// An expression that cannot be used, and the place of the first mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Bytes before the mistake.
    pub byte: usize,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The mistake.
    pub fault: Fault,
}

/// Mistakes in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something else should be there.
    Unexpected {
        /// What is there, for people.
        found: String,
        /// What may be there, for people.
        expected: Vec<&'static str>,
    },
    /// A name or value that can never be.
    Impossible(String),
    /// Too many bytes.
    TooLong {
        /// How many.
        bytes: usize,
        /// How many are allowed.
        most: usize,
    },
    /// More than [`MAX_TESTS`].
    TooManyTests {
        /// How many.
        tests: usize,
    },
    /// More than [`MAX_DEPTH`].
    TooDeep,
}

impl SyntaxError {
    pub(super) fn at(text: &str, byte: usize, fault: Fault) -> SyntaxError {
        let before = &text[..byte];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        SyntaxError {
            byte,
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
            fault,
        }
    }

    pub(super) fn at_start(fault: Fault) -> SyntaxError {
        SyntaxError::at("", 0, fault)
    }
}

impl std::error::Error for SyntaxError {}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = format_args!("line {}, column {}", self.line, self.column);
        match &self.fault {
            Fault::Unexpected { found, expected } => {
                write!(f, "{place}: found {found}, expected ")?;
                for (index, token) in expected.iter().enumerate() {
                    f.write_str(match index {
                        0 => "",
                        _ if index + 1 == expected.len() => " or ",
                        _ => ", ",
                    })?;
                    f.write_str(token)?;
                }
                Ok(())
            }
            Fault::Impossible(why) => write!(f, "{place}: {why}"),
            Fault::TooLong { bytes, most } => write!(
                f,
                "the expression has {bytes} bytes: at most {most}; tag the devices, or upload a list"
            ),
            Fault::TooManyTests { tests } => write!(
                f,
                "the expression has {tests} tests and listed values: at most {MAX_TESTS}; tag the devices, or upload a list"
            ),
            Fault::TooDeep => write!(
                f,
                "{place}: more than {MAX_DEPTH} negations and parentheses within each other"
            ),
        }
    }
}
