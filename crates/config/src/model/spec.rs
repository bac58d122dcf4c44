//! Cutting a device specification at its commas.

use std::ops::Range;

use crate::error::SpecError;

/// A piece of a specification without the blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub text: &'a str,
    /// Byte offset in the specification.
    pub start: usize,
}

impl<'a> Piece<'a> {
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// The piece from byte `from` on, trimmed.
    pub fn tail(&self, from: usize) -> Self {
        let rest = self.text.get(from..).unwrap_or_default();
        let text = rest.trim_start();
        Piece { text, start: self.start + self.text.len() - text.len() }
    }

    /// The piece before byte `to`, trimmed.
    pub fn head(&self, to: usize) -> Self {
        Piece { text: self.text.get(..to).unwrap_or_default().trim_end(), start: self.start }
    }

    /// Key and value around the first `=`.
    pub fn pair(&self) -> Option<(Self, Self)> {
        let at = self.text.find('=')?;
        Some((self.head(at), self.tail(at + 1)))
    }

    pub fn error(&self, message: impl Into<String>) -> SpecError {
        SpecError::new(self.range(), message)
    }

    /// The value of a field that may be written once only.
    pub fn set<T>(&self, field: &mut Option<T>, value: T) -> Result<(), SpecError> {
        if field.replace(value).is_some() {
            return Err(self.error(format!("`{}` is given twice", self.text)));
        }
        Ok(())
    }
}

/// `text` cut at its commas.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut start = 0;
    text.split(',').map(move |raw| {
        let text = raw.trim();
        let lead = raw.len() - raw.trim_start().len();
        let piece = Piece { text, start: start + lead.min(raw.len()) };
        start += raw.len() + 1;
        piece
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_know_their_places() {
        let spec = " a= b ,c,, d";
        let found: Vec<_> = pieces(spec).collect();
        assert_eq!(found.iter().map(|p| p.text).collect::<Vec<_>>(), ["a= b", "c", "", "d"]);
        for piece in &found {
            assert_eq!(spec.get(piece.range()), Some(piece.text));
        }
        let (key, value) = found[0].pair().unwrap();
        assert_eq!((key.text, value.text, spec.get(value.range())), ("a", "b", Some("b")));
    }
}
