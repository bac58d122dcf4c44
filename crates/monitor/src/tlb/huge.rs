//! Guest RAM in huge pages of the host.
//!
//! A memfd gets its memory page by page, unless the host was told to do otherwise for all of them
//! (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`). What a guest uses it mostly fills, and 2 MiB at
//! once take an eighth of the time; mapped as such, or as neighbours, they take less of the processor's TLB
//! too. Asked for is what the guest's kernel maps for the first time and nobody has filled yet: to move what
//! is there takes four times as long.

use alloc::vec::Vec;

use crate::{runner::ticks, state::Monitor, sys};

/// Frames of a huge page.
const FRAMES: usize = 512;
/// Of that many, so few may be there already.
const FEW: usize = 32;
/// After so many refusals in a row the host is not asked any more.
const REFUSALS: u8 = 4;
/// The host took this long, in ticks of the TSC, to find a huge page: some 10 ms. That counts as one.
const LONG: u64 = 1 << 25;

/// What was asked for.
#[derive(Default)]
pub struct HugePages {
    /// A bit for each huge page of RAM.
    asked: Vec<u64>,
    /// In a row.
    refused: u8,
}

impl HugePages {
    /// Is it the first time for this one?
    fn is_new(&mut self, page: usize) -> bool {
        let (word, bit) = (page / 64, 1 << (page % 64));
        if word >= self.asked.len() {
            self.asked.resize(word + 1, 0);
        }
        self.asked
            .get_mut(word)
            .is_some_and(|word| core::mem::replace(word, *word | bit) & bit == 0)
    }
}

impl Monitor {
    /// The guest's kernel is about to use RAM around `frame`.
    pub(super) fn ask_for_huge_page(&mut self, frame: u32) {
        let page = frame as usize / FRAMES;
        let whole = (page as u64 + 1) * FRAMES as u64 <= self.setup.nr_frames;
        // With one frame in each piece, a guest that may have more later would have the host fill all of it now.
        let whole = whole && self.setup.nr_pages == self.setup.max_pages;
        if self.huge.refused >= REFUSALS || !whole || !self.huge.is_new(page) {
            return;
        }
        let start = self.frame_ptr((page * FRAMES) as u32);
        let mut resident = [0u8; FRAMES];
        // SAFETY: the monitor's view of RAM, of which 2 MiB lie there; `resident` has a byte for each page.
        let told = unsafe { sys::resident(start as u64, (FRAMES << 12) as u64, &mut resident) };
        if told != 0 || resident.iter().filter(|page| **page & 1 != 0).count() > FEW {
            return;
        }
        let before = ticks();
        // SAFETY: a read of RAM, which puts a first page there; what is there stays as it is.
        let done = unsafe {
            start.read_volatile();
            sys::collapse(start as u64, (FRAMES << 12) as u64) == 0
        };
        let done = done && ticks().wrapping_sub(before) < LONG;
        self.huge.refused = if done { 0 } else { self.huge.refused + 1 };
        self.stats.huge += u64::from(done);
    }
}
