//! Giving exceptions, events and system calls to the guest kernel.

use abi::{callback, trap as t};

use crate::{
    event,
    gate::{context, gate},
    guest::{fold, unfold},
    proven::Masked,
    state::{Fault, Monitor},
};

/// Flags cleared when the guest kernel is entered: TF, NT, RF, AC and DF.
const CLEARED: u64 = 0x100 | 0x4000 | 0x1_0000 | 0x4_0000 | 0x400;
/// IF.
const INTERRUPTS: u64 = 0x200;

/// The guest runs user code.
pub fn in_user_mode() -> bool {
    gate().user_mode != 0
}

impl Monitor {
    /// Guest RSP, not folded.
    pub fn guest_rsp(&self) -> u64 {
        let rsp = context().regs[4];
        if in_user_mode() { rsp } else { unfold(rsp) }
    }

    /// Enters the guest kernel at `handler` with a frame as Xen makes it.
    fn bounce(&mut self, handler: u64, code: Option<u32>, mask_events: bool) {
        let c = context();
        let user = in_user_mode();
        let rsp = self.guest_rsp();
        let (top, cs, ss) = if user {
            (self.vcpu.kernel_stack, t::USER_CS, t::USER_SS)
        } else {
            (rsp, t::KERNEL_CS, t::KERNEL_SS)
        };
        let masked = event::masked();
        let mut flags = c.rflags & !INTERRUPTS;
        if !user {
            flags &= !0x100;
        }
        if !masked {
            flags |= INTERRUPTS;
        }
        let mut frame = [0u64; 8];
        let words = [
            Some(c.regs[1]),
            Some(c.regs[11]),
            code.map(u64::from),
            Some(self.vcpu.rip),
            Some(cs | u64::from(masked) << 32),
            Some(flags),
            Some(rsp),
            Some(ss),
        ];
        let mut n = 0;
        for w in words.into_iter().flatten() {
            *frame.at_mut(n) = w;
            n += 1;
        }
        let sp = (top & !15).wrapping_sub(8 * n as u64);
        if self.write_words(sp, frame.get(..n).unwrap_or_default()).is_err() {
            return crate::crash::end(
                self,
                "the guest kernel's stack is not mapped: no exception can be delivered",
            );
        }
        if mask_events {
            event::set_masked(true);
        }
        gate().user_mode = 0;
        c.regs[4] = fold(sp);
        c.rflags = c.rflags & !CLEARED | INTERRUPTS;
        self.vcpu.rip = handler;
    }

    fn write_words(&mut self, va: u64, words: &[u64]) -> Result<(), crate::guest::Unmapped> {
        // SAFETY: u64s have no padding; the slice is read as bytes.
        let bytes =
            unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8) };
        self.write(va, bytes)
    }

    /// Raises an exception in the guest.
    pub fn inject(&mut self, fault: Fault) {
        let (vector, code) = match fault {
            Fault::Page { address, code } => {
                self.stats.page_faults += 1;
                event::set_cr2(address);
                if address >> 63 == 0 {
                    self.vcpu.expected = Some((address, code));
                }
                (14, Some(code))
            }
            Fault::Vector { vector, code } => (vector, code),
        };
        let Some(trap) = self.vcpu.traps.get(usize::from(vector)).copied() else { return };
        if trap.address == 0 {
            let rip = self.vcpu.rip;
            return crate::crash::end_with(self, |w| {
                use core::fmt::Write;
                let _ = write!(w, "{fault:x?} at {rip:#x} without a handler in the guest kernel");
            });
        }
        self.bounce(trap.address, code, trap.flags & 4 != 0);
    }

    /// A system call of guest user code; `vcpu.rip` is the address after it.
    pub fn enter_syscall(&mut self) {
        let c = context();
        c.regs[1] = self.vcpu.rip;
        c.regs[11] = c.rflags | INTERRUPTS;
        let cb = *self.vcpu.callbacks.at(callback::TYPE_SYSCALL.into());
        if cb.address == 0 {
            return self.inject(Fault::Vector { vector: 6, code: None });
        }
        self.bounce(cb.address, None, cb.flags & callback::FLAG_MASK_EVENTS != 0);
    }

    /// Delivers the event upcall if one is due.
    pub fn deliver_events(&mut self) {
        let cb = *self.vcpu.callbacks.at(callback::TYPE_EVENT.into());
        if cb.address == 0 || event::masked() || !event::upcall_pending() {
            return;
        }
        self.stats.upcalls += 1;
        self.bounce(cb.address, None, true);
    }

    /// `HYPERVISOR_iret`.
    pub fn iret(&mut self) {
        let c = context();
        let Ok(frame) = self.read_value::<t::IretContext>(unfold(c.regs[4])) else {
            return crate::crash::end(self, "iret with an unmapped stack");
        };
        c.regs[0] = frame.rax;
        // On the way back from a system call these hold what SYSRET leaves in them.
        let returns = frame.flags & t::IN_SYSCALL != 0;
        c.regs[11] = if returns { frame.rflags } else { frame.r11 };
        c.regs[1] = if returns { frame.rip } else { frame.rcx };
        let selector = frame.cs & 0xffff;
        // Privilege 3 is user mode whatever else the selector says (Xen's do_iret): it
        // may be of a program's own making, and the kernel's has privilege 0 in frames.
        let user = selector & 3 == 3;
        self.return_to(user, frame.rip, frame.rflags, frame.rsp);
        if user && ![t::USER_CS, t::FLAT_USER_CS64].contains(&selector) {
            // 32-bit programs cannot run: the process gets SIGSEGV.
            // Once for all selectors: programs choose them.
            self.complain_once(
                t::USER_CS,
                format_args!(
                    "a program wants code segment {selector:#x}: 32-bit programs are not supported"
                ),
            );
            self.inject(Fault::Vector { vector: 13, code: Some(selector as u32 & !3) });
        }
    }

    /// Goes on at `rip` in user or kernel mode.
    pub fn return_to(&mut self, user: bool, rip: u64, flags: u64, rsp: u64) {
        /// Flags the guest may set: arithmetic, DF, ID; in user mode TF, NT and AC too.
        const FLAGS: u64 = 0x20_0cd5;
        let c = context();
        let allowed = FLAGS | if user { 0x100 | 0x4000 | 0x1_0000 | 0x4_0000 } else { 0 };
        c.rflags = flags & allowed | INTERRUPTS | 2;
        event::set_masked(flags & INTERRUPTS == 0);
        self.vcpu.rip = rip;
        c.regs[4] = if user { rsp } else { fold(rsp) };
        gate().user_mode = u64::from(user);
        self.map_expected();
    }

    /// Maps the page of the page fault that the guest just handled.
    fn map_expected(&mut self) {
        let Some((va, code)) = self.vcpu.expected.take() else { return };
        if self.user_half_is_loaded() {
            // Also for the kernel's own access only pages that programs may have.
            let access = crate::tlb::UserAccess::from_code(code);
            // A fault again is the guest's business at the next try.
            let _ = self.resolve_user(va, access);
        }
    }
}
