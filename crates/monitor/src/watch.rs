//! Debug registers of the guest, for its user code.
//!
//! The host's debug registers are not to be had without its help, so while a
//! breakpoint is enabled user code runs in single steps, and each instruction's
//! accesses are compared with the registers before it runs (SDM vol. 3B 17.2).

use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess,
    Register, UsedMemory,
};

use crate::{gate::context, proven::Masked, signal::TRAP, state::Monitor};

/// Enable bits of DR7 (local and global of four breakpoints).
const ENABLED: u64 = 0xff;

/// Breakpoint kinds of DR7's R/W fields.
const ON_EXECUTION: u64 = 0;
const ON_WRITE: u64 = 1;

impl Monitor {
    /// Is a breakpoint enabled?
    pub fn watches(&self) -> bool {
        self.vcpu.debug[7] & ENABLED != 0
    }

    /// What a step of the monitor's, not the guest's, from `rip` did to the trap flag: the
    /// program's own one is 0 before it. Returns it.
    pub fn hide_trap_flag(&mut self, rip: u64) -> u64 {
        let (bytes, n) = self.fetch(rip);
        let ins =
            Decoder::with_ip(64, bytes.get(..n).unwrap_or_default(), rip, DecoderOptions::NONE)
                .decode();
        let c = context();
        if pushes_flags(&ins) {
            let top = c.regs[4];
            if let Ok(flags) = self.read_value::<u16>(top) {
                // The page was written a moment ago: it is there.
                let _ = self.write_value(top, &(flags & !(TRAP as u16)));
            }
        }
        if loads_flags(&ins) { c.rflags & TRAP } else { 0 }
    }

    /// Breakpoints that the user instruction at `vcpu.rip` will hit, as DR6 bits:
    /// those on execution, and those on its data.
    pub fn hits(&mut self) -> (u64, u64) {
        let rip = self.vcpu.rip;
        let (bytes, n) = self.fetch(rip);
        let ins =
            Decoder::with_ip(64, bytes.get(..n).unwrap_or_default(), rip, DecoderOptions::NONE)
                .decode();
        let (mut execution, mut data) = (0, 0);
        for i in 0..4 {
            let control = self.vcpu.debug[7];
            if control >> (2 * i) & 3 == 0 {
                continue;
            }
            let at = *self.vcpu.debug.at(i);
            let kind = control >> (16 + 4 * i) & 3;
            let len = *[1, 2, 8, 4].at((control >> (18 + 4 * i) & 3) as usize);
            if kind == ON_EXECUTION {
                execution |= u64::from(at == rip) << i;
            } else if self.touches(&ins, at & !(len - 1), len, kind == ON_WRITE) {
                data |= 1 << i;
            }
        }
        (execution, data)
    }

    /// Does the instruction access `[at, at + len)`?
    fn touches(&self, ins: &Instruction, at: u64, len: u64, writes_only: bool) -> bool {
        let mut factory = InstructionInfoFactory::new();
        factory.info(ins).used_memory().iter().any(|m| {
            let writes = matches!(
                m.access(),
                OpAccess::Write
                    | OpAccess::ReadWrite
                    | OpAccess::CondWrite
                    | OpAccess::ReadCondWrite
            );
            if m.access() == OpAccess::NoMemAccess || writes_only && !writes {
                return false;
            }
            let (start, size) = (self.address_of(m), size_of_access(ins, m.memory_size()));
            start < at.saturating_add(len) && at < start.saturating_add(size)
        })
    }

    fn address_of(&self, m: &UsedMemory) -> u64 {
        m.virtual_address(0, |r, _, _| {
            Some(match r {
                Register::FS => self.vcpu.fs_user,
                Register::GS => self.vcpu.gs_user,
                r if r.is_segment_register() => 0,
                r => *context().regs.at(r.full_register().number()),
            })
        })
        .unwrap_or(0)
    }
}

fn size_of_access(ins: &Instruction, size: MemorySize) -> u64 {
    match size.size() {
        // One step of a repeated string instruction.
        0 if ins.is_string_instruction() => ins.memory_size().size() as u64,
        // XSAVE areas.
        0 => crate::cpuid::xsave_size().into(),
        n => n as u64,
    }
}

/// PUSHF, which shows the flags to the program?
fn pushes_flags(ins: &Instruction) -> bool {
    matches!(ins.mnemonic(), Mnemonic::Pushf | Mnemonic::Pushfq)
}

/// POPF or IRET, which load the trap flag?
fn loads_flags(ins: &Instruction) -> bool {
    matches!(ins.mnemonic(), Mnemonic::Popf | Mnemonic::Popfq | Mnemonic::Iretq)
}
