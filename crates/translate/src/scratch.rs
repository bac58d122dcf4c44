//! Registers borrowed around one guest instruction.

use crate::block::Builder;
use crate::control::Unsupported;
use crate::emit::{Emitter, Field, Gpr};
use crate::output::Fix;
use iced_x86::{Instruction, InstructionInfoFactory, Register};

/// Spill slots of the context.
const SLOTS: usize = 4;

/// Order of preference: the first eight need no REX or long VEX prefix.
const CANDIDATES: [Gpr; 15] = [
    Gpr::RDX,
    Gpr::RBX,
    Gpr::RSI,
    Gpr::RDI,
    Gpr::RAX,
    Gpr::RBP,
    Gpr::RCX,
    Gpr::R8,
    Gpr(9),
    Gpr(10),
    Gpr(11),
    Gpr(12),
    Gpr(13),
    Gpr(14),
    Gpr(15),
];

/// The registers borrowed so far, each saved in the spill slot of its rank.
#[derive(Default)]
pub(crate) struct Spills {
    saved: [Option<Gpr>; SLOTS],
    count: usize,
    /// Bit per borrowed register.
    borrowed: u16,
    /// Bit per register that the instruction uses; found out when first needed.
    used: Option<u16>,
}

impl Spills {
    pub fn new() -> Spills {
        Spills::default()
    }

    /// Borrows a register that `instruction` does not use.
    pub fn take(
        &mut self,
        builder: &mut Builder,
        instruction: &Instruction,
    ) -> Result<Gpr, Unsupported> {
        let used = match self.used {
            Some(used) => used,
            None => used_registers(builder.info, instruction),
        };
        self.used = Some(used);
        let candidates =
            if has_high_byte(instruction) { &CANDIDATES[..7] } else { &CANDIDATES[..] };
        let taken = used | self.borrowed;
        let free = candidates.iter().find(|register| taken & 1 << register.0 == 0);
        let register = *free.ok_or(Unsupported)?;
        self.save(&mut builder.code, register)?;
        Ok(register)
    }

    /// Saves `register`, whether used or not, so that it can be changed until
    /// [`Spills::release`].
    pub fn save(&mut self, code: &mut Emitter, register: Gpr) -> Result<(), Unsupported> {
        let slot = self.saved.get_mut(self.count).ok_or(Unsupported)?;
        *slot = Some(register);
        code.save(register, Field::spill(self.count));
        self.count += 1;
        self.borrowed |= 1 << register.0;
        Ok(())
    }

    /// The repairs an entry needs while the registers are borrowed.
    pub fn fix(&self) -> Fix {
        let saved = self.saved.iter().enumerate();
        saved.fold(Fix::NONE, |fix, (slot, register)| match register {
            Some(register) => fix.with(Fix::spilled(slot, register.0)),
            None => fix,
        })
    }

    /// Gives all registers back.
    pub fn release(&self, code: &mut Emitter) {
        self.release_from(code, 0);
    }

    /// Gives back those in spill slot `first` and after.
    pub fn release_from(&self, code: &mut Emitter, first: usize) {
        for (slot, register) in self.saved.iter().enumerate().skip(first) {
            if let Some(register) = register {
                code.restore(*register, Field::spill(slot));
            }
        }
    }
}

/// Whether an operand is AH, CH, DH or BH. Such an instruction can have no REX
/// prefix, so it can name only the first eight registers.
fn has_high_byte(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| {
        matches!(
            instruction.op_register(i),
            Register::AH | Register::CH | Register::DH | Register::BH
        )
    })
}

fn used_registers(info: &mut InstructionInfoFactory, instruction: &Instruction) -> u16 {
    let mut used = 1 << Gpr::RSP.0;
    for register in info.info(instruction).used_registers() {
        if let Some(register) = gpr(register.register()) {
            used |= 1 << register.0;
        }
    }
    used
}

/// The general register that `register` is or is part of.
pub(crate) fn gpr(register: Register) -> Option<Gpr> {
    let full = register.full_register();
    if register.is_gpr() { u8::try_from(full.number()).ok().map(Gpr) } else { None }
}
