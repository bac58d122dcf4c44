//! XRSTOR for guest code that may not execute it: with the protection-key
//! component in its mask it would open the monitor's memory.

use core::arch::asm;

use abi::mmu::PTE_ACCESSED;
use alloc::boxed::Box;
use iced_x86::Instruction;

use crate::{
    cpuid,
    gate::{context, gate_restore_vector},
    space::Vector,
    state::{Fault, Monitor},
    tlb::code as fault_code,
    trap::in_user_mode,
};

/// Legacy region and header of an XSAVE area (SDM vol. 1, 13.4).
const HEADER_END: usize = 576;
const HEADER: usize = 512;
const MXCSR: usize = 24;
/// The component of MXCSR in the compacted form (SDM vol. 1, 13.8.2).
const SSE: u64 = 2;
/// Components that include MXCSR in the standard form.
const SSE_OR_AVX: u64 = 6;
/// Bits of MXCSR that exist.
const MXCSR_BITS: u32 = 0xffff;
/// PKRU's component, which guests do not have. XSAVE of programs may have stored it.
const PKRU: u64 = 1 << 9;

const GP: Fault = Fault::Vector { vector: 13, code: Some(0) };

fn word(area: &[u8], at: usize) -> u64 {
    area.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// XCOMP_BV: in the compacted form, which components have a place in the area (SDM vol. 1, 13.4.2).
#[derive(Clone, Copy)]
struct Form(u64);

impl Form {
    const COMPACTED: u64 = 1 << 63;

    fn is_compacted(self) -> bool {
        self.0 & Form::COMPACTED != 0
    }

    /// The same without other components.
    fn of(self, components: u64) -> Form {
        Form(self.0 & (components | Form::COMPACTED))
    }

    /// Where a component lies: offset and size, bytes (SDM vol. 1, 13.4.3).
    fn place(self, number: usize) -> Option<(usize, usize)> {
        let (standard, size) = cpuid::component(number)?;
        if !self.is_compacted() {
            return Some((standard, size));
        }
        let mut at = HEADER_END;
        for before in (2..number).filter(|i| self.0 & 1 << i != 0) {
            at = cpuid::compacted_start(before, at) + cpuid::component(before)?.1;
        }
        Some((cpuid::compacted_start(number, at), size))
    }
}

/// An XSAVE area's header.
struct Header {
    /// XSTATE_BV.
    present: u64,
    form: Form,
    /// Components with which MXCSR is loaded from the area.
    has_mxcsr: u64,
}

impl Header {
    /// That of a guest's area. #GP where the processor refuses it, which knows the components `known`
    /// (SDM vol. 1, 13.8).
    fn check(area: &[u8], known: u64) -> Result<Header, Fault> {
        let header = area.get(HEADER..HEADER_END).ok_or(GP)?;
        let (present, form) = (word(header, 0), Form(word(header, 8)));
        let (fits, zeros) = if form.is_compacted() {
            let fits = form.0 & !Form::COMPACTED & !known == 0 && present & !form.0 == 0;
            (fits && cpuid::has_compacted_form(), 16..64)
        } else {
            (form.0 == 0, 16..24)
        };
        let is_zero = header.get(zeros).ok_or(GP)?.iter().all(|b| *b == 0);
        if !fits || !is_zero || present & !known != 0 {
            return Err(GP);
        }
        let has_mxcsr = if form.is_compacted() { present & SSE } else { SSE_OR_AVX };
        Ok(Header { present, form, has_mxcsr })
    }
}

impl Monitor {
    /// Executes XRSTOR with the operand of `ins` and the mask in EDX:EAX.
    pub fn restore_state(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        let va = self.operand_address(ins);
        // Kept: filling it with zeros would take longer than the rest.
        let mut area = self.area.take().unwrap_or_else(|| Box::new(Vector([0; 8192])));
        let done = self.restore_by(&mut area, va);
        self.area = Some(area);
        done.map(|()| None)
    }

    /// Loads the state at guest address `va` by way of `area`, of which what is not read from there is of
    /// no account.
    fn restore_by(&mut self, area: &mut Vector, va: u64) -> Result<(), Fault> {
        if !va.is_multiple_of(64) {
            return Err(GP);
        }
        // XGETBV shows programs the host's XCR0: what they store can name all of it.
        let (xcr0, known) = if in_user_mode() {
            (cpuid::program_xcr0(), cpuid::host_xcr0())
        } else {
            (cpuid::guest_xcr0(), cpuid::guest_xcr0() | PKRU)
        };
        let mask = context().regs[0] & xcr0 & 0xffff_ffff;
        self.read_state(va, &mut area.0[..HEADER_END])?;
        let header = Header::check(&area.0, known)?;
        let mxcsr = word(&area.0, MXCSR) as u32;
        if mask & header.has_mxcsr != 0 && mxcsr & !MXCSR_BITS != 0 {
            return Err(GP);
        }
        let form = header.form.of(xcr0);
        for i in (2..32).filter(|i| mask & header.present & 1 << i != 0) {
            let (from, _) = header.form.place(i).ok_or(GP)?;
            let (at, len) = form.place(i).ok_or(GP)?;
            let part = area.0.get_mut(at..at + len).ok_or(GP)?;
            self.read_state(va.wrapping_add(from as u64), part)?;
        }
        area.0[HEADER..HEADER + 8].copy_from_slice(&(header.present & xcr0).to_le_bytes());
        area.0[HEADER + 8..HEADER + 16].copy_from_slice(&form.0.to_le_bytes());
        load(area, mask as u32);
        Ok(())
    }

    /// Reads guest memory as the instruction would.
    fn read_state(&mut self, va: u64, to: &mut [u8]) -> Result<(), Fault> {
        let last = va.wrapping_add(to.len() as u64 - 1);
        let user = in_user_mode();
        let pages = 1 + usize::from((va ^ last) >> 12 != 0);
        for at in [va, last].into_iter().take(pages) {
            if user && at >> 47 != 0 {
                return Err(GP);
            }
            let code = if user { fault_code::USER } else { 0 };
            let Some(leaf) = self.walk(at) else { return Err(Fault::Page { address: at, code }) };
            if user && !leaf.user() {
                return Err(Fault::Page { address: at, code: code | fault_code::PRESENT });
            }
            self.mark_entry(leaf.table, leaf.index, PTE_ACCESSED);
        }
        self.read(va, to).map_err(|_| Fault::Page { address: va, code: 0 })
    }
}

/// Loads components of a checked area, among them the low halves of the vector
/// registers, which are in the context while the monitor runs.
fn load(area: &Vector, mask: u32) {
    let xmm = context().xmm.as_mut_ptr();
    // SAFETY: the area was checked, so that XRSTOR does not fault; the context holds
    // sixteen registers; all that changes is the guest's, but for what a call may change.
    unsafe {
        asm!(
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movaps xmm\\n, xmmword ptr [{xmm} + 16*\\n]",
            ".endr",
            "call {restore}",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movaps xmmword ptr [{xmm} + 16*\\n], xmm\\n",
            ".endr",
            xmm = in(reg) xmm,
            restore = sym gate_restore_vector,
            in("rdi") area.0.as_ptr(),
            in("esi") mask,
            out("rax") _, out("rcx") _, out("rdx") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
            out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
            out("xmm15") _,
        );
    }
}
