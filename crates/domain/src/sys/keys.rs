//! What the host's kernel and processor can: protection keys of memory (pkeys(7)) and more.

/// Whether processes on this host can use protection keys.
pub fn has_protection_keys() -> bool {
    // SAFETY: takes a key and gives it back; no memory bears it.
    unsafe {
        let key = libc::syscall(libc::SYS_pkey_alloc, 0, 0);
        key > 0 && libc::syscall(libc::SYS_pkey_free, key) == 0
    }
}

/// Whether system calls of programs can be sent to the monitor (Syscall User Dispatch).
pub fn has_dispatch() -> bool {
    /// linux/prctl.h.
    const PR_SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;
    // SAFETY: switches off, for this thread, what is not on.
    unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0) == 0 }
}

/// Version of Landlock's interface, 0 = none (landlock(7)).
pub fn landlock_version() -> u32 {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: libc::c_long = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: asks for a number; reads no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Whether io_uring is there and allowed.
pub fn has_io_uring() -> bool {
    let none = std::ptr::null::<u8>();
    // SAFETY: no ring is made: without entries the call is refused, by EINVAL or EFAULT.
    let refused = unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, none) } < 0;
    let why = std::io::Error::last_os_error().raw_os_error();
    refused && matches!(why, Some(libc::EINVAL | libc::EFAULT))
}
