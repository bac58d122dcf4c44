//! The guest at the start: its memory, its page tables, and a walker of its own.

use abi::mmu::{
    PTE_ACCESSED, PTE_ADDR, PTE_DIRTY, PTE_NX, PTE_PRESENT, PTE_PSE, PTE_USER, PTE_WRITE,
};
use boundary::{Setup, at};

use crate::guest::{DIRECT_MAP, IMAGE_MAP};

/// Frames the guest owns.
pub const FRAMES: u64 = 48;
/// Frames in the memfd: shared_info, one of nobody's, 32 of the grant table, the M2P.
pub const SHARED_INFO: u64 = FRAMES;
const NOBODYS: u64 = FRAMES + 1;
const GRANTS: u64 = FRAMES + 2;
const M2P: u64 = GRANTS + 32;
pub const ALL: u64 = M2P + 1;

/// Where user pages are at the start, low and high, and kernel pages apart from the linear maps.
pub const USER: u64 = 0x40_0000;
pub const USER_HIGH: u64 = 0x7fff_8000_0000;
pub const KERNEL_PAGES: u64 = 0xffff_c900_0000_0000;

/// The top-level tables, and the first of the frames that are no tables.
const ROOT: u64 = 0;
pub const SECOND_ROOT: u64 = 16;
pub const FREE: u64 = 20;

const TABLE: u64 = PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED | PTE_DIRTY;

/// Nobody may write what bears this.
const CANARY: u8 = 0xa5;

pub fn setup(flags: u32) -> Setup {
    Setup {
        nr_pages: FRAMES,
        max_pages: FRAMES,
        nr_frames: ALL,
        shared_info_mfn: SHARED_INFO,
        console_mfn: FRAMES - 1,
        store_mfn: FRAMES - 2,
        grant_mfn: GRANTS,
        m2p_mfn: M2P,
        m2p_frames: 1,
        vcpus: 1,
        domid: 3,
        entry: IMAGE_MAP + (FREE << 12),
        stack: DIRECT_MAP + (FREE << 12) + 0x800,
        start_info: DIRECT_MAP + (FREE << 12),
        cr3_mfn: ROOT,
        flags,
        cpus: 1,
        ..Setup::default()
    }
}

fn frame(mfn: u64) -> *mut u8 {
    assert!(mfn < ALL);
    (at::RAM + (mfn << 12)) as *mut u8
}

/// Writes one table entry.
pub fn set(table: u64, index: u64, entry: u64) {
    // SAFETY: a frame of the memfd (checked), the index within it.
    unsafe { frame(table).cast::<u64>().add(index as usize & 511).write(entry) };
}

fn get(table: u64, index: u64) -> Option<u64> {
    // SAFETY: as above.
    (table < ALL).then(|| unsafe { frame(table).cast::<u64>().add(index as usize & 511).read() })
}

/// Writes bytes into a frame of the guest's.
pub fn write(mfn: u64, offset: usize, bytes: &[u8]) {
    let offset = offset & 0xfff;
    let len = bytes.len().min(4096 - offset);
    // SAFETY: a frame of the memfd (checked); the piece lies within it.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), frame(mfn).add(offset), len) };
}

fn index(va: u64, level: u64) -> u64 {
    va >> (12 + 9 * level) & 511
}

/// Tables for one region of 2 MiB: `tables` are those of levels 3, 2 and 1.
fn chain(root: u64, va: u64, tables: [u64; 3]) -> u64 {
    let mut above = root;
    for (level, table) in [3, 2, 1].into_iter().zip(tables) {
        set(above, index(va, level), table << 12 | TABLE);
        above = table;
    }
    above
}

/// Fills guest memory: two address spaces that share the kernel half.
pub fn fill() {
    // SAFETY: all of the memfd's frames, mapped by `prepare`.
    unsafe { core::ptr::write_bytes(frame(0), 0, (ALL << 12) as usize) };
    for mfn in [NOBODYS, M2P] {
        // SAFETY: as above.
        unsafe { core::ptr::write_bytes(frame(mfn), CANARY, 4096) };
    }
    for (root, user) in [(ROOT, [7, 8, 9]), (SECOND_ROOT, [17, 18, 19])] {
        let direct = chain(root, DIRECT_MAP, [1, 2, 3]);
        let image = chain(root, IMAGE_MAP, [4, 5, 6]);
        let kernel = chain(root, KERNEL_PAGES, [13, 14, 15]);
        let low = chain(root, USER, user);
        for i in 0..FRAMES {
            set(direct, i, i << 12 | PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_NX);
            set(image, i, i << 12 | PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY);
            if i >= FREE {
                let write = if i & 1 == 0 { PTE_WRITE | PTE_DIRTY } else { 0 };
                let nx = if i & 2 == 0 { PTE_NX } else { 0 };
                set(low, i, i << 12 | PTE_PRESENT | PTE_USER | PTE_ACCESSED | write | nx);
                set(kernel, i, (FRAMES + FREE - i - 1) << 12 | PTE_PRESENT | write | nx);
            }
        }
    }
    let high = chain(ROOT, USER_HIGH, [10, 11, 12]);
    for i in FREE..FRAMES {
        set(high, i, i << 12 | PTE_PRESENT | PTE_USER | PTE_WRITE);
    }
}

/// Are the frames that no guest may write as they were?
pub fn canaries_live() -> bool {
    [NOBODYS, M2P].into_iter().all(|mfn| {
        // SAFETY: a frame of the memfd.
        let page = unsafe { core::slice::from_raw_parts(frame(mfn), 4096) };
        // By words of the C library's: counters of every byte would cost more than the input.
        page == [CANARY; 4096]
    })
}

/// A page as the tables have it.
pub struct Mapping {
    pub frame: u64,
    pub write: bool,
    pub user: bool,
    pub exec: bool,
    pub dirty: bool,
}

/// May a guest map it?
pub fn is_the_guests(mfn: u64) -> bool {
    mfn < FRAMES || mfn == SHARED_INFO || (GRANTS..GRANTS + 32).contains(&mfn)
}

/// Walks the tables (SDM vol. 3A 4.5), independently of the monitor.
pub fn walk(root: u64, va: u64) -> Option<Mapping> {
    let entries = [3, 2, 1, 0].into_iter().try_fold((root, [0; 4]), |(table, mut seen), level| {
        let entry = get(table, index(va, level))?;
        let large = level > 0 && entry & PTE_PSE != 0;
        seen[level as usize] = entry;
        (entry & PTE_PRESENT != 0 && !large).then_some(((entry & PTE_ADDR) >> 12, seen))
    });
    let (mfn, seen) = entries?;
    let every = |bit| seen.iter().all(|entry| entry & bit != 0);
    is_the_guests(mfn).then(|| Mapping {
        frame: mfn,
        write: every(PTE_WRITE),
        user: every(PTE_USER),
        exec: seen.iter().all(|entry| entry & PTE_NX == 0),
        dirty: seen[0] & PTE_DIRTY != 0,
    })
}
