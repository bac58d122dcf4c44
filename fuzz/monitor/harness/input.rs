//! Values out of an input's bytes; zeros when it is at its end.

use super::guest;

pub struct Input<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input { data, at: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    pub fn byte(&mut self) -> u8 {
        let byte = self.data.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let from = self.at.min(self.data.len());
        let to = (from + len).min(self.data.len());
        self.at = to;
        &self.data[from..to]
    }

    pub fn word(&mut self) -> u64 {
        let mut word = [0; 8];
        for byte in &mut word {
            *byte = self.byte();
        }
        u64::from_le_bytes(word)
    }

    pub fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A frame, mostly one of the guest's.
    pub fn frame(&mut self) -> u64 {
        match self.byte() {
            255 => self.word(),
            254 => guest::FRAMES + u64::from(self.byte()),
            n => u64::from(n) % guest::FRAMES,
        }
    }

    /// An address, mostly one that the tables at the start map.
    pub fn address(&mut self) -> u64 {
        let kind = self.byte();
        let page = u64::from(self.byte());
        let offset = match kind >> 5 {
            0..3 => u64::from(self.byte()),
            3 => 0xfff - u64::from(self.byte() & 31),
            4..6 => u64::from(self.half()) & 0xff8,
            _ => 0,
        };
        let base = match kind & 15 {
            0..5 => crate::guest::DIRECT_MAP,
            5 => crate::guest::IMAGE_MAP,
            6..10 => guest::USER,
            10 => guest::KERNEL_PAGES,
            11 => crate::guest::M2P,
            12 => guest::USER_HIGH,
            13 => crate::tlb::reserved()[usize::from(kind >> 5) % 6].0,
            14 => 0x7fff_ffff_f000u64.wrapping_sub(page << 13),
            _ => return self.word(),
        };
        base.wrapping_add((page % (guest::FRAMES + 4)) << 12).wrapping_add(offset)
    }

    /// A number: small, an address, a frame, or any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            n @ 0..128 => u64::from(n),
            128..160 => self.frame(),
            160..240 => self.address(),
            240..248 => u64::from(self.half()) << 3,
            _ => self.word(),
        }
    }
}
