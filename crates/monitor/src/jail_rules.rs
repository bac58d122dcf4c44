//! The system calls a space may make once its jail is closed, and with which
//! arguments. Compiled into a BPF program at build time.

use seccompiler::{SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompRule};

const WRITE: i64 = 1;
const MMAP: i64 = 9;
const MPROTECT: i64 = 10;
const MUNMAP: i64 = 11;
const RT_SIGRETURN: i64 = 15;
const GETPID: i64 = 39;
const GETPPID: i64 = 110;
const MINCORE: i64 = 27;
const MADVISE: i64 = 28;
const SETITIMER: i64 = 38;
const CLONE: i64 = 56;
const PRCTL: i64 = 157;
const ARCH_PRCTL: i64 = 158;
const FUTEX: i64 = 202;
const EXIT_GROUP: i64 = 231;
const RESTART_SYSCALL: i64 = 219;
const SECCOMP: i64 = 317;
const PKEY_MPROTECT: i64 = 329;

/// `boundary::at::SITES`.
const SITES: u64 = 0x6_0000;
const MAP_SHARED_FIXED: u64 = 0x11;
const MAP_POPULATE: u64 = 0x8000;
/// `boundary::at::RAM` and its end.
const RAM: [u64; 2] = [0x5c80_0000_0000, 0x5d80_0000_0000];
/// `MADV_REMOVE`.
const REMOVE: u64 = 9;
/// `MADV_COLLAPSE`.
const COLLAPSE: u64 = 25;
/// `PROT_READ | PROT_WRITE | PROT_EXEC`.
const PROTECTIONS: u64 = 7;
const FD_RAM: u64 = 3;
const FD_ARENA: u64 = 4;
const FD_SHADOW: u64 = 6;
/// Bells of the device backends: `boundary::fd::BELLS` to `END`.
const BELLS: [u64; 3] = [7, 8, 9];
const CLONE_PARENT: u64 = 0x8000;
const SIGCHLD: u64 = 17;
const SIGKILL: u64 = 9;
const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_SYSCALL_USER_DISPATCH: u64 = 59;
const PR_SYS_DISPATCH_ON: u64 = 1;
const ARCH_SET_CPUID: u64 = 0x1012;
const SET_MODE_FILTER: u64 = 1;
const FILTER_SPEC_ALLOW: u64 = 4;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;

fn is(arg: u8, value: u64) -> SeccompCondition {
    SeccompCondition::new(arg, Len::Dword, Op::Eq, value).expect("argument index below 6")
}
fn is_long(arg: u8, value: u64) -> SeccompCondition {
    SeccompCondition::new(arg, Len::Qword, Op::Eq, value).expect("argument index below 6")
}
fn masked(arg: u8, mask: u64, value: u64) -> SeccompCondition {
    SeccompCondition::new(arg, Len::Dword, Op::MaskedEq(mask), value)
        .expect("argument index below 6")
}
fn at_least(arg: u8, value: u64) -> SeccompCondition {
    SeccompCondition::new(arg, Len::Qword, Op::Ge, value).expect("argument index below 6")
}
fn below(arg: u8, value: u64) -> SeccompCondition {
    SeccompCondition::new(arg, Len::Qword, Op::Lt, value).expect("argument index below 6")
}
fn rule(conditions: Vec<SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions).expect("at least one condition")
}

/// Whose calls a filter lets through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Jailed {
    /// A space that keeps guest programs from their kernel by protection keys.
    Keys,
    /// A space whose guest programs are in processes of their own.
    Space,
    /// The process that makes those; each narrows its own calls further (`runner::filter`).
    Nursery,
}

/// System call number and its allowed argument patterns (none = any arguments).
///
/// Every rule is one that a guest at work needs; `tests/drill` watches that.
pub fn rules(of: Jailed) -> Vec<(i64, Vec<SeccompRule>)> {
    let mut rules = vec![
        (MMAP, mappings(of)),
        // No growing stacks (PROT_GROWSDOWN), which could be given room without `mmap`.
        (MPROTECT, vec![rule(vec![masked(2, 0xffff_ffff & !PROTECTIONS, 0)])]),
        (MUNMAP, vec![]),
        (RT_SIGRETURN, vec![]),
        (SETITIMER, vec![rule(vec![is(0, 0)])]),
        (FUTEX, vec![rule(vec![is(1, FUTEX_WAIT)]), rule(vec![is(1, FUTEX_WAKE)])]),
        // A wait with a time limit that was stopped (`xm pause`) goes on by this one.
        (RESTART_SYSCALL, vec![]),
        (EXIT_GROUP, vec![]),
    ];
    if of != Jailed::Nursery {
        rules.extend(for_the_monitor());
    }
    if of != Jailed::Space {
        rules.extend(for_new_processes());
    }
    match of {
        Jailed::Keys => {
            rules.push((PKEY_MPROTECT, vec![rule(vec![masked(2, 0xffff_ffff & !PROTECTIONS, 0)])]));
        }
        Jailed::Space => {}
        Jailed::Nursery => {
            let filter = rule(vec![is(0, SET_MODE_FILTER), is(1, FILTER_SPEC_ALLOW)]);
            rules.push((SECCOMP, vec![filter]));
        }
    }
    rules
}

fn for_the_monitor() -> Vec<(i64, Vec<SeccompRule>)> {
    vec![
        // Memory that the guest gives back (its balloon), and huge pages: of its RAM only.
        (
            MADVISE,
            [REMOVE, COLLAPSE]
                .map(|advice| rule(vec![at_least(0, RAM[0]), below(0, RAM[1]), is(2, advice)]))
                .into(),
        ),
        // What of it has memory already.
        (MINCORE, vec![rule(vec![at_least(0, RAM[0]), below(0, RAM[1])])]),
        (WRITE, BELLS.map(|bell| rule(vec![is(0, bell), is_long(2, 8)])).into()),
    ]
}

fn for_new_processes() -> Vec<(i64, Vec<SeccompRule>)> {
    vec![
        (CLONE, vec![rule(vec![is_long(0, CLONE_PARENT | SIGCHLD)])]),
        (
            PRCTL,
            vec![
                // A process that asked for another signal would outlive its domain.
                rule(vec![is(0, PR_SET_PDEATHSIG), is_long(1, SIGKILL)]),
                rule(vec![
                    is(0, PR_SET_SYSCALL_USER_DISPATCH),
                    is_long(1, PR_SYS_DISPATCH_ON),
                    is_long(2, 0),
                    is_long(3, 0),
                ]),
            ],
        ),
        (ARCH_PRCTL, vec![rule(vec![is(0, ARCH_SET_CPUID), is_long(1, 0)])]),
        (GETPID, vec![]),
        (GETPPID, vec![]),
    ]
}

/// Guest memory only: shared mappings of the RAM and shadow memfds, and nothing
/// anonymous. Pages of RAM and shadow may be executable: guest user code runs
/// directly.
fn mappings(of: Jailed) -> Vec<SeccompRule> {
    let flags = !MAP_POPULATE & 0xffff_ffff;
    let mut rules = vec![
        rule(vec![masked(3, flags, MAP_SHARED_FIXED), is(4, FD_RAM)]),
        rule(vec![masked(3, flags, MAP_SHARED_FIXED), is(4, FD_SHADOW)]),
    ];
    if of == Jailed::Nursery {
        // A new runner maps its part of the arena, at four places and nowhere else.
        use crate::symbols::{MAILBOX, ORDERS, RETURNS};
        rules.extend(
            [MAILBOX, ORDERS, RETURNS, SITES]
                .map(|at| rule(vec![is(3, MAP_SHARED_FIXED), is(4, FD_ARENA), is_long(0, at)])),
        );
    }
    rules
}
