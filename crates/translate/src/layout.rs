//! Where the parts of a guest instruction's bytes lie, and how to write the
//! instruction again with another segment, memory operand or register. Working
//! on the bytes keeps everything else about the instruction as the guest wrote it.

use crate::emit::Gpr;
use iced_x86::{Code, DecoderOptions, Instruction, OpKind, Register};

/// Longest instruction the CPU accepts.
pub(crate) const MAX_LENGTH: usize = 15;
/// Segment override for the host's FS.
pub(crate) const FS: u8 = 0x64;
/// Segment override for the host's GS.
pub(crate) const GS: u8 = 0x65;

/// Where an instruction says which memory it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// No explicit operand.
    None,
    /// In ModRM.
    ModRm,
    /// Without ModRM, or implicitly, but a segment prefix applies (moffs, XLAT, MASKMOVQ).
    Fixed,
}

/// How registers beyond the first eight and wide operands are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extension {
    /// Legacy encoding: a REX prefix, 0 when there is none.
    Rex(u8),
    Vex2,
    /// VEX or XOP with three bytes.
    Vex3,
    Evex,
}

/// A memory operand to put in place of the guest's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operand {
    /// `[register]`
    Base(Gpr),
    /// `[disp32]`, sign-extended.
    Absolute(i32),
}

/// An instruction's bytes, written anew.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bytes {
    bytes: [u8; 32],
    len: usize,
}

impl Bytes {
    fn push(&mut self, values: &[u8]) {
        for value in values {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = *value;
                self.len += 1;
            }
        }
    }

    /// `parts` one after the other, if the CPU would accept that length.
    pub fn of(parts: &[&[u8]]) -> Option<Bytes> {
        let mut bytes = Bytes::default();
        for part in parts {
            bytes.push(part);
        }
        (bytes.len <= MAX_LENGTH).then_some(bytes)
    }

    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The parts of an instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a> {
    /// Everything before REX, VEX, XOP, EVEX or the opcode.
    prefixes: &'a [u8],
    extension: Extension,
    /// VEX, XOP or EVEX without the opcode; empty for legacy encodings.
    vector: &'a [u8],
    opcode: &'a [u8],
    /// Everything after the opcode.
    rest: &'a [u8],
    /// Length of ModRM, SIB and displacement, if the operand is in memory.
    operand: usize,
    pub memory: Memory,
}

impl<'a> Layout<'a> {
    /// Takes apart the bytes of a valid instruction.
    pub fn new(bytes: &'a [u8], instruction: &Instruction) -> Option<Layout<'a>> {
        let mut at = 0;
        let mut rex = 0;
        // A REX prefix counts only directly before the opcode.
        let mut prefixes_end = 0;
        loop {
            match *bytes.get(at)? {
                0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => {
                    rex = 0;
                    at += 1;
                    prefixes_end = at;
                }
                byte @ 0x40..=0x4f => {
                    rex = byte;
                    at += 1;
                }
                _ => break,
            }
        }
        let prefixes = bytes.get(..prefixes_end)?;
        let next = bytes.get(at + 1).copied().unwrap_or(0);
        let (extension, vector_len) = match *bytes.get(at)? {
            0xc5 => (Extension::Vex2, 2),
            0xc4 => (Extension::Vex3, 3),
            0x8f if next & 0x1f >= 8 => (Extension::Vex3, 3),
            0x62 => (Extension::Evex, 4),
            _ => (Extension::Rex(rex), 0),
        };
        let vector = bytes.get(at..at + vector_len)?;
        at += vector_len;
        let opcode_len = match (vector_len, bytes.get(at..)?) {
            (0, [0x0f, 0x38 | 0x3a, ..]) => 3,
            (0, [0x0f, ..]) => 2,
            _ => 1,
        };
        let opcode = bytes.get(at..at + opcode_len)?;
        let rest = bytes.get(at + opcode_len..)?;
        let memory = memory_kind(instruction);
        let operand = if memory == Memory::ModRm { operand_length(rest)? } else { 0 };
        Some(Layout { prefixes, extension, vector, opcode, rest, operand, memory })
    }

    /// Last byte of the opcode.
    pub fn opcode(&self) -> u8 {
        self.opcode.last().copied().unwrap_or(0)
    }

    pub fn has_prefix(&self, prefix: u8) -> bool {
        self.prefixes.contains(&prefix)
    }

    /// Writes the instruction with `segment` as its only segment override and,
    /// if given, another memory operand. `None` if that is not possible.
    pub fn rewrite(&self, segment: Option<u8>, operand: Option<Operand>) -> Option<Bytes> {
        let mut out = Bytes::default();
        if let Some(segment) = segment {
            out.push(&[segment]);
        }
        for prefix in self.prefixes {
            let segment_override = matches!(prefix, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65);
            // A new operand uses 64-bit addressing.
            let address_size = *prefix == 0x67 && operand.is_some();
            // A REX among the prefixes is void, and must not come to count.
            let void_rex = prefix & 0xf0 == 0x40;
            if !segment_override && !address_size && !void_rex {
                out.push(&[*prefix]);
            }
        }
        match operand {
            None => {
                if let Extension::Rex(rex @ 1..) = self.extension {
                    out.push(&[rex]);
                }
                out.push(self.vector);
                out.push(self.opcode);
                out.push(self.rest);
            }
            Some(operand) => {
                if self.memory != Memory::ModRm {
                    return None;
                }
                self.push_extension(&mut out, operand)?;
                out.push(self.opcode);
                push_operand(&mut out, *self.rest.first()? & 0x38, operand);
                out.push(self.rest.get(self.operand..)?);
            }
        }
        (out.len <= MAX_LENGTH).then_some(out)
    }

    /// REX, VEX or EVEX with the index extension cleared and the base extension
    /// set for `operand`.
    fn push_extension(&self, out: &mut Bytes, operand: Operand) -> Option<()> {
        let base = match operand {
            Operand::Base(register) => register.high(),
            Operand::Absolute(_) => 0,
        };
        match (self.extension, self.vector) {
            (Extension::Rex(rex), _) => {
                let new = rex & !3 | base;
                // A plain 0x40 still matters: with it SPL..DIL replace AH..BH.
                if rex != 0 || base != 0 {
                    out.push(&[new | 0x40]);
                }
            }
            (Extension::Vex2, [_, low]) if base == 0 => out.push(&[0xc5, *low]),
            (Extension::Vex2, [_, low]) => out.push(&[0xc4, low & 0x80 | 0x41, low & 0x7f]),
            (Extension::Vex3, [kind, first, second]) => {
                out.push(&[*kind, first & 0x9f | 0x40 | (base ^ 1) << 5, *second]);
            }
            (Extension::Evex, [kind, first, rest @ ..]) => {
                out.push(&[*kind, first & 0x9f | 0x40 | (base ^ 1) << 5]);
                out.push(rest);
            }
            _ => return None,
        }
        Some(())
    }

    /// `mov word [operand], 0` from `store`, which is this instruction (a
    /// legacy one-byte opcode with a memory operand and no immediate) rewritten.
    pub fn store_of_zero(&self, store: &Bytes) -> Option<Bytes> {
        let bytes = store.as_slice();
        let opcode = self.opcode();
        let at = bytes.iter().position(|byte| *byte == opcode)?;
        let (head, tail) = (bytes.get(..at)?, bytes.get(at + 1..)?);
        let (modrm, tail) = tail.split_first()?;
        let (rex, head) = match head.split_last() {
            Some((rex @ 0x40..=0x4f, head)) => (rex & 3 | 0x40, head),
            _ => (0x40, head),
        };
        Bytes::of(&[&[0x66], head, &[rex, 0xc7, modrm & !0x38], tail, &[0, 0]])
    }

    /// Writes the instruction with `to` in place of RSP or ESP as a register
    /// operand. Which fields of the encoding hold such an operand depends on
    /// the opcode, so every choice is tried and the decoder judges.
    pub fn replace_stack_pointer(&self, instruction: &Instruction, to: Gpr) -> Option<Bytes> {
        (1..16).find_map(|fields| {
            let candidate = self.with_fields(fields, to)?;
            same_but_for_stack_pointer(instruction, candidate.as_slice(), to).then_some(candidate)
        })
    }

    /// Sets the fields chosen by the bits of `fields` from 4 to `to`: ModRM.reg,
    /// ModRM.rm, the opcode's low bits, VEX.vvvv.
    fn with_fields(&self, fields: u8, to: Gpr) -> Option<Bytes> {
        let mut out = Bytes::default();
        out.push(self.prefixes);
        let mut vector = Bytes::default();
        vector.push(self.vector);
        if self.extension == Extension::Vex2 {
            let low = *self.vector.get(1)?;
            vector = Bytes::default();
            vector.push(&[0xc4, low & 0x80 | 0x61, low & 0x7f]);
        }
        let mut rex = match self.extension {
            Extension::Rex(rex) => rex,
            _ => 0,
        };
        let mut opcode = Bytes::default();
        opcode.push(self.opcode);
        let mut rest = Bytes::default();
        rest.push(self.rest);
        let mut extend = |bit: u8| {
            if to.high() == 0 {
                return;
            }
            if self.vector.is_empty() {
                rex |= 0x40 | bit;
            } else {
                // R and B are kept inverted in bits 7 and 5.
                vector.bytes[1] &= !if bit == 4 { 0x80 } else { 0x20 };
            }
        };
        if fields & 1 != 0 {
            let modrm = &mut rest.bytes[0];
            (*modrm & 0x38 == 0x20 && rest.len > 0).then_some(())?;
            *modrm = *modrm & !0x38 | to.low() << 3;
            extend(4);
        }
        if fields & 2 != 0 {
            let modrm = &mut rest.bytes[0];
            (*modrm & 0xc7 == 0xc4 && rest.len > 0).then_some(())?;
            *modrm = *modrm & !7 | to.low();
            extend(1);
        }
        if fields & 4 != 0 {
            let last = opcode.bytes.get_mut(self.opcode.len().checked_sub(1)?)?;
            (*last & 7 == 4).then_some(())?;
            *last = *last & !7 | to.low();
            extend(1);
        }
        if fields & 8 != 0 {
            (!self.vector.is_empty()).then_some(())?;
            let vvvv = &mut vector.bytes[2];
            (*vvvv & 0x78 == 0x58).then_some(())?;
            *vvvv = *vvvv & !0x78 | (!to.0 & 15) << 3;
        }
        if rex != 0 {
            out.push(&[rex]);
        }
        out.push(vector.as_slice());
        out.push(opcode.as_slice());
        out.push(rest.as_slice());
        (out.len <= MAX_LENGTH).then_some(out)
    }
}

fn memory_kind(instruction: &Instruction) -> Memory {
    let mut kind = Memory::None;
    for i in 0..instruction.op_count() {
        match instruction.op_kind(i) {
            OpKind::Memory => kind = Memory::ModRm,
            OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => {
                return Memory::Fixed;
            }
            _ => {}
        }
    }
    match instruction.code() {
        Code::Mov_AL_moffs8
        | Code::Mov_AX_moffs16
        | Code::Mov_EAX_moffs32
        | Code::Mov_RAX_moffs64
        | Code::Mov_moffs8_AL
        | Code::Mov_moffs16_AX
        | Code::Mov_moffs32_EAX
        | Code::Mov_moffs64_RAX
        | Code::Xlat_m8 => Memory::Fixed,
        _ => kind,
    }
}

/// Length of ModRM, SIB and displacement at the start of `rest`.
fn operand_length(rest: &[u8]) -> Option<usize> {
    let modrm = *rest.first()?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let sib = rm == 4;
    let absolute = if sib { *rest.get(1)? & 7 == 5 } else { rm == 5 };
    let disp = match mode {
        0 if absolute => 4,
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return None,
    };
    Some(1 + usize::from(sib) + disp)
}

fn push_operand(out: &mut Bytes, reg: u8, operand: Operand) {
    match operand {
        Operand::Absolute(disp) => {
            out.push(&[reg | 4, 0x25]);
            out.push(&disp.to_le_bytes());
        }
        Operand::Base(base) => match base.low() {
            4 => out.push(&[reg | 4, 0x24]),
            5 => out.push(&[reg | 0x45, 0]),
            low => out.push(&[reg | low]),
        },
    }
}

/// Whether `operand` is RSP or ESP. SP and SPL are not meant: folding leaves
/// the low 16 bits alone.
pub(crate) fn is_stack_pointer(register: Register) -> bool {
    matches!(register, Register::RSP | Register::ESP)
}

/// Whether `bytes` decode to `instruction` with its RSP and ESP operands replaced by `to`.
fn same_but_for_stack_pointer(instruction: &Instruction, bytes: &[u8], to: Gpr) -> bool {
    let mut decoder = iced_x86::Decoder::with_ip(64, bytes, instruction.ip(), DecoderOptions::NONE);
    let new = decoder.decode();
    let same_operand = |i: u32| {
        let (old_kind, new_kind) = (instruction.op_kind(i), new.op_kind(i));
        if old_kind != new_kind || old_kind != OpKind::Register {
            return old_kind == new_kind;
        }
        let (old, new) = (instruction.op_register(i), new.op_register(i));
        if is_stack_pointer(old) {
            new.size() == old.size()
                && new.is_gpr()
                && new.full_register().number() == usize::from(to.0)
        } else {
            new == old
        }
    };
    new.code() == instruction.code()
        && new.len() == bytes.len()
        && new.op_count() == instruction.op_count()
        && (0..new.op_count()).all(same_operand)
        && new.memory_base() == instruction.memory_base()
        && new.memory_index() == instruction.memory_index()
        && new.memory_index_scale() == instruction.memory_index_scale()
        && (new.is_ip_rel_memory_operand()
            || new.memory_displacement64() == instruction.memory_displacement64())
}
