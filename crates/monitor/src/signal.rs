//! Host signals: faults, trapped system calls, timer and wake-up.
//!
//! The handler runs on the signal stack with all keys open. It either fixes
//! what it can and returns, or copies the guest's registers to the context and
//! leaves for the run loop without returning from the signal. User mode is
//! never returned to by `sigreturn`: the run loop enters it by its gate.

use translate::{FaultKind, Mode, guest_fault, repair};

use crate::{
    cpuid, direct,
    gate::{self, Part, context, entry_page, gate, reason},
    guest::is_kernel,
    layout::{PKRU_USER, at},
    space::local,
    state::{Fault, Monitor},
    sys,
    tlb::{Outcome, UserAccess},
};

const SIGILL: u32 = 4;
const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
const SIGFPE: u32 = 8;
const SIGUSR1: u32 = 10;
const SIGSEGV: u32 = 11;
const SIGALRM: u32 = 14;
const SIGSYS: u32 = 31;

/// TF.
const TRAP: u64 = 0x100;

/// `struct sigcontext` (asm/sigcontext.h), x86-64.
#[repr(C)]
struct SigContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    flags: u64,
    segments: u64,
    error: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
}

/// `struct ucontext` (asm-generic/ucontext.h) up to the registers.
#[repr(C)]
pub struct UContext {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    mc: SigContext,
}

impl SigContext {
    fn regs(&self) -> [u64; 16] {
        [
            self.rax, self.rcx, self.rdx, self.rbx, self.rsp, self.rbp, self.rsi, self.rdi, self.r8, self.r9,
            self.r10, self.r11, self.r12, self.r13, self.r14, self.r15,
        ]
    }
}

/// Installs the handlers. They are inherited by clones.
pub fn install() {
    /// `SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_NODEFER`.
    const FLAGS: u64 = 4 | 0x0800_0000 | 0x0400_0000 | 0x4000_0000;
    for signal in [SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV, SIGALRM, SIGSYS] {
        let action = [
            gate::signal_entry as *const () as u64,
            FLAGS,
            gate::signal_restorer as *const () as u64,
            // Nothing is blocked: a handler may leave without returning.
            0,
        ];
        // SAFETY: handler and restorer are the gates made for this.
        unsafe { sys::sigaction(signal, &action) };
    }
}

/// What the handler wants done.
enum Next {
    /// Return to where the signal came from.
    Return,
    /// Go to the run loop; registers are in the context.
    Leave,
}

/// Called by the signal gate. 0 = return from the signal, else the address of
/// the vector state to load before leaving for the run loop.
#[unsafe(no_mangle)]
extern "C" fn on_signal(signal: u32, info: *const u8, uc: *mut UContext) -> u64 {
    entry_page().selector = 0;
    // SAFETY: the kernel gave a valid frame; the gate passes it on.
    let mc = unsafe { &mut (*uc).mc };
    let next = match gate::part(mc.rip) {
        Part::Recover(to) if signal == SIGSEGV || signal == SIGBUS => {
            mc.rip = to;
            Next::Return
        }
        Part::UserEntry => {
            finish_user_entry(mc);
            on_user_signal(signal, info, mc)
        }
        // The keys tell who ran: guest code cannot open the monitor's.
        Part::Outside => match saved_pkru(mc) {
            0 => on_monitor_signal(signal, mc),
            PKRU_USER if !is_code(mc.rip) => on_user_signal(signal, info, mc),
            _ => on_translated_signal(signal, info, mc),
        },
        Part::Recover(_) | Part::Other => on_gate_signal(signal, mc),
    };
    match next {
        Next::Return => {
            if signal != SIGALRM && signal != SIGUSR1 && local().pending && gate::part(mc.rip) != Part::Outside
                || is_code(mc.rip) && local().pending
            {
                // It came while this signal was handled, and nobody would look at it.
                monitor().retry_soon();
            }
            0
        }
        Next::Leave => mc.fpstate,
    }
}

/// In the code cache, the stubs of sites not counted?
fn is_code(rip: u64) -> bool {
    (at::CODE..crate::layout::SITE_STUBS).contains(&rip)
}

/// PKRU of the interrupted code, from the vector state in its frame.
fn saved_pkru(mc: &SigContext) -> u32 {
    /// Offset of XSTATE_BV in the XSAVE area (SDM vol. 1 13.4.2).
    const STATE_BV: u64 = 512;
    let offset = u64::from(cpuid::pkru_offset());
    // SAFETY: the kernel wrote the XSAVE area to the signal stack, PKRU included.
    unsafe {
        if ((mc.fpstate + STATE_BV) as *const u64).read() & 1 << 9 == 0 {
            return 0;
        }
        ((mc.fpstate + offset) as *const u32).read()
    }
}

fn monitor() -> &'static mut Monitor {
    // SAFETY: the interrupted code was guest code, so nothing in the monitor
    // holds a reference that is used again before the run loop takes over.
    unsafe { &mut *crate::start::monitor() }
}

/// The signal hit the last instructions of the way to user mode.
fn finish_user_entry(mc: &mut SigContext) {
    let e = entry_page();
    (mc.rax, mc.rcx, mc.rdx, mc.rsp) = (e.rax, e.rcx, e.rdx, e.rsp);
    mc.rip = gate().user_rip;
}

/// The signal hit a gate: it cannot be served here.
fn on_gate_signal(signal: u32, mc: &mut SigContext) -> Next {
    match signal {
        SIGALRM | SIGUSR1 => {
            gate().attention = 1;
            monitor().retry_soon();
        }
        // Single-stepping (by the guest or by us) ends at a gate.
        SIGTRAP => {
            mc.flags &= !TRAP;
            local().gate_step |= !local().stepping;
            if core::mem::take(&mut local().stepping) {
                gate().attention = 1;
                monitor().retry_soon();
            }
        }
        _ => fatal(signal, mc),
    }
    Next::Return
}

/// The signal hit the monitor's Rust code.
fn on_monitor_signal(signal: u32, mc: &mut SigContext) -> Next {
    match signal {
        SIGALRM | SIGUSR1 => local().pending = true,
        SIGTRAP => mc.flags &= !TRAP,
        _ => fatal(signal, mc),
    }
    Next::Return
}

/// The monitor itself faulted: the domain ends.
fn fatal(signal: u32, mc: &SigContext) -> ! {
    let m = monitor();
    crate::crash::end_with(m, |w| {
        use core::fmt::Write;
        let _ = write!(
            w,
            "monitor fault: signal {signal} trap {} at {:#x}, address {:#x}, error {:#x}",
            mc.trapno, mc.rip, mc.cr2, mc.error
        );
    });
    crate::crash::stop(m)
}

/// Copies user registers to the context.
fn take_user_registers(mc: &SigContext, why: u64) {
    let c = context();
    c.regs = mc.regs();
    c.rflags = mc.flags;
    c.reason = why;
    c.rip = mc.rip;
    // Vector registers: the gate loads them from the frame and saves the low
    // halves to the context.
    gate().user_mode = 1;
}

/// A signal while guest user code ran directly.
fn on_user_signal(signal: u32, info: *const u8, mc: &mut SigContext) -> Next {
    let m = monitor();
    if is_stub(mc.rip) {
        match direct::behind_site(mc.rip) {
            Some(rip) => mc.rip = rip,
            None => return on_stub_signal(m, signal, mc),
        }
    }
    take_user_registers(mc, reason::ATTENTION);
    let c = context();
    match signal {
        SIGALRM | SIGUSR1 => {
            local().pending = true;
            m.timer.armed = 0;
        }
        SIGSYS => {
            // SAFETY: `si_arch` of SIGSYS (asm-generic/siginfo.h) at offset 28.
            let arch = unsafe { info.add(28).cast::<u32>().read_unaligned() };
            if arch == 0xc000_003e {
                m.stats.trapped_syscalls += 1;
                c.reason = reason::SYSCALL;
                m.patch_site(mc.rip, mc.rax);
            } else {
                note(m, Fault::Vector { vector: 128, code: None });
            }
        }
        SIGTRAP if mc.trapno == 3 => note(m, Fault::Vector { vector: 3, code: None }),
        SIGTRAP => {
            m.vcpu.debug[6] = 0xffff_0ff0 | 1 << 14;
            note(m, Fault::Vector { vector: 1, code: None });
        }
        SIGILL if m.is_site_rest(mc.rip) => {
            c.rip = mc.rip + 2;
            c.reason = reason::SYSCALL;
        }
        SIGILL => note(m, Fault::Vector { vector: 6, code: None }),
        SIGFPE => note(m, Fault::Vector { vector: mc.trapno as u8, code: None }),
        _ => user_fault(m, mc),
    }
    Next::Leave
}

fn note(m: &mut Monitor, fault: Fault) {
    m.vcpu.fault = fault;
    context().reason = reason::FAULT;
}

fn is_stub(rip: u64) -> bool {
    (crate::layout::SITE_STUBS..at::CODE + at::CODE_SIZE).contains(&rip)
}

/// Within a site's stub, or at a slot that is not filled.
fn on_stub_signal(m: &mut Monitor, signal: u32, mc: &mut SigContext) -> Next {
    match signal {
        SIGTRAP => {
            mc.flags &= !TRAP;
            local().gate_step = true;
        }
        SIGALRM | SIGUSR1 => {
            gate().attention = 1;
            m.retry_soon();
        }
        SIGILL => match m.fill_late(mc.rip) {
            Some(Ok(stub)) => mc.rip = stub,
            Some(Err(rip)) => {
                take_user_registers(mc, reason::ATTENTION);
                context().rip = rip;
                return Next::Leave;
            }
            None => {
                take_user_registers(mc, reason::FAULT);
                m.vcpu.fault = Fault::Vector { vector: 6, code: None };
                return Next::Leave;
            }
        },
        _ => {
            // User code jumped here by itself: it gets what an invalid
            // instruction at this address gives.
            take_user_registers(mc, reason::FAULT);
            m.vcpu.fault = Fault::Vector { vector: 6, code: None };
            return Next::Leave;
        }
    }
    // Back into the stub: the selector may stay open, the gate behind it opens it anyway.
    Next::Return
}

/// SIGSEGV or SIGBUS of user code.
fn user_fault(m: &mut Monitor, mc: &SigContext) {
    m.stats.faults += 1;
    if mc.trapno != 14 {
        // #GP of CPUID where CPUID faults; else the guest's.
        context().reason = reason::EMULATE;
        if !matches!(mc.trapno, 13) {
            let vector = if mc.trapno == 12 { 13 } else { mc.trapno as u8 };
            let code = matches!(vector, 13 | 17).then_some(0);
            note(m, Fault::Vector { vector, code });
        }
        return;
    }
    let (va, write, fetch) = (mc.cr2, mc.error & 2 != 0, mc.error & 16 != 0);
    if !crate::tlb::is_available(va) {
        if is_kernel(va) || va < 0x1_0000 || va >> 47 != 0 {
            let code = 4 | if write { 2 } else { 0 } | if fetch { 16 } else { 0 } | u32::from(is_kernel(va));
            return note(m, Fault::Page { address: va, code });
        }
        // The monitor's own place: such an address cannot exist for the guest.
        return note(m, Fault::Vector { vector: 13, code: Some(0) });
    }
    if !fetch && m.shadow_was_read(va) && !write {
        return;
    }
    if let Err(code) = m.resolve_user(va, UserAccess { write, fetch, from_user: true }) {
        note(m, Fault::Page { address: va, code });
    }
}

/// Did a protection key close the page? The error code does not tell where the
/// page is mapped but not yet present; the signal's code does.
fn closed_by_key(info: *const u8) -> bool {
    /// `SEGV_PKUERR` (asm-generic/siginfo.h).
    const PKUERR: u32 = 4;
    // SAFETY: `si_code` lies at offset 8 of the siginfo the kernel gave.
    unsafe { info.add(8).cast::<u32>().read_unaligned() == PKUERR }
}

/// A signal while translated code ran.
fn on_translated_signal(signal: u32, info: *const u8, mc: &mut SigContext) -> Next {
    let m = monitor();
    match signal {
        SIGALRM | SIGUSR1 => {
            local().pending = true;
            m.timer.armed = 0;
            leave_or_step(m, mc)
        }
        SIGTRAP if local().opened != 0 || local().stepping => {
            let page = core::mem::take(&mut local().opened);
            if page != 0 {
                m.open_for_step(page, false);
                if !local().stepping {
                    mc.flags &= !TRAP;
                    return Next::Return;
                }
            }
            leave_or_step(m, mc)
        }
        SIGSEGV | SIGBUS | SIGFPE | SIGILL | SIGTRAP => {
            translated_fault(m, signal, closed_by_key(info), mc)
        }
        _ => fatal(signal, mc),
    }
}

/// Leaves at a precise point, or steps towards the next one.
fn leave_or_step(m: &mut Monitor, mc: &mut SigContext) -> Next {
    if let Some((block, rip, fix)) = m.code.entry_at(mc.rip) {
        local().stepping = false;
        mc.flags &= !TRAP;
        leave_translated(m, block, mc, rip, fix, reason::ATTENTION)
    } else {
        local().stepping = true;
        mc.flags |= TRAP;
        Next::Return
    }
}

/// Copies repaired registers to the context.
fn leave_translated(m: &Monitor, block: u32, mc: &SigContext, rip: u64, fix: translate::Fix, why: u64) -> Next {
    let c = context();
    let mut regs = mc.regs();
    repair(fix, &mut regs, c);
    c.regs = regs;
    c.rflags = mc.flags & !TRAP;
    c.rip = rip;
    c.reason = why;
    gate().user_mode = u64::from(m.code.blocks[block as usize].user);
    Next::Leave
}

fn translated_fault(m: &mut Monitor, signal: u32, closed: bool, mc: &mut SigContext) -> Next {
    m.stats.faults += 1;
    let Some((block, rip, fix)) = m.code.entry_at(mc.rip) else {
        crate::crash::end_with(m, |w| {
            use core::fmt::Write;
            let _ = write!(
                w,
                "fault at an unlisted host address {:#x}: signal {signal} trap {} address {:#x}",
                mc.rip, mc.trapno, mc.cr2
            );
        });
        crate::crash::stop(m);
    };
    let user = m.code.blocks[block as usize].user;
    let fault = if matches!(signal, SIGFPE | SIGILL | SIGTRAP) {
        Fault::Vector { vector: mc.trapno as u8, code: None }
    } else {
        let mode = if user { Mode::User } else { Mode::Kernel };
        let is_pf = mc.trapno == 14;
        let write = mc.error & 2 != 0;
        match guest_fault(fix, &mc.regs(), context(), mc.cr2, is_pf, write, mode) {
            FaultKind::UserThroughGs => {
                m.code.user_access.insert(rip);
                m.invalidate_block(block);
                return leave_translated(m, block, mc, rip, fix, reason::RETRANSLATE);
            }
            FaultKind::Protection => {
                let vector = if mc.trapno == 12 { 13 } else { mc.trapno as u8 };
                Fault::Vector { vector, code: Some(0) }
            }
            FaultKind::Address(va) => match translated_access(m, va, write, user, closed) {
                Access::Retry => return retry(m, block, mc),
                Access::Switch => return leave_translated(m, block, mc, rip, fix, reason::SWITCH),
                Access::Fault(code) => Fault::Page { address: va, code },
            },
        }
    };
    m.vcpu.fault = fault;
    leave_translated(m, block, mc, rip, fix, reason::FAULT)
}

/// Back to the faulting instruction; if its own block was dropped by what was
/// done, it is left at the next precise point.
fn retry(m: &mut Monitor, block: u32, mc: &mut SigContext) -> Next {
    if !m.code.blocks.get(block as usize).is_some_and(|b| b.valid) {
        local().stepping = true;
        mc.flags |= TRAP;
    }
    if local().opened != 0 {
        mc.flags |= TRAP;
    }
    Next::Return
}

enum Access {
    Retry,
    Switch,
    Fault(u32),
}

/// An access of translated code to a guest address that the host did not allow.
fn translated_access(m: &mut Monitor, va: u64, write: bool, user: bool, closed: bool) -> Access {
    if is_kernel(va) {
        if user {
            return Access::Fault(5 | if write { 2 } else { 0 });
        }
        // A page opened for one step at the same host address stays the user's.
        return match m.resolve_kernel(va, write) {
            Outcome::Mapped => Access::Retry,
            Outcome::Fault(code) => Access::Fault(code),
        };
    }
    if !m.user_half_is_loaded() {
        return Access::Switch;
    }
    if !crate::tlb::is_available(va) {
        return Access::Fault(if write { 2 } else { 0 } | if user { 4 } else { 0 });
    }
    if closed && !user {
        if m.shadow_was_read(va) || m.promote(va) {
            return Access::Retry;
        }
        if !(write && !m.space().user.get(va & !0xfff).write()) && m.open_for_step(va & !0xfff, true) {
            m.stats.collisions += 1;
            local().opened = va & !0xfff;
            return Access::Retry;
        }
    }
    match m.resolve_user(va, UserAccess { write, fetch: false, from_user: user }) {
        Ok(()) => Access::Retry,
        Err(code) => Access::Fault(code),
    }
}
