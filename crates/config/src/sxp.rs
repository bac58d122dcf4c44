//! S-expressions, the form in which xend and its tools show a domain.

use std::fmt;

/// An atom or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sxp {
    /// A word or text.
    Atom(String),
    /// Items in parentheses.
    List(Vec<Sxp>),
}

impl Sxp {
    /// The list `(key value)`.
    pub fn pair(key: &str, value: impl Into<String>) -> Self {
        Self::List(vec![Self::Atom(key.to_owned()), Self::Atom(value.into())])
    }

    /// The list `(head item...)`.
    pub fn list(head: &str, items: impl IntoIterator<Item = Self>) -> Self {
        let head = std::iter::once(Self::Atom(head.to_owned()));
        Self::List(head.chain(items).collect())
    }

    fn is_flat(&self) -> bool {
        match self {
            Self::Atom(_) => true,
            Self::List(items) => items.iter().all(|item| matches!(item, Self::Atom(_))),
        }
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        let items = match self {
            Self::Atom(text) => return f.write_str(&quoted(text)),
            Self::List(items) => items,
        };
        f.write_str("(")?;
        let mut on_own_line = false;
        for (index, item) in items.iter().enumerate() {
            // Atoms stay beside the head; lists go below it.
            if self.is_flat() || matches!(item, Self::Atom(_)) && !on_own_line {
                if index > 0 {
                    f.write_str(" ")?;
                }
            } else {
                write!(f, "\n{:width$}", "", width = indent + 4)?;
                on_own_line = true;
            }
            item.print(f, indent + 4)?;
        }
        if on_own_line {
            write!(f, "\n{:indent$}", "")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Sxp {
    /// Four blanks per level, one list per line, no final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, 0)
    }
}

/// Words stand as they are, anything else in single quotes with `\` escapes.
fn quoted(text: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || "_-.:/+,=@!*%^~".contains(c);
    if !text.is_empty() && text.chars().all(word) {
        return text.to_owned();
    }
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_quoting() {
        let tree = Sxp::list(
            "vm",
            [
                Sxp::pair("name", "serv1"),
                Sxp::list("image", [Sxp::list("linux", [Sxp::pair("root", "/dev/sda1 ro")])]),
                Sxp::pair("odd", "a'b\\c\x1b"),
                Sxp::pair("empty", ""),
            ],
        );
        let expected = "(vm\n    (name serv1)\n    (image\n        (linux\n            \
                        (root '/dev/sda1 ro')\n        )\n    )\n    (odd 'a\\'b\\\\c\\x1b')\n    \
                        (empty '')\n)";
        assert_eq!(tree.to_string(), expected);
    }
}
