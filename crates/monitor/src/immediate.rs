//! Kernel instructions with an immediate operand that the code cache must not hold,
//! because its bytes are those of an instruction that loads PKRU
//! (`translate::forbidden`). A program can bring such immediates into its kernel
//! through the BPF compilers, whose forms these are.

use core::arch::asm;

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::{
    gate::context,
    guest::fold,
    proven::Masked,
    state::{Fault, Monitor},
};

/// CF, PF, AF, ZF, SF, OF.
const ARITHMETIC: u64 = 0x8d5;

/// The result and flags of a two-operand instruction on registers.
macro_rules! binary {
    ($form:literal, $left:expr, $right:expr) => {{
        let (value, flags): (u64, u64);
        // SAFETY: touches no memory but the stack, which it leaves as it was.
        unsafe {
            asm!(
                concat!($form), "pushfq", "pop {flags}",
                value = inout(reg) $left => value, right = in(reg) $right, flags = out(reg) flags,
            );
        }
        (value, flags)
    }};
}

impl Monitor {
    /// Runs one of them.
    pub fn run_immediate(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        let wide = match ins.op0_kind() {
            OpKind::Register => ins.op0_register().size() == 8,
            _ => ins.memory_size().size() == 8,
        };
        let narrow = !wide && !ins.memory_size().size().is_multiple_of(4);
        let last = ins.op_count().wrapping_sub(1);
        let is_immediate = !matches!(ins.op_kind(last), OpKind::Register | OpKind::Memory);
        if narrow || !is_immediate {
            return self.cannot_run(ins);
        }
        let right = ins.immediate(last);
        let source = if ins.mnemonic() == Mnemonic::Imul { 1 } else { 0 };
        let left = self.read_operand(ins, source, wide)?;
        let (result, flags) = match (ins.mnemonic(), wide) {
            (Mnemonic::Mov, _) => (Some(right), None),
            (mnemonic, true) => wide_result(mnemonic, left, right),
            (mnemonic, false) => narrow_result(mnemonic, left, right),
        };
        let (Some(result), flags) = (result, flags) else {
            // CMP and TEST.
            let Some(flags) = flags else { return self.cannot_run(ins) };
            set_flags(flags);
            return Ok(None);
        };
        self.write_operand(ins, if wide { result } else { result & 0xffff_ffff }, wide)?;
        if let Some(flags) = flags {
            set_flags(flags);
        }
        Ok(None)
    }

    fn cannot_run(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        self.complain_once(
            ins.ip(),
            format_args!("an instruction of the guest's kernel at {:#x} cannot be run", ins.ip()),
        );
        Err(Fault::Vector { vector: 6, code: None })
    }

    fn read_operand(&mut self, ins: &Instruction, n: u32, wide: bool) -> Result<u64, Fault> {
        if ins.op_kind(n) == OpKind::Register {
            let value = self.register(ins.op_register(n).full_register());
            return Ok(if wide { value } else { value & 0xffff_ffff });
        }
        let va = self.operand_address(ins);
        let fault = Fault::Page { address: va, code: 0 };
        if wide {
            self.read_value::<u64>(va).map_err(|_| fault)
        } else {
            self.read_value::<u32>(va).map(u64::from).map_err(|_| fault)
        }
    }

    fn write_operand(&mut self, ins: &Instruction, value: u64, wide: bool) -> Result<(), Fault> {
        if ins.op0_kind() == OpKind::Register {
            let n = ins.op0_register().full_register().number();
            *context().regs.at_mut(n) = if n == 4 { fold(value) } else { value };
            return Ok(());
        }
        let va = self.operand_address(ins);
        let fault = Fault::Page { address: va, code: 2 };
        if wide {
            self.write_value(va, &value).map_err(|_| fault)
        } else {
            self.write_value(va, &(value as u32)).map_err(|_| fault)
        }
    }
}

/// Result (`None` where there is none) and flags of a 64-bit operation.
fn wide_result(mnemonic: Mnemonic, left: u64, right: u64) -> (Option<u64>, Option<u64>) {
    let (result, flags) = match mnemonic {
        Mnemonic::Add => binary!("add {value}, {right}", left, right),
        Mnemonic::Sub | Mnemonic::Cmp => binary!("sub {value}, {right}", left, right),
        Mnemonic::And | Mnemonic::Test => binary!("and {value}, {right}", left, right),
        Mnemonic::Or => binary!("or {value}, {right}", left, right),
        Mnemonic::Xor => binary!("xor {value}, {right}", left, right),
        Mnemonic::Imul => binary!("imul {value}, {right}", left, right),
        _ => return (None, None),
    };
    kept(mnemonic, result, flags)
}

/// The same of a 32-bit operation.
fn narrow_result(mnemonic: Mnemonic, left: u64, right: u64) -> (Option<u64>, Option<u64>) {
    let (result, flags) = match mnemonic {
        Mnemonic::Add => binary!("add {value:e}, {right:e}", left, right),
        Mnemonic::Sub | Mnemonic::Cmp => binary!("sub {value:e}, {right:e}", left, right),
        Mnemonic::And | Mnemonic::Test => binary!("and {value:e}, {right:e}", left, right),
        Mnemonic::Or => binary!("or {value:e}, {right:e}", left, right),
        Mnemonic::Xor => binary!("xor {value:e}, {right:e}", left, right),
        Mnemonic::Imul => binary!("imul {value:e}, {right:e}", left, right),
        _ => return (None, None),
    };
    kept(mnemonic, result, flags)
}

fn kept(mnemonic: Mnemonic, result: u64, flags: u64) -> (Option<u64>, Option<u64>) {
    let compares = matches!(mnemonic, Mnemonic::Cmp | Mnemonic::Test);
    ((!compares).then_some(result), Some(flags))
}

fn set_flags(flags: u64) {
    let c = context();
    c.rflags = c.rflags & !ARITHMETIC | flags & ARITHMETIC;
}
