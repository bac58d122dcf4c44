//! Translations: the code cache, its index, and how blocks are linked and dropped.

mod blocks;
mod invalidate;
mod lookup;
mod pages;

use alloc::vec::Vec;
use core::hash::{BuildHasherDefault, Hasher};

use hashbrown::{HashMap, HashSet};
use translate::{Entry, Output, Targets, Translator};

use crate::{
    gate,
    layout::{ALIAS_MASK_WORD, CTX, SITE_STUBS, USER_CTX, USER_TLB, at},
    tlb::Half,
};

/// A multiplicative hash for integers (the keys are addresses and frame
/// numbers; a guest that makes them collide slows only itself).
#[derive(Default, Clone, Copy)]
pub struct IntHasher(u64);
impl Hasher for IntHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        let x = (self.0.rotate_left(5) ^ v).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.0 = x ^ (x >> 29);
    }
    fn write_u32(&mut self, v: u32) {
        self.write_u64(v.into());
    }
    fn write_u8(&mut self, v: u8) {
        self.write_u64(v.into());
    }
}
/// Hash state of the maps.
pub type Hash = BuildHasherDefault<IntHasher>;

/// No block, no frame, no link.
pub const NONE: u32 = u32::MAX;

/// A translated block.
#[derive(Clone, Copy)]
pub struct Block {
    /// Guest address.
    pub va: u64,
    /// Frame of its first byte.
    pub frame: u32,
    /// Frame of the next page, if it straddles.
    pub frame2: u32,
    /// Offset in the code cache; the prologue comes first.
    pub host: u32,
    /// Bytes of host code.
    pub host_len: u16,
    /// Guest user code.
    pub user: bool,
    /// Not dropped.
    pub valid: bool,
    /// Its code ends with a jump through the tables.
    pub ends_in_lookup: bool,
    /// First of its entries in `Code::entries`, and how many.
    pub entries: u32,
    /// See `entries`.
    pub entry_count: u16,
    /// First of the links that lead here.
    pub incoming: u32,
}

/// A direct branch of a block.
#[derive(Clone, Copy)]
pub struct LinkRecord {
    /// Offset in the code cache of its displacement.
    pub site: u32,
    /// Offset of its exit stub.
    pub stub: u32,
    /// Guest address it leads to.
    pub target: u64,
    /// Its block.
    pub from: u32,
    /// The next link that leads to the same block.
    pub next: u32,
    /// Leads to a block now.
    pub linked: bool,
}

/// What stands for a block that does not exist.
static NO_BLOCK: Block = Block {
    va: 0,
    frame: NONE,
    frame2: NONE,
    host: 0,
    host_len: 0,
    user: false,
    valid: false,
    ends_in_lookup: false,
    entries: 0,
    entry_count: 0,
    incoming: NONE,
};

/// All translations of a domain.
pub struct Code {
    pub(crate) translator: Translator,
    pub(crate) user_translator: Translator,
    /// Where the routines for lookup misses lie, of the kernel's code and of programs'.
    pub(crate) misses: [u64; 2],
    pub(crate) output: alloc::boxed::Box<Output>,
    pub(crate) blocks: Vec<Block>,
    /// The first block that begins in each part of the cache, or behind it.
    pub(crate) parts: Vec<u32>,
    pub(crate) links: Vec<LinkRecord>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) index: HashMap<(u64, u32), u32, Hash>,
    pub(crate) by_frame: HashMap<u32, Vec<u32>, Hash>,
    /// Blocks of one instruction on user memory, without the look-up of aliases.
    pub(crate) alone: HashMap<(u64, u32), u32, Hash>,
    /// Kernel instructions known to access user memory.
    pub(crate) user_access: HashSet<u64, Hash>,
    /// Instructions whose bytes the cache must not hold (`translate::forbidden`).
    pub(crate) avoided: HashSet<u64, Hash>,
    /// When the kernel's lookup tables are emptied.
    pub(crate) freshness: lookup::Freshness,
    /// Kernel pages that code was translated from, outside the direct map and image.
    pub(crate) pages: Half,
    /// Next free offset for code, and for exit stubs.
    pub(crate) next_code: u32,
    pub(crate) next_stub: u32,
    /// Counts flushes of the whole cache.
    pub(crate) generation: u32,
    /// Guest addresses of blocks entered from the monitor, a ring.
    pub(crate) recent: [u64; boundary::LAST_BLOCKS],
    pub(crate) recent_next: usize,
}

/// Where code ends and exit stubs begin in the cache.
const CODE_END: u32 = 80 << 20;
/// Where the exit stubs end: the stubs of system-call sites follow.
const STUB_END: u32 = (SITE_STUBS - at::CODE) as u32;
/// Code starts here; before it lie the shared lookup routines.
const CODE_START: u32 = 4096;

/// Everything translated code refers to.
fn targets() -> Targets {
    Targets {
        context: CTX,
        user_context: USER_CTX,
        kernel_lookup: at::TABLES,
        user_lookup: at::TABLES + 0x10_0000,
        kernel_lookup_miss: 0,
        user_lookup_miss: 0,
        xsave_mask: crate::cpuid::guest_xcr0() as u32,
        aliases: at::ALIASES,
        alias_mask: ALIAS_MASK_WORD,
        user_tlb: USER_TLB,
        exit_link: gate::link(),
        exit_indirect: gate::indirect(),
        exit_emulate: gate::emulate(),
        exit_state: gate::state(),
        exit_syscall: gate::hypercall(),
    }
}

/// The same for user code, which leaves with its own rights.
fn user_targets(t: Targets) -> Targets {
    Targets {
        exit_link: gate::user_link(),
        exit_indirect: gate::user_indirect(),
        exit_emulate: gate::user_emulate(),
        exit_syscall: gate::user_syscall(),
        ..t
    }
}

/// The writable view of a part of the code cache.
pub(crate) fn writable(offset: u32, len: usize) -> &'static mut [u8] {
    assert!(offset as usize + len <= at::CODE_SIZE as usize);
    // SAFETY: within the cache's writable mapping; only the running space's
    // monitor writes, and never while guest code runs.
    unsafe { core::slice::from_raw_parts_mut((at::CODE_RW + u64::from(offset)) as *mut u8, len) }
}
