//! Strings that remember which source bytes they came from.
//!
//! A disk specification may be joined from several literals and variables,
//! yet a fault in its third piece should point at that piece in the file.

use std::ops::Range;

use crate::source::Span;

/// Above this many segments the exact origin is given up.
const MAX_SEGMENTS: usize = 64;

/// Bytes of a [`Text`] from `at` to the next segment, and where they came from.
#[derive(Clone, Debug, PartialEq)]
struct Segment {
    at: usize,
    span: Span,
    /// Byte for byte as in the source, so offsets carry over.
    verbatim: bool,
}

/// A string value and its origin.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Text {
    text: String,
    segments: Vec<Segment>,
}

impl Text {
    /// A string that came from `span` as a whole.
    pub fn opaque(text: impl Into<String>, span: Span) -> Self {
        Self { text: text.into(), segments: vec![Segment { at: 0, span, verbatim: false }] }
    }

    /// A string that stands in the source letter for letter.
    pub fn verbatim(text: impl Into<String>, span: Span) -> Self {
        Self { text: text.into(), segments: vec![Segment { at: 0, span, verbatim: true }] }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Appends one source character found at `span`.
    pub fn push(&mut self, c: char, span: Span) {
        let grows = self.segments.last_mut().filter(|last| {
            last.verbatim && last.span.source == span.source && last.span.end == span.start
        });
        match grows {
            Some(last) => last.span.end = span.end,
            None => self.add_segment(span, true),
        }
        self.text.push(c);
    }

    /// Appends `piece`, which an escape sequence or a conversion at `span` stands for.
    pub fn push_opaque(&mut self, piece: &str, span: Span) {
        self.add_segment(span, false);
        self.text.push_str(piece);
    }

    pub fn append(&mut self, other: &Self) {
        let base = self.text.len();
        self.text.push_str(&other.text);
        let moved = other.segments.iter().map(|s| Segment { at: s.at + base, ..s.clone() });
        if self.segments.len() + other.segments.len() <= MAX_SEGMENTS {
            self.segments.extend(moved);
        } else {
            self.give_up_origin();
        }
    }

    /// The bytes `range` with their origin.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let text = self.text.get(range.clone()).unwrap_or_default();
        let mut part = Self { text: text.to_owned(), segments: Vec::new() };
        for (index, segment) in self.segments.iter().enumerate() {
            let end = self.segments.get(index + 1).map_or(self.text.len(), |next| next.at);
            if segment.at >= range.end || end <= range.start {
                continue;
            }
            let skip = range.start.saturating_sub(segment.at);
            let mut span = segment.span;
            if segment.verbatim {
                span.start = span.start.saturating_add(u32::try_from(skip).unwrap_or(u32::MAX));
            }
            let at = segment.at.saturating_sub(range.start);
            part.segments.push(Segment { at, span, verbatim: segment.verbatim });
        }
        part
    }

    /// Where the bytes `range` stand in the source; `whole` if that is unknown.
    pub fn locate(&self, range: Range<usize>, whole: Span) -> Span {
        let Some(first) = self.segment_at(range.start) else {
            return whole;
        };
        let last = self.segment_at(range.end.saturating_sub(1).max(range.start)).unwrap_or(first);
        let place = |segment: &Segment, byte: usize| {
            Span::new(0, segment.span.start as usize + byte.saturating_sub(segment.at), 0).start
        };
        let start = if first.verbatim { place(first, range.start) } else { first.span.start };
        let end = if last.verbatim { place(last, range.end) } else { last.span.end };
        if first.span.source == last.span.source && end >= start {
            Span { source: first.span.source, start, end }
        } else {
            Span { source: first.span.source, start, end: first.span.end }
        }
    }

    fn segment_at(&self, byte: usize) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.at <= byte)
    }

    fn add_segment(&mut self, span: Span, verbatim: bool) {
        if self.segments.len() < MAX_SEGMENTS {
            self.segments.push(Segment { at: self.text.len(), span, verbatim });
        } else {
            self.give_up_origin();
        }
    }

    fn give_up_origin(&mut self) {
        if let Some(first) = self.segments.first_mut() {
            first.verbatim = false;
        }
        self.segments.truncate(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_and_sums_keep_their_places() {
        let whole = Span::new(0, 0, 99);
        let mut text = Text::verbatim("abcdef", Span::new(0, 10, 16));
        text.push_opaque("\n", Span::new(0, 16, 18));
        text.append(&Text::verbatim("xyz", Span::new(0, 40, 43)));
        assert_eq!(text.as_str(), "abcdef\nxyz");
        assert_eq!(text.locate(2..4, whole), Span::new(0, 12, 14));
        assert_eq!(text.locate(6..7, whole), Span::new(0, 16, 18));
        assert_eq!(text.locate(8..9, whole), Span::new(0, 41, 42));
        let part = text.slice(4..9);
        assert_eq!(part.as_str(), "ef\nxy");
        assert_eq!(part.locate(0..2, whole), Span::new(0, 14, 16));
        assert_eq!(part.locate(4..5, whole), Span::new(0, 41, 42));
    }
}
