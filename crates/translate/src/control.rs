//! Branches, calls, returns, and exits to the monitor.

use crate::block::{Builder, Guest};
use crate::emit::{Address, Field, Gpr, is_delicate, sign_extended};
use crate::layout::{Bytes, Memory};
use crate::lookup::{emit_lookup, place_of};
use crate::output::{Fix, Link};
use crate::scratch::Spills;
use crate::{FOLD, Mode};
use iced_x86::{Code, FlowControl, Instruction, OpKind, Register};

/// The translator has no form for the instruction: the monitor emulates it.
#[derive(Debug)]
pub(crate) struct Unsupported;

/// Whether the block goes on after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    Next,
    End,
}

/// Operand-size prefix. On a near branch Intel and AMD CPUs disagree about it.
const OPERAND_SIZE: u8 = 0x66;

impl Builder<'_> {
    /// Translates an instruction that is not followed by its neighbour.
    pub fn branch(&mut self, guest: &Guest) -> Result<Flow, Unsupported> {
        let instruction = guest.instruction;
        if instruction.code() == Code::Syscall {
            self.exit(instruction.next_ip(), self.targets.exit_syscall);
            return Ok(Flow::End);
        }
        if guest.layout.has_prefix(OPERAND_SIZE) {
            return Err(Unsupported);
        }
        match instruction.flow_control() {
            FlowControl::ConditionalBranch => return self.conditional(guest),
            FlowControl::UnconditionalBranch if is_near(instruction) => {
                self.jump_link(instruction.near_branch_target());
            }
            FlowControl::Call if is_near(instruction) => {
                self.push_return_address(guest, Fix::NONE);
                self.jump_link(instruction.near_branch_target());
            }
            FlowControl::Return => self.near_return(guest)?,
            FlowControl::IndirectBranch if instruction.code() == Code::Jmp_rm64 => {
                self.load_target(guest)?;
                self.jump_to_target();
            }
            FlowControl::IndirectCall if instruction.code() == Code::Call_rm64 => {
                self.load_target(guest)?;
                self.push_return_address(guest, Fix::spilled(0, Gpr::RCX.0));
                self.jump_to_target();
            }
            _ => return Err(Unsupported),
        }
        Ok(Flow::End)
    }

    fn conditional(&mut self, guest: &Guest) -> Result<Flow, Unsupported> {
        let instruction = guest.instruction;
        let target = instruction.near_branch_target();
        if instruction.is_jcc_short_or_near() {
            self.code.bytes(&[0x0f, 0x80 | guest.layout.opcode() & 15]);
            self.link(target);
            return Ok(Flow::Next);
        }
        if !(instruction.is_loop() || instruction.is_loopcc() || instruction.is_jcx_short()) {
            return Err(Unsupported);
        }
        // These have only a 1-byte distance: over the jump that follows.
        let (_, head) = guest.bytes.split_last().ok_or(Unsupported)?;
        self.code.bytes(head);
        self.code.byte(5);
        self.jump_link(instruction.next_ip());
        self.jump_link(target);
        Ok(Flow::End)
    }

    fn near_return(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        let release = match guest.instruction.code() {
            Code::Retnq => 0,
            Code::Retnq_imm16 => guest.instruction.immediate16(),
            _ => return Err(Unsupported),
        };
        self.code.save(Gpr::RCX, Field::spill(0));
        self.mark(guest, Fix::NONE);
        self.code.pop(Gpr::RCX);
        if release != 0 {
            let disp = i32::from(release);
            self.code.lea(Gpr::RSP, Address { base: Some(Gpr::RSP), index: None, disp });
        }
        self.jump_to_target();
        Ok(())
    }

    /// RCX = the operand of an indirect branch; the guest's RCX is saved in slot 0.
    fn load_target(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        let mut spills = Spills::new();
        spills.save(&mut self.code, Gpr::RCX)?;
        if guest.layout.memory == Memory::None {
            let register =
                crate::scratch::gpr(guest.instruction.op0_register()).ok_or(Unsupported)?;
            if register == Gpr::RSP && self.request.mode == Mode::Kernel {
                self.code.constant(Gpr::RCX, FOLD.wrapping_neg());
                self.code.lea(Gpr::RCX, Address::sum(Gpr::RSP, Gpr::RCX));
            } else {
                self.code.copy(Gpr::RCX, register);
            }
            return Ok(());
        }
        let place = self.place(guest, &mut spills, false)?;
        let bytes = guest
            .layout
            .rewrite(place.segment, place.operand)
            .and_then(|branch| load_instead_of_branch(&branch))
            .ok_or(Unsupported)?;
        self.access(guest, &bytes, place, &spills);
        spills.release_from(&mut self.code, 1);
        Ok(())
    }

    /// Pushes the guest address after a call.
    fn push_return_address(&mut self, guest: &Guest, fix: Fix) {
        let address = guest.instruction.next_ip();
        // Until the callee returns its place in the table has come to the cache.
        let table = self.targets.lookup_of(self.request.mode);
        self.code.prefetch_place(table.wrapping_add(place_of(address)));
        self.mark(guest, fix);
        if is_delicate(address) {
            self.code.byte(0x68); // push imm32
            self.code.imm32(0);
            for word in 0..4u8 {
                self.mark(guest, fix.with(Fix::PUSHED));
                // mov word [rsp + 2 * word], imm16
                self.code.bytes(&[0x66, 0xc7, 0x44, 0x24, 2 * word]);
                self.code.bytes(&((address >> (16 * word)) as u16).to_le_bytes());
            }
            return;
        }
        if let Some(short) = sign_extended(address) {
            self.code.byte(0x68); // push imm32
            self.code.imm32(short as u32);
            return;
        }
        self.code.byte(0x68); // push imm32
        self.code.imm32(address as u32);
        self.mark(guest, fix.with(Fix::PUSHED));
        self.code.bytes(&[0xc7, 0x44, 0x24, 0x04]); // mov dword [rsp+4], imm32
        self.code.imm32((address >> 32) as u32);
    }

    fn jump_to_target(&mut self) {
        let mode = self.request.mode;
        let (table, miss) = (self.targets.lookup_of(mode), self.targets.lookup_miss_of(mode));
        emit_lookup(&mut self.code, table, miss);
        self.out.ends_in_lookup = true;
    }

    /// `jmp` to the translation of `target`.
    pub fn jump_link(&mut self, target: u64) {
        self.code.byte(0xe9);
        self.link(target);
    }

    /// The displacement of a direct branch, and the stub it first leads to.
    fn link(&mut self, target: u64) {
        let tag = self.request.first_tag.wrapping_add(self.out.link_count as u64);
        let stub = self.stubs.len();
        let site = self.code.site(self.stubs.here());
        self.stubs.save_constant(Field::TARGET, target);
        self.stubs.save_constant(Field::ARGUMENT, tag);
        self.stubs.jump(self.targets.exit_link);
        self.out.add_link(Link { site: site as u16, stub: stub as u16, target });
    }

    /// Leaves to the monitor with `context.rip` = `rip`.
    pub fn exit(&mut self, rip: u64, target: u64) {
        self.code.save_constant(Field::RIP, rip);
        self.code.jump(target);
    }
}

fn is_near(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::NearBranch64
}

/// `mov rcx, operand` from the bytes of `jmp operand` or `call operand`: the
/// one opcode byte FF before ModRM becomes 8B, ModRM.reg RCX, and REX.W is set.
fn load_instead_of_branch(branch: &Bytes) -> Option<Bytes> {
    let bytes = branch.as_slice();
    let opcode = bytes.iter().position(|byte| *byte == 0xff)?;
    let (head, tail) = (bytes.get(..opcode)?, bytes.get(opcode + 1..)?);
    let (rex, head) = match head.split_last() {
        Some((rex @ 0x40..=0x4f, head)) => (*rex, head),
        _ => (0x40, head),
    };
    let (modrm, tail) = tail.split_first()?;
    Bytes::of(&[head, &[rex & !4 | 0x48, 0x8b, modrm & !0x38 | 8], tail])
}

/// Whether the base or index of a memory operand is `register`.
pub(crate) fn addresses_with(instruction: &Instruction, register: Register) -> bool {
    [instruction.memory_base(), instruction.memory_index()]
        .iter()
        .any(|used| used.full_register() == register)
}
