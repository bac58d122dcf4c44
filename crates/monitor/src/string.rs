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

/// What an instruction does with each element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// MOVS.
    Copy,
    /// STOS.
    Store,
    /// LODS.
    Load,
    /// CMPS.
    Compare,
    /// SCAS.
    Scan,
}

/// Element size in bytes, and what is done.
fn element(m: Mnemonic) -> Option<(usize, Kind)> {
    use Mnemonic::*;
    Some(match m {
        Movsb => (1, Kind::Copy),
        Movsw => (2, Kind::Copy),
        Movsd => (4, Kind::Copy),
        Movsq => (8, Kind::Copy),
        Stosb => (1, Kind::Store),
        Stosw => (2, Kind::Store),
        Stosd => (4, Kind::Store),
        Stosq => (8, Kind::Store),
        Lodsb => (1, Kind::Load),
        Lodsw => (2, Kind::Load),
        Lodsd => (4, Kind::Load),
        Lodsq => (8, Kind::Load),
        Cmpsb => (1, Kind::Compare),
        Cmpsw => (2, Kind::Compare),
        Cmpsd => (4, Kind::Compare),
        Cmpsq => (8, Kind::Compare),
        Scasb => (1, Kind::Scan),
        Scasw => (2, Kind::Scan),
        Scasd => (4, Kind::Scan),
        Scasq => (8, Kind::Scan),
        _ => return None,
    })
}

/// The arithmetic flags, and those of `a - b` in elements of `size` bytes (SDM vol. 1 3.4.3.1).
const ARITHMETIC: u64 = 0x8d5;
const ZF: u64 = 0x40;
fn flags_of_difference(a: u64, b: u64, size: usize) -> u64 {
    let (mask, sign) = (u64::MAX >> (64 - 8 * size), 1u64 << (8 * size - 1));
    let (a, b) = (a & mask, b & mask);
    let r = a.wrapping_sub(b) & mask;
    let bit = |set: bool, flag: u64| if set { flag } else { 0 };
    bit(a < b, 1)
        | bit((r as u8).count_ones().is_multiple_of(2), 4)
        | (a ^ b ^ r) & 0x10
        | bit(r == 0, ZF)
        | bit(r & sign != 0, 0x80)
        | bit((a ^ b) & (a ^ r) & sign != 0, 0x800)
}

impl Monitor {
    /// Runs a string instruction until it is done, at most [`MOST`] elements. `Some` =
    /// the address to go on at (its own while elements are left).
    pub(crate) fn run_string(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        let Some((size, kind)) = element(ins.mnemonic()) else { return Ok(None) };
        let copies = match kind {
            Kind::Copy => true,
            Kind::Store => false,
            _ => return self.run_reads(ins, size, kind),
        };
        let repeated = ins.has_rep_prefix() || ins.has_repne_prefix();
        let mut left = if repeated { context().regs[RCX].min(MOST) } else { 1 };
        while left > 0 {
            let c = context();
            let run = if c.rflags & DOWN != 0 { 0 } else { run_length(c, size, copies, left) };
            if run > 0 && self.hand_run_back(ins, copies)? {
                return Ok(Some(ins.ip()));
            }
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

    /// LODS, CMPS and SCAS.
    fn run_reads(
        &mut self,
        ins: &Instruction,
        size: usize,
        kind: Kind,
    ) -> Result<Option<u64>, Fault> {
        let repeated = ins.has_rep_prefix() || ins.has_repne_prefix();
        let mut left = if repeated { context().regs[RCX].min(MOST) } else { 1 };
        while left > 0 {
            self.read_element(size, kind)?;
            left -= 1;
            let c = context();
            if repeated {
                c.regs[RCX] = c.regs[RCX].wrapping_sub(1);
            }
            let equal = c.rflags & ZF != 0;
            if kind != Kind::Load && repeated && equal == ins.has_repne_prefix() {
                return Ok(Some(ins.next_ip()));
            }
        }
        let again = repeated && context().regs[RCX] != 0;
        Ok(Some(if again { ins.ip() } else { ins.next_ip() }))
    }

    fn read_element(&mut self, size: usize, kind: Kind) -> Result<(), Fault> {
        let c = context();
        let step = if c.rflags & DOWN != 0 { (size as u64).wrapping_neg() } else { size as u64 };
        let (mut first, mut second) = (c.regs[RAX].to_le_bytes(), [0; 8]);
        if kind != Kind::Scan {
            self.copy_checked(c.regs[RSI], first.get_mut(..size).unwrap_or_default(), false)?;
        }
        if kind != Kind::Load {
            self.copy_checked(c.regs[RDI], second.get_mut(..size).unwrap_or_default(), false)?;
        }
        let (a, b) = (u64::from_le_bytes(first), u64::from_le_bytes(second));
        if kind == Kind::Load {
            // Four bytes clear the upper half, fewer leave the rest.
            c.regs[RAX] = if size == 4 { a & 0xffff_ffff } else { a };
        } else {
            c.rflags = c.rflags & !ARITHMETIC | flags_of_difference(a, b, size);
        }
        if kind != Kind::Scan {
            c.regs[RSI] = c.regs[RSI].wrapping_add(step);
        }
        if kind != Kind::Load {
            c.regs[RDI] = c.regs[RDI].wrapping_add(step);
        }
        Ok(())
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
    pub(crate) fn seen_at(&mut self, va: u64, write: bool) -> Result<u64, Fault> {
        let frame = self.frame_for(va, write)?;
        Ok(self.frame_ptr(frame) as u64 + (va & 0xfff))
    }

    fn move_element(&mut self, size: usize, copies: bool) -> Result<(), Fault> {
        let c = context();
        let step = if c.rflags & DOWN != 0 { (size as u64).wrapping_neg() } else { size as u64 };
        let mut bytes = c.regs[RAX].to_le_bytes();
        if copies {
            self.copy_checked(c.regs[RSI], bytes.get_mut(..size).unwrap_or_default(), false)?;
        }
        self.copy_checked(c.regs[RDI], bytes.get_mut(..size).unwrap_or_default(), true)?;
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
