//! The walls around the backend: what it may still ask the kernel for once it has its descriptors.
//!
//! It cannot open, connect, execute or fork anything. It reads and writes descriptors that it has or
//! is sent, waits, and manages its own memory. Any other call kills it (SIGSYS).

use super::ioctl::SET_OFFLOADS;
use boundary::backend_fd;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Takes over the descriptors that the domain process left: orders, RAM, arena, bell, kick.
///
/// # Errors
/// When one of them is not open.
pub fn inherited() -> io::Result<[OwnedFd; 5]> {
    use backend_fd::{ARENA, BELL, KICK, ORDERS, RAM};
    const ALL: [i32; 5] = [ORDERS, RAM, ARENA, BELL, KICK];
    for fd in ALL {
        // SAFETY: it looks at a number.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            let why = format!("descriptor {fd} is not open: xennet is started by xendomain");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    // SAFETY: they are open, as was just seen, and nothing in this process has taken them.
    Ok(ALL.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Closes the walls.
///
/// # Errors
/// When the host does not allow one that it has.
pub fn close() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    for resource in [Resource::Core, Resource::Fsize, Resource::Memlock, Resource::Msgqueue] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(0), maximum: Some(0) })?;
    }
    rustix::thread::set_no_new_privs(true)?;
    restrict_files()?;
    let program = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

/// System calls that take any arguments.
const ALLOWED: &[libc::c_long] = &[
    // Orders, links, event counters.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
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
    // The seed of hash tables.
    libc::SYS_getrandom,
    // The end.
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

type Built<T> = Result<T, seccompiler::BackendError>;

fn filter() -> Built<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let is = |argument, value: u64| SeccompCondition::new(argument, Length::Dword, Op::Eq, value);
    let one = |condition: SeccompCondition| SeccompRule::new(vec![condition]);
    rules.insert(libc::SYS_ioctl, vec![one(is(1, SET_OFFLOADS)?)?, one(is(1, libc::FIONBIO)?)?]);
    // Debug builds of the standard library look whether what they close is open.
    let get_flags = libc::F_GETFD.unsigned_abs().into();
    rules.insert(libc::SYS_fcntl, vec![one(is(1, get_flags)?)?]);
    // Memory, but no code.
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let plain = SeccompCondition::new(2, Length::Dword, Op::MaskedEq(executable), 0)?;
    rules.insert(libc::SYS_mmap, vec![one(plain.clone())?]);
    rules.insert(libc::SYS_mprotect, vec![one(plain)?]);
    let kill = SeccompAction::KillProcess;
    SeccompFilter::new(rules, kill, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// Takes the right to touch any file, port or process outside, where the kernel has Landlock
/// (linux/landlock.h): a set of rules that allows nothing.
fn restrict_files() -> io::Result<()> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: libc::c_long = 1;
    // By version: bits of file accesses, of TCP, and of what is scoped.
    let known: [(libc::c_long, [u64; 3]); 6] = [
        (1, [0x1fff, 0, 0]),
        (2, [0x3fff, 0, 0]),
        (3, [0x7fff, 0, 0]),
        (4, [0x7fff, 3, 0]),
        (5, [0xffff, 3, 0]),
        (6, [0xffff, 3, 3]),
    ];
    // SAFETY: asks for a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            0 as libc::c_long,
            0 as libc::c_long,
            VERSION,
        )
    };
    let Some((_, attributes)) = known.iter().rev().find(|(oldest, _)| *oldest <= version) else {
        return Ok(());
    };
    // SAFETY: the kernel reads the attributes, whose size is given. Older kernels take a longer
    // structure if what they do not know is 0.
    let set = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attributes.as_ptr(),
            size_of_val(attributes),
            0 as libc::c_long,
        )
    };
    let set =
        i32::try_from(set).ok().filter(|set| *set >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the descriptor was just made.
    let set = unsafe { OwnedFd::from_raw_fd(set) };
    // SAFETY: takes a descriptor.
    let closed = unsafe {
        libc::syscall(libc::SYS_landlock_restrict_self, set.as_raw_fd(), 0 as libc::c_long)
    };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
