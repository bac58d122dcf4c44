//! Source text to tokens.
//!
//! A new logical line is a token that carries its indentation; inside
//! brackets and after a `\` lines run on.

use super::strings;
use super::text::Text;
use crate::source::{Fault, Outcome, Span};

/// A configuration has a few hundred tokens; this bounds memory.
const MAX_TOKENS: usize = 200_000;
/// Python counts a tab as going to the next multiple of this.
const TAB: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Start of a logical line indented by so many columns.
    Line(usize),
    Name(String),
    Int(i64),
    Float(f64),
    Text(Text),
    Op(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    pub span: Span,
}

/// Longest first, so that `+=` is not read as `+`.
const OPERATORS: &[&str] = &[
    "**", "//", "+=", "-=", "*=", "/=", "%=", "==", "!=", "<>", "<=", ">=", "<<", ">>", "+", "-",
    "*", "/", "%", "=", "<", ">", "(", ")", "[", "]", "{", "}", ",", ":", ";", ".", "@", "&", "|",
    "^", "~", "`",
];

pub(crate) fn tokens(source: u32, text: &str) -> Outcome<Vec<Token>> {
    let mut lexer = Lexer { source, text, at: 0, open: Vec::new(), tokens: Vec::new() };
    if text.starts_with('\u{FEFF}') {
        lexer.at = '\u{FEFF}'.len_utf8();
    }
    lexer.start_line()?;
    while lexer.next_token()? {}
    Ok(lexer.tokens)
}

pub(super) struct Lexer<'a> {
    source: u32,
    pub(super) text: &'a str,
    pub(super) at: usize,
    /// Brackets not closed yet.
    open: Vec<(char, Span)>,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    pub(super) fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    pub(super) fn span_from(&self, start: usize) -> Span {
        Span::new(self.source, start, self.at)
    }

    /// The next character, or an empty place at the end of the text.
    fn here(&self) -> Span {
        let width = self.peek().map_or(0, char::len_utf8);
        Span::new(self.source, self.at, self.at + width)
    }

    fn push(&mut self, kind: Kind, start: usize) -> Outcome<()> {
        let span = self.span_from(start);
        if self.tokens.len() >= MAX_TOKENS {
            return Err(Fault::at(span, format!("More than {MAX_TOKENS} words and signs")));
        }
        self.tokens.push(Token { kind, span });
        Ok(())
    }

    /// Skips blank and comment lines and notes the indentation of the next one.
    fn start_line(&mut self) -> Outcome<()> {
        loop {
            let start = self.at;
            let mut indent: usize = 0;
            while let Some(c @ (' ' | '\t' | '\u{c}')) = self.peek() {
                indent = match c {
                    ' ' => indent + 1,
                    '\t' => (indent / TAB + 1) * TAB,
                    _ => 0,
                };
                self.bump();
            }
            self.skip_comment();
            match self.peek() {
                Some('\n') => {
                    self.bump();
                }
                Some('\r') if self.rest().starts_with("\r\n") => self.at += 2,
                None => return Ok(()),
                Some(_) => return self.push(Kind::Line(indent), start),
            }
        }
    }

    fn skip_comment(&mut self) {
        if self.peek() == Some('#') {
            let length = self.rest().find('\n').unwrap_or(self.rest().len());
            self.at += length;
        }
    }

    /// Reads one token; false at the end of the text.
    fn next_token(&mut self) -> Outcome<bool> {
        let start = self.at;
        let Some(c) = self.peek() else {
            return self.finish();
        };
        match c {
            ' ' | '\t' | '\u{c}' => {
                self.bump();
            }
            '\r' if self.rest().starts_with("\r\n") => {
                self.bump();
            }
            '#' => self.skip_comment(),
            '\n' => {
                self.bump();
                if self.open.is_empty() {
                    self.start_line()?;
                }
            }
            '\\' => self.continuation()?,
            '\'' | '"' => {
                let text = strings::string(self, false)?;
                self.push(Kind::Text(text), start)?;
            }
            c if c.is_ascii_alphabetic() || c == '_' => self.word()?,
            c if c.is_ascii_digit() => self.number()?,
            '.' if self.rest().chars().nth(1).is_some_and(|c| c.is_ascii_digit()) => {
                self.number()?;
            }
            _ => self.operator()?,
        }
        Ok(true)
    }

    fn finish(&mut self) -> Outcome<bool> {
        if let Some((bracket, span)) = self.open.last() {
            let closing = closing_of(*bracket);
            return Err(Fault::at(*span, format!("`{bracket}` is never closed"))
                .help(format!("add the matching `{closing}`")));
        }
        self.push(Kind::End, self.at)?;
        Ok(false)
    }

    fn continuation(&mut self) -> Outcome<()> {
        let start = self.at;
        self.bump();
        if self.rest().starts_with("\r\n") {
            self.at += 2;
        } else if self.peek() == Some('\n') {
            self.bump();
        } else {
            return Err(Fault::at(self.span_from(start), "A `\\` must be the last on its line")
                .help("remove what follows it, blanks included"));
        }
        Ok(())
    }

    /// An identifier, a keyword, or the prefix of a string such as `r'..'`.
    fn word(&mut self) -> Outcome<()> {
        let start = self.at;
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
        loop {
            while self.peek().is_some_and(inner) {
                self.bump();
            }
            // xl allows dots inside names.
            let mut after = self.rest().chars();
            if after.next() != Some('.') || !after.next().is_some_and(inner) {
                break;
            }
            self.bump();
        }
        let word = self.text.get(start..self.at).unwrap_or_default().to_owned();
        if !matches!(self.peek(), Some('\'' | '"')) {
            return self.push(Kind::Name(word), start);
        }
        let raw = match word.as_str() {
            "r" | "R" => true,
            "u" | "U" => false,
            _ => {
                return Err(Fault::at(self.here(), format!("A string cannot follow `{word}`"))
                    .help("an operator, a comma or a line break is missing"));
            }
        };
        let text = strings::string(self, raw)?;
        self.push(Kind::Text(text), start)
    }

    fn number(&mut self) -> Outcome<()> {
        let start = self.at;
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        let mut last = '0';
        while let Some(c) = self.peek() {
            let exponent_sign = matches!(c, '+' | '-') && matches!(last, 'e' | 'E') && !hex;
            if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || exponent_sign) {
                break;
            }
            last = c;
            self.bump();
        }
        let word = self.text.get(start..self.at).unwrap_or_default();
        if let Some(value) = super::integer(word) {
            return self.push(Kind::Int(value), start);
        }
        let decimal = !hex && word.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
        let fraction = word.contains(['.', 'e', 'E']);
        match word.parse::<f64>() {
            Ok(value) if decimal && fraction && value.is_finite() => {
                self.push(Kind::Float(value), start)
            }
            _ => Err(bad_number(word, self.span_from(start))),
        }
    }

    fn operator(&mut self) -> Outcome<()> {
        let start = self.at;
        let found = OPERATORS.iter().find(|op| self.rest().starts_with(**op));
        let Some(op) = found else {
            return Err(stray_character(self.peek().unwrap_or(' '), self.here()));
        };
        self.at += op.len();
        let span = self.span_from(start);
        match *op {
            "(" => self.open.push(('(', span)),
            "[" => self.open.push(('[', span)),
            "{" => self.open.push(('{', span)),
            ")" | "]" | "}" => self.close(op, span)?,
            _ => {}
        }
        self.push(Kind::Op(op), start)
    }

    fn close(&mut self, op: &str, span: Span) -> Outcome<()> {
        match self.open.pop() {
            Some((bracket, _)) if op.starts_with(closing_of(bracket)) => Ok(()),
            Some((bracket, _)) => {
                let closing = closing_of(bracket);
                Err(Fault::at(span, format!("Found `{op}` where `{closing}` was expected"))
                    .help(format!("the last open bracket is `{bracket}`")))
            }
            None => Err(Fault::at(span, format!("`{op}` closes nothing"))),
        }
    }
}

fn closing_of(bracket: char) -> char {
    match bracket {
        '(' => ')',
        '[' => ']',
        _ => '}',
    }
}

fn bad_number(word: &str, span: Span) -> Box<Fault> {
    let fault = Fault::at(span, format!("`{word}` is not a number"));
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
    match unit {
        "" => fault.help("numbers with a leading 0 are octal; others must fit 64 bits"),
        "M" | "MB" | "m" | "MiB" => fault.help("leave the unit out: memory is in MiB already"),
        "G" | "GB" | "g" | "GiB" => fault.help("memory is in MiB: 1 GiB is 1024"),
        _ => fault.help("put quotes around text"),
    }
}

fn stray_character(c: char, span: Span) -> Box<Fault> {
    match c {
        '\u{2018}'..='\u{201F}' | '\u{00AB}' | '\u{00BB}' | '\u{00B4}' => {
            Fault::at(span, format!("`{c}` is a typographic quotation mark"))
                .help("use the plain ' or \" (word processors and slides replace them)")
        }
        '\u{00A0}' | '\u{2000}'..='\u{200B}' | '\u{202F}' | '\u{3000}' => {
            Fault::at(span, format!("Unusual blank U+{:04X}", u32::from(c)))
                .help("replace it by an ordinary space")
        }
        '\u{FFFD}' => {
            Fault::at(span, "The file is not valid UTF-8 here").help("save it as UTF-8 text")
        }
        c if c.is_control() => Fault::at(span, format!("Control character U+{:04X}", u32::from(c)))
            .help("a domain configuration is plain text"),
        c => Fault::at(span, format!("`{c}` has no meaning here")).help("put quotes around text"),
    }
}
