//! RSP as data in kernel mode. It is kept folded, so that the stack works as it
//! is; an instruction that reads or writes it as a value works on an unfolded
//! copy. The fold's low 16 bits are zero: SP and SPL are always right.

use crate::FOLD;
use crate::block::{Builder, Guest};
use crate::control::Unsupported;
use crate::emit::{Address, Field, Gpr};
use crate::layout::{Layout, Memory, is_stack_pointer};
use crate::memory::address_of;
use crate::output::Fix;
use crate::scratch::{Spills, gpr};
use iced_x86::{
    Code, DecoderOptions, FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register,
    RflagsBits,
};

/// What to add to the low half of a folded value to unfold it.
const UNFOLD_SHORT: i32 = 0x10000;

/// How many instructions behind one to look for the end of the flags' life.
pub(crate) const LOOKAHEAD: usize = 16;

/// Whether an operand is RSP or ESP as a register.
pub(crate) fn uses_stack_pointer(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| is_stack_operand(instruction, i))
}

fn is_stack_operand(instruction: &Instruction, i: u32) -> bool {
    instruction.op_kind(i) == OpKind::Register && is_stack_pointer(instruction.op_register(i))
}

impl Builder<'_> {
    /// Translates an instruction with RSP or ESP as a register operand (not LEA).
    pub fn stack_data(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        let instruction = guest.instruction;
        match instruction.code() {
            Code::Mov_rm64_r64 | Code::Mov_r64_rm64 if guest.layout.memory == Memory::None => {
                let to = gpr(instruction.op0_register()).ok_or(Unsupported)?;
                let from = gpr(instruction.op1_register()).ok_or(Unsupported)?;
                self.copy_stack_pointer(to, from);
                Ok(())
            }
            _ if folds_along(instruction) && self.flags_dead_after(guest) => self.plain(guest),
            _ => self.stack_copy(guest),
        }
    }

    fn copy_stack_pointer(&mut self, to: Gpr, from: Gpr) {
        if to == from {
            return;
        }
        let fold = if to == Gpr::RSP { FOLD } else { FOLD.wrapping_neg() };
        let other = if to == Gpr::RSP { from } else { to };
        self.code.constant(to, fold);
        self.code.lea(to, Address::sum(Gpr::RSP, other));
    }

    /// Lets the instruction work on a borrowed register instead of RSP.
    fn stack_copy(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        let (reads, writes) = self.stack_access(guest.instruction);
        let mut spills = Spills::new();
        let copy = spills.take(self, guest.instruction)?;
        if reads {
            self.code.constant(copy, FOLD.wrapping_neg());
            self.code.lea(copy, Address::sum(Gpr::RSP, copy));
        }
        let replaced =
            guest.layout.replace_stack_pointer(guest.instruction, copy).ok_or(Unsupported)?;
        if guest.layout.memory == Memory::None {
            self.mark(guest, spills.fix());
            self.code.bytes(replaced.as_slice());
        } else {
            let layout = Layout::new(replaced.as_slice(), guest.instruction).ok_or(Unsupported)?;
            let guest = &Guest { layout, bytes: replaced.as_slice(), ..*guest };
            let place = self.place(guest, &mut spills, false)?;
            let bytes = layout.rewrite(place.segment, place.operand).ok_or(Unsupported)?;
            self.access(guest, &bytes, place, &spills);
        }
        if writes {
            self.code.constant(Gpr::RSP, FOLD);
            self.code.lea(Gpr::RSP, Address::sum(Gpr::RSP, copy));
        }
        spills.release(&mut self.code);
        Ok(())
    }

    /// Whether the instruction reads and writes its RSP operands. One that may
    /// or may not write needs the old value too.
    fn stack_access(&mut self, instruction: &Instruction) -> (bool, bool) {
        let info = self.info.info(instruction);
        let (mut reads, mut writes) = (false, false);
        for i in (0..instruction.op_count()).filter(|i| is_stack_operand(instruction, *i)) {
            let access = info.op_access(i);
            reads |= access != OpAccess::Write;
            writes |= !matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::None);
        }
        (reads, writes)
    }

    /// Whether the flags that differ between a folded and an unfolded result
    /// die unseen. Parity and adjust flags come from low bits and do not differ.
    /// Flags are taken to end at jumps, calls and returns: no compiler keeps
    /// them there after a change of the stack pointer.
    fn flags_dead_after(&self, guest: &Guest) -> bool {
        let next = guest.instruction.next_ip();
        let at = next.wrapping_sub(self.request.va) as usize;
        let window = self.request.code.len().min(self.request.page_bytes);
        let Some(code) = self.request.code.get(at..window) else { return false };
        if self.request.limit == 1 {
            return false;
        }
        let mut decoder = iced_x86::Decoder::with_ip(64, code, next, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut live = RflagsBits::CF | RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF;
        for _ in 0..LOOKAHEAD {
            decoder.decode_out(&mut instruction);
            let unknown = instruction.is_invalid() || instruction.is_privileged();
            if unknown || instruction.rflags_read() & live != 0 {
                return false;
            }
            live &= !instruction.rflags_modified();
            if live == 0 {
                return true;
            }
            match instruction.flow_control() {
                FlowControl::Next => {}
                FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::IndirectCall
                | FlowControl::Return => return true,
                FlowControl::Call => return instruction.op0_kind() == OpKind::NearBranch64,
                _ => return false,
            }
        }
        false
    }

    /// Translates LEA where RIP or, in kernel mode, RSP is involved.
    pub fn lea(&mut self, guest: &Guest, folded: bool) -> Result<(), Unsupported> {
        let instruction = guest.instruction;
        let target = instruction.op0_register();
        let register = gpr(target).ok_or(Unsupported)?;
        let to_stack = folded && is_stack_pointer(target);
        let from_stack =
            folded && matches!(instruction.memory_base(), Register::RSP | Register::ESP);
        if instruction.is_ip_rel_memory_operand() {
            let value = instruction.ip_rel_memory_address();
            self.lea_constant(register, target.size(), value, to_stack);
            return Ok(());
        }
        let (address, short) = address_of(instruction)?;
        let wide = target.size() == 8 && !short;
        if target.size() == 2 || !from_stack && !to_stack || from_stack && to_stack && wide {
            self.code.bytes(guest.bytes);
            return Ok(());
        }
        let mut spills = Spills::new();
        let result = if to_stack { spills.take(self, instruction)? } else { register };
        if from_stack && wide {
            self.lea_unfolded(guest, result, address, &mut spills)?;
        } else {
            if short {
                self.code.lea_short_address(result, address);
            } else {
                self.code.lea(result, address);
            }
            if !wide {
                self.code.lea_short(result, if from_stack { UNFOLD_SHORT } else { 0 });
            }
        }
        if to_stack {
            self.code.constant(Gpr::RSP, FOLD);
            self.code.lea(Gpr::RSP, Address::sum(Gpr::RSP, result));
        }
        spills.release(&mut self.code);
        Ok(())
    }

    /// `result` = the address, based on RSP, less the fold.
    fn lea_unfolded(
        &mut self,
        guest: &Guest,
        result: Gpr,
        address: Address,
        spills: &mut Spills,
    ) -> Result<(), Unsupported> {
        let minus_fold = FOLD.wrapping_neg();
        match address.index {
            Some((index, _)) if index == result => {
                let scratch = spills.take(self, guest.instruction)?;
                self.code.constant(scratch, minus_fold);
                self.code.lea(result, address);
                self.code.lea(result, Address::sum(result, scratch));
            }
            index => {
                self.code.constant(result, minus_fold);
                let unfolded = Address { index: Some((result, 0)), ..address };
                self.code.lea(result, unfolded);
                if index.is_some() {
                    self.code.lea(result, Address { base: Some(result), index, disp: 0 });
                }
            }
        }
        Ok(())
    }

    fn lea_constant(&mut self, register: Gpr, size: usize, value: u64, to_stack: bool) {
        let fold = if to_stack { FOLD } else { 0 };
        match size {
            8 => self.code.constant(register, value.wrapping_add(fold)),
            4 => self.code.constant(register, (value & 0xffff_ffff).wrapping_add(fold)),
            _ => {
                self.code.byte(0x66); // mov r16, imm16
                if register.high() != 0 {
                    self.code.byte(0x41);
                }
                self.code.byte(0xb8 | register.low());
                self.code.bytes(&(value as u16).to_le_bytes());
            }
        }
    }

    /// LEAVE: RSP = RBP, then POP RBP. A fault must leave the old RSP.
    pub fn leave(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        if guest.instruction.code() != Code::Leaveq {
            return Err(Unsupported);
        }
        self.code.save(Gpr::RSP, Field::spill(0));
        self.code.constant(Gpr::RSP, FOLD);
        self.code.lea(Gpr::RSP, Address::sum(Gpr::RSP, Gpr::RBP));
        self.mark(guest, Fix::spilled(0, Gpr::RSP.0));
        self.code.pop(Gpr::RBP);
        Ok(())
    }
}

/// Whether the instruction's result on a folded RSP is the folded result: RSP
/// is moved by a distance, or bits are cleared that the fold does not have.
fn folds_along(instruction: &Instruction) -> bool {
    if instruction.op0_register() != Register::RSP || is_stack_operand(instruction, 1) {
        return false;
    }
    match instruction.mnemonic() {
        Mnemonic::Add | Mnemonic::Sub => true,
        Mnemonic::And => instruction
            .try_immediate(1)
            .is_ok_and(|immediate| immediate | (UNFOLD_SHORT as u64 - 1) == u64::MAX),
        _ => false,
    }
}
