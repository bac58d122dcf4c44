//! User addresses whose host address the folded kernel uses too.
//!
//! A user page and a kernel page can want the same host page. Folded accesses
//! and accesses to user memory then look the same to the host, so protection
//! keys cannot tell them apart in kernel mode: before kernel code touches a
//! user address, it looks up whether the kernel half has mappings thereabouts,
//! and leaves the instruction to the monitor if so.
//!
//! Where the user half is in another process altogether, the monitor gets all of
//! them ([`UserMemory`]).

use crate::block::{Builder, Guest};
use crate::emit::{Address, Gpr};

/// Bits of an address that [`Targets::aliases`](crate::Targets) is indexed by:
/// 47 to 21, one byte for 2 MiB.
pub const ALIAS_MASK: u64 = 0xffff_ffe0_0000;

/// Bytes of the table.
pub const ALIAS_TABLE: u64 = 1 << 27;

/// Index of an address in the table.
#[must_use]
pub const fn alias_index(va: u64) -> u64 {
    (va & ALIAS_MASK) >> 21
}

/// How kernel-mode code reaches user memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserMemory {
    /// At its own address, unless [`Targets::aliases`](crate::Targets) says otherwise.
    Checked,
    /// Where [`Targets::user_tlb`](crate::Targets) says; else it is left to the monitor.
    LookedUp,
    /// [`Context::displacement`](crate::Context) further on.
    Displaced,
}

impl Builder<'_> {
    /// Leaves to the monitor, after `undo` restored all borrowed registers, if
    /// the address in `pointer` is none that kernel code may use as it is. Uses
    /// `table` and RCX, which must be saved and free; flag-free.
    pub fn leave_if_not_direct(
        &mut self,
        guest: &Guest,
        pointer: Gpr,
        table: Gpr,
        undo: impl Fn(&mut Self),
    ) {
        match self.request.user_memory {
            UserMemory::Displaced => return,
            UserMemory::Checked => {
                self.code.lea_place(table, self.targets.aliases);
                self.code.extract_at(Gpr::RCX, pointer, self.targets.alias_mask);
                self.code.load_byte(Gpr::RCX, Address::sum(table, Gpr::RCX));
            }
            UserMemory::LookedUp => return self.leave_if_user(guest, pointer, undo),
        }
        let jump = self.code.jump_if_rcx_zero();
        undo(self);
        self.exit(guest.instruction.ip(), self.targets.exit_emulate);
        self.code.land(jump);
    }
}
