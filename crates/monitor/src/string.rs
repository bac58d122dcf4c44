//! String instructions of the guest kernel in software.
//!
//! Needed where they meet a user page that is not mapped beside the kernel half:
//! one at a host address that the kernel half uses too, or any where guest
//! programs run in processes of their own.

use core::arch::asm;

use iced_x86::{Instruction, Mnemonic};
use translate::Context;

use crate::{
    gate::context,
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
        let mut left = if repeated { context().regs[RCX].min(MOST) } else { 1 };
        while left > 0 {
            let c = context();
            let run = if c.rflags & DOWN != 0 { 0 } else { run_length(c, size, copies, left) };
            let done = if run > 0 {
                self.move_run(size, copies, run)?;
                run
            } else {
                self.move_element(size, copies)?;
                1
            };
            if repeated {
                let c = context();
                c.regs[RCX] = c.regs[RCX].wrapping_sub(done);
            }
            left -= done;
        }
        let c = context();
        Ok(Some(if repeated && c.regs[RCX] != 0 { ins.ip() } else { ins.next_ip() }))
    }

    /// `run` whole elements upwards, within one page on either side.
    fn move_run(&mut self, size: usize, copies: bool, run: u64) -> Result<(), Fault> {
        let c = context();
        let bytes = run * size as u64;
        let from = if copies { self.seen_at(c.regs[RSI], false)? } else { 0 };
        let to = self.seen_at(c.regs[RDI], true)?;
        // SAFETY: both lie in the monitor's view of guest frames, within a page.
        // The instruction itself does what it does on overlapping operands.
        unsafe {
            match (copies, size) {
                (true, 1) => asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _,
                    inout("rsi") from => _, options(nostack, preserves_flags)),
                (true, 2) => asm!("rep movsw", inout("rcx") run => _, inout("rdi") to => _,
                    inout("rsi") from => _, options(nostack, preserves_flags)),
                (true, 4) => asm!("rep movsd", inout("rcx") run => _, inout("rdi") to => _,
                    inout("rsi") from => _, options(nostack, preserves_flags)),
                (true, _) => asm!("rep movsq", inout("rcx") run => _, inout("rdi") to => _,
                    inout("rsi") from => _, options(nostack, preserves_flags)),
                (false, _) => {
                    let value = c.regs[RAX].to_le_bytes();
                    for i in 0..run {
                        let at = (to + i * size as u64) as *mut u8;
                        core::ptr::copy_nonoverlapping(value.as_ptr(), at, size);
                    }
                }
            }
        }
        if copies {
            c.regs[RSI] = c.regs[RSI].wrapping_add(bytes);
        }
        c.regs[RDI] = c.regs[RDI].wrapping_add(bytes);
        Ok(())
    }

    /// Where the monitor sees a guest address that the tables open to the access.
    fn seen_at(&mut self, va: u64, write: bool) -> Result<u64, Fault> {
        let frame = self.frame_for(va, write)?;
        Ok(self.frame_ptr(frame) as u64 + (va & 0xfff))
    }

    fn move_element(&mut self, size: usize, copies: bool) -> Result<(), Fault> {
        let c = context();
        let step = if c.rflags & DOWN != 0 { (size as u64).wrapping_neg() } else { size as u64 };
        let mut bytes = c.regs[RAX].to_le_bytes();
        if copies {
            self.copy_checked(c.regs[RSI], &mut bytes[..size], false)?;
        }
        self.copy_checked(c.regs[RDI], &mut bytes[..size], true)?;
        if copies {
            c.regs[RSI] = c.regs[RSI].wrapping_add(step);
        }
        c.regs[RDI] = c.regs[RDI].wrapping_add(step);
        Ok(())
    }

    /// Reads or writes one element as the guest's tables allow.
    fn copy_checked(&mut self, va: u64, bytes: &mut [u8], write: bool) -> Result<(), Fault> {
        let last = va.wrapping_add(bytes.len() as u64 - 1);
        for page in [va, last] {
            self.frame_for(page, write)?;
        }
        let done = if write { self.write(va, bytes) } else { self.read(va, bytes) };
        done.map_err(|_| Fault::Page { address: va, code: if write { 2 } else { 0 } })
    }
}

/// How many of `left` elements fit before either pointer's page ends.
fn run_length(c: &Context, size: usize, copies: bool, left: u64) -> u64 {
    let room = |va: u64| (0x1000 - (va & 0xfff)) / size as u64;
    let room = if copies { room(c.regs[RSI]).min(room(c.regs[RDI])) } else { room(c.regs[RDI]) };
    room.min(left)
}
