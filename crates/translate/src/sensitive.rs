//! Instructions that must not run as they are.
//!
//! To the monitor go: what is privileged, but for port accesses (guests have no
//! ports, and a boot probes for them 200 000 times); what shows or changes host state
//! (CPUID, descriptor tables, segment registers, XGETBV, RDPMC, RDPRU, PKRU, in
//! kernel mode also the FS and GS bases); what needs features guests are not
//! offered (VMX, SVM, SGX, TDX, CET, AMX, MPX, user interrupts, MONITOR,
//! WAITPKG, ENQCMD, RTM); in kernel mode those with memory operands no prefix
//! reaches (CLZERO, MOVDIR64B), and ENTER. Branch forms that go there are in
//! `control`, operand forms in `memory` and `string`.

use crate::Mode;
use crate::block::{Builder, Guest};
use crate::control::Unsupported;
use crate::emit::Gpr;
use crate::layout::Memory;
use crate::scratch::{Spills, gpr};
use iced_x86::{CpuidFeature, Instruction, Mnemonic, OpKind, Register};

/// What happens to an instruction before anything else is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// The monitor emulates it.
    Emulate,
    /// It has no effect the guest can see.
    Drop,
    /// MOV from or to a segment register in kernel mode.
    Segment,
    /// IN or OUT in kernel mode.
    Port,
    /// It is translated.
    Translate,
}

/// Selectors a Xen PV kernel runs with (xen/include/public/arch-x86/xen-x86_64.h).
const KERNEL_CS: u16 = 0xe033;
const KERNEL_SS: u16 = 0xe02b;

pub(crate) fn classify(instruction: &Instruction, mode: Mode) -> Class {
    use Mnemonic as M;
    let kernel = mode == Mode::Kernel;
    if kernel && matches!(instruction.mnemonic(), M::In | M::Out) {
        return Class::Port;
    }
    if instruction.is_privileged() || names_special_register(instruction) {
        let movable = kernel && instruction.mnemonic() == M::Mov && is_segment_move(instruction);
        return if movable { Class::Segment } else { Class::Emulate };
    }
    match instruction.mnemonic() {
        M::Cpuid
        | M::Sgdt
        | M::Sidt
        | M::Sldt
        | M::Str
        | M::Smsw
        | M::Lar
        | M::Lsl
        | M::Xgetbv
        | M::Rdpmc
        | M::Rdpru
        | M::Rdpkru
        | M::Wrpkru
        | M::Monitor
        | M::Mwait
        | M::Monitorx
        | M::Mwaitx
        | M::Lfs
        | M::Lgs
        | M::Lss
        | M::In
        | M::Out
        | M::Insb
        | M::Insw
        | M::Insd
        | M::Outsb
        | M::Outsw
        | M::Outsd
        | M::Cli
        | M::Sti
        | M::Xsaves
        | M::Xsaves64
        | M::Xrstors
        | M::Xrstors64
        | M::Getsec
        | M::Vmfunc => Class::Emulate,
        M::Rdfsbase
        | M::Rdgsbase
        | M::Wrfsbase
        | M::Wrgsbase
        | M::Clzero
        | M::Enter
        | M::Movdir64b
            if kernel =>
        {
            Class::Emulate
        }
        M::Nop => Class::Drop,
        // With a register some of these encodings are invalid on some CPUs.
        M::Reservednop
        | M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchnta
        | M::Prefetchit0
        | M::Prefetchit1
        | M::Cldemote
            if instruction.op0_kind() == OpKind::Memory =>
        {
            Class::Drop
        }
        M::Endbr64 | M::Endbr32 if kernel => Class::Drop,
        _ if instruction.cpuid_features().iter().any(|feature| withheld(*feature)) => {
            Class::Emulate
        }
        _ => Class::Translate,
    }
}

/// Features no guest is offered and whose instructions are not all privileged.
fn withheld(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::VMX
            | F::SVM
            | F::SGX1
            | F::TDX
            | F::SEV_ES
            | F::CET_SS
            | F::AMX_TILE
            | F::AMX_BF16
            | F::AMX_INT8
            | F::AMX_FP16
            | F::AMX_COMPLEX
            | F::MPX
            | F::UINTR
            | F::WAITPKG
            | F::ENQCMD
            | F::RTM
            | F::PADLOCK_ACE
            | F::PADLOCK_PHE
            | F::PADLOCK_PMM
            | F::PADLOCK_RNG
    )
}

fn names_special_register(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| {
        let register = instruction.op_register(i);
        instruction.op_kind(i) == OpKind::Register
            && (register.is_segment_register()
                || register.is_cr()
                || register.is_dr()
                || register.is_tr())
    })
}

fn is_segment_move(instruction: &Instruction) -> bool {
    instruction.op0_register().is_segment_register()
        || instruction.op1_register().is_segment_register()
}

impl Builder<'_> {
    /// Where no port is, all bits read are set and what is written is lost.
    pub fn port(&mut self, instruction: &Instruction) {
        if instruction.mnemonic() == Mnemonic::Out {
            return;
        }
        match instruction.op0_register().size() {
            1 => self.code.bytes(&[0xb0, 0xff]), // mov al, imm8
            2 => self.code.constant_word(Gpr::RAX, 0xffff),
            _ => self.code.constant(Gpr::RAX, 0xffff_ffff),
        }
    }

    /// The segment moves of kernel entry and context switch, done on the spot:
    /// a PV kernel has fixed CS and SS, and keeps null selectors in the others.
    pub fn segment_move(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        let instruction = guest.instruction;
        let (to, from) = (instruction.op0_register(), instruction.op1_register());
        if to.is_segment_register() {
            let null_only = matches!(to, Register::ES | Register::DS | Register::SS);
            let from_register = instruction.op1_kind() == OpKind::Register;
            return if null_only && from_register { Ok(()) } else { Err(Unsupported) };
        }
        if guest.layout.memory == Memory::ModRm {
            return self.store_null_selector(guest, from);
        }
        let register = gpr(to).ok_or(Unsupported)?;
        if register == Gpr::RSP {
            return Err(Unsupported);
        }
        let selector = match from {
            Register::CS => KERNEL_CS,
            Register::SS => KERNEL_SS,
            _ => 0,
        };
        if to.size() == 2 {
            // Linux' savesegment(), four times in a context switch.
            self.code.constant_word(register, selector);
        } else {
            self.code.constant(register, u64::from(selector));
        }
        Ok(())
    }

    /// `mov word [operand], 0` for a store of DS, ES, FS or GS.
    fn store_null_selector(&mut self, guest: &Guest, from: Register) -> Result<(), Unsupported> {
        if matches!(from, Register::CS | Register::SS) {
            return Err(Unsupported);
        }
        let mut spills = Spills::new();
        let place = self.place(guest, &mut spills, false)?;
        let store = guest
            .layout
            .rewrite(place.segment, place.operand)
            .and_then(|store| guest.layout.store_of_zero(&store))
            .ok_or(Unsupported)?;
        self.access(guest, &store, place, &spills);
        spills.release(&mut self.code);
        Ok(())
    }
}
