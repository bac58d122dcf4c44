//! Memory the guest code of the tests lives in and works on.

use crate::rng::Rng;

pub const PAGE: usize = 4096;
/// Code pages of a place.
pub const CODE_PAGES: usize = 3;
/// Writable data pages, first in the data region.
pub const DATA_PAGES: usize = 4;
/// From code to data.
pub const DATA_OFFSET: u64 = 0x10_0000;
/// Length of the writable data.
pub const DATA: usize = DATA_PAGES * PAGE;

/// Code, and data at [`DATA_OFFSET`] from it: [`DATA_PAGES`] writable pages, a
/// read-only page, nothing after and nothing before.
pub struct Place {
    pub base: u64,
}

fn map(at: u64, len: usize, protection: i32) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: never replaces an existing mapping.
    let got = unsafe { libc::mmap(at as *mut _, len, protection, flags, -1, 0) };
    got as u64 == at
}

/// Maps `len` bytes at exactly `at`, readable, writable and executable.
pub fn map_all(at: u64, len: usize) {
    assert!(map(at, len, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC), "map {at:#x}");
}

impl Place {
    /// A place at the first of `candidates` where the address space is free.
    pub fn new(candidates: impl IntoIterator<Item = u64>) -> Place {
        let all = libc::PROT_READ | libc::PROT_WRITE;
        for base in candidates {
            let whole = DATA_OFFSET as usize * 2;
            if !map(base - DATA_OFFSET, whole + DATA_OFFSET as usize, libc::PROT_NONE) {
                continue;
            }
            let protect = |at: u64, len: usize, protection| {
                // SAFETY: inside the mapping just made.
                let done = unsafe { libc::mprotect(at as *mut _, len, protection) };
                assert_eq!(done, 0);
            };
            protect(base, CODE_PAGES * PAGE, all | libc::PROT_EXEC);
            protect(base + DATA_OFFSET, DATA, all);
            protect(base + DATA_OFFSET + DATA as u64, PAGE, libc::PROT_READ);
            return Place { base };
        }
        panic!("no free address range for a test place");
    }

    /// Host address of the data.
    pub fn data(&self) -> u64 {
        self.base + DATA_OFFSET
    }

    pub fn code_bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for good; `&mut self` keeps it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base as *mut u8, CODE_PAGES * PAGE) }
    }

    pub fn data_bytes(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.data() as *mut u8, DATA) }
    }
}

/// Random contents for a data region.
pub fn random_data(rng: &mut Rng) -> Vec<u8> {
    let mut data = vec![0; DATA];
    for word in data.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.value().to_le_bytes());
    }
    data
}
