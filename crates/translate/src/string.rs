//! String instructions, and MASKMOVQ and its kin, in kernel mode.
//!
//! Their pointers are RSI and RDI themselves, which stay registers of the
//! guest's while the instruction runs and may stop it in the middle. Each
//! negative pointer is folded before and unfolded after; what was added is kept
//! in the context, so that an entry can take it back.

use crate::UserMemory;
use crate::block::{Builder, Guest};
use crate::control::Unsupported;
use crate::emit::{Address, Field, Gpr};
use crate::output::Fix;
use crate::string_run::element_of_run;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// Scratch: none of these instructions uses it.
const SCRATCH: Gpr = Gpr::R8;

/// A pointer register, where its delta is kept, and what an entry says of it.
pub(crate) type Pointer = (Gpr, Field, Fix);

const DESTINATION: Pointer = (Gpr::RDI, Field::DELTA_RDI, Fix::RDI);
const SOURCE: Pointer = (Gpr::RSI, Field::DELTA_RSI, Fix::RSI);

impl Builder<'_> {
    /// Translates an instruction that addresses memory by RSI or RDI alone.
    pub fn string(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        if self.request.user_memory == UserMemory::Displaced {
            // Two pointers, two places.
            return Err(Unsupported);
        }
        let [destination, source] = pointers(guest)?;
        if self.request.user_memory == UserMemory::LookedUp
            && (self.request.user_access)(guest.instruction.ip())
            && let (Some(shift), Some(destination)) =
                (element_of_run(guest.instruction), destination)
        {
            self.string_run(guest, shift, destination, source);
            return Ok(());
        }
        let pointers = [destination, source];
        let mut fix = Fix::NONE;
        self.code.save(SCRATCH, Field::spill(0));
        self.code.save(Gpr::RCX, Field::LOOKUP_RCX);
        for (register, ..) in pointers.into_iter().flatten() {
            // RCX was changed for the pointer before, but no pointer is RCX.
            self.leave_if_not_direct(guest, register, SCRATCH, |builder| {
                builder.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
                builder.code.restore(SCRATCH, Field::spill(0));
            });
        }
        self.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
        for (register, delta, flag) in pointers.into_iter().flatten() {
            self.code.constant(SCRATCH, 63);
            self.code.shift_right_signed(SCRATCH, register, SCRATCH);
            self.code.deposit(SCRATCH, Field::FOLD);
            self.code.save(SCRATCH, delta);
            self.code.lea(register, Address::sum(register, SCRATCH));
            fix = fix.with(flag);
        }
        if self.fills_page(guest) {
            self.mark(guest, fix.with(Fix::spilled(0, SCRATCH.0)));
            self.code.load_byte(SCRATCH, Address::base(Gpr::RDI));
        }
        self.code.restore(SCRATCH, Field::spill(0));
        self.mark(guest, fix);
        self.code.bytes(guest.bytes);
        self.code.save(SCRATCH, Field::spill(0));
        for (register, delta, _) in pointers.into_iter().flatten() {
            self.code.restore(SCRATCH, delta);
            self.code.not(SCRATCH);
            let address = Address { base: Some(register), index: Some((SCRATCH, 0)), disp: 1 };
            self.code.lea(register, address);
        }
        self.code.restore(SCRATCH, Field::spill(0));
        Ok(())
    }
}

/// `mov ecx, 4096; xor eax, eax` and the same for words of eight bytes, before REP STOS: Linux clears a page.
const CLEARS: [[u8; 7]; 2] = [[0xb9, 0, 0x10, 0, 0, 0x31, 0xc0], [0xb9, 0, 2, 0, 0, 0x31, 0xc0]];
/// `mov ecx, 512` before REP MOVSQ: it copies one.
const COPIES: [u8; 5] = [0xb9, 0, 2, 0, 0];

impl Builder<'_> {
    /// Is it the instruction with which Linux clears or copies a page?
    fn fills_page(&self, guest: &Guest) -> bool {
        let at = guest.instruction.ip().wrapping_sub(self.request.va) as usize;
        let before = self.request.code.get(..at).unwrap_or_default();
        match guest.instruction.mnemonic() {
            _ if !guest.instruction.has_rep_prefix() => false,
            Mnemonic::Stosb | Mnemonic::Stosq => CLEARS.iter().any(|end| before.ends_with(end)),
            Mnemonic::Movsq => before.ends_with(&COPIES),
            _ => false,
        }
    }
}

/// Whether the instruction addresses memory by RSI or RDI alone.
pub(crate) fn is_pointer_instruction(instruction: &Instruction) -> bool {
    instruction.is_string_instruction()
        || (0..instruction.op_count()).any(|i| {
            matches!(
                instruction.op_kind(i),
                OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI
            )
        })
}

/// Which pointers the instruction uses. FS and GS, and 32-bit pointers, are
/// left to the monitor.
fn pointers(guest: &Guest) -> Result<[Option<Pointer>; 2], Unsupported> {
    let instruction = guest.instruction;
    if matches!(instruction.segment_prefix(), Register::FS | Register::GS) {
        return Err(Unsupported);
    }
    let mut found = [None; 2];
    for i in 0..instruction.op_count() {
        match instruction.op_kind(i) {
            OpKind::MemoryESRDI | OpKind::MemorySegRDI => found[0] = Some(DESTINATION),
            OpKind::MemorySegRSI => found[1] = Some(SOURCE),
            OpKind::Register => {}
            _ => return Err(Unsupported),
        }
    }
    Ok(found)
}
