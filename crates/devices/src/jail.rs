//! What a backend gives up once it has what it needs: the host's file tree, files by name, new privileges, other processes,
//! and every system call that it does not use.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;

/// A system call that a backend may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    number: i64,
    /// One of its arguments, and the value that it must have.
    argument: Option<(u8, u64)>,
}

impl Call {
    /// With any arguments.
    pub const fn any(number: i64) -> Self {
        Self { number, argument: None }
    }

    /// With one of its arguments as said, by its lower half (such arguments are ints).
    pub const fn with(number: i64, argument: u8, value: u64) -> Self {
        Self { number, argument: Some((argument, value)) }
    }

    fn rule(self) -> Result<Option<SeccompRule>, seccompiler::BackendError> {
        let Some((argument, value)) = self.argument else { return Ok(None) };
        let size = SeccompCmpArgLen::Dword;
        let condition = SeccompCondition::new(argument, size, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![condition]).map(Some)
    }
}

/// What a backend with threads needs: its memory, locks, time, its descriptors, its end.
pub const THREADED: [i64; 35] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_restart_syscall,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
];

/// What a backend without threads needs: the descriptors that it has or is sent, waits, its own memory,
/// its end.
pub const SINGLE: [i64; 25] = [
    // Orders, what serves the other side, event counters.
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
    // Seeds.
    libc::SYS_getrandom,
    // The end.
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Bits of the third argument of mmap(2) and mprotect(2) that no call may have.
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// Gives up files by name and the network, for this thread and those that it makes from now on.
/// Where the kernel has no Landlock, [`close`] alone has to do.
///
/// # Errors
/// When the kernel does not allow that.
pub fn forsake_files() -> io::Result<()> {
    use_one_heap();
    outlive_limits();
    // Behind Landlock no mount could be changed.
    crate::root::leave()?;
    rustix::thread::set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    let abi = ABI::V6;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self())
        .map_err(io::Error::other)?;
    Ok(())
}

/// Has a write beyond the user's limit of file sizes fail, as one on a full host does, in place of being
/// the end of the process (setrlimit(2), `RLIMIT_FSIZE`).
fn outlive_limits() {
    // SAFETY: a signal that is ignored runs no code.
    let _was_the_default = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Has all threads allocate from the main heap. The C library opens a file of /proc when it shrinks
/// one of the others (`vm.overcommit_memory`, malloc/arena.c), which would be the end of the process.
fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call sets a number in the C library, under its own lock.
    let _is_known = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives up, for all threads, every system call but these. A thread that makes
/// another ends the process (SIGSYS).
///
/// # Errors
/// When the kernel takes no filter.
pub fn close(calls: Vec<Call>) -> io::Result<()> {
    let program = filter(calls).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

fn filter(calls: Vec<Call>) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    // The standard library's debug builds look before they close a descriptor.
    let look = Call::with(libc::SYS_fcntl, 1, libc::F_GETFD as u64);
    for call in calls.into_iter().chain([look]) {
        let conditions = rules.entry(call.number).or_default();
        conditions.extend(call.rule()?);
    }
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        let size = SeccompCmpArgLen::Dword;
        let without = SeccompCmpOp::MaskedEq(EXECUTABLE);
        let condition = SeccompCondition::new(2, size, without, 0)?;
        rules.insert(number, vec![SeccompRule::new(vec![condition])?]);
    }
    let (other, listed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    SeccompFilter::new(rules, other, listed, TargetArch::x86_64)?.try_into()
}
