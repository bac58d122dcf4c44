//! From the state at a fault or signal in translated code back to the guest's.

use crate::context::Context;
use crate::output::Fix;
use crate::{FOLD, Mode};

const RCX: usize = 1;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;

/// Makes `regs` (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15) those of the
/// guest at an [`crate::Entry`] with `fix`. In kernel mode RSP stays folded.
pub fn repair(fix: Fix, regs: &mut [u64; 16], context: &Context) {
    for (slot, saved) in context.spill.iter().enumerate() {
        if let Some(register) = fix.register(slot).and_then(|number| regs.get_mut(number)) {
            *register = *saved;
        }
    }
    if fix.has(Fix::RDI) {
        regs[RDI] = regs[RDI].wrapping_sub(context.delta_rdi);
    }
    if fix.has(Fix::RSI) {
        regs[RSI] = regs[RSI].wrapping_sub(context.delta_rsi);
    }
    if fix.has(Fix::COUNT) {
        regs[RCX] = regs[RCX].wrapping_add(context.count_left);
    }
    if fix.has(Fix::PUSHED) {
        regs[RSP] = regs[RSP].wrapping_add(8);
    }
}

/// What a host fault in translated code means to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A page fault at this guest address.
    Address(u64),
    /// A kernel-mode instruction met a user address: translate it again with
    /// `user_access` true for it.
    UserThroughGs,
    /// A general protection or stack fault of the guest's own making.
    Protection,
}

/// Reads a host fault at an [`crate::Entry`] with `fix`.
///
/// `regs` are the registers at the fault, before [`repair`]; `host` is the
/// faulting host address of a page fault (`page_fault`), `write` its direction.
#[must_use]
pub fn guest_fault(
    fix: Fix,
    regs: &[u64; 16],
    context: &Context,
    host: u64,
    page_fault: bool,
    write: bool,
    mode: Mode,
) -> FaultKind {
    match (mode, page_fault) {
        (Mode::User, true) => FaultKind::Address(host),
        (Mode::User, false) => FaultKind::Protection,
        (Mode::Kernel, false) if fix.has(Fix::ASSUMED) => FaultKind::UserThroughGs,
        (Mode::Kernel, false) => FaultKind::Protection,
        (Mode::Kernel, true) => kernel_page_fault(fix, regs, context, host, write),
    }
}

fn kernel_page_fault(
    fix: Fix,
    regs: &[u64; 16],
    context: &Context,
    host: u64,
    write: bool,
) -> FaultKind {
    let delta = match (fix.has(Fix::RDI), fix.has(Fix::RSI)) {
        _ if fix.has(Fix::AWARE) => context.delta_rsi,
        (true, false) => context.delta_rdi,
        (false, true) => context.delta_rsi,
        // MOVS writes at RDI and reads at RSI; CMPS reads at both.
        (true, true) if write || near(host, regs[RDI]) => context.delta_rdi,
        (true, true) => context.delta_rsi,
        (false, false) => FOLD,
    };
    let va = host.wrapping_sub(delta);
    if !is_canonical(va) {
        // Folding made it canonical, in the host kernel's half.
        FaultKind::Protection
    } else if fix.has(Fix::ASSUMED) && (va as i64) >= 0 {
        // Below 64 KiB: all other user addresses are non-canonical once folded.
        FaultKind::UserThroughGs
    } else {
        FaultKind::Address(va)
    }
}

/// Whether bits 47 to 63 of `va` are equal.
fn is_canonical(va: u64) -> bool {
    ((va << 16) as i64 >> 16) as u64 == va
}

/// Whether `host` lies in a string element at `pointer`.
fn near(host: u64, pointer: u64) -> bool {
    host.wrapping_sub(pointer) < 8
}
