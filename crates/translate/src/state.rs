//! XSAVE and XRSTOR without the protection-key register.
//!
//! A guest that could load PKRU would open the monitor's memory. The component
//! mask in EAX is cut to what the guest may have, by a constant in the code
//! (the context is guest-writable), with `pext` and `pdep`: an AND without flags.

use crate::block::{Builder, Guest};
use crate::control::{Unsupported, addresses_with};
use crate::emit::Gpr;
use crate::scratch::Spills;
use iced_x86::{Mnemonic, Register};

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

impl Builder<'_> {
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
