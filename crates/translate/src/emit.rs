//! Byte emitter for the few instruction forms the translator inserts. All of
//! them leave RFLAGS alone.

use crate::context::Context;
use core::mem::offset_of;

/// A general register by its hardware number (0 = RAX .. 15 = R15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gpr(pub u8);

impl Gpr {
    pub const RAX: Gpr = Gpr(0);
    pub const RCX: Gpr = Gpr(1);
    pub const RDX: Gpr = Gpr(2);
    pub const RBX: Gpr = Gpr(3);
    pub const RSP: Gpr = Gpr(4);
    pub const RBP: Gpr = Gpr(5);
    pub const RSI: Gpr = Gpr(6);
    pub const RDI: Gpr = Gpr(7);
    pub const R8: Gpr = Gpr(8);

    /// Low three bits, as ModRM, SIB and opcodes hold them.
    pub fn low(self) -> u8 {
        self.0 & 7
    }

    /// Fourth bit, as REX and VEX hold it.
    pub fn high(self) -> u8 {
        self.0 >> 3
    }
}

/// A memory operand of an inserted instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Address {
    pub base: Option<Gpr>,
    /// Register and the logarithm of its scale; never RSP.
    pub index: Option<(Gpr, u8)>,
    pub disp: i32,
}

impl Address {
    pub fn base(base: Gpr) -> Address {
        Address { base: Some(base), index: None, disp: 0 }
    }

    pub fn sum(base: Gpr, index: Gpr) -> Address {
        Address { base: Some(base), index: Some((index, 0)), disp: 0 }
    }
}

/// A field of the [`Context`], by its offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field(usize);

impl Field {
    pub const RIP: Field = Field(offset_of!(Context, rip));
    pub const TARGET: Field = Field(offset_of!(Context, target));
    pub const ARGUMENT: Field = Field(offset_of!(Context, argument));
    pub const LOOKUP_RCX: Field = Field(offset_of!(Context, lookup_rcx));
    pub const DELTA_RDI: Field = Field(offset_of!(Context, delta_rdi));
    pub const DELTA_RSI: Field = Field(offset_of!(Context, delta_rsi));
    pub const COUNT_LEFT: Field = Field(offset_of!(Context, count_left));
    pub const DISPLACEMENT: Field = Field(offset_of!(Context, displacement));
    pub const STATE_AWAY: Field = Field(offset_of!(Context, state_away));
    pub const FOLD: Field = Field(offset_of!(Context, fold));

    pub fn spill(slot: usize) -> Field {
        Field(offset_of!(Context, spill) + 8 * slot)
    }
}

/// Writes machine code into a buffer that will run at `host`.
///
/// Writing past the end or referring to something out of reach sets a flag
/// instead of failing at once, so that emitting stays free of error paths; the
/// block builder looks at the flags before it hands anything out.
pub(crate) struct Emitter<'a> {
    buffer: &'a mut [u8],
    len: usize,
    host: u64,
    context: u64,
    pub overflow: bool,
    pub out_of_reach: bool,
}

impl<'a> Emitter<'a> {
    pub fn new(buffer: &'a mut [u8], host: u64, context: u64) -> Emitter<'a> {
        Emitter { buffer, len: 0, host, context, overflow: false, out_of_reach: false }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// Forgets everything after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Host address of the next byte.
    pub fn here(&self) -> u64 {
        self.host.wrapping_add(self.len as u64)
    }

    pub fn byte(&mut self, value: u8) {
        match self.buffer.get_mut(self.len) {
            Some(slot) => {
                *slot = value;
                self.len += 1;
            }
            None => self.overflow = true,
        }
    }

    pub fn bytes(&mut self, values: &[u8]) {
        match self.buffer.get_mut(self.len..self.len + values.len()) {
            Some(room) => {
                room.copy_from_slice(values);
                self.len += values.len();
            }
            None => self.overflow = true,
        }
    }

    pub fn imm32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// The 4-byte distance to `target`, from `after` bytes behind the field.
    fn distance(&mut self, target: u64, after: u64) {
        let from = self.here().wrapping_add(4 + after);
        match i32::try_from(target.wrapping_sub(from) as i64) {
            Ok(value) => self.imm32(value as u32),
            Err(_) => {
                self.out_of_reach = true;
                self.imm32(0);
            }
        }
    }

    /// ModRM and displacement of a RIP-relative operand at `target`, followed by
    /// `immediate` bytes.
    fn rip_operand(&mut self, reg: u8, target: u64, immediate: u64) {
        self.byte((reg & 7) << 3 | 5);
        self.distance(target, immediate);
    }

    fn field_operand(&mut self, reg: u8, field: Field, immediate: u64) {
        self.rip_operand(reg, self.context.wrapping_add(field.0 as u64), immediate);
    }

    /// ModRM, SIB and displacement of `address`.
    fn operand(&mut self, reg: Gpr, address: Address) {
        let reg = reg.low() << 3;
        let Some(base) = address.base else {
            let (index, scale) =
                address.index.map_or((4, 0), |(index, scale)| (index.low(), scale));
            self.bytes(&[reg | 4, scale << 6 | index << 3 | 5]);
            self.imm32(address.disp as u32);
            return;
        };
        let short = i8::try_from(address.disp);
        let mode = match short {
            Ok(0) if base.low() != 5 => 0x00,
            Ok(_) => 0x40,
            Err(_) => 0x80,
        };
        match address.index {
            Some((index, scale)) => {
                self.bytes(&[mode | reg | 4, scale << 6 | index.low() << 3 | base.low()]);
            }
            None if base.low() == 4 => self.bytes(&[mode | reg | 4, 0x24]),
            None => self.byte(mode | reg | base.low()),
        }
        match (mode, short) {
            (0x40, Ok(disp)) => self.byte(disp as u8),
            (0x80, _) => self.imm32(address.disp as u32),
            _ => {}
        }
    }

    /// A REX.W instruction with one opcode byte and a memory operand.
    fn wide(&mut self, opcode: u8, reg: Gpr, address: Address) {
        debug_assert!(address.index.is_none_or(|(index, _)| index != Gpr::RSP));
        let index = address.index.map_or(0, |(index, _)| index.high());
        let base = address.base.map_or(0, Gpr::high);
        self.bytes(&[0x48 | reg.high() << 2 | index << 1 | base, opcode]);
        self.operand(reg, address);
    }

    /// `lea reg, [address]`
    pub fn lea(&mut self, reg: Gpr, address: Address) {
        self.wide(0x8d, reg, address);
    }

    /// `lea reg, [address]` with 32-bit addressing: the sum is cut to 32 bits.
    pub fn lea_short_address(&mut self, reg: Gpr, address: Address) {
        self.byte(0x67);
        self.wide(0x8d, reg, address);
    }

    /// `lea reg32, [reg + disp]`: the sum is cut to 32 bits.
    pub fn lea_short(&mut self, reg: Gpr, disp: i32) {
        if reg.high() != 0 {
            self.byte(0x45);
        }
        self.byte(0x8d);
        self.operand(reg, Address { base: Some(reg), index: None, disp });
    }

    /// `lea reg, [rip + target]`
    pub fn lea_place(&mut self, reg: Gpr, target: u64) {
        self.bytes(&[0x48 | reg.high() << 2, 0x8d]);
        self.rip_operand(reg.0, target, 0);
    }

    /// `prefetcht0 [rip + target]`
    pub fn prefetch_place(&mut self, target: u64) {
        self.bytes(&[0x0f, 0x18]);
        self.rip_operand(1, target, 0);
    }

    /// `lea reg, [field + 8]`
    pub fn lea_behind_field(&mut self, reg: Gpr, field: Field) {
        self.lea_place(reg, self.context.wrapping_add(field.0 as u64 + 8));
    }

    /// `mov reg, [address]`
    pub fn load(&mut self, reg: Gpr, address: Address) {
        self.wide(0x8b, reg, address);
    }

    /// `mov [field], reg`
    pub fn save(&mut self, reg: Gpr, field: Field) {
        self.bytes(&[0x48 | reg.high() << 2, 0x89]);
        self.field_operand(reg.0, field, 0);
    }

    /// `mov reg, [field]`
    pub fn restore(&mut self, reg: Gpr, field: Field) {
        self.bytes(&[0x48 | reg.high() << 2, 0x8b]);
        self.field_operand(reg.0, field, 0);
    }

    /// Stores a constant in a context field.
    pub fn save_constant(&mut self, field: Field, value: u64) {
        if is_delicate(value) {
            for word in 0..4 {
                self.bytes(&[0x66, 0xc7]); // mov word [field + 2 * word], imm16
                self.field_operand(0, Field(field.0 + 2 * word), 2);
                self.bytes(&((value >> (16 * word)) as u16).to_le_bytes());
            }
        } else if let Some(short) = sign_extended(value) {
            self.bytes(&[0x48, 0xc7]);
            self.field_operand(0, field, 4);
            self.imm32(short as u32);
        } else {
            for (field, half) in [(field, value), (Field(field.0 + 4), value >> 32)] {
                self.byte(0xc7);
                self.field_operand(0, field, 4);
                self.imm32(half as u32);
            }
        }
    }

    /// Sets a register to a constant, in the shortest form.
    pub fn constant(&mut self, reg: Gpr, value: u64) {
        if is_delicate(value) {
            // In two parts.
            let add = (1..).map(|i| i * 0x0102_0305).find(|i| !is_delicate(less(value, *i)));
            let add = add.unwrap_or_default();
            self.constant(reg, less(value, add));
            self.lea(reg, Address { disp: add, ..Address::base(reg) });
        } else if let Ok(short) = u32::try_from(value) {
            if reg.high() != 0 {
                self.byte(0x41);
            }
            self.byte(0xb8 | reg.low());
            self.imm32(short);
        } else if let Some(short) = sign_extended(value) {
            self.bytes(&[0x48 | reg.high(), 0xc7, 0xc0 | reg.low()]);
            self.imm32(short as u32);
        } else {
            self.bytes(&[0x48 | reg.high(), 0xb8 | reg.low()]);
            self.bytes(&value.to_le_bytes());
        }
    }

    /// Sets the low 16 bits of a register, and keeps the others.
    pub fn constant_word(&mut self, reg: Gpr, value: u16) {
        self.byte(0x66);
        if reg.high() != 0 {
            self.byte(0x41);
        }
        self.byte(0xb8 | reg.low());
        self.bytes(&value.to_le_bytes());
    }

    /// `mov to, from`
    pub fn copy(&mut self, to: Gpr, from: Gpr) {
        self.bytes(&[0x48 | from.high() << 2 | to.high(), 0x89]);
        self.byte(0xc0 | from.low() << 3 | to.low());
    }

    /// `not reg`
    pub fn not(&mut self, reg: Gpr) {
        self.bytes(&[0x48 | reg.high(), 0xf7, 0xd0 | reg.low()]);
    }

    /// A three-operand VEX.0F38 instruction between registers.
    fn vex(&mut self, opcode: u8, wide_and_prefix: u8, reg: Gpr, second: Gpr, rm: Gpr) {
        self.bytes(&[
            0xc4,
            (reg.high() ^ 1) << 7 | 0x40 | (rm.high() ^ 1) << 5 | 2,
            wide_and_prefix | (!second.0 & 15) << 3,
            opcode,
            0xc0 | reg.low() << 3 | rm.low(),
        ]);
    }

    /// `sarx to, from, count`
    pub fn shift_right_signed(&mut self, to: Gpr, from: Gpr, count: Gpr) {
        self.vex(0xf7, 0x82, to, count, from);
    }

    /// `shrx to, from, count`
    pub fn shift_right(&mut self, to: Gpr, from: Gpr, count: Gpr) {
        self.vex(0xf7, 0x83, to, count, from);
    }

    /// `pdep to, from, mask`
    pub fn deposit_register(&mut self, to: Gpr, from: Gpr, mask: Gpr) {
        self.vex(0xf5, 0x83, to, from, mask);
    }

    /// `pext to32, from32, mask32`
    pub fn extract_short(&mut self, to: Gpr, from: Gpr, mask: Gpr) {
        self.vex(0xf5, 0x02, to, from, mask);
    }

    /// `pdep to32, from32, mask32`
    pub fn deposit_short(&mut self, to: Gpr, from: Gpr, mask: Gpr) {
        self.vex(0xf5, 0x03, to, from, mask);
    }

    /// `pdep reg, reg, [field]`: with all ones in `reg` this gives the field,
    /// with zero it gives zero.
    pub fn deposit(&mut self, reg: Gpr, field: Field) {
        let ext = (reg.high() ^ 1) << 7;
        self.bytes(&[0xc4, ext | 0x62, 0x83 | (!reg.0 & 15) << 3, 0xf5]);
        self.field_operand(reg.0, field, 0);
    }

    /// `pext to, from, [rip + mask]`
    pub fn extract_at(&mut self, to: Gpr, from: Gpr, mask: u64) {
        let ext = (to.high() ^ 1) << 7;
        self.bytes(&[0xc4, ext | 0x62, 0x82 | (!from.0 & 15) << 3, 0xf5]);
        self.rip_operand(to.0, mask, 0);
    }

    /// `movzx to32, byte ptr [address]`
    pub fn load_byte(&mut self, to: Gpr, address: Address) {
        let index = address.index.map_or(0, |(index, _)| index.high());
        let base = address.base.map_or(0, Gpr::high);
        self.bytes(&[0x40 | to.high() << 2 | index << 1 | base, 0x0f, 0xb6]);
        self.operand(to, address);
    }

    /// `jrcxz` to where [`Emitter::land`] will be; returns its place.
    pub fn jump_if_rcx_zero(&mut self) -> usize {
        self.bytes(&[0xe3, 0]);
        self.len
    }

    /// `jmp` to where [`Emitter::land`] will be; returns its place.
    pub fn jump_short(&mut self) -> usize {
        self.bytes(&[0xeb, 0]);
        self.len
    }

    /// Makes the jump emitted at `from` lead here.
    pub fn land(&mut self, from: usize) {
        let distance = self.len.wrapping_sub(from);
        match (i8::try_from(distance), self.buffer.get_mut(from.wrapping_sub(1))) {
            (Ok(short), Some(slot)) => *slot = short as u8,
            _ => self.overflow = true,
        }
    }

    /// `rorx to, from, count`
    pub fn rotate_right(&mut self, to: Gpr, from: Gpr, count: u8) {
        self.bytes(&[
            0xc4,
            (to.high() ^ 1) << 7 | 0x40 | (from.high() ^ 1) << 5 | 3,
            0xfb,
            0xf0,
            0xc0 | to.low() << 3 | from.low(),
            count,
        ]);
    }

    /// `pushfq`
    pub fn push_flags(&mut self) {
        self.byte(0x9c);
    }

    /// `pop reg`
    pub fn pop(&mut self, reg: Gpr) {
        if reg.high() != 0 {
            self.byte(0x41);
        }
        self.byte(0x58 | reg.low());
    }

    /// `jmp target`
    pub fn jump(&mut self, target: u64) {
        self.byte(0xe9);
        self.distance(target, 0);
    }

    /// `jmp` to where [`Emitter::land_far`] will be; returns its place.
    pub fn jump_far(&mut self) -> usize {
        self.bytes(&[0xe9, 0, 0, 0, 0]);
        self.len
    }

    /// Makes the far jump emitted at `from` lead here.
    pub fn land_far(&mut self, from: usize) {
        let distance = self.len.wrapping_sub(from) as u32;
        match self.buffer.get_mut(from.wrapping_sub(4)..from) {
            Some(field) => field.copy_from_slice(&distance.to_le_bytes()),
            None => self.overflow = true,
        }
    }

    /// A bare 4-byte distance to `target`; returns its offset in the buffer.
    pub fn site(&mut self, target: u64) -> usize {
        let at = self.len;
        self.distance(target, 0);
        at
    }
}

/// Do the constant's bytes hold an instruction that loads PKRU? Guest addresses can, and
/// whoever may not execute it can jump into translated code at any byte.
pub(crate) fn is_delicate(value: u64) -> bool {
    crate::forbidden::find(&value.to_le_bytes(), 0).is_some()
}

fn less(value: u64, by: i32) -> u64 {
    value.wrapping_sub(by as u64)
}

/// `value` as an immediate that sign extension restores, if there is one.
pub(crate) fn sign_extended(value: u64) -> Option<i32> {
    i32::try_from(value as i64).ok()
}
