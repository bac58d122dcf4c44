//! Where kernel code was translated from: translations are keyed by address and frame, but
//! found by address alone, so they must go when another frame is mapped there.
//!
//! The direct map and the image are left out, as their mappings never change (`tlb::kernel`).

use super::Code;
use crate::{
    guest::frame_of,
    proven::Masked,
    state::Monitor,
    tlb::{Installed, is_linear},
};

impl Code {
    /// Forgets all pages.
    pub(super) fn clear_pages(&mut self) {
        self.pages.regions.clear();
    }
}

impl Monitor {
    /// Kernel code at `va` is translated from `frame`.
    pub(super) fn note_code_page(&mut self, va: u64, frame: u32) {
        let page = va & !0xfff;
        let known = self.code.pages.get(page);
        if known.is_some() && known.frame() != frame {
            self.drop_code_page(page, known.frame());
        }
        if !is_linear(page, frame) {
            self.code.pages.set(page, Installed::new(frame, false, true));
        }
    }

    /// Drops the translations of a page if another frame is there now, or none.
    pub fn check_code_page(&mut self, page: u64) {
        let known = self.code.pages.get(page);
        if known.is_some() && self.walk(page).map(|l| l.frame()) != Some(known.frame()) {
            self.drop_code_page(page, known.frame());
        }
    }

    /// The same for all pages.
    pub fn check_code_pages(&mut self) {
        let mut gone = alloc::vec::Vec::new();
        for (key, region) in &self.code.pages.regions {
            let base = (key << 21) | crate::guest::KERNEL_HALF;
            let table = self.leaf_table(base);
            for i in region.indices() {
                let frame = region.pages.at(i).frame();
                let entry = table.and_then(|t| self.entry(t, i)).unwrap_or(0);
                if entry & abi::mmu::PTE_PRESENT == 0 || frame_of(entry) != frame {
                    gone.push((base + ((i as u64) << 12), frame));
                }
            }
        }
        for (page, frame) in gone {
            self.drop_code_page(page, frame);
        }
    }

    fn drop_code_page(&mut self, page: u64, frame: u32) {
        self.code.pages.set(page, Installed::default());
        let mut blocks = self.code.by_frame.remove(&frame).unwrap_or_default();
        blocks.retain(|&block| {
            let Some(b) = self.code.blocks.get(block as usize).copied() else { return false };
            let first = b.va & !0xfff;
            let here = first == page && b.frame == frame
                || b.frame2 == frame && first.wrapping_add(4096) == page;
            let gone = here && !b.user;
            if gone {
                self.invalidate_block(block);
            }
            b.valid && !gone
        });
        if !blocks.is_empty() {
            self.code.by_frame.insert(frame, blocks);
        }
    }
}
