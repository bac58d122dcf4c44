//! What guest user code met: a host signal, wherever its process is.

use crate::{
    gate::{context, reason},
    guest::is_kernel,
    signal::{SIGALRM, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGUSR1, SigContext, is_stub},
    space::local,
    state::{Fault, Monitor},
    tlb::UserAccess,
};

/// `si_code` of a system call that the jail's filter refused.
const SYS_SECCOMP: u32 = 1;
/// The vsyscall page (uapi/asm/vsyscall.h).
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;
/// `si_arch` of a 64-bit system call (linux/audit.h).
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Most bytes of an instruction.
pub const LONGEST: u64 = 15;
/// `si_code` of a single step (asm-generic/siginfo.h).
const TRAP_TRACE: u32 = 2;
/// #DE, #MF and #XM: what SIGFPE stands for (SDM vol. 3A 6.15).
const ARITHMETIC: [u32; 3] = [0, 16, 19];

/// A signal that guest user code met. A runner's may be forged by its program.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct UserSignal {
    /// Its number.
    pub number: u32,
    /// `si_code`.
    pub code: u32,
    /// SIGSYS: `si_call_addr`.
    pub call: u64,
    /// SIGSYS: `si_arch`.
    pub arch: u32,
    /// Exception vector.
    pub trap: u32,
    /// Exception error code.
    pub error: u64,
    /// CR2.
    pub address: u64,
}

impl UserSignal {
    /// From what the host gave to a handler.
    pub fn new(number: u32, info: *const u8, mc: &SigContext) -> UserSignal {
        // SAFETY: fields of `siginfo` (asm-generic/siginfo.h): `si_code` at offset
        // 8; of SIGSYS `si_call_addr` at 16 and `si_arch` at 28.
        unsafe {
            UserSignal {
                number,
                code: info.add(8).cast::<u32>().read_unaligned(),
                call: info.add(16).cast::<u64>().read_unaligned(),
                arch: info.add(28).cast::<u32>().read_unaligned(),
                trap: mc.trapno as u32,
                error: mc.error,
                address: mc.cr2,
            }
        }
    }
}

impl Monitor {
    /// A signal in a runner; the context holds the program's registers.
    pub fn program_signal(&mut self, s: &UserSignal) {
        context().reason = reason::ATTENTION;
        let rip = context().rip;
        if !is_stub(rip) {
            return self.user_signal(s);
        }
        let asks = matches!(s.number, SIGALRM | SIGUSR1);
        if asks {
            local().pending.raise();
            self.timer_fired(s.number);
        }
        let between = asks || s.number == SIGTRAP;
        // A timer or a single step may stop the program right before the invalid instruction.
        let late = if between || s.number == SIGILL { self.fill_late(rip) } else { None };
        let c = context();
        if let Some(site) = late {
            // From the site's start again.
            c.rip = site;
        } else if let Some((after, number)) = self.call_of_stub(rip)
            && between
        {
            (c.rip, c.reason) = (after, reason::SYSCALL);
            c.regs[0] = number.unwrap_or(c.regs[0]);
        } else {
            note(self, Fault::Vector { vector: 6, code: None });
        }
    }

    /// A signal of user code in this space or in a runner.
    pub fn user_signal(&mut self, s: &UserSignal) {
        let c = context();
        match s.number {
            SIGALRM | SIGUSR1 => {
                local().pending.raise();
                self.timer_fired(s.number);
            }
            SIGSYS => self.trapped_call(s),
            SIGTRAP if s.trap == 3 && self.is_trap(c.rip.wrapping_sub(1)) => {
                c.rip -= 1;
                self.vcpu.alone = Some(c.rip);
            }
            SIGTRAP if s.trap == 3 => note(self, Fault::Vector { vector: 3, code: None }),
            SIGTRAP => {
                let step = if s.code == TRAP_TRACE { 1 << 14 } else { 0 };
                self.vcpu.debug[6] = 0xffff_0ff0 | step;
                note(self, Fault::Vector { vector: 1, code: None });
            }
            SIGILL if self.is_site_rest(c.rip) => {
                c.rip += 2;
                c.reason = reason::SYSCALL;
            }
            SIGILL if self.is_xen_cpuid(c.rip) => c.reason = reason::EMULATE,
            SIGILL => note(self, Fault::Vector { vector: 6, code: None }),
            SIGFPE if ARITHMETIC.contains(&s.trap) => {
                note(self, Fault::Vector { vector: s.trap as u8, code: None });
            }
            _ => user_fault(self, s),
        }
    }

    /// The timer of the process that ran the program may have fired: a little too early, by this clock. A
    /// runner's signals may be its program's.
    fn timer_fired(&mut self, number: u32) {
        if self.is_separate() {
            self.user_space().armed = 0;
        } else if number == SIGALRM {
            self.timer.armed = 0;
        }
    }

    /// SIGSYS: a system call of user code, or one that the jail's filter stopped.
    fn trapped_call(&mut self, s: &UserSignal) {
        let c = context();
        if s.code == SYS_SECCOMP && s.call >= VSYSCALL {
            // The host emulates calls into its vsyscall page; the guest
            // kernel does so for its own, at the fetch fault.
            c.rip = s.call;
            c.regs[4] = c.regs[4].wrapping_sub(8);
            note(self, Fault::Page { address: s.call, code: 0x15 });
        } else if s.code == SYS_SECCOMP && self.is_separate() {
            // The program itself made it: its runner's calls are within its reach.
            note(self, Fault::Vector { vector: 13, code: Some(0) });
        } else if s.code == SYS_SECCOMP {
            crate::crash::end(self, "the jail's filter refused a system call of the host");
        } else if s.arch == AUDIT_ARCH_X86_64 {
            self.stats.trapped_syscalls += 1;
            c.reason = reason::SYSCALL;
            self.patch_site(c.rip, c.regs[0]);
        } else {
            // INT 80h, if the guest kernel lets user code have it.
            let trap = self.vcpu.traps[0x80];
            let fault = if trap.flags & 3 == 3 && trap.address != 0 {
                Fault::Vector { vector: 0x80, code: None }
            } else {
                c.rip = c.rip.wrapping_sub(2);
                Fault::Vector { vector: 13, code: Some(0x80 << 3 | 2) }
            };
            note(self, fault);
        }
    }
}

fn note(m: &mut Monitor, fault: Fault) {
    m.vcpu.fault = fault;
    context().reason = reason::FAULT;
}

/// SIGSEGV or SIGBUS of user code.
fn user_fault(m: &mut Monitor, s: &UserSignal) {
    m.stats.faults += 1;
    if s.trap != 14 {
        // #GP of CPUID where CPUID faults; else the guest's.
        context().reason = reason::EMULATE;
        context().argument = s.error;
        // No other vector reaches the guest's kernel, whatever a program claims.
        if matches!(s.trap, 4 | 5 | 10..=12 | 17) {
            let code = (s.trap > 5).then_some(s.error as u32);
            note(m, Fault::Vector { vector: s.trap as u8, code });
        }
        return;
    }
    let (va, write, fetch) = (s.address, s.error & 2 != 0, s.error & 16 != 0);
    if crate::tlb::is_reserved(va) || m.has_no_place(va) {
        if m.is_separate() && m.leave_spoiled_runner() {
            return;
        }
        // The monitor's own place, or below `vm.mmap_min_addr`: such an address cannot exist for the guest.
        return note(m, Fault::Vector { vector: 13, code: Some(0) });
    }
    if !crate::tlb::is_available(va) {
        let code =
            4 | if write { 2 } else { 0 } | if fetch { 16 } else { 0 } | u32::from(is_kernel(va));
        return note(m, Fault::Page { address: va, code });
    }
    let was_read = !fetch && m.shadow_was_read(va);
    if (!was_read || write)
        && let Err(code) = m.resolve_user(va, UserAccess { write, fetch, from_user: true })
    {
        return note(m, Fault::Page { address: va, code });
    }
    // Executable pages are not writable, and some are not readable: an instruction
    // that writes to or reads its own page, or lies in one that must not be
    // executed, makes no way by itself.
    let rip = context().rip;
    let own = [rip, rip.wrapping_add(LONGEST - 1)].into_iter().find(|at| (at ^ va) >> 12 == 0);
    if let Some(at) = own
        && !m.is_separate()
        && !m.user_space().user.get(at).exec()
    {
        m.vcpu.alone = Some(rip);
    }
}
