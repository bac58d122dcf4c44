//! String literals: quotes, triple quotes and escapes.

use super::lexer::Lexer;
use super::text::Text;
use crate::source::{Fault, Outcome};

/// Reads the literal whose opening quote is next.
pub(super) fn string(lexer: &mut Lexer<'_>, raw: bool) -> Outcome<Text> {
    let start = lexer.at;
    let quote = lexer.bump().unwrap_or('"');
    let triple_mark = if quote == '"' { "\"\"\"" } else { "'''" };
    let triple = lexer.text.get(start..).is_some_and(|rest| rest.starts_with(triple_mark));
    if triple {
        lexer.at = start + triple_mark.len();
    }
    let mut text = Text::verbatim("", lexer.span_from(lexer.at));
    loop {
        let at = lexer.at;
        if triple && lexer.rest().starts_with(triple_mark) {
            lexer.at += triple_mark.len();
            return Ok(text);
        }
        match lexer.bump() {
            Some(c) if c == quote && !triple => return Ok(text),
            Some('\\') if raw => {
                text.push('\\', lexer.span_from(at));
                let next = lexer.at;
                match lexer.bump() {
                    Some(c) => text.push(c, lexer.span_from(next)),
                    None => return Err(unclosed(lexer, start, triple)),
                }
            }
            Some('\\') => escape(lexer, at, &mut text)?,
            Some('\n') if !triple => {
                lexer.at = at;
                return Err(unclosed(lexer, start, triple));
            }
            Some('\u{FFFD}') => {
                let span = lexer.span_from(at);
                return Err(
                    Fault::at(span, "The file is not valid UTF-8 here").help("save it as UTF-8")
                );
            }
            Some(c) => text.push(c, lexer.span_from(at)),
            None => return Err(unclosed(lexer, start, triple)),
        }
    }
}

fn unclosed(lexer: &Lexer<'_>, start: usize, triple: bool) -> Box<Fault> {
    if triple {
        let mut span = lexer.span_from(start);
        span.end = span.start + 3;
        return Fault::at(span, "The triple-quoted string that starts here is never closed");
    }
    Fault::at(lexer.span_from(start), "The string that starts here is not closed on its line")
        .help("close it with the same quote; inside it write \\ before a quote")
}

/// Reads the escape whose `\` at byte `at` was just taken.
fn escape(lexer: &mut Lexer<'_>, at: usize, text: &mut Text) -> Outcome<()> {
    let simple = match lexer.bump() {
        Some('\n') => "",
        Some('\r') if lexer.peek() == Some('\n') => {
            lexer.bump();
            ""
        }
        Some('\\') => "\\",
        Some('\'') => "'",
        Some('"') => "\"",
        Some('a') => "\u{7}",
        Some('b') => "\u{8}",
        Some('f') => "\u{c}",
        Some('n') => "\n",
        Some('r') => "\r",
        Some('t') => "\t",
        Some('v') => "\u{b}",
        Some('x') => return numbered(lexer, at, text, 16, 2),
        Some('0'..='7') => {
            lexer.at -= 1;
            return numbered(lexer, at, text, 8, 3);
        }
        Some(other) => {
            // As in Python, an unknown escape stands for itself.
            let span = lexer.span_from(at);
            text.push('\\', crate::source::Span { end: span.start + 1, ..span });
            text.push(other, crate::source::Span { start: span.start + 1, ..span });
            return Ok(());
        }
        None => return Ok(()),
    };
    text.push_opaque(simple, lexer.span_from(at));
    Ok(())
}

/// Reads up to `most` digits of a `\xHH` or `\OOO` escape.
fn numbered(
    lexer: &mut Lexer<'_>,
    at: usize,
    text: &mut Text,
    radix: u32,
    most: usize,
) -> Outcome<()> {
    let mut value: u32 = 0;
    let mut count = 0;
    while let Some(digit) = lexer.peek().and_then(|c| c.to_digit(radix)) {
        if count == most {
            break;
        }
        value = value * radix + digit;
        count += 1;
        lexer.bump();
    }
    let span = lexer.span_from(at);
    if radix == 16 && count != most {
        return Err(Fault::at(span, "`\\x` needs two hexadecimal digits"));
    }
    match char::from_u32(value).filter(char::is_ascii) {
        Some(c) => text.push_opaque(c.encode_utf8(&mut [0; 4]), span),
        None => {
            return Err(Fault::at(span, "This escape is not an ASCII character")
                .help("write the character itself; the file is UTF-8"));
        }
    }
    Ok(())
}
