//! What a console printed: the last part of it, for any number of readers.

use std::collections::VecDeque;

/// Bytes kept.
pub const KEPT: usize = 1 << 20;

/// The end of an endless stream of bytes. Readers hold positions in the stream;
/// one that falls behind what is kept goes on at the oldest byte.
#[derive(Debug, Default)]
pub struct History {
    kept: VecDeque<u8>,
    end: u64,
}

impl History {
    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(KEPT)..).unwrap_or_default();
        let surplus = (self.kept.len() + bytes.len()).saturating_sub(KEPT);
        self.kept.drain(..surplus.min(self.kept.len()));
        self.kept.extend(bytes);
        self.end = self.end.saturating_add(bytes.len() as u64);
    }

    /// Position of the oldest byte that is kept.
    pub fn start(&self) -> u64 {
        self.end.saturating_sub(self.kept.len() as u64)
    }

    /// Position behind the newest byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// At most `most` bytes from `position` on, and the position they start at.
    pub fn read(&self, position: u64, most: usize) -> (u64, Vec<u8>) {
        let from = position.clamp(self.start(), self.end);
        let skip = usize::try_from(from - self.start()).unwrap_or(usize::MAX);
        (from, self.kept.iter().skip(skip).take(most).copied().collect())
    }

    /// Everything that is kept.
    pub fn all(&self) -> Vec<u8> {
        self.kept.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_go_on_where_they_were() {
        let mut history = History::default();
        history.push(b"hello ");
        history.push(b"world");
        assert_eq!(history.read(0, 5), (0, b"hello".to_vec()));
        assert_eq!(history.read(6, 100), (6, b"world".to_vec()));
        assert_eq!(history.read(99, 100), (11, Vec::new()));
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut history = History::default();
        history.push(b"old");
        history.push(&vec![b'x'; KEPT - 1]);
        assert_eq!(history.read(0, 2), (2, b"dx".to_vec()));
        history.push(&vec![b'y'; 2 * KEPT]);
        assert_eq!(history.all(), vec![b'y'; KEPT]);
        assert_eq!((history.end() - history.start()) as usize, KEPT);
    }
}
