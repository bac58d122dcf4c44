//! The arena's allocator: size classes of powers of two, never returned to the
//! host. Only the space that runs the vCPU allocates, so there is no lock yet;
//! the header lies in the arena and is the same for all spaces.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr,
};

use crate::{
    layout::{ARENA_HEAP, at},
    proven::Masked,
};

const CLASSES: usize = 64;
const HEADER: u64 = at::ARENA + ARENA_HEAP;

#[repr(C)]
struct Header {
    top: u64,
    free: [u64; CLASSES],
}

/// The global allocator.
pub struct Arena;

fn class(layout: Layout) -> usize {
    layout.size().max(layout.align()).max(16).next_power_of_two().trailing_zeros() as usize
}

fn header() -> *mut Header {
    HEADER as *mut Header
}

/// Bytes taken from the arena so far.
pub fn used() -> u64 {
    // SAFETY: the arena is mapped for the life of a space.
    unsafe { (*header()).top - HEADER }
}

/// Prepares the empty arena.
///
/// # Safety
/// Called once a domain, before anything allocates.
pub unsafe fn init() {
    // SAFETY: the arena is mapped and nobody uses it yet.
    unsafe { (*header()).top = HEADER + 4096 };
}

// SAFETY: blocks are carved from the arena once and recycled by class, so live
// blocks never overlap; classes are powers of two up to a page and aligned so.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let c = class(layout);
        if c >= CLASSES {
            return ptr::null_mut();
        }
        // SAFETY: the header is mapped; free lists hold blocks of their class.
        unsafe {
            let h = &mut *header();
            let free = h.free.at_mut(c);
            let first = *free;
            if first != 0 {
                *free = *(first as *const u64);
                return first as *mut u8;
            }
            let size = 1u64 << c;
            let align = size.min(4096);
            let start = (h.top + align - 1) & !(align - 1);
            if start + size > crate::layout::ALIASES {
                return ptr::null_mut();
            }
            h.top = start + size;
            start as *mut u8
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout and is dead now.
        unsafe {
            let free = (&mut *header()).free.at_mut(class(layout));
            *(block as *mut u64) = *free;
            *free = block as u64;
        }
    }
}
