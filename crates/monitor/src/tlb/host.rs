//! The host calls behind the mappings.

use boundary::fd;

use crate::{
    layout::key,
    state::Monitor,
    sys::{self, EXEC, MAP_FIXED, MAP_POPULATE, MAP_SHARED, READ, WRITE_ACCESS},
};

/// Runs up to this many pages are populated at once: they are about to be used.
const POPULATE: u64 = 16;

/// How a run of pages is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Writable.
    pub write: bool,
    /// Executable.
    pub exec: bool,
    /// Protection key.
    pub key: u32,
    /// The shadow memfd instead of RAM.
    pub shadow: bool,
}

impl Access {
    /// Kernel pages.
    pub fn kernel(write: bool) -> Access {
        Access { write, exec: false, key: key::KERNEL, shadow: false }
    }
    /// `PROT_*`.
    pub fn protection(self) -> u32 {
        READ | if self.write { WRITE_ACCESS } else { 0 } | if self.exec { EXEC } else { 0 }
    }
    /// The memfd.
    pub fn file(self) -> i32 {
        if self.shadow { fd::SHADOW } else { fd::RAM }
    }
}

impl Monitor {
    /// Maps `count` frames from `frame` on at host address `host`. Out of
    /// mappings (vm.max_map_count): drops the user half once and tries again.
    pub(super) fn host_map(&mut self, host: u64, frame: u32, count: u64, access: Access) {
        for attempt in 0..2 {
            if self.try_map(host, frame, count, access) {
                return;
            }
            if attempt == 0 && !self.is_separate() {
                self.drop_user_half();
            }
        }
        crate::crash::end(
            self,
            "the host gave no memory mapping (vm.max_map_count or memory limit?)",
        );
    }

    fn try_map(&mut self, host: u64, frame: u32, count: u64, access: Access) -> bool {
        self.stats.maps += 1;
        let populate = if count > 1 && count <= POPULATE { MAP_POPULATE } else { 0 };
        let len = count << 12;
        // SAFETY: `host` is a guest address: identity or folded, never in the
        // monitor's range (checked where addresses come in).
        unsafe {
            let flags = MAP_SHARED | MAP_FIXED;
            let prot = access.protection();
            let offset = u64::from(frame) << 12;
            let r = sys::mmap(host, len, prot, flags | populate, access.file(), offset);
            r as u64 == host
                && (access.key == key::USER
                    || self.is_separate()
                    || sys::pkey_mprotect(host, len, prot, access.key) == 0)
        }
    }

    /// Removes mappings of guest pages. To part one takes another mapping, of which a program can have used
    /// up all (vm.max_map_count): its pages go then, rather than that what must go stays.
    pub(super) fn host_unmap(&mut self, host: u64, count: u64) {
        self.stats.unmaps += 1;
        // SAFETY: guest addresses only.
        let unmap = || unsafe { sys::munmap(host, count << 12) } != sys::NO_MEMORY;
        if unmap() {
            return;
        }
        if !self.is_separate() {
            self.drop_user_half();
        }
        if !unmap() {
            crate::crash::end(
                self,
                "the host took no memory mapping back (vm.max_map_count or memory limit?)",
            );
        }
    }

    /// Maps frames in the user half used now; as [`Monitor::host_map`].
    pub fn user_map(&mut self, va: u64, frame: u32, count: u64, access: Access) {
        if self.is_separate() {
            self.runner_map(va, frame, count, access);
        } else {
            self.host_map(va, frame, count, access);
        }
    }

    /// Removes pages from the user half used now.
    pub(super) fn user_unmap(&mut self, va: u64, count: u64) {
        if self.is_separate() {
            self.runner_unmap(va, count);
        } else {
            self.host_unmap(va, count);
        }
    }

    /// Takes write access from pages of the user half used now.
    pub(super) fn user_write_protect(&mut self, va: u64, count: u64, exec: bool) {
        if self.is_separate() {
            self.runner_write_protect(va, count, exec);
        } else {
            self.host_write_protect(va, count, exec);
        }
    }

    /// Takes write access from mapped guest pages; holes do not matter.
    pub(super) fn host_write_protect(&mut self, host: u64, count: u64, exec: bool) {
        let protection = READ | if exec { EXEC } else { 0 };
        // SAFETY: guest addresses only. `mprotect` keeps the key.
        let protect = |page, count| unsafe { sys::mprotect(page, count << 12, protection) };
        if protect(host, count) == 0 {
            return;
        }
        // It stops at the first hole (mprotect(2)), and what is behind that counts too. It fails also where
        // there are no mappings left: nothing may stay writable for that.
        for page in (0..count).map(|page| host + (page << 12)) {
            if protect(page, 1) != 0 {
                self.host_unmap(page, 1);
            }
        }
    }
}
