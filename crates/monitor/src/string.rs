//! String instructions of the guest kernel in software.
//!
//! Needed where they meet a user page whose host address the kernel half uses
//! too: there the two pages cannot be mapped at once, and stepping through a
//! long `rep movs` would take a signal an element.

use abi::mmu::{PTE_ACCESSED, PTE_DIRTY};
use iced_x86::{Instruction, Mnemonic};

use crate::{
    gate::context,
    guest::is_kernel,
    state::{Fault, Monitor},
};

/// DF.
const DOWN: u64 = 0x400;
/// Most elements in one go; then events get their chance.
const MOST: u64 = 65536;

const RAX: usize = 0;
const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

/// Is it one of the instructions below?
pub fn is_handled(ins: &Instruction) -> bool {
    element(ins.mnemonic()).is_some()
}

/// Element size in bytes, and whether it is read from RSI.
fn element(m: Mnemonic) -> Option<(usize, bool)> {
    use Mnemonic::*;
    Some(match m {
        Movsb => (1, true),
        Movsw => (2, true),
        Movsd => (4, true),
        Movsq => (8, true),
        Stosb => (1, false),
        Stosw => (2, false),
        Stosd => (4, false),
        Stosq => (8, false),
        _ => return None,
    })
}

impl Monitor {
    /// Runs MOVS or STOS until it is done, at most [`MOST`] elements. `Some` =
    /// the address to go on at (its own while elements are left).
    pub(crate) fn run_string(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        let Some((size, copies)) = element(ins.mnemonic()) else { return Ok(None) };
        let repeated = ins.has_rep_prefix() || ins.has_repne_prefix();
        let c = context();
        let step = if c.rflags & DOWN != 0 { (size as u64).wrapping_neg() } else { size as u64 };
        let mut left = if repeated { c.regs[RCX].min(MOST) } else { 1 };
        while left > 0 {
            let mut bytes = [0u8; 8];
            if copies {
                self.copy_checked(c.regs[RSI], &mut bytes[..size], false)?;
                c.regs[RSI] = c.regs[RSI].wrapping_add(step);
            } else {
                bytes = c.regs[RAX].to_le_bytes();
            }
            if let Err(fault) = self.copy_checked(c.regs[RDI], &mut bytes[..size], true) {
                if copies {
                    c.regs[RSI] = c.regs[RSI].wrapping_sub(step);
                }
                return Err(fault);
            }
            c.regs[RDI] = c.regs[RDI].wrapping_add(step);
            if repeated {
                c.regs[RCX] = c.regs[RCX].wrapping_sub(1);
            }
            left -= 1;
        }
        Ok(Some(if repeated && c.regs[RCX] != 0 { ins.ip() } else { ins.next_ip() }))
    }

    /// Reads or writes one element as the guest's tables allow.
    fn copy_checked(&mut self, va: u64, bytes: &mut [u8], write: bool) -> Result<(), Fault> {
        let last = va.wrapping_add(bytes.len() as u64 - 1);
        for page in [va, last] {
            let code = if write { 2 } else { 0 };
            let Some(leaf) = self.walk(page) else {
                return Err(Fault::Page { address: page, code });
            };
            if write && !leaf.writable() && !is_kernel(page) {
                return Err(Fault::Page { address: page, code: code | 1 });
            }
            self.mark_entry(
                leaf.table,
                leaf.index,
                PTE_ACCESSED | if write { PTE_DIRTY } else { 0 },
            );
        }
        let done = if write { self.write(va, bytes) } else { self.read(va, bytes) };
        done.map_err(|_| Fault::Page { address: va, code: if write { 2 } else { 0 } })
    }
}
