//! The system calls of `xenchannel`: it reads and writes descriptors that it has or is sent, waits, and
//! manages its own memory.

use crate::jail::Call;

/// System calls that take any arguments.
const ANY: &[i64] = &[
    // Orders, clients, event counters.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    // The flags of frames are mapped once the monitor has said where they are.
    libc::SYS_fstat,
    // Memory of our own.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Time, and waking the guest.
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    // What this process calls itself towards the guest.
    libc::SYS_getrandom,
    // The end.
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The calls.
pub fn calls() -> Vec<Call> {
    ANY.iter().map(|call| Call::any(*call)).collect()
}
