//! Messages with an excerpt of the source and a caret under the culprit.

use std::fmt;

use crate::source::{Fault, Source, Span};

/// Columns of the source line shown at most; longer lines are cut around the caret.
const EXCERPT_COLUMNS: usize = 100;

/// How serious a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The configuration is refused.
    Error,
    /// The configuration is used, but something in it has no effect.
    Warning,
}

/// A line of a source and the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line (or the part of it around the culprit), fit for a terminal.
    pub excerpt: String,
    /// Where the caret stands in `excerpt`, in characters from 0.
    pub caret: usize,
    /// How many characters are underlined, at least 1.
    pub width: usize,
}

/// One error or warning about a configuration.
///
/// `Display` prints it as several lines of plain text without a final newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub level: Level,
    /// What is wrong, in one line.
    pub message: String,
    /// The file name as given, or `command line`.
    pub file: String,
    /// Where; `None` for a fault of the file as a whole.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(level: Level, fault: Fault, sources: &[Source]) -> Self {
        let index = fault.span.map_or(0, |span| span.source as usize);
        let source = sources.get(index);
        Self {
            level,
            message: printable(&fault.message),
            file: source.map_or_else(String::new, |s| printable(&s.name)),
            place: fault.span.zip(source).map(|(span, source)| Place::of(span, &source.text)),
            help: fault.help.map(|help| printable(&help)),
        }
    }
}

impl Place {
    fn of(span: Span, text: &str) -> Self {
        let start = floor_boundary(text, span.start as usize);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let rest = text.get(line_start..).unwrap_or_default();
        let full = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        let end = floor_boundary(text, (span.end as usize).min(line_start + full.len()));
        let width = text.get(start..end).map_or(0, |part| part.chars().count()).max(1);
        Self::cut(full, line, column, width)
    }

    /// Expands tabs and keeps at most [`EXCERPT_COLUMNS`] around the caret.
    fn cut(full: &str, line: usize, column: usize, width: usize) -> Self {
        let count = full.chars().count();
        let first = if count <= EXCERPT_COLUMNS {
            0
        } else {
            column.saturating_sub(EXCERPT_COLUMNS / 2).min(count - EXCERPT_COLUMNS)
        };
        let mut excerpt = String::new();
        if first > 0 {
            excerpt.push_str("...");
        }
        let lead = excerpt.chars().count();
        excerpt.extend(full.chars().skip(first).take(EXCERPT_COLUMNS).map(visible));
        if count > first + EXCERPT_COLUMNS {
            excerpt.push_str("...");
        }
        let room = (first + EXCERPT_COLUMNS).min(count.max(column + 1)).saturating_sub(column);
        let width = width.min(room.max(1));
        Self { line, column: column + 1, excerpt, caret: column - first.min(column) + lead, width }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        write!(f, "{level}: {}", self.message)?;
        let Some(place) = &self.place else {
            write!(f, "\n  --> {}", self.file)?;
            return match &self.help {
                Some(help) => write!(f, "\n  = help: {help}"),
                None => Ok(()),
            };
        };
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        write!(f, "\n {margin}--> {}:{}:{}", self.file, place.line, place.column)?;
        write!(f, "\n {margin} |\n {number} | {}", place.excerpt.trim_end())?;
        let (blank, carets) = (" ".repeat(place.caret), "^".repeat(place.width));
        write!(f, "\n {margin} | {blank}{carets}")?;
        match &self.help {
            Some(help) => write!(f, "\n {margin} = help: {help}"),
            None => Ok(()),
        }
    }
}

/// Escape sequences in a hostile file must not reach the terminal.
fn visible(c: char) -> char {
    match c {
        '\t' | '\n' => ' ',
        c if c.is_control() || is_bidi_control(c) => '\u{FFFD}',
        c => c,
    }
}

/// Characters that reorder the text around them on a terminal.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// `text` on one line, cut to a length a person reads.
fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut line: String = text.chars().take(LONGEST).map(visible).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push_str("...");
    }
    line
}

/// The largest character boundary not above `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, start: usize, end: usize) -> Place {
        Place::of(Span::new(0, start, end), text)
    }

    #[test]
    fn columns_count_characters_and_underline_stays_on_the_line() {
        let found = place("a = 'ā' 'b'\nc", 9, 13);
        assert_eq!((found.line, found.column, found.width), (1, 9, 3));
    }

    #[test]
    fn end_of_text_is_a_place() {
        let found = place("a =", 3, 3);
        assert_eq!((found.line, found.column, found.caret, found.width), (1, 4, 3, 1));
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let found = place(&text, 500, 501);
        assert_eq!(found.excerpt.chars().nth(found.caret), Some('X'));
        assert!(found.excerpt.len() <= EXCERPT_COLUMNS + 6);
    }

    #[test]
    fn escape_sequences_are_not_printed() {
        assert!(!place("a = '\x1b[31m'", 4, 5).excerpt.contains('\x1b'));
    }
}
