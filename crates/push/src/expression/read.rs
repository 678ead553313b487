//! Expressions that were read before: pushes of one kind have the same text.

use std::collections::HashMap;

use super::{Expression, SyntaxError};

/// Texts that are remembered; past it, all are forgotten.
const REMEMBERED: usize = 4096;

/// Reads expressions, each text once. At most 4,096 are remembered, of at most 16 KiB.
#[derive(Debug, Default)]
pub struct ReadOnce(HashMap<Box<str>, Expression>);

impl ReadOnce {
    /// As [`Expression::parse_canonical`].
    pub fn read(&mut self, canonical: &str) -> Result<Expression, SyntaxError> {
        if let Some(read) = self.0.get(canonical) {
            return Ok(read.clone());
        }
        let expression = Expression::parse_canonical(canonical)?;
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(canonical.into(), expression.clone());
        Ok(expression)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_same_text_is_the_same_tree() {
        let mut read = ReadOnce::default();
        let first = read.read("a && b").unwrap();
        assert_eq!(first, Expression::parse("a && b").unwrap());
        assert!(Arc::ptr_eq(&first.term, &read.read("a && b").unwrap().term));
        assert!(!Arc::ptr_eq(
            &first.term,
            &read.read("a && c").unwrap().term
        ));
        assert!(read.read("a &&& b").is_err());
        assert!(
            read.read("a &&& b").is_err(),
            "what is wrong is not remembered"
        );
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let mut read = ReadOnce::default();
        for tag in 0..=REMEMBERED {
            let text = format!("tag_{tag}");
            assert_eq!(read.read(&text), Expression::parse(&text));
            assert!(read.0.len() <= REMEMBERED);
        }
        assert_eq!(read.read("tag_0"), Expression::parse("tag_0"));
    }
}
