//! The monitor's system calls. Every one goes through [`call6`], which the
//! jail's filter (`jail_rules.rs`) narrows.

#[cfg(not(fuzzing))]
use core::arch::asm;

#[cfg(fuzzing)]
use crate::harness::call6;

const MMAP: u64 = 9;
const MPROTECT: u64 = 10;
const MUNMAP: u64 = 11;
const RT_SIGACTION: u64 = 13;
const MINCORE: u64 = 27;
const MADVISE: u64 = 28;
const SETITIMER: u64 = 38;
const GETPID: u64 = 39;
const GETPPID: u64 = 110;
const CLONE: u64 = 56;
const SIGALTSTACK: u64 = 131;
const PRCTL: u64 = 157;
const ARCH_PRCTL: u64 = 158;
const UNAME: u64 = 63;
const FUTEX: u64 = 202;
const EXIT_GROUP: u64 = 231;
const SECCOMP: u64 = 317;
const PKEY_MPROTECT: u64 = 329;
const PKEY_ALLOC: u64 = 330;
const WRITE: u64 = 1;
const CLOSE: u64 = 3;
const CLOSE_RANGE: u64 = 436;
const LANDLOCK_CREATE_RULESET: u64 = 444;
const LANDLOCK_RESTRICT_SELF: u64 = 446;

/// `PROT_READ`.
pub const READ: u32 = 1;
/// `PROT_WRITE`.
pub const WRITE_ACCESS: u32 = 2;
/// `PROT_EXEC`.
pub const EXEC: u32 = 4;

/// `MAP_SHARED`.
pub const MAP_SHARED: u32 = 1;
/// `MAP_PRIVATE`.
pub const MAP_PRIVATE: u32 = 2;
/// `MAP_FIXED`.
pub const MAP_FIXED: u32 = 0x10;
/// `MAP_ANONYMOUS`.
pub const MAP_ANONYMOUS: u32 = 0x20;
/// `MAP_NORESERVE`.
pub const MAP_NORESERVE: u32 = 0x4000;
/// `MAP_POPULATE`.
pub const MAP_POPULATE: u32 = 0x8000;

/// A system call; the kernel's answer, negative errno on failure.
///
/// # Safety
/// As the call itself demands.
#[cfg(not(fuzzing))]
unsafe fn call6(nr: u64, a: [u64; 6]) -> i64 {
    let r: i64;
    // SAFETY: the caller answers for the arguments; the kernel clobbers RCX and R11 only.
    unsafe {
        asm!("syscall", inlateout("rax") nr as i64 => r, in("rdi") a[0], in("rsi") a[1],
             in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    r
}

/// Maps `len` bytes at `addr` (MAP_FIXED is up to `flags`).
///
/// # Safety
/// Replaces what was mapped there: nothing the monitor still uses.
pub unsafe fn mmap(addr: u64, len: u64, prot: u32, flags: u32, fd: i32, offset: u64) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call6(MMAP, [addr, len, prot.into(), flags.into(), fd as i64 as u64, offset]) }
}

/// What calls return that would need more memory, or mappings, than there may be: `-ENOMEM`.
pub const NO_MEMORY: i64 = -12;

/// Removes mappings.
///
/// # Safety
/// Nothing the monitor still uses lies there.
pub unsafe fn munmap(addr: u64, len: u64) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call6(MUNMAP, [addr, len, 0, 0, 0, 0]) }
}

/// `MADV_REMOVE`: the pages' memory goes back to the host, and with it their content.
const REMOVE: u64 = 9;

/// Takes the memory of a shared mapping's pages away; they read as zero, wherever they are mapped.
///
/// # Safety
/// Nobody needs what lies there.
pub unsafe fn discard(addr: u64, len: u64) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call6(MADVISE, [addr, len, REMOVE, 0, 0, 0]) }
}

/// `MADV_COLLAPSE`: one huge page for what lies in it.
const COLLAPSE: u64 = 25;

/// Asks the host for huge pages for a shared mapping; what is in it stays as it is.
///
/// # Safety
/// The range lies in the monitor's view of RAM.
pub unsafe fn collapse(addr: u64, len: u64) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call6(MADVISE, [addr, len, COLLAPSE, 0, 0, 0]) }
}

/// Which pages of a mapping have memory of the host's: bit 0 of a byte for each.
///
/// # Safety
/// `pages` has a byte for each page of the range, which lies in the monitor's view of RAM.
pub unsafe fn resident(addr: u64, len: u64, pages: &mut [u8]) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call6(MINCORE, [addr, len, pages.as_mut_ptr() as u64, 0, 0, 0]) }
}

/// Changes the protection of guest pages.
///
/// # Safety
/// The range holds guest pages only.
pub unsafe fn mprotect(addr: u64, len: u64, prot: u32) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call6(MPROTECT, [addr, len, prot.into(), 0, 0, 0]) }
}

/// Changes protection and key of pages.
///
/// # Safety
/// The monitor can still reach what it needs afterwards.
pub unsafe fn pkey_mprotect(addr: u64, len: u64, prot: u32, key: u32) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call6(PKEY_MPROTECT, [addr, len, prot.into(), key.into(), 0, 0]) }
}

/// Allocates a protection key with no rights taken from the caller.
pub fn pkey_alloc() -> i64 {
    // SAFETY: touches no memory.
    unsafe { call6(PKEY_ALLOC, [0; 6]) }
}

/// Installs a signal handler (`struct kernel_sigaction`: handler, flags, restorer, mask).
///
/// # Safety
/// The handler and restorer are code fit for the purpose.
pub unsafe fn sigaction(signal: u32, action: &[u64; 4]) -> i64 {
    // SAFETY: `action` is read during the call; the caller answers for the handler.
    unsafe { call6(RT_SIGACTION, [signal.into(), action.as_ptr() as u64, 0, 8, 0, 0]) }
}

/// Sets the signal stack; `disarmed`: it is not one while a handler runs
/// (`SS_AUTODISARM`, asm-generic/signal-defs.h, Linux 4.7).
///
/// # Safety
/// The range is a stack that nothing else uses.
pub unsafe fn sigaltstack(base: u64, size: u64, disarmed: bool) -> i64 {
    let stack: [u64; 3] = [base, if disarmed { 1 << 31 } else { 0 }, size];
    // SAFETY: `stack` is read during the call; the caller answers for the range.
    unsafe { call6(SIGALTSTACK, [stack.as_ptr() as u64, 0, 0, 0, 0, 0]) }
}

/// Arms the space's real-time interval timer once, in `us` microseconds (0 = off).
pub fn set_timer(us: u64) {
    let value: [u64; 4] = [0, 0, us / 1_000_000, us % 1_000_000];
    // SAFETY: `value` is read during the call.
    unsafe { call6(SETITIMER, [0, value.as_ptr() as u64, 0, 0, 0, 0]) };
}

/// The space's process id.
pub fn getpid() -> i32 {
    // SAFETY: touches no memory.
    unsafe { call6(GETPID, [0; 6]) as i32 }
}

/// Duplicates this space (`CLONE_PARENT`: the domain process stays the parent
/// of all spaces). 0 in the new one.
///
/// # Safety
/// The caller handles coming back twice.
pub unsafe fn clone() -> i64 {
    // SAFETY: the caller's promise; no new stack, so both continue here.
    unsafe { call6(CLONE, [0x8000 | 17, 0, 0, 0, 0, 0]) }
}

/// `PR_SET_PDEATHSIG` with SIGKILL; ends this process if the parent, `xendomain`,
/// is dead already. In a PID namespace nobody sees that parent (number 0): there
/// the end of the namespace's first process ends all others.
pub fn die_with_parent(parent: i32) {
    // SAFETY: touches no memory.
    let now = unsafe {
        call6(PRCTL, [1, 9, 0, 0, 0, 0]);
        call6(GETPPID, [0; 6])
    };
    if now != 0 && now != i64::from(parent) {
        exit(0);
    }
}

/// No other process of the same user may look into this one (`PR_SET_DUMPABLE`).
/// Clones inherit it.
pub fn close_to_others() {
    // SAFETY: touches no memory.
    unsafe { call6(PRCTL, [4, 0, 0, 0, 0, 0]) };
}

/// Does the host know Syscall User Dispatch (Linux 5.11)?
pub fn can_dispatch() -> bool {
    // SAFETY: touches no memory; switches off what is not on.
    unsafe { call6(PRCTL, [59, 0, 0, 0, 0, 0]) == 0 }
}

/// Sends system calls made while `*selector` is 1 to SIGSYS
/// (Documentation/admin-guide/syscall-user-dispatch.rst); no range is exempt.
pub fn dispatch_syscalls(selector: u64) -> i64 {
    // SAFETY: the kernel only reads the selector byte.
    unsafe { call6(PRCTL, [59, 1, 0, 0, selector, 0]) }
}

/// Makes CPUID fault in this space (`ARCH_SET_CPUID`); an error where the CPU cannot.
pub fn fault_on_cpuid() -> i64 {
    // SAFETY: touches no memory.
    unsafe { call6(ARCH_PRCTL, [0x1012, 0, 0, 0, 0, 0]) }
}

/// Waits while `*word == value`, at most `timeout_ns` (None = no limit).
pub fn futex_wait(
    word: &core::sync::atomic::AtomicU32,
    value: u32,
    timeout_ns: Option<u64>,
) -> i64 {
    let time = timeout_ns.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
    let time = time.as_ref().map_or(0, |t| t.as_ptr() as u64);
    // SAFETY: the kernel reads the word and the time.
    unsafe { call6(FUTEX, [core::ptr::from_ref(word) as u64, 0, value.into(), time, 0, 0]) }
}

/// Wakes one waiter.
pub fn futex_wake(word: &core::sync::atomic::AtomicU32) {
    // SAFETY: touches no memory of ours.
    unsafe { call6(FUTEX, [core::ptr::from_ref(word) as u64, 1, 1, 0, 0, 0]) };
}

/// Closes the jail: from here on only the calls of `program` pass.
///
/// # Safety
/// `program` is an array of `struct sock_filter`.
pub unsafe fn seccomp(program: &[u8]) -> i64 {
    // SAFETY: the caller's promise; `PR_SET_NO_NEW_PRIVS` touches no memory.
    unsafe {
        call6(PRCTL, [38, 1, 0, 0, 0, 0]);
        add_filter(program.len() / 8, program.as_ptr())
    }
}

/// Narrows the jail further.
///
/// # Safety
/// `program` is an array of `struct sock_filter`.
pub unsafe fn narrow(program: &[u64]) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { add_filter(program.len(), program.as_ptr().cast()) }
}

/// # Safety
/// As for `seccomp`.
unsafe fn add_filter(length: usize, program: *const u8) -> i64 {
    let prog: [u64; 2] = [length as u64, program as u64];
    // SAFETY: the caller's promise; `prog` has the layout of `struct sock_fprog`.
    // SECCOMP_FILTER_FLAG_SPEC_ALLOW (4): a space is a sandbox of one trust level,
    // and speculation controls would slow the guest by a third.
    unsafe { call6(SECCOMP, [1, 4, prog.as_ptr() as u64, 0, 0, 0]) }
}

/// What Landlock can forbid, by version of its interface (linux/landlock.h): bits of
/// file accesses, of TCP, and of what is scoped (abstract sockets, signals).
const LANDLOCK: [(i64, [u64; 3]); 6] = [
    (1, [0x1fff, 0, 0]),
    (2, [0x3fff, 0, 0]),
    (3, [0x7fff, 0, 0]),
    (4, [0x7fff, 3, 0]),
    (5, [0xffff, 3, 0]),
    (6, [0xffff, 3, 3]),
];

/// Forbids this process and all that it makes whatever the kernel's Landlock can:
/// a set of rules that allows nothing. False if the kernel has Landlock and refused.
pub fn landlock() -> bool {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: u64 = 1;
    // SAFETY: the kernel reads the attributes, which have the length that is given;
    // the descriptor is this function's own.
    unsafe {
        let version = call6(LANDLOCK_CREATE_RULESET, [0, 0, VERSION, 0, 0, 0]);
        if version <= 0 {
            return true;
        }
        let known = LANDLOCK.iter().rev().find(|(oldest, _)| *oldest <= version);
        let Some((_, attributes)) = known else { return false };
        // An older kernel takes a longer structure if what it does not know is zero.
        let at = attributes.as_ptr() as u64;
        let set = call6(LANDLOCK_CREATE_RULESET, [at, size_of_val(attributes) as u64, 0, 0, 0, 0]);
        if set < 0 {
            return false;
        }
        call6(PRCTL, [38, 1, 0, 0, 0, 0]);
        let closed = call6(LANDLOCK_RESTRICT_SELF, [set as u64, 0, 0, 0, 0, 0]);
        call6(CLOSE, [set as u64, 0, 0, 0, 0, 0]);
        closed == 0
    }
}

/// Closes descriptors from `first` on.
pub fn close_from(first: i32) {
    // SAFETY: touches no memory.
    unsafe { call6(CLOSE_RANGE, [first as u64, u32::MAX.into(), 0, 0, 0, 0]) };
}

/// Major and minor number of the host's kernel; (0, 0) if it does not say.
pub fn kernel_version() -> (u32, u32) {
    /// `struct new_utsname` (linux/utsname.h): six fields of 65 bytes, `release` the third.
    const FIELD: usize = 65;
    let mut names = [0u8; 6 * FIELD];
    // SAFETY: the kernel fills the structure, which has this size.
    unsafe { call6(UNAME, [names.as_mut_ptr() as u64, 0, 0, 0, 0, 0]) };
    let mut numbers = names[2 * FIELD..3 * FIELD]
        .split(|b| !b.is_ascii_digit())
        .map(|digits| digits.iter().take(6).fold(0u32, |n, d| n * 10 + u32::from(d - b'0')));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Writes to standard error; of use before the jail closes and in debugging only.
pub fn stderr(text: &[u8]) {
    // SAFETY: `text` is read during the call.
    unsafe { call6(WRITE, [2, text.as_ptr() as u64, text.len() as u64, 0, 0, 0]) };
}

/// Adds one to the counter of an eventfd(2), which wakes whoever waits for it. A full counter is as
/// good as one more.
pub fn count_up(event: i32) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is read during the call.
    unsafe { call6(WRITE, [event as u64, one.as_ptr() as u64, one.len() as u64, 0, 0, 0]) };
}

/// Ends this space.
pub fn exit(code: u32) -> ! {
    loop {
        // SAFETY: does not come back.
        unsafe { call6(EXIT_GROUP, [code.into(), 0, 0, 0, 0, 0]) };
    }
}
