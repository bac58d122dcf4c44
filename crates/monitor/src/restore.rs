//! XRSTOR for guest code that may not execute it: with the protection-key
//! component in its mask it would open the monitor's memory.

use core::arch::asm;

use abi::mmu::PTE_ACCESSED;
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
/// Components that include MXCSR.
const SSE_OR_AVX: u32 = 6;
/// Bits of MXCSR that exist.
const MXCSR_BITS: u32 = 0xffff;
/// PKRU's component, which guests do not have. XSAVE of programs may have stored it.
const PKRU: u64 = 1 << 9;

const GP: Fault = Fault::Vector { vector: 13, code: Some(0) };

fn word(area: &[u8], at: usize) -> u64 {
    area.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl Monitor {
    /// Executes XRSTOR with the operand of `ins` and the mask in EDX:EAX.
    pub fn restore_state(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        let va = self.operand_address(ins);
        if !va.is_multiple_of(64) {
            return Err(GP);
        }
        let xcr0 = if in_user_mode() { cpuid::program_xcr0() } else { cpuid::guest_xcr0() };
        let mask = context().regs[0] as u32 & xcr0 as u32;
        let mut area = Vector([0; 8192]);
        self.read_state(va, &mut area.0[..HEADER_END])?;
        let header = &area.0[HEADER..HEADER_END];
        let present = word(header, 0);
        // Standard form only (SDM vol. 1, 13.8.1).
        let standard = header.iter().take(24).skip(8).all(|b| *b == 0);
        if present & !(xcr0 | PKRU) != 0 || !standard {
            return Err(GP);
        }
        let mxcsr = word(&area.0, MXCSR) as u32;
        if mask & SSE_OR_AVX != 0 && mxcsr & !MXCSR_BITS != 0 {
            return Err(GP);
        }
        for i in (2..32).filter(|i| u64::from(mask) & present & 1 << i != 0) {
            let (at, len) = cpuid::component(i).ok_or(GP)?;
            let part = area.0.get_mut(at..at + len).ok_or(GP)?;
            self.read_state(va.wrapping_add(at as u64), part)?;
        }
        area.0[HEADER..HEADER + 8].copy_from_slice(&(present & xcr0).to_le_bytes());
        load(&area, mask);
        Ok(None)
    }

    /// Reads guest memory as the instruction would.
    fn read_state(&mut self, va: u64, to: &mut [u8]) -> Result<(), Fault> {
        let last = va.wrapping_add(to.len() as u64 - 1);
        let user = in_user_mode();
        for at in [va, last] {
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
