//! A small cache of where the monitor sees pages, for kernel code that reaches
//! user memory which is not mapped at its own address.
//!
//! Direct-mapped, one table for reads and one for writes; both serve kernel
//! addresses too, since the same instruction may meet either. An access that
//! misses, or that crosses a page's end, is left to the monitor, which fills
//! the entry or does the access itself.

use crate::Targets;
use crate::block::{Builder, Guest};
use crate::emit::{Address, Gpr};
use core::mem::offset_of;
use iced_x86::{OpAccess, OpKind};

/// Entries of a table.
pub const USER_TLB_ENTRIES: usize = 512;

/// One table.
#[repr(C)]
pub struct UserTlbTable {
    /// Negated page addresses; an empty entry holds [`USER_TLB_EMPTY`].
    pub tags: [u64; USER_TLB_ENTRIES],
    /// Host address minus guest address.
    pub deltas: [u64; USER_TLB_ENTRIES],
}

/// Both tables and the masks that look them up, at [`crate::Targets::user_tlb`].
#[repr(C)]
pub struct UserTlb {
    /// For accesses that only read.
    pub read: UserTlbTable,
    /// For all others.
    pub write: UserTlbTable,
    /// The bits of an address that choose the entry.
    pub index_mask: u64,
    /// All bits above those within a page.
    pub page_mask: u64,
    /// The bits within a page.
    pub offset_mask: u64,
    /// DF.
    pub direction_mask: u64,
}

impl UserTlb {
    /// Empties both tables and sets the masks.
    pub fn init(&mut self) {
        for table in [&mut self.read, &mut self.write] {
            table.tags.fill(USER_TLB_EMPTY);
        }
        (self.index_mask, self.page_mask) = (USER_TLB_INDEX, !0xfff);
        (self.offset_mask, self.direction_mask) = (0xfff, 0x400);
    }
}

/// Bits of an address that choose the entry.
const USER_TLB_INDEX: u64 = (USER_TLB_ENTRIES as u64 - 1) << 12;

/// A tag that no access matches: its page is not canonical.
pub const USER_TLB_EMPTY: u64 = 1 << 62;

/// The entry of an address.
#[must_use]
pub const fn user_tlb_index(va: u64) -> usize {
    ((va & USER_TLB_INDEX) >> 12) as usize
}

/// Where a table holds its deltas.
pub(crate) const DELTAS: i32 = core::mem::offset_of!(UserTlbTable, deltas) as i32;

/// Host address of a table.
pub(crate) fn place_of_table(targets: &Targets, write: bool) -> u64 {
    let (read, written) = (offset_of!(UserTlb, read), offset_of!(UserTlb, write));
    targets.user_tlb + if write { written } else { read } as u64
}

pub(crate) fn place_of_index_mask(targets: &Targets) -> u64 {
    targets.user_tlb + offset_of!(UserTlb, index_mask) as u64
}

pub(crate) fn place_of_page_mask(targets: &Targets) -> u64 {
    targets.user_tlb + offset_of!(UserTlb, page_mask) as u64
}

pub(crate) fn place_of_offset_mask(targets: &Targets) -> u64 {
    targets.user_tlb + offset_of!(UserTlb, offset_mask) as u64
}

pub(crate) fn place_of_direction_mask(targets: &Targets) -> u64 {
    targets.user_tlb + offset_of!(UserTlb, direction_mask) as u64
}

impl Builder<'_> {
    /// Bytes of the memory operand and whether it is written; `None` where the
    /// size is not known (XSAVE areas).
    fn operand(&mut self, guest: &Guest) -> Option<(u64, bool)> {
        let instruction = guest.instruction;
        let size = instruction.memory_size().size() as u64;
        let memory =
            (0..instruction.op_count()).find(|i| instruction.op_kind(*i) == OpKind::Memory)?;
        let access = self.info.info(instruction).op_access(memory);
        let reads = matches!(access, OpAccess::Read | OpAccess::CondRead);
        (1..=64).contains(&size).then_some((size, !reads))
    }

    /// Puts into `delta` how far from `address` the host has that memory, or
    /// leaves to the monitor after `undo`. Changes RCX, which must be saved;
    /// flag-free. False, with nothing emitted, if only the monitor can tell.
    pub fn look_up(
        &mut self,
        guest: &Guest,
        address: Gpr,
        delta: Gpr,
        undo: impl Fn(&mut Self),
    ) -> bool {
        let Some((size, write)) = self.operand(guest) else { return false };
        self.code.lea_place(delta, place_of_table(self.targets, write));
        self.code.extract_at(Gpr::RCX, address, place_of_index_mask(self.targets));
        let entry = Address { base: Some(delta), index: Some((Gpr::RCX, 3)), disp: 0 };
        self.code.lea(delta, entry);
        self.code.load(Gpr::RCX, Address::base(delta));
        // The last byte's distance from the entry's page: zero above bit 11 on a hit.
        let last = Address { disp: size as i32 - 1, ..Address::sum(Gpr::RCX, address) };
        self.code.lea(Gpr::RCX, last);
        self.code.extract_at(Gpr::RCX, Gpr::RCX, place_of_page_mask(self.targets));
        let hit = self.code.jump_if_rcx_zero();
        undo(self);
        self.exit(guest.instruction.ip(), self.targets.exit_emulate);
        self.code.land(hit);
        self.code.load(delta, Address { disp: DELTAS, ..Address::base(delta) });
        true
    }

    /// Leaves a memory operand of unknown size to the monitor if it is user memory.
    pub fn leave_if_user(&mut self, guest: &Guest, pointer: Gpr, undo: impl Fn(&mut Self)) {
        // All ones for a kernel address and zero for a user address, plus one.
        self.code.constant(Gpr::RCX, 63);
        self.code.shift_right_signed(Gpr::RCX, pointer, Gpr::RCX);
        self.code.lea(Gpr::RCX, Address { disp: 1, ..Address::base(Gpr::RCX) });
        let jump = self.code.jump_if_rcx_zero();
        undo(self);
        self.exit(guest.instruction.ip(), self.targets.exit_emulate);
        self.code.land(jump);
    }
}
