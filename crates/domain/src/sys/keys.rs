//! Protection keys of memory (pkeys(7)).

/// Whether processes on this host can use protection keys.
pub fn has_protection_keys() -> bool {
    // SAFETY: takes a key and gives it back; no memory bears it.
    unsafe {
        let key = libc::syscall(libc::SYS_pkey_alloc, 0, 0);
        key > 0 && libc::syscall(libc::SYS_pkey_free, key) == 0
    }
}
