//! Which gate a host address lies in.

use super::code::*;

/// In which part of the gates a host address lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Not in a gate.
    Outside,
    /// In the tail of the way to user mode: user state is complete in the
    /// remaining registers and the entry page.
    UserEntry,
    /// A patched system call, still with the program's keys: all its registers
    /// are in place, or (`true`) RAX and RDX are put aside and RCX is in R11.
    SystemCall(bool),
    /// Touching the guest kernel stack for a system call; on a fault go on at the address.
    Recover(u64),
    /// A way that was begun in its middle ended.
    Refused,
    /// Elsewhere in a gate.
    Other,
}

/// Classifies a host address.
pub fn part(rip: u64) -> Part {
    let at = |label: &u8| core::ptr::from_ref(label) as u64;
    // SAFETY: the symbols are labels of the gates; only their addresses are used.
    unsafe {
        let within = |a: &u8, b: &u8| (at(a)..at(b)).contains(&rip);
        let entry = gate_syscall as *const () as u64;
        if !within(&gates_start, &gates_end) {
            Part::Outside
        } else if within(&user_entry_start, &user_entry_end) {
            Part::UserEntry
        } else if (entry..at(&syscall_entry_end)).contains(&rip) {
            Part::SystemCall(rip > at(&syscall_entry_saved))
        } else if within(&syscall_fast_start, &syscall_fast_end) {
            Part::Recover(gate_syscall_slow as *const () as u64)
        } else if within(&iret_fast_start, &iret_fast_end) {
            Part::Recover(gate_iret_slow as *const () as u64)
        } else if [gate_refused as *const () as u64, plain_only as *const () as u64].contains(&rip)
        {
            Part::Refused
        } else {
            Part::Other
        }
    }
}
