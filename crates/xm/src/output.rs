//! Writing to standard output and standard error.
//!
//! Nothing here panics when the reader of a pipe has gone away: the program then ends quietly,
//! the way tools do that are killed by `SIGPIPE`.

use std::io::{ErrorKind, IsTerminal, Write};

use crate::error::Error;

/// Writes `text` to standard output and flushes it.
///
/// # Errors
///
/// [`Error::OutputClosed`] when nobody reads any more, [`Error::Output`] for everything else.
pub fn put(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::Output(error),
    })
}

/// Writes one line to standard error. A failure is ignored: there is no better place to tell.
pub fn note(line: &str) {
    let mut err = std::io::stderr().lock();
    drop(writeln!(err, "{line}"));
}

/// A word set off on standard error (`Error:`, `Warning:`), bold and coloured on a terminal.
pub fn heading(word: &str, colour: Colour) -> String {
    if colours_on(&std::io::stderr()) { colour.paint(word) } else { word.to_owned() }
}

/// The few colours in use.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// For what is well.
    Green,
    /// For errors.
    Red,
    /// For warnings.
    Yellow,
}

impl Colour {
    /// The word in this colour, for a stream that may carry colours.
    pub fn paint(self, word: &str) -> String {
        let code = match self {
            Self::Green => 32,
            Self::Red => 31,
            Self::Yellow => 33,
        };
        format!("\u{1b}[1;{code}m{word}\u{1b}[0m")
    }
}

/// Whether `stream` may carry colours: a terminal that is not dumb, and no `NO_COLOR`
/// (<https://no-color.org>: any value that is not empty).
pub fn colours_on(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
    stream.is_terminal() && !refused && !dumb
}

/// Makes text that a guest may have written harmless on a terminal: every control character but
/// line feed and tab becomes `\xNN` or `\u{NNNN}`.
pub fn harmless(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for symbol in text.chars() {
        match symbol {
            '\n' | '\t' => clean.push(symbol),
            '\r' => {}
            _ if symbol.is_control() => {
                let code = u32::from(symbol);
                if code < 0x100 {
                    clean.push_str(&format!("\\x{code:02x}"));
                } else {
                    clean.push_str(&format!("\\u{{{code:x}}}"));
                }
            }
            _ => clean.push(symbol),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_guest_are_shown_not_obeyed() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\tc\u{9b}"), "a\\x1b[2Jb\n\tc\\x9b");
    }
}
