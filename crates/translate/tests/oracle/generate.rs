//! Random instructions: random encodings, kept if the decoder accepts them and
//! their operands keep to the test's conventions.
//!
//! RSP, RBP, RSI, RDI, R14 and R15 hold addresses and only ever serve as such;
//! R13 is a small index; the others hold data.

use crate::lab::{R13, R14, R15, RBP, RDI, RSI, RSP, set};
use crate::rng::Rng;
use iced_x86::{
    Code, CpuidFeature, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};
use std::collections::{BTreeMap, HashSet};

/// Registers that hold addresses.
pub fn pointers() -> u16 {
    set(&[RSP, RBP, RSI, RDI, R14, R15])
}

/// Makes instructions and counts what it made.
pub struct Generator {
    info: InstructionInfoFactory,
    /// Codes that this CPU does not have, or the translator leaves alone.
    pub unusable: HashSet<Code>,
    /// How often each was made.
    pub made: BTreeMap<u16, u64>,
    /// Offset from the instruction's start to the data, for RIP-relative operands.
    pub data_distance: i64,
}

impl Generator {
    pub fn new() -> Generator {
        Generator {
            info: InstructionInfoFactory::new(),
            unusable: HashSet::new(),
            made: BTreeMap::new(),
            data_distance: 0,
        }
    }

    /// The next instruction, to lie at `offset` from the sequence's start.
    pub fn instruction(&mut self, rng: &mut Rng, offset: usize) -> Vec<u8> {
        loop {
            let bytes = self.encoding(rng, offset);
            let mut decoder = iced_x86::Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
            let instruction = decoder.decode();
            if instruction.is_invalid() || self.unusable.contains(&instruction.code()) {
                continue;
            }
            if self.accept(&instruction) {
                *self.made.entry(instruction.code() as u16).or_default() += 1;
                return bytes[..instruction.len()].to_vec();
            }
        }
    }

    fn encoding(&mut self, rng: &mut Rng, offset: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        for prefix in [0x65, 0x66, 0xf0, 0xf2, 0xf3, 0x3e, 0x67] {
            let chance = match prefix {
                0x66 | 0xf3 | 0xf2 => 6,
                0x67 => 60,
                _ => 20,
            };
            if rng.one_in(chance) {
                bytes.push(prefix);
            }
        }
        match rng.below(9) {
            0..3 => self.legacy(rng, &mut bytes, &[]),
            3 | 4 => self.legacy(rng, &mut bytes, &[0x0f]),
            5 => {
                let map = rng.pick(&[0x38, 0x3a]);
                self.legacy(rng, &mut bytes, &[0x0f, map]);
            }
            6 => {
                bytes.retain(|byte| matches!(byte, 0x65 | 0x3e));
                bytes.extend([0xc5, rng.byte(), rng.byte()]);
            }
            7 => {
                bytes.retain(|byte| matches!(byte, 0x65 | 0x3e));
                let map = rng.pick(&[1, 2, 2, 3]);
                bytes.extend([0x62, rng.byte() & 0xf0 | map, rng.byte() | 4, rng.byte()]);
                bytes.push(rng.byte());
            }
            _ => {
                bytes.retain(|byte| matches!(byte, 0x65 | 0x3e));
                let map = rng.pick(&[1, 2, 2, 3]);
                bytes.extend([0xc4, rng.byte() & 0xe0 | map, rng.byte(), rng.byte()]);
            }
        }
        self.operand(rng, &mut bytes, offset);
        for _ in 0..8 {
            bytes.push(rng.byte());
        }
        bytes
    }

    fn legacy(&self, rng: &mut Rng, bytes: &mut Vec<u8>, map: &[u8]) {
        if rng.one_in(2) {
            bytes.push(0x40 | rng.byte() & 15);
        }
        bytes.extend(map);
        bytes.push(rng.byte());
    }

    /// ModRM, SIB and a displacement that stays in the data.
    fn operand(&self, rng: &mut Rng, bytes: &mut Vec<u8>, offset: usize) {
        let modrm = rng.byte();
        bytes.push(modrm);
        let (mode, rm) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            return;
        }
        let mut absolute = rm == 5;
        if rm == 4 {
            let sib = rng.byte();
            bytes.push(sib);
            absolute = sib & 7 == 5;
        }
        if mode == 2 || mode == 0 && absolute {
            let mut disp = rng.below(3000) as i64 - 1000;
            if mode == 0 && rm == 5 {
                disp += self.data_distance - offset as i64 + 2000;
            }
            bytes.extend((disp as i32).to_le_bytes());
        }
    }

    fn accept(&mut self, instruction: &Instruction) -> bool {
        wanted(instruction)
            && self.registers_allowed(instruction)
            && self.operand_allowed(instruction)
            && operands_data(instruction)
    }

    fn operand_allowed(&self, instruction: &Instruction) -> bool {
        let explicit =
            (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
        if !explicit {
            return instruction.segment_prefix() == Register::None;
        }
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let index_small = index == Register::None || is(index, &[R13]);
        let disp = instruction.memory_displacement64() as i64;
        let disp_small = disp.abs() < 5000;
        match instruction.segment_prefix() {
            Register::GS => {
                disp_small && index_small && (base == Register::None || is(base, &[R13]))
            }
            _ if base == Register::RIP => (disp - self.data_distance).abs() < 8000,
            _ => disp_small && index_small && is(base, &[RSP, RBP, RSI, RDI, R14, R15]),
        }
    }

    /// Pointers may be read, or stepped by string and stack instructions.
    fn registers_allowed(&mut self, instruction: &Instruction) -> bool {
        let steps = instruction.is_string_instruction() || instruction.is_stack_instruction();
        let kept = pointers() | set(&[R13]);
        self.info.info(instruction).used_registers().iter().all(|used| {
            let register = used.register();
            let special = register.is_gpr() && kept >> register.full_register().number() & 1 != 0;
            let written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            !special || !written || steps
        })
    }
}

fn is(register: Register, of: &[usize]) -> bool {
    register.is_gpr64() && of.contains(&register.number())
}

/// Explicit register operands are data registers, and no implicit ones are
/// addresses unless the instruction is made for that.
fn operands_data(instruction: &Instruction) -> bool {
    let kept = pointers() | set(&[R13]);
    (0..instruction.op_count()).all(|i| {
        let register = instruction.op_register(i);
        instruction.op_kind(i) != OpKind::Register
            || !register.is_gpr()
            || kept >> register.full_register().number() & 1 == 0
    })
}

/// Not what faults or differs for reasons of its own: branches (made elsewhere),
/// instructions that show time, place or chance, POPF (TF, AC), those that
/// store x87 code pointers, LEA (addresses as data), and those whose real address is not in the operand.
fn wanted(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let bit_string = matches!(instruction.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register;
    let unwanted = matches!(
        instruction.mnemonic(),
        M::Lea
            | M::Wrpkru
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Clzero
            | M::Popf
            | M::Popfq
            | M::Pushf
            | M::Pushfq
            | M::Leave
            | M::Enter
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdrand
            | M::Rdseed
            | M::Rdpid
            | M::Xlatb
            | M::Fnstenv
            | M::Fstenv
            | M::Fnsave
            | M::Fsave
            | M::Fldenv
            | M::Frstor
            | M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
            | M::Xsave
            | M::Xsave64
            | M::Xsavec
            | M::Xsavec64
            | M::Xsaveopt
            | M::Xsaveopt64
            | M::Xrstor
            | M::Xrstor64
            | M::Vzeroall
    );
    let segment =
        (0..instruction.op_count()).any(|i| instruction.op_register(i).is_segment_register());
    let features = instruction.cpuid_features();
    instruction.flow_control() == FlowControl::Next
        && !unwanted
        && !bit_string
        && !segment
        && !instruction.is_vsib()
        && !instruction.is_privileged()
        && !features.contains(&CpuidFeature::MPX)
}

/// A forward conditional jump over `distance` bytes.
pub fn jump_over(rng: &mut Rng, distance: usize) -> Vec<u8> {
    let condition = rng.byte() & 15;
    if rng.one_in(2) {
        vec![0x70 | condition, distance as u8]
    } else {
        let mut bytes = vec![0x0f, 0x80 | condition];
        bytes.extend((distance as u32).to_le_bytes());
        bytes
    }
}

/// A register for the start of a sequence that is neither address nor index.
pub fn is_data(register: usize) -> bool {
    (pointers() | set(&[R13])) >> register & 1 == 0
}
