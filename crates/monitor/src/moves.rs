//! Moves of the guest kernel between a register and user memory, in software: nearly all it does to user
//! memory one element at a time (`get_user`, `put_user`, frames of signals). Needed where string
//! instructions are, and much faster there than the instruction itself on a copy.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::{
    gate::context,
    guest::fold,
    proven::Masked,
    state::{Fault, Monitor},
};

const PAGE: u64 = 4096;

impl Monitor {
    /// Runs it if it is one, at `va` within a page; false if it is something else.
    pub(crate) fn run_move(&mut self, ins: &Instruction, va: u64) -> Result<bool, Fault> {
        let size = ins.memory_size().size();
        let is_whole = matches!(size, 1 | 2 | 4 | 8) && va % PAGE + size as u64 <= PAGE;
        match (ins.mnemonic(), ins.op0_kind(), ins.op1_kind()) {
            _ if !is_whole => Ok(false),
            (Mnemonic::Mov, OpKind::Memory, OpKind::Register) => {
                let from = ins.op1_register();
                if !from.is_gpr() {
                    return Ok(false);
                }
                self.store(va, self.register(from), size)
            }
            (Mnemonic::Mov, OpKind::Memory, _) => self.store(va, ins.immediate(1), size),
            (Mnemonic::Mov | Mnemonic::Movzx, OpKind::Register, OpKind::Memory) => {
                let to = ins.op0_register();
                // Shorter ones leave a part of the register as it is.
                if !(to.is_gpr32() || to.is_gpr64()) {
                    return Ok(false);
                }
                let value = self.load(va, size)?;
                set_register(to, value);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn store(&mut self, va: u64, value: u64, size: usize) -> Result<bool, Fault> {
        let to = self.seen_at(va, true)? as *mut u8;
        // SAFETY: `size` bytes of a page in the monitor's view of guest frames (`run_move`).
        unsafe {
            match size {
                1 => to.write(value as u8),
                2 => to.cast::<u16>().write_unaligned(value as u16),
                4 => to.cast::<u32>().write_unaligned(value as u32),
                _ => to.cast::<u64>().write_unaligned(value),
            }
        }
        Ok(true)
    }

    fn load(&mut self, va: u64, size: usize) -> Result<u64, Fault> {
        let from = self.seen_at(va, false)? as *const u8;
        // SAFETY: as in `store`.
        Ok(unsafe {
            match size {
                1 => from.read().into(),
                2 => from.cast::<u16>().read_unaligned().into(),
                4 => from.cast::<u32>().read_unaligned().into(),
                _ => from.cast::<u64>().read_unaligned(),
            }
        })
    }
}

/// Puts a value into a register of 8 or 4 bytes, of which the latter clears the upper half.
fn set_register(to: Register, value: u64) {
    let number = to.full_register().number();
    *context().regs.at_mut(number) = if number == 4 { fold(value) } else { value };
}
