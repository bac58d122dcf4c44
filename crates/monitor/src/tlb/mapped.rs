//! What a space has mapped, by region of 512 pages (one last-level table).

use abi::mmu::{PTE_ADDR, PTE_PRESENT, PTE_WRITE};
use alloc::{boxed::Box, collections::BTreeMap};

use crate::proven::Masked;

/// One installed page: its frame and how it is mapped. 0 = nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Installed(u32);

impl Installed {
    const WRITE: u32 = 1 << 31;
    const EXEC: u32 = 1 << 30;
    const SHADOW: u32 = 1 << 29;
    const SHARED: u32 = 1 << 28;
    const SUPERVISOR: u32 = 1 << 27;
    const FRAME: u32 = (1 << 27) - 1;

    /// Frames that can be told apart: 512 GiB of RAM.
    pub const FRAMES: u64 = Self::FRAME as u64;

    /// A page of `frame`.
    pub fn new(frame: u32, write: bool, exec: bool) -> Installed {
        // Frame numbers are stored plus one, so that frame 0 is something.
        let mut v = (frame + 1) & Self::FRAME;
        if write {
            v |= Self::WRITE;
        }
        if exec {
            v |= Self::EXEC;
        }
        Installed(v)
    }
    /// The shadow copy of `frame`.
    pub fn shadow(frame: u32) -> Installed {
        Installed((frame + 1) & Self::FRAME | Self::SHADOW | Self::EXEC)
    }
    /// The same, marked as lying at an address that the kernel half uses too.
    pub fn at_shared_address(self) -> Installed {
        Installed(self.0 | Self::SHARED)
    }
    /// The same, marked as closed to user mode.
    pub fn supervisor(self) -> Installed {
        Installed(self.0 | Self::SUPERVISOR)
    }
    /// User mode may not touch it.
    pub fn is_supervisor(self) -> bool {
        self.0 & Self::SUPERVISOR != 0
    }
    /// Something is installed.
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
    /// Its frame.
    pub fn frame(self) -> u32 {
        (self.0 & Self::FRAME).wrapping_sub(1)
    }
    /// Mapped writable.
    pub fn write(self) -> bool {
        self.0 & Self::WRITE != 0
    }
    /// Mapped executable.
    pub fn exec(self) -> bool {
        self.0 & Self::EXEC != 0
    }
    /// It is the shadow copy.
    pub fn is_shadow(self) -> bool {
        self.0 & Self::SHADOW != 0
    }
    /// Bears the key `SHARED_ADDRESS`.
    pub fn is_at_shared_address(self) -> bool {
        self.0 & Self::SHARED != 0
    }
    /// Not 0: a kernel page that is installed is not what an entry of a last-level table says.
    fn differs(self, entry: u64) -> u64 {
        let page = u64::from(self.0);
        let (frame, write) = ((page & u64::from(Self::FRAME)).wrapping_sub(1), page >> 31);
        let write = write * PTE_WRITE;
        let what_counts = if self.is_some() { PTE_ADDR | PTE_PRESENT | write } else { 0 };
        (entry ^ (frame << 12 | PTE_PRESENT | write)) & what_counts
    }
    /// No longer writable.
    pub fn read_only(self) -> Installed {
        Installed(self.0 & !Self::WRITE)
    }
}

/// A region's installed pages.
#[derive(Clone)]
pub struct Region {
    /// Which entries of `pages` are installed.
    pub present: [u64; 8],
    /// By index in the last-level table.
    pub pages: [Installed; 512],
}

impl Region {
    fn new() -> Box<Region> {
        Box::new(Region { present: [0; 8], pages: [Installed::default(); 512] })
    }
    /// Indices installed, rising.
    pub fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        bits(self.present)
    }
    /// Which installed pages of the kernel's a last-level table does not have like that; `upper`: as
    /// what is above it allows. Mostly all are as they were, which vector code finds out.
    pub fn stale(&self, table: &[u64; 512], upper: u64) -> [u64; 8] {
        let closed = !upper & PTE_WRITE;
        let pairs = self.pages.iter().zip(table);
        if pairs.clone().fold(0, |all, (page, entry)| all | page.differs(*entry & !closed)) == 0 {
            return [0; 8];
        }
        let mut stale = [0; 8];
        for (i, (page, entry)) in pairs.enumerate() {
            *stale.at_mut(i >> 6) |= u64::from(page.differs(*entry & !closed) != 0) << (i & 63);
        }
        stale
    }
    /// Nothing is installed.
    pub fn is_empty(&self) -> bool {
        self.present == [0; 8]
    }
    /// Notes or clears a page.
    pub fn set(&mut self, index: usize, page: Installed) {
        let (word, bit) = (self.present.at_mut(index >> 6), 1u64 << (index & 63));
        if page.is_some() {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        *self.pages.at_mut(index) = page;
    }
}

/// The numbers of the bits that are set, rising.
pub fn bits(mut words: [u64; 8]) -> impl Iterator<Item = usize> {
    let mut word = 0;
    core::iter::from_fn(move || {
        while word < 8 {
            let bits = words.at_mut(word);
            if *bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                *bits &= *bits - 1;
                return Some(word * 64 + bit);
            }
            word += 1;
        }
        None
    })
}

/// The regions of one half, by `guest address >> 21`.
#[derive(Default)]
pub struct Half {
    /// Regions with at least one page (or emptied by `forget`, until the next revalidation).
    pub regions: BTreeMap<u64, Box<Region>>,
}

impl Half {
    /// What is installed at a guest address.
    pub fn get(&self, va: u64) -> Installed {
        self.regions.get(&(va >> 21)).map_or(Installed::default(), |r| *r.pages.at(index(va)))
    }
    /// Notes what is installed at a guest address.
    pub fn set(&mut self, va: u64, page: Installed) {
        if page.is_some() {
            self.regions.entry(va >> 21).or_insert_with(Region::new).set(index(va), page);
        } else if let Some(r) = self.regions.get_mut(&(va >> 21)) {
            r.set(index(va), page);
            if r.is_empty() {
                // A guest that maps and unmaps at ever new addresses must not collect them.
                self.regions.remove(&(va >> 21));
            }
        }
    }
    /// Forgets the pages of `[va, va + len)` (page-aligned).
    pub fn forget(&mut self, va: u64, len: u64) {
        let (first, last) = (va >> 21, (va + len - 1) >> 21);
        for (key, region) in self.regions.range_mut(first..=last) {
            let base = key << 21;
            for i in region.indices() {
                let page = base + ((i as u64) << 12);
                if page >= va && page - va < len {
                    region.set(i, Installed::default());
                }
            }
        }
    }
}

/// Index of an address in its last-level table.
pub fn index(va: u64) -> usize {
    (va >> 12) as usize & 511
}
