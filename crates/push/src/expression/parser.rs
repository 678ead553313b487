//! Tokens to a tree, by recursive descent: one function for each rule of the grammar in `docs/audiences.md`.

use super::{
    Check, Order, Term, Test,
    fault::{Fault, SyntaxError},
    lexer::{self, Token},
};
use crate::device::{Fact, Value, Version, names};

/// Levels of recursion. A text may nest deeper than its canonical form, by parentheses that say nothing.
const MAX_LEVELS: usize = 64;

const OPERAND: [&str; 12] = [
    "a tag",
    "tag:\"NAME\"",
    "topic:\"NAME\"",
    "platform",
    "app_version",
    "language",
    "time_zone",
    "user",
    "attr.NAME",
    "has(..)",
    "!",
    "(",
];
const FIELD: [&str; 6] = [
    "platform",
    "app_version",
    "language",
    "time_zone",
    "user",
    "attr.NAME",
];

pub(super) fn parse(text: &str) -> Result<Term, SyntaxError> {
    let mut parser = Parser {
        text,
        tokens: lexer::tokens(text)?,
        next: 0,
        levels: 0,
    };
    let term = parser.any()?;
    match parser.peek() {
        Token::End => Ok(term),
        _ => parser.unexpected(&["&&", "||", "the end"]),
    }
}

struct Parser<'t> {
    text: &'t str,
    /// `End` is the last, and never taken.
    tokens: Vec<(usize, Token<'t>)>,
    next: usize,
    levels: usize,
}

impl<'t> Parser<'t> {
    /// `all ( ("||" | "or") all )*`
    fn any(&mut self) -> Result<Term, SyntaxError> {
        let first = self.all()?;
        let follows = |parser: &mut Self| parser.takes("||") || parser.takes_word("or");
        if !follows(self) {
            return Ok(first);
        }
        let mut terms = vec![first, self.all()?];
        while follows(self) {
            terms.push(self.all()?);
        }
        Ok(Term::any_of(terms))
    }

    /// `unary ( ("&&" | "and") unary )*`
    fn all(&mut self) -> Result<Term, SyntaxError> {
        let first = self.unary()?;
        let follows = |parser: &mut Self| parser.takes("&&") || parser.takes_word("and");
        if !follows(self) {
            return Ok(first);
        }
        let mut terms = vec![first, self.unary()?];
        while follows(self) {
            terms.push(self.unary()?);
        }
        Ok(Term::all_of(terms))
    }

    /// `("!" | "not") unary | "(" any ")" | operand`
    fn unary(&mut self) -> Result<Term, SyntaxError> {
        if self.levels == MAX_LEVELS {
            return Err(self.fault_at(self.at(), Fault::TooDeep));
        }
        self.levels += 1;
        let term = if self.takes("!") || self.takes_word("not") {
            self.unary()?.negated()
        } else if self.takes("(") {
            let term = self.any()?;
            if !self.takes(")") {
                return self.unexpected(&["&&", "||", ")"]);
            }
            term
        } else {
            self.operand()?
        };
        self.levels -= 1;
        Ok(term)
    }

    /// `word | "tag" ":" name | "topic" ":" name | "has" "(" field ")" | field comparison`
    fn operand(&mut self) -> Result<Term, SyntaxError> {
        let Token::Word(word) = *self.peek() else {
            return self.unexpected(&OPERAND);
        };
        match word {
            "tag" => {
                self.next += 1;
                Ok(Term::known(Fact::Tag(self.name(&names::TAG)?.into())))
            }
            "topic" => {
                self.next += 1;
                Ok(Term::known(Fact::Topic(self.name(&names::TOPIC)?.into())))
            }
            "has" | "exists" => {
                self.next += 1;
                self.needs("(")?;
                let fact = match self.field()? {
                    Some(fact) => fact,
                    None => return self.unexpected(&FIELD),
                };
                self.needs(")")?;
                Ok(Term::known(fact))
            }
            _ => match self.field()? {
                Some(fact) => self.comparison(fact),
                None if lexer::is_reserved(word) => self.unexpected(&OPERAND),
                None => {
                    let at = self.at();
                    names::TAG
                        .check(word)
                        .map_err(|bad| self.fault_at(at, Fault::Impossible(bad.to_string())))?;
                    self.next += 1;
                    self.no_comparison(word)?;
                    Ok(Term::tag(word))
                }
            },
        }
    }

    /// A word with an operator after it is a field that does not exist, not a tag.
    fn no_comparison(&self, word: &str) -> Result<(), SyntaxError> {
        let follows = match self.peek() {
            Token::Sign(sign) => matches!(*sign, "==" | "!=" | "<" | "<=" | ">" | ">="),
            Token::Word("in") => true,
            _ => false,
        };
        if !follows {
            return Ok(());
        }
        let word = crate::fields::shown(word);
        let why = format!(
            "{word} is a tag, which a device has or has not: an attribute is written attr.NAME, and fields are {}",
            FIELD[..5].join(", ")
        );
        Err(self.fault_at(self.tokens[self.next - 1].0, Fault::Impossible(why)))
    }

    /// `":" (word | string)`
    fn name(&mut self, rule: &names::Rule) -> Result<String, SyntaxError> {
        self.needs(":")?;
        let at = self.at();
        let name = match self.peek() {
            Token::Word(word) => (*word).to_owned(),
            Token::Text(text) => text.clone(),
            _ => return self.unexpected(&["a word", "a string"]),
        };
        rule.check(&name)
            .map_err(|bad| self.fault_at(at, Fault::Impossible(bad.to_string())))?;
        self.next += 1;
        Ok(name)
    }

    /// `"platform" | "app_version" | "language" | "time_zone" | "user" | "attr" "." word`, if one of them is next.
    fn field(&mut self) -> Result<Option<Fact>, SyntaxError> {
        let Token::Word(word) = *self.peek() else {
            return Ok(None);
        };
        if word == "attr" {
            self.next += 1;
            self.needs(".")?;
            let at = self.at();
            let Token::Word(name) = *self.peek() else {
                return self.unexpected(&["the name of an attribute"]);
            };
            names::ATTRIBUTE
                .check(name)
                .map_err(|bad| self.fault_at(at, Fault::Impossible(bad.to_string())))?;
            self.next += 1;
            return Ok(Some(Fact::Attribute(name.into())));
        }
        let built_in = Fact::BUILT_IN.into_iter().find(|(name, _)| *name == word);
        self.next += usize::from(built_in.is_some());
        Ok(built_in.map(|(_, fact)| fact))
    }

    /// `("==" | "!=") value | ("<" | "<=" | ">" | ">=") bound | "not"? "in" "[" value ("," value)* "]"`
    fn comparison(&mut self, fact: Fact) -> Result<Term, SyntaxError> {
        if self.takes("==") {
            return Ok(one_of(fact.clone(), vec![self.value(&fact)?]));
        }
        if self.takes("!=") {
            return Ok(one_of(fact.clone(), vec![self.value(&fact)?]).negated());
        }
        if self.takes_word("in") {
            return Ok(one_of(fact.clone(), self.values(&fact)?));
        }
        if self.takes_word("not") {
            if !self.takes_word("in") {
                return self.unexpected(&["in"]);
            }
            return Ok(one_of(fact.clone(), self.values(&fact)?).negated());
        }
        let has_order = matches!(fact, Fact::AppVersion | Fact::Attribute(_));
        let order = match self.peek() {
            Token::Sign("<") => Order::Less,
            Token::Sign("<=") => Order::AtMost,
            Token::Sign(">") => Order::Greater,
            Token::Sign(">=") => Order::AtLeast,
            _ if has_order => {
                return self.unexpected(&["==", "!=", "<", "<=", ">", ">=", "in", "not in"]);
            }
            _ => return self.unexpected(&["==", "!=", "in", "not in"]),
        };
        if !has_order {
            return self.unexpected(&["==", "!=", "in", "not in"]);
        }
        self.next += 1;
        let check = self.bound(&fact, order)?;
        Ok(Term::Test(Test { fact, check }))
    }

    /// `number | version`
    fn bound(&mut self, fact: &Fact, order: Order) -> Result<Check, SyntaxError> {
        let is_attribute = matches!(fact, Fact::Attribute(_));
        let check = match self.peek() {
            Token::Number(number) if is_attribute => Check::Number(order, *number),
            Token::Text(text) => match Version::exact(text) {
                Some(version) => Check::Version(order, version),
                None => {
                    let why = format!(
                        "{} is no version, and other strings have no order: a version is 1 to 6 numbers with dots between, such as \"3.2\"",
                        crate::fields::shown(text)
                    );
                    return Err(self.fault_at(self.at(), Fault::Impossible(why)));
                }
            },
            _ if is_attribute => {
                return self.unexpected(&["a number", "a version such as \"3.2\""]);
            }
            _ => return self.unexpected(&["a version such as \"3.2\""]),
        };
        self.next += 1;
        Ok(check)
    }

    /// `"[" value ("," value)* "]"`
    fn values(&mut self, fact: &Fact) -> Result<Vec<Value>, SyntaxError> {
        self.needs("[")?;
        let mut values = vec![self.value(fact)?];
        while self.takes(",") {
            values.push(self.value(fact)?);
        }
        if !self.takes("]") {
            return self.unexpected(&[",", "]"]);
        }
        Ok(values)
    }

    /// `string`, and for attributes `number | "true" | "false"`
    fn value(&mut self, fact: &Fact) -> Result<Value, SyntaxError> {
        let is_attribute = matches!(fact, Fact::Attribute(_));
        let value = match self.peek() {
            Token::Text(text) => {
                fact.check_text(text)
                    .map_err(|bad| self.fault_at(self.at(), Fault::Impossible(bad.to_string())))?;
                Value::Text(text.as_str().into())
            }
            Token::Number(number) if is_attribute => Value::Number(*number),
            Token::Word("true") if is_attribute => Value::Bool(true),
            Token::Word("false") if is_attribute => Value::Bool(false),
            _ if is_attribute => {
                return self.unexpected(&["a string", "a number", "true", "false"]);
            }
            _ => return self.unexpected(&["a string"]),
        };
        self.next += 1;
        Ok(value)
    }

    fn peek(&self) -> &Token<'t> {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn takes(&mut self, sign: &str) -> bool {
        let taken = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.next += usize::from(taken);
        taken
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let taken = matches!(self.peek(), Token::Word(next) if *next == word);
        self.next += usize::from(taken);
        taken
    }

    fn needs(&mut self, sign: &'static str) -> Result<(), SyntaxError> {
        match self.takes(sign) {
            true => Ok(()),
            false => self.unexpected(&[sign]),
        }
    }

    fn unexpected<T>(&self, expected: &[&'static str]) -> Result<T, SyntaxError> {
        let fault = Fault::Unexpected {
            found: self.peek().shown(),
            expected: expected.to_vec(),
        };
        Err(self.fault_at(self.at(), fault))
    }

    fn fault_at(&self, byte: usize, fault: Fault) -> SyntaxError {
        SyntaxError::at(self.text, byte, fault)
    }
}

/// The values in the order in which they are written, each once.
fn one_of(fact: Fact, values: Vec<Value>) -> Term {
    let mut different: Vec<Value> = Vec::with_capacity(values.len());
    for value in values {
        if !different.contains(&value) {
            different.push(value);
        }
    }
    Term::Test(Test {
        fact,
        check: Check::OneOf(different),
    })
}
