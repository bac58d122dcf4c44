//! XSAVE and XRSTOR without the protection-key register, and vector state that
//! may be elsewhere.
//!
//! A guest that could load PKRU would open the monitor's memory. The component
//! mask in EAX is cut to what the guest may have, by a constant in the code
//! (the context is guest-writable), with `pext` and `pdep`: an AND without flags.

use crate::block::{Builder, Guest};
use crate::control::{Unsupported, addresses_with};
use crate::emit::{Field, Gpr};
use crate::output::Fix;
use crate::scratch::Spills;
use iced_x86::{CpuidFeature, Instruction, Mnemonic, Register};

/// PKRU's bit in XCR0 (Intel SDM vol. 1, 13.1).
const PKRU: u32 = 1 << 9;

/// Whether `mnemonic` takes a component mask in EDX:EAX and runs unprivileged.
pub(crate) fn is_masked(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Xrstor, Xrstor64, Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64};
    matches!(
        mnemonic,
        Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 | Xrstor | Xrstor64
    )
}

/// Whether `mnemonic` loads state.
pub(crate) fn is_restore(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Xrstor | Mnemonic::Xrstor64)
}

/// Whether an instruction reads or writes vector, mask, x87 or MXCSR state: all
/// but those of features known to be about general registers alone.
pub(crate) fn uses_state(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let plain = |feature: &CpuidFeature| {
        use CpuidFeature as F;
        matches!(
            feature,
            F::INTEL8086
                | F::INTEL186
                | F::INTEL286
                | F::INTEL386
                | F::INTEL486
                | F::X64
                | F::CMOV
                | F::CX8
                | F::CMPXCHG16B
                | F::POPCNT
                | F::LZCNT
                | F::BMI1
                | F::BMI2
                | F::ADX
                | F::MOVBE
                | F::RDRAND
                | F::RDSEED
                | F::TSC
                | F::RDTSCP
                | F::RDPID
                | F::CLFSH
                | F::CLFLUSHOPT
                | F::CLWB
                | F::PREFETCHW
                | F::PAUSE
                | F::MULTIBYTENOP
                | F::SYSCALL
                | F::FSGSBASE
                | F::SMAP
                | F::CPUID
                | F::MSR
                | F::CET_IBT
        )
    };
    let exempt = matches!(
        instruction.mnemonic(),
        M::Lfence
            | M::Mfence
            | M::Sfence
            | M::Movnti
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchnta
    );
    !exempt && !instruction.cpuid_features().iter().all(plain)
}

impl Builder<'_> {
    /// Leaves to the monitor if the vector state is not in this process's
    /// registers, once a block. Flag-free.
    pub fn need_state(&mut self, guest: &Guest) {
        if !self.request.state_may_be_away || self.state_is_here {
            return;
        }
        self.state_is_here = true;
        self.code.save(Gpr::RCX, Field::LOOKUP_RCX);
        self.code.restore(Gpr::RCX, Field::STATE_AWAY);
        let jump = self.code.jump_if_rcx_zero();
        self.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
        self.exit(guest.instruction.ip(), self.targets.exit_state);
        self.code.land(jump);
        self.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
        // The instruction itself may fault here: it is unknown to this processor, or its
        // exception is not masked.
        self.mark(guest, Fix::NONE);
    }

    /// Translates one of the instructions of [`is_masked`].
    pub fn masked_state(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        let mut spills = Spills::new();
        let computed = addresses_with(guest.instruction, Register::RAX);
        let place = self.place(guest, &mut spills, computed)?;
        let bytes = guest.layout.rewrite(place.segment, place.operand).ok_or(Unsupported)?;
        let mask = spills.take(self, guest.instruction)?;
        spills.save(&mut self.code, Gpr::RAX)?;
        self.code.constant(mask, u64::from(self.targets.xsave_mask & !PKRU));
        self.code.extract_short(Gpr::RAX, Gpr::RAX, mask);
        self.code.deposit_short(Gpr::RAX, Gpr::RAX, mask);
        self.access(guest, &bytes, place, &spills);
        spills.release(&mut self.code);
        Ok(())
    }
}
