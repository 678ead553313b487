//! Text to tokens.

use super::fault::{Fault, SyntaxError};
use crate::{
    device::{Fact, Number, names},
    fields::shown,
};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'t> {
    Word(&'t str),
    /// Without quotes and escapes.
    Text(String),
    Number(Number),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

impl Token<'_> {
    /// For messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Word(word) => shown(word),
            Token::Text(text) => format!("the string {}", shown(text)),
            Token::Number(number) => format!("the number {}", number.value()),
            Token::Sign(sign) => format!("\"{sign}\""),
            Token::End => "the end".into(),
        }
    }
}

/// Longer ones before those that they begin with.
const SIGNS: [&str; 16] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", ":",
];

/// The tokens with the byte that each begins at, and `End` last.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, SyntaxError> {
    // Few are shorter, with the space around them.
    let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
    let mut at = 0;
    loop {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        at += text.as_bytes()[at..]
            .iter()
            .take_while(|byte| is_space(byte))
            .count();
        let (token, bytes) = token(text, at)?;
        let is_end = token == Token::End;
        tokens.push((at, token));
        if is_end {
            return Ok(tokens);
        }
        at += bytes;
    }
}

/// The token at a byte, and its length.
fn token(text: &str, at: usize) -> Result<(Token<'_>, usize), SyntaxError> {
    let rest = &text[at..];
    let mut characters = rest.chars();
    let Some(first) = characters.next() else {
        return Ok((Token::End, 0));
    };
    let second = characters.next();
    if first.is_ascii_alphabetic() || first == '_' {
        let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let end = rest.bytes().take_while(in_word).count();
        return Ok((Token::Word(&rest[..end]), end));
    }
    if matches!(first, '"' | '\'') {
        return string(text, at, first);
    }
    if first.is_ascii_digit() || first == '-' && second.is_some_and(|c| c.is_ascii_digit()) {
        return number(text, at);
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((Token::Sign(sign), sign.len()));
    }
    let expected = match first {
        '&' => vec!["&&"],
        '|' => vec!["||"],
        '=' => vec!["=="],
        _ if first.is_alphabetic() => {
            vec!["a word of a-z, A-Z, 0-9, \"_\" and \"-\"", "tag:\"NAME\""]
        }
        _ => vec!["a word", "a string", "a number", "an operator"],
    };
    let found = shown(first.encode_utf8(&mut [0; 4]));
    Err(SyntaxError::at(
        text,
        at,
        Fault::Unexpected { found, expected },
    ))
}

fn string(text: &str, at: usize, quote: char) -> Result<(Token<'_>, usize), SyntaxError> {
    let mut plain = String::new();
    let mut characters = text[at + 1..].char_indices();
    while let Some((offset, c)) = characters.next() {
        if c == quote {
            return Ok((Token::Text(plain), offset + 2));
        }
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match characters.next() {
            Some((_, escaped @ ('\\' | '"' | '\''))) => plain.push(escaped),
            other => {
                let found = match other {
                    Some((_, c)) => format!("\"\\\" and {}", shown(c.encode_utf8(&mut [0; 4]))),
                    None => "the end".into(),
                };
                let expected = vec!["\\\\", "\\\"", "\\'"];
                let fault = Fault::Unexpected { found, expected };
                return Err(SyntaxError::at(text, at + 1 + offset, fault));
            }
        }
    }
    let fault = Fault::Unexpected {
        found: "the end".into(),
        expected: vec!["the closing quote of the string"],
    };
    Err(SyntaxError::at(text, text.len(), fault))
}

/// `-?digits(.digits)?(e[+-]?digits)?`
fn number(text: &str, at: usize) -> Result<(Token<'_>, usize), SyntaxError> {
    let rest = &text[at..];
    let digits = |from: usize| {
        let digits = rest[from..].bytes().take_while(u8::is_ascii_digit);
        from + digits.count()
    };
    let mut end = digits(usize::from(rest.starts_with('-')));
    if rest[end..].starts_with('.') && digits(end + 1) > end + 1 {
        end = digits(end + 1);
    }
    if rest[end..].starts_with(['e', 'E']) {
        let from = end + 1 + usize::from(rest[end + 1..].starts_with(['+', '-']));
        if digits(from) > from {
            end = digits(from);
        }
    }
    let impossible = |why: String| Err(SyntaxError::at(text, at, Fault::Impossible(why)));
    if let Some(next) = rest[end..].chars().next()
        && (next.is_alphanumeric() || matches!(next, '_' | '-' | '.'))
    {
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
            .unwrap_or(rest.len());
        let word = shown(&rest[..end]);
        return impossible(format!(
            "{word} is no number, and words begin with a letter: write \"..\" for a string, tag:\"..\" for a tag"
        ));
    }
    let value: Option<f64> = rest[..end].parse().ok();
    match value.and_then(Number::new) {
        Some(number) => Ok((Token::Number(number), end)),
        None => impossible(format!(
            "{} is out of range: a number is from -{max} to {max}",
            shown(&rest[..end]),
            max = Number::MAX
        )),
    }
}

/// Whether a name can stand as a tag without `tag:` and quotes.
pub(super) fn is_bare(name: &str) -> bool {
    names::is_word(name) && !is_reserved(name)
}

/// Whether a word means something else than the tag of that name.
pub(super) fn is_reserved(word: &str) -> bool {
    const KEYWORDS: [&str; 11] = [
        "and", "or", "not", "in", "has", "exists", "true", "false", "tag", "topic", "attr",
    ];
    KEYWORDS.contains(&word) || Fact::BUILT_IN.iter().any(|(name, _)| *name == word)
}
