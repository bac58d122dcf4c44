//! A line taken apart into words, with quotes as a POSIX shell has them, and nothing else of it.

/// A line that cannot be taken apart.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote without its end.
    #[error("The line ends within {0}.")]
    Open(char),
    /// Nothing after it.
    #[error("The line ends after \\.")]
    Backslash,
}

/// The words of a line; what follows a `#` that begins a word is a comment.
///
/// # Errors
///
/// When a quote has no end.
pub fn split(line: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut symbols = line.chars();
    while let Some(symbol) = symbols.next() {
        match symbol {
            '#' if word.is_none() => break,
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => {
                let next = symbols.next().ok_or(SplitError::Backslash)?;
                word.get_or_insert_default().push(next);
            }
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match symbols.next().ok_or(SplitError::Open(symbol))? {
                        end if end == symbol => break,
                        '\\' if symbol == '"' => {
                            let next = symbols.next().ok_or(SplitError::Backslash)?;
                            if !matches!(next, '"' | '\\') {
                                word.push('\\');
                            }
                            word.push(next);
                        }
                        inside => word.push(inside),
                    }
                }
            }
            _ => word.get_or_insert_default().push(symbol),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        let of = |line: &str| split(line).unwrap();
        assert_eq!(of("  list -l\tserv1 # all"), ["list", "-l", "serv1"]);
        assert_eq!(of(r#"create a\ b "c d" 'e "f'"#), ["create", "a b", "c d", "e \"f"]);
        assert_eq!(of(r#"x extra="a \"b\" \n""#), ["x", r#"extra=a "b" \n"#]);
        assert_eq!(of("a '' b#c"), ["a", "", "b#c"]);
        assert!(of("  ").is_empty());
        assert_eq!(split("a 'b"), Err(SplitError::Open('\'')));
        assert_eq!(split("a\\"), Err(SplitError::Backslash));
    }
}
