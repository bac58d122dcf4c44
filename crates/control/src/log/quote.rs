//! Text within a line: whatever it holds, it ends neither the line nor itself.
//!
//! Escapes are those of JSON, so the same rules hold in both formats.

use std::fmt::Write;

/// Whether a character could move a reader's eye or a terminal's cursor: control characters, and those
/// that separate lines or turn the direction of writing (Unicode 9.9, 23.2: Bidi_Control, Zl, Zp).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with unsafe characters as `\uXXXX`; of quotation marks and backslashes, each with a backslash
/// before it if `is_quoted`.
fn escape(text: &str, is_quoted: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' if is_quoted => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            // All of them are in the first plane.
            c if is_unsafe(c) => {
                let _never_fails = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// A value: as it is if that is clear, or in quotation marks.
pub(super) fn value(text: &str) -> String {
    let is_clear = !text.is_empty()
        && !text
            .contains(|c: char| c.is_whitespace() || is_unsafe(c) || matches!(c, '"' | '=' | '\\'));
    if is_clear { text.to_owned() } else { format!("\"{}\"", escape(text, true)) }
}

/// A message for people: in quotation marks only if it could be taken for more than itself.
pub(super) fn message(text: &str) -> String {
    if text.contains(['=', '"', '\\']) || text.contains(is_unsafe) {
        value(text)
    } else {
        text.to_owned()
    }
}

/// JSON whose strings hold no unsafe characters.
pub(super) fn json(text: &str) -> String {
    // The serializer leaves none of those that are written without `u`.
    escape(text, false)
}

/// Takes a value off the front of `text`; what follows is empty or begins with a blank.
pub(super) fn take_value(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('"') {
        let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        let is_clear = !word.is_empty() && !word.contains(['"', '=', '\\']);
        return is_clear.then(|| (word.to_owned(), rest));
    }
    // A string of JSON.
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    let (quoted, rest) = text.split_at_checked(end?.0 + 1)?;
    let is_whole = rest.is_empty() || rest.starts_with(' ');
    is_whole.then_some((serde_json::from_str(quoted).ok()?, rest))
}
