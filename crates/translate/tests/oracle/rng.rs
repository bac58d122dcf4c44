//! A small deterministic generator (SplitMix64), so that a seed replays a case.

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A 64-bit value, often one at an edge.
    pub fn value(&mut self) -> u64 {
        let edge = [0, 1, u64::MAX, 1 << 63, i64::MAX as u64, 0xffff_ffff, 0x8000_0000, 0x80, 0x7f];
        match self.below(8) {
            0 => self.pick(&edge),
            1 => self.below(256),
            2 => self.next() as u32 as u64,
            _ => self.next(),
        }
    }
}
