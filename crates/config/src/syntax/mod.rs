//! The text of a configuration file as a tree of statements.
//!
//! The accepted language is the union of what people write for `xm` (a
//! literal subset of Python) and for `xl`. Nothing here knows what a key means.

pub(crate) mod ast;
mod expressions;
mod lexer;
mod parser;
mod strings;
pub(crate) mod text;

use ast::Statement;

use crate::source::Outcome;

/// Parses source number `source` with text `text`.
pub(crate) fn parse(source: u32, text: &str) -> Outcome<Vec<Statement>> {
    let tokens = lexer::tokens(source, text)?;
    parser::Parser::new(&tokens).program()
}

/// The value of an integer literal: decimal, `0x`, `0o`, `0b` or leading-0
/// octal, with an optional `L` at the end; `None` if it is none or too large.
pub(crate) fn integer(literal: &str) -> Option<i64> {
    let digits = literal.strip_suffix(['l', 'L']).unwrap_or(literal);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = if let Some(rest) = lower.strip_prefix("0x") {
        (rest, 16)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (rest, 8)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (rest, 2)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (lower.as_str(), 8)
    } else {
        (lower.as_str(), 10)
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { i64::from_str_radix(digits, radix).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn integer_literals() {
        let table = [
            ("0", Some(0)),
            ("128", Some(128)),
            ("0x1F", Some(31)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0b101", Some(5)),
            ("5L", Some(5)),
            ("08", None),
            ("0x", None),
            ("0x-1", None),
            ("-1", None),
            ("", None),
            ("9223372036854775808", None),
        ];
        for (literal, value) in table {
            assert_eq!(integer(literal), value, "{literal}");
        }
    }
}
