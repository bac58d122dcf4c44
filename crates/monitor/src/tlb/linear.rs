//! Where the kernel's linear mappings, the direct map and its image, may be writable in a space.
//!
//! Frames become protected in small runs: a program's code, 16 pages at a time. To unmap each run would
//! leave thousands of mappings, and most of them the kernel never touches. So a whole piece goes at once,
//! and of one that is gone, or never was there, nothing is to be unmapped.

use alloc::vec::Vec;
use core::ops::Range;

use super::kernel::is_image;
use crate::guest::{DIRECT_MAP, IMAGE_MAP};

/// Frames of a piece. Larger ones would have the kernel fault at more that has nothing to do with the code.
const PIECE: u32 = 128;

/// Pieces of a linear mapping, a bit for each.
#[derive(Clone, Default)]
struct Pieces(Vec<u64>);

impl Pieces {
    fn is_in(&self, piece: u32) -> bool {
        self.0.get(piece as usize / 64).is_some_and(|word| word >> (piece % 64) & 1 != 0)
    }

    fn add(&mut self, frames: &Range<u32>) {
        for piece in pieces(frames) {
            let word = piece as usize / 64;
            if word >= self.0.len() {
                self.0.resize(word + 1, 0);
            }
            if let Some(word) = self.0.get_mut(word) {
                *word |= 1 << (piece % 64);
            }
        }
    }

    fn take(&mut self, frames: &Range<u32>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for piece in pieces(frames) {
            if !self.is_in(piece) {
                continue;
            }
            if let Some(word) = self.0.get_mut(piece as usize / 64) {
                *word &= !(1 << (piece % 64));
            }
            let (start, end) = (piece * PIECE, (piece + 1) * PIECE);
            match runs.last_mut() {
                Some(run) if run.end == start => run.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }
}

fn pieces(frames: &Range<u32>) -> Range<u32> {
    frames.start / PIECE..frames.end.div_ceil(PIECE)
}

/// Of both mappings, the pieces that may be writable in a space.
#[derive(Clone, Default)]
pub struct Linear {
    direct: Pieces,
    image: Pieces,
}

impl Linear {
    /// `frames` are mapped writable, the first one at guest address `page`.
    pub fn add(&mut self, page: u64, frames: &Range<u32>) {
        let pieces = if is_image(page) { &mut self.image } else { &mut self.direct };
        pieces.add(frames);
    }

    /// Guest addresses at which a frame may be writable.
    pub fn places(&self, frame: u32) -> impl Iterator<Item = u64> + use<> {
        let piece = frame / PIECE;
        let [direct, image] = [&self.direct, &self.image].map(|pieces| pieces.is_in(piece));
        let places = [direct.then_some(DIRECT_MAP), image.then_some(IMAGE_MAP)];
        places.into_iter().flatten().map(move |base| base.wrapping_add(u64::from(frame) << 12))
    }

    /// Takes out all pieces in which `frames` lie: guest addresses and pages, to be unmapped.
    pub fn take(&mut self, frames: &Range<u32>) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        for (base, pieces) in [(DIRECT_MAP, &mut self.direct), (IMAGE_MAP, &mut self.image)] {
            let taken = pieces.take(frames).into_iter();
            runs.extend(
                taken.map(|run| (base.wrapping_add(u64::from(run.start) << 12), run.len() as u64)),
            );
        }
        runs
    }
}
