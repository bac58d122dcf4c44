//! Memory operands.
//!
//! Kernel mode: an operand is taken for kernel memory and gets a GS prefix
//! (GS base = the fold); the guest's GS becomes FS; what is based on RSP needs
//! nothing, RSP being folded. A user address under GS is non-canonical and
//! faults; the monitor then has the instruction translated as *aware* of user
//! memory: its address is computed, and the fold added only if it is negative.
//!
//! User mode: addresses are right as they are, except relative to RIP.

use crate::block::{Builder, Guest};
use crate::control::Unsupported;
use crate::emit::{Address, Field, Gpr, is_delicate, sign_extended};
use crate::layout::{Bytes, FS, GS, MAX_LENGTH, Memory, Operand};
use crate::output::Fix;
use crate::scratch::{Spills, gpr};
use crate::{FOLD, Mode, UserMemory};
use iced_x86::{Instruction, Register};

/// How the operand is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub segment: Option<u8>,
    pub operand: Option<Operand>,
    /// What an entry at the access has to say.
    pub fix: Fix,
}

impl Builder<'_> {
    /// Emits an instruction that may have a memory operand but does not use RSP
    /// as data.
    pub fn plain(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        if guest.layout.memory == Memory::None {
            self.code.bytes(guest.bytes);
            return Ok(());
        }
        let mut spills = Spills::new();
        let place = self.place(guest, &mut spills, false)?;
        let bytes = guest.layout.rewrite(place.segment, place.operand).ok_or(Unsupported)?;
        self.access(guest, &bytes, place, &spills);
        spills.release(&mut self.code);
        Ok(())
    }

    /// Emits the access itself with its entry.
    pub fn access(&mut self, guest: &Guest, bytes: &Bytes, place: Place, spills: &Spills) {
        self.mark(guest, spills.fix().with(place.fix));
        self.code.bytes(bytes.as_slice());
    }

    /// Decides how the guest's memory operand is written, and emits what has to
    /// be computed before. With `computed`, the new operand uses no register of
    /// the guest's.
    pub fn place(
        &mut self,
        guest: &Guest,
        spills: &mut Spills,
        computed: bool,
    ) -> Result<Place, Unsupported> {
        match self.request.mode {
            Mode::User => self.user_place(guest, spills, computed),
            Mode::Kernel => self.kernel_place(guest, spills, computed),
        }
    }

    fn user_place(
        &mut self,
        guest: &Guest,
        spills: &mut Spills,
        computed: bool,
    ) -> Result<Place, Unsupported> {
        let segment = match guest.instruction.segment_prefix() {
            Register::FS => Some(FS),
            Register::GS => Some(GS),
            _ => None,
        };
        if !computed && !guest.instruction.is_ip_rel_memory_operand() {
            return Ok(Place { segment, operand: None, fix: Fix::NONE });
        }
        let base = self.effective_address(guest, spills)?;
        Ok(Place { segment, operand: Some(Operand::Base(base)), fix: Fix::NONE })
    }

    fn kernel_place(
        &mut self,
        guest: &Guest,
        spills: &mut Spills,
        computed: bool,
    ) -> Result<Place, Unsupported> {
        let instruction = guest.instruction;
        let stack =
            instruction.memory_base() == Register::RSP && guest.layout.memory == Memory::ModRm;
        let guest_segment = instruction.segment_prefix();
        if guest_segment == Register::FS
            || instruction.memory_base() == Register::ESP
            || stack && guest_segment == Register::GS
        {
            return Err(Unsupported);
        }
        let (segment, fix) = match guest_segment {
            Register::GS => (Some(FS), Fix::NONE),
            _ if guest.aware => return self.aware_place(guest, spills, stack),
            _ if stack => (None, Fix::ASSUMED),
            _ => (Some(GS), Fix::ASSUMED),
        };
        // A segment prefix makes the instruction longer, an absolute operand
        // (with a SIB byte) once more; a register as operand makes it shorter.
        let room = MAX_LENGTH.saturating_sub(guest.bytes.len());
        let operand = if instruction.is_ip_rel_memory_operand() {
            match sign_extended(instruction.ip_rel_memory_address()) {
                Some(short) if room >= 2 && !is_delicate(short as u64) => {
                    Some(Operand::Absolute(short))
                }
                _ => Some(Operand::Base(self.effective_address(guest, spills)?)),
            }
        } else if computed || room == 0 && guest.layout.memory == Memory::ModRm {
            Some(Operand::Base(self.effective_address(guest, spills)?))
        } else {
            None
        };
        Ok(Place { segment, operand, fix })
    }

    /// The operand of an instruction known to meet user addresses.
    fn aware_place(
        &mut self,
        guest: &Guest,
        spills: &mut Spills,
        stack: bool,
    ) -> Result<Place, Unsupported> {
        let address = self.effective_address(guest, spills)?;
        let delta = spills.take(self, guest.instruction)?;
        if stack {
            self.code.constant(delta, FOLD.wrapping_neg());
            self.code.lea(address, Address::sum(address, delta));
        }
        if self.request.user_memory == UserMemory::Displaced {
            self.code.restore(delta, Field::DISPLACEMENT);
            return Ok(self.moved(address, delta));
        }
        if address == Gpr::RCX || delta == Gpr::RCX {
            return Err(Unsupported);
        }
        self.code.save(Gpr::RCX, Field::LOOKUP_RCX);
        if self.request.user_memory == UserMemory::LookedUp
            && self.look_up(guest, address, delta, |builder| {
                builder.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
                spills.release(&mut builder.code);
            })
        {
            self.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
            return Ok(self.moved(address, delta));
        }
        self.leave_if_not_direct(guest, address, delta, |builder| {
            builder.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
            spills.release(&mut builder.code);
        });
        let code = &mut self.code;
        code.restore(Gpr::RCX, Field::LOOKUP_RCX);
        // All ones for a negative address, else zero.
        code.constant(delta, 63);
        code.shift_right_signed(delta, address, delta);
        code.deposit(delta, Field::FOLD);
        Ok(self.moved(address, delta))
    }

    /// The operand `delta` further on; an entry can take that back.
    fn moved(&mut self, address: Gpr, delta: Gpr) -> Place {
        self.code.save(delta, Field::DELTA_RSI);
        self.code.lea(address, Address::sum(address, delta));
        Place { segment: None, operand: Some(Operand::Base(address)), fix: Fix::AWARE }
    }

    /// Computes the operand's offset within its segment in a borrowed register
    /// (folded if it is based on RSP in kernel mode).
    fn effective_address(
        &mut self,
        guest: &Guest,
        spills: &mut Spills,
    ) -> Result<Gpr, Unsupported> {
        if guest.layout.memory != Memory::ModRm {
            return Err(Unsupported);
        }
        let register = spills.take(self, guest.instruction)?;
        if guest.instruction.is_ip_rel_memory_operand() {
            self.code.constant(register, guest.instruction.ip_rel_memory_address());
        } else {
            let (address, short) = address_of(guest.instruction)?;
            if short {
                self.code.lea_short_address(register, address);
            } else {
                self.code.lea(register, address);
            }
        }
        Ok(register)
    }
}

/// The operand not relative to RIP, and whether it uses 32-bit addressing.
pub(crate) fn address_of(instruction: &Instruction) -> Result<(Address, bool), Unsupported> {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    if index != Register::None && !index.is_gpr() {
        return Err(Unsupported);
    }
    let scale = instruction.memory_index_scale().trailing_zeros() as u8;
    let address = Address {
        base: gpr(base),
        index: gpr(index).map(|index| (index, scale)),
        disp: instruction.memory_displacement64() as i32,
    };
    let short = base.is_gpr32()
        || index.is_gpr32()
        || base == Register::None
            && index == Register::None
            && instruction.memory_displ_size() == 4;
    Ok((address, short))
}
