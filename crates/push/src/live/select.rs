//! Evaluation of an expression over sets instead of devices.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::LiveIndex;
use crate::expression::{Check, Expression, Term, Test};

impl LiveIndex {
    /// The slots of the devices that match now.
    pub(super) fn matching(&self, expression: &Expression) -> Cow<'_, RoaringBitmap> {
        self.term(expression.term())
    }

    fn term(&self, term: &Term) -> Cow<'_, RoaringBitmap> {
        match term {
            Term::All(terms) => self.all(terms),
            Term::Any(terms) => {
                let mut union: Cow<'_, RoaringBitmap> = Cow::default();
                for term in terms {
                    let slots = self.term(term);
                    match union.is_empty() {
                        true => union = slots,
                        false => *union.to_mut() |= &*slots,
                    }
                }
                union
            }
            Term::Not(term) => Cow::Owned(&self.live - &*self.term(term)),
            Term::Test(test) => self.test(test),
        }
    }

    /// What is left when each term has taken its part.
    fn all(&self, terms: &[Term]) -> Cow<'_, RoaringBitmap> {
        let mut left: Option<Cow<'_, RoaringBitmap>> = None;
        for term in terms {
            left = Some(match (left, term) {
                (Some(left), _) if left.is_empty() => return left,
                (Some(mut left), Term::Not(term)) => {
                    *left.to_mut() -= &*self.term(term);
                    left
                }
                (Some(mut left), term) => {
                    *left.to_mut() &= &*self.term(term);
                    left
                }
                (None, term) => self.term(term),
            });
        }
        left.unwrap_or(Cow::Borrowed(&self.live))
    }

    fn test(&self, test: &Test) -> Cow<'_, RoaringBitmap> {
        let Some(dictionary) = self.facts.get(&test.fact) else {
            return Cow::Owned(RoaringBitmap::new());
        };
        match &test.check {
            Check::Known => Cow::Borrowed(dictionary.known()),
            Check::OneOf(values) if test.is_literal() => dictionary.with(values),
            Check::Number(order, bound) => Cow::Owned(dictionary.with_number(*order, *bound)),
            Check::OneOf(_) | Check::Version(..) => {
                Cow::Owned(dictionary.with_any(|value| test.accepts(value)))
            }
        }
    }
}
