//! LAR and LSL of the guest's kernel: what it may know of segments.
//!
//! Linux looks with LAR at the stack segment that a signal frame asks for, so
//! any program can make its kernel come here, with any selector.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::{
    gate::context,
    proven::Masked,
    state::{Fault, Monitor},
};

/// ZF.
const ZERO: u64 = 0x40;
/// All flat segments: 4 GiB, in pages.
const LIMIT: u64 = 0xffff_ffff;

/// What LAR gives for a selector, if code at privilege 3 can see the segment:
/// bytes 4 to 7 of its descriptor, masked (SDM vol. 2A, LAR). The segments are those
/// that programs run with, and Xen's flat ones (arch-x86/xen-x86_64.h); LAR does
/// not look at the selector's own privilege where that is 3 at most.
fn rights(selector: u16) -> Option<u64> {
    /// Present, privilege 3, accessed; G, and D or L.
    const CODE_32: u64 = 0x00cf_fb00;
    const CODE_64: u64 = 0x00af_fb00;
    const DATA: u64 = 0x00cf_f300;
    match selector & !3 {
        0x20 | 0xe020 => Some(CODE_32),
        0x28 | 0xe028 => Some(DATA),
        0x30 | 0xe030 => Some(CODE_64),
        _ => None,
    }
}

impl Monitor {
    /// LAR or LSL: ZF and the register if the segment is to be seen, else no ZF.
    pub(crate) fn look_at_segment(&mut self, ins: &Instruction) -> Result<(), Fault> {
        let selector = if ins.op1_kind() == OpKind::Register {
            *context().regs.at(ins.op1_register().full_register().number()) as u16
        } else {
            let va = self.operand_address(ins);
            self.read_value::<u16>(va).map_err(|_| Fault::Page { address: va, code: 0 })?
        };
        let c = context();
        let Some(rights) = rights(selector) else {
            c.rflags &= !ZERO;
            return Ok(());
        };
        let value = if ins.mnemonic() == Mnemonic::Lar { rights } else { LIMIT };
        let to = c.regs.at_mut(ins.op0_register().full_register().number());
        *to = if ins.op0_register().size() == 2 { *to & !0xffff | value & 0xffff } else { value };
        c.rflags |= ZERO;
        Ok(())
    }
}
