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
    layout::{PKRU_KERNEL, PKRU_KERNEL_NO_USER, PKRU_USER, SIGNAL_STACK, SIGNAL_STACK_SIZE, at},
    runner,
    space::local,
    state::{Fault, Monitor, is_separate},
    sys,
    tlb::{Outcome, UserAccess},
    trap::in_user_mode,
    user_signal::UserSignal,
};

pub const SIGILL: u32 = 4;
pub const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
pub const SIGFPE: u32 = 8;
pub const SIGUSR1: u32 = 10;
const SIGSEGV: u32 = 11;
pub const SIGALRM: u32 = 14;
pub const SIGSYS: u32 = 31;

/// TF.
pub const TRAP: u64 = 0x100;

/// How long steps to a precise point may take before another alarm, in microseconds.
const STEPS: u64 = 500;

/// CS, GS, FS and SS (from the lowest word on) of 64-bit user mode: asm/segment.h,
/// `__USER_CS` and `__USER_DS`.
const USER_SEGMENTS: u64 = 0x2b_0000_0000_0033;

/// `struct sigcontext` (asm/sigcontext.h), x86-64.
#[repr(C)]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub flags: u64,
    segments: u64,
    pub error: u64,
    pub trapno: u64,
    oldmask: u64,
    pub cr2: u64,
    pub fpstate: u64,
}

/// `struct ucontext` (asm-generic/ucontext.h) up to the registers.
#[repr(C)]
pub struct UContext {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    /// The registers.
    pub mc: SigContext,
}

impl SigContext {
    /// In the context's order.
    pub fn regs(&self) -> [u64; 16] {
        [
            self.rax, self.rcx, self.rdx, self.rbx, self.rsp, self.rbp, self.rsi, self.rdi,
            self.r8, self.r9, self.r10, self.r11, self.r12, self.r13, self.r14, self.r15,
        ]
    }
}

/// Installs the stack and the handlers. They are inherited by clones.
pub fn install() {
    let l = local();
    // Until it is known where frames lie.
    l.nested = 1;
    l.first_frame = core::ptr::from_ref(&l.no_frame) as u64;
    // Whatever RSP a program has, its frames lie at the stack's top (SS_AUTODISARM).
    // SAFETY: the signal stack was mapped for this.
    unsafe { sys::sigaltstack(SIGNAL_STACK, SIGNAL_STACK_SIZE, !is_separate()) };
    // Without keys a runner's handler leaves without returning: it must find nothing blocked.
    take(if is_separate() { 0 } else { REQUESTS });
    if !is_separate() {
        // From now on frames are checked: this one shows where the first one lies.
        // SAFETY: its handler returns.
        unsafe { core::arch::asm!("int3") };
        (l.first_frame, l.frames_checked, l.nested) = (l.last_frame, true, 0);
    }
}

/// Timer and events, as a signal mask.
pub const REQUESTS: u64 = 1 << (SIGALRM - 1) | 1 << (SIGUSR1 - 1);

/// Installs the handlers, which run with `blocked`.
pub fn take(blocked: u64) {
    /// `SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_NODEFER`.
    const FLAGS: u64 = 4 | 0x0800_0000 | 0x0400_0000 | 0x4000_0000;
    let entry = if is_separate() {
        gate::signal_entry_plain as *const () as u64
    } else {
        gate::signal_entry as *const () as u64
    };
    for signal in [SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV, SIGALRM, SIGSYS] {
        let action = [entry, FLAGS, gate::signal_restorer as *const () as u64, blocked];
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
/// the vector state to load before leaving for the run loop (in a runner with
/// low bits set: `runner::on_signal`).
#[unsafe(no_mangle)]
extern "C" fn on_signal(signal: u32, info: *const u8, uc: *mut UContext) -> u64 {
    // SAFETY: the kernel gave a valid frame; the gate passes it on.
    let uc = unsafe { &mut *uc };
    // A runner's program can write this. A runner that takes itself for a space goes back to where it
    // was, or ends at its first access to the arena, which it has not.
    if local().runner {
        return runner::on_signal(signal, info, uc);
    }
    if !is_separate() && !local().frames_checked {
        // The one that `install` waits for.
        return 0;
    }
    entry_page().selector = 0;
    let mc = &mut uc.mc;
    let next = if is_separate() {
        serve(signal, info, mc)
    } else {
        match saved_pkru(mc) {
            // Nothing of the guest's has run here yet, and keys are as they were when they were allocated.
            _ if local().rsp == 0 => serve(signal, info, mc),
            PKRU_USER if !local().user_translated => on_program_signal(signal, info, mc),
            _ if gate::part(mc.rip) == Part::Refused => intrude(signal, mc),
            0 | PKRU_USER | PKRU_KERNEL | PKRU_KERNEL_NO_USER if !is_astray(mc.rip) => {
                serve(signal, info, mc)
            }
            // Keys that a refused way would have left with.
            _ => intrude(signal, mc),
        }
    };
    match next {
        Next::Return => {
            look_again(signal, mc);
            0
        }
        Next::Leave => {
            leave_by_return(mc);
            0
        }
    }
}

/// The signal is returned from: sees to it that the run loop looks at what is pending.
fn look_again(signal: u32, mc: &SigContext) {
    if !local().pending.is_raised() {
        return;
    }
    let asks = matches!(signal, SIGALRM | SIGUSR1);
    if is_code(mc.rip) && local().stepping {
        // It comes to the run loop by steps, unless the guest's code takes the trap flag away. An
        // alarm after each step would have the next one begin where it is left.
        if asks {
            monitor().retry_in(STEPS);
        }
    } else if is_code(mc.rip) || !asks && gate::part(mc.rip) != Part::Outside {
        // It came while this signal was handled, and nobody would look at it.
        monitor().retry_soon();
    }
}

/// A signal of anything but guest user code that runs directly.
fn serve(signal: u32, info: *const u8, mc: &mut SigContext) -> Next {
    match gate::part(mc.rip) {
        Part::Recover(to) if signal == SIGSEGV || signal == SIGBUS => {
            mc.rip = to;
            Next::Return
        }
        Part::UserEntry => {
            finish_user_entry(mc);
            on_user_signal(signal, info, mc)
        }
        Part::Outside if is_code(mc.rip) => on_translated_signal(signal, info, mc),
        // The keys tell who ran: guest code cannot open the monitor's.
        Part::Outside => on_monitor_signal(signal, mc),
        _ => on_gate_signal(signal, mc),
    }
}

/// Returns from the signal to the run loop: that brings back the signal mask and
/// the stack too.
fn leave_by_return(mc: &mut SigContext) {
    (mc.rip, mc.rsp, mc.flags) = (gate::leave(), local().rsp, 2);
    // A program can have gone to 32-bit code by itself.
    mc.segments = USER_SEGMENTS;
    // SAFETY: the frame's XSAVE area, which the kernel wrote; without its component
    // PKRU is as it is initially: all keys open.
    unsafe {
        let present = (mc.fpstate + STATE_BV) as *mut u64;
        *present &= !PKRU_STATE;
    }
}

/// A signal while guest user code ran directly. It is never returned from: what
/// follows would run with the selector open.
fn on_program_signal(signal: u32, info: *const u8, mc: &mut SigContext) -> Next {
    match gate::part(mc.rip) {
        Part::Outside if is_code(mc.rip) => intrude(signal, mc),
        Part::Outside => on_user_signal(signal, info, mc),
        Part::UserEntry => {
            finish_user_entry(mc);
            on_user_signal(signal, info, mc)
        }
        Part::SystemCall(put_aside) => on_system_call(signal, mc, put_aside),
        _ => intrude(signal, mc),
    }
}

/// A signal at the start of the gate for system calls: it is one.
fn on_system_call(signal: u32, mc: &mut SigContext, put_aside: bool) -> Next {
    if !is_request(signal) {
        return intrude(signal, mc);
    }
    if put_aside {
        let [rax, rdx, _] = gate::put_aside();
        (mc.rax, mc.rdx, mc.rcx) = (rax, rdx, mc.r11);
    }
    mc.rip = mc.rcx;
    take_user_registers(mc, reason::SYSCALL);
    note_request(signal);
    Next::Leave
}

/// A program is where it cannot be: it gets what an address that does not exist gives.
fn intrude(signal: u32, mc: &mut SigContext) -> Next {
    take_user_registers(mc, reason::FAULT);
    monitor().vcpu.fault = Fault::Vector { vector: 13, code: Some(0) };
    note_request(signal);
    Next::Leave
}

/// Does it come between two instructions, and not from one?
fn is_request(signal: u32) -> bool {
    matches!(signal, SIGALRM | SIGUSR1 | SIGTRAP)
}

/// Remembers that a timer or an event asked for attention.
fn note_request(signal: u32) {
    if matches!(signal, SIGALRM | SIGUSR1) {
        local().pending.raise();
    }
    if signal == SIGALRM {
        monitor().timer.armed = 0;
    }
}

/// Is a program in translations that are not its own? It jumped there.
fn is_astray(rip: u64) -> bool {
    is_code(rip) && in_user_mode() && !local().user_translated
}

/// In the code cache, the stubs of sites not counted?
fn is_code(rip: u64) -> bool {
    (at::CODE..crate::layout::SITE_STUBS).contains(&rip)
}

/// Offset of XSTATE_BV in the XSAVE area (SDM vol. 1 13.4.2).
const STATE_BV: u64 = 512;
/// PKRU's component.
const PKRU_STATE: u64 = 1 << 9;

/// PKRU of the interrupted code, from the vector state in its frame.
fn saved_pkru(mc: &SigContext) -> u32 {
    let offset = u64::from(cpuid::pkru_offset());
    // SAFETY: the kernel wrote the XSAVE area to the signal stack, PKRU included.
    unsafe {
        if ((mc.fpstate + STATE_BV) as *const u64).read() & PKRU_STATE == 0 {
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
    if local().user_step {
        // IRETQ would have brought them, the trap flag among them: until then the flags are the gate's.
        mc.flags = context().rflags;
    }
}

/// The signal hit a gate: it cannot be served here.
fn on_gate_signal(signal: u32, mc: &mut SigContext) -> Next {
    match signal {
        SIGALRM | SIGUSR1 => {
            // Whoever comes back to the run loop before that looks at once: a program that faults in
            // step with the new timer would have it come here each time.
            local().pending.raise();
            gate().attention = 1;
            monitor().retry_soon();
        }
        // Single-stepping ends at a gate.
        SIGTRAP => {
            mc.flags &= !TRAP;
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
        SIGALRM | SIGUSR1 => {
            local().pending.raise();
            if signal == SIGALRM {
                local().timer_fired.raise();
            }
        }
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

/// A signal while guest user code ran directly in this space.
fn on_user_signal(signal: u32, info: *const u8, mc: &mut SigContext) -> Next {
    let m = monitor();
    if is_stub(mc.rip) {
        match direct::behind_site(mc.rip) {
            Some(rip) => mc.rip = rip,
            None => return on_stub_signal(m, signal, mc),
        }
    }
    take_user_registers(mc, reason::ATTENTION);
    m.user_signal(&UserSignal::new(signal, info, mc));
    Next::Leave
}

/// In the stub of a patched site?
pub fn is_stub(rip: u64) -> bool {
    (crate::layout::SITE_STUBS..at::CODE + at::CODE_SIZE).contains(&rip)
}

/// Within a site's stub, or at a slot that is not filled.
fn on_stub_signal(m: &mut Monitor, signal: u32, mc: &mut SigContext) -> Next {
    // A timer or a single step may stop the program right before the invalid instruction.
    let stopped = signal == SIGILL || is_request(signal);
    let late = if stopped { m.fill_late(mc.rip) } else { None };
    if let Some(site) = late {
        // From the site's start again.
        take_user_registers(mc, reason::ATTENTION);
        context().rip = site;
        note_request(signal);
        return Next::Leave;
    }
    if is_request(signal)
        && let Some((after, number)) = m.call_of_stub(mc.rip)
    {
        mc.rip = after;
        mc.rax = number.unwrap_or(mc.rax);
        take_user_registers(mc, reason::SYSCALL);
        note_request(signal);
        return Next::Leave;
    }
    // User code jumped here by itself: it gets what an invalid instruction at
    // this address gives.
    take_user_registers(mc, reason::FAULT);
    m.vcpu.fault = Fault::Vector { vector: 6, code: None };
    note_request(signal);
    Next::Leave
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
            note_request(signal);
            leave_or_step(m, mc)
        }
        // A kernel that sets TF itself may be on its way out of a block: no guest instruction there.
        SIGTRAP if local().stepping || m.code.entry_at(mc.rip).is_none() => leave_or_step(m, mc),
        SIGSEGV | SIGBUS | SIGFPE | SIGILL | SIGTRAP => {
            translated_fault(m, signal, closed_by_key(info), mc)
        }
        _ => fatal(signal, mc),
    }
}

/// Leaves at a precise point, or steps towards the next one.
fn leave_or_step(m: &mut Monitor, mc: &mut SigContext) -> Next {
    if let Some((user, rip, fix)) = m.code.precise_at(mc.rip, &mc.regs()) {
        if core::mem::take(&mut local().stepping) {
            // The alarm for lost steps is not needed.
            m.timer.armed = 0;
        }
        mc.flags &= !TRAP;
        leave_translated(mc, user, (rip, fix), reason::ATTENTION)
    } else {
        local().stepping = true;
        mc.flags |= TRAP;
        Next::Return
    }
}

/// The context that translated code of a mode spills to.
fn context_of(user: bool) -> &'static translate::Context {
    if user { gate::user_context() } else { context() }
}

/// Copies repaired registers to the context.
fn leave_translated(
    mc: &SigContext,
    user: bool,
    (rip, fix): (u64, translate::Fix),
    why: u64,
) -> Next {
    local().stepping = false;
    let mut regs = mc.regs();
    repair(fix, &mut regs, context_of(user));
    let c = context();
    c.regs = regs;
    c.rflags = mc.flags & !TRAP;
    c.rip = rip;
    c.reason = why;
    gate().user_mode = u64::from(user);
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
    let user = m.code.block(block).user;
    let fault = if matches!(signal, SIGFPE | SIGILL | SIGTRAP) {
        Fault::Vector { vector: mc.trapno as u8, code: None }
    } else {
        let mode = if user { Mode::User } else { Mode::Kernel };
        let is_pf = mc.trapno == 14;
        let write = mc.error & 2 != 0;
        match guest_fault(fix, &mc.regs(), context_of(user), mc.cr2, is_pf, write, mode) {
            FaultKind::UserThroughGs => {
                m.code.user_access.insert(rip);
                m.invalidate_block(block);
                return leave_translated(mc, user, (rip, fix), reason::RETRANSLATE);
            }
            // An address that is not canonical, which folding made one of the host's kernel.
            FaultKind::Protection if is_pf => Fault::Vector { vector: 13, code: Some(0) },
            FaultKind::Protection => {
                Fault::Vector { vector: mc.trapno as u8, code: Some(mc.error as u32) }
            }
            FaultKind::Address(va) => match translated_access(m, va, write, user, closed) {
                Access::Retry => return retry(m, block, mc),
                Access::Again => {
                    return leave_translated(mc, user, (rip, fix), reason::RETRANSLATE);
                }
                Access::Switch => return leave_translated(mc, user, (rip, fix), reason::SWITCH),
                Access::Fault(code) => Fault::Page { address: va, code },
            },
        }
    };
    m.vcpu.fault = fault;
    leave_translated(mc, user, (rip, fix), reason::FAULT)
}

/// Back to the faulting instruction; if its own block was dropped by what was
/// done, it is left at the next precise point.
fn retry(m: &mut Monitor, block: u32, mc: &mut SigContext) -> Next {
    if !m.code.blocks.get(block as usize).is_some_and(|b| b.valid) {
        local().stepping = true;
        mc.flags |= TRAP;
    }
    Next::Return
}

enum Access {
    /// From the start of the guest instruction.
    Again,
    Retry,
    Switch,
    Fault(u32),
}

/// An access of translated code to a guest address that the host did not allow;
/// `closed`: a key closed the page.
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
    if m.is_separate() {
        // User memory is reached by frame; no page of it is mapped here.
        return Access::Fault(if write { 2 } else { 0 });
    }
    if !m.user_half_is_loaded() {
        return Access::Switch;
    }
    if !crate::tlb::is_available(va) {
        return Access::Fault(if write { 2 } else { 0 } | if user { 4 } else { 0 });
    }
    if closed && !user {
        if m.shadow_was_read(va) {
            return Access::Retry;
        }
        // Aliased since the instruction looked: at the next try it sees.
        if m.user_space().user.get(va & !0xfff).is_at_shared_address() {
            return Access::Again;
        }
    }
    match m.resolve_user(va, UserAccess { write, fetch: false, from_user: user }) {
        Ok(()) => Access::Retry,
        Err(code) => Access::Fault(code),
    }
}
