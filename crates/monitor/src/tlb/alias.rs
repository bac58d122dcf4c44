//! Host addresses that both halves use.
//!
//! The folded kernel half and the user half share the host's address range.
//! A host page has one owner, by its key: user pages in a 2 MiB granule in
//! which kernel pages were ever mapped bear `SHARED_ADDRESS`, which kernel mode
//! cannot touch, and kernel pages bear `KERNEL`, which user mode cannot; the
//! other side's touch faults and swaps. Kernel code that touches *user memory*
//! there cannot be told by keys: translated code asks the alias table first
//! and leaves such instructions to [`Monitor::run_aliased`].

use iced_x86::{Instruction, InstructionInfoFactory, OpAccess};

use crate::{
    gate::context,
    guest::{is_canonical, is_kernel},
    layout::{ALIASES, OPERAND, OPERAND_ALIGNMENT},
    proven::Masked,
    state::{Fault, Monitor},
    tlb::is_reserved,
};

const PAGE: u64 = 4096;

/// Granules marked below a kernel mapping. A `rep` string instruction is looked
/// up by its first address only, so this bounds its length: 16 MiB.
const MARGIN_BELOW: u64 = 8;
/// Granules marked above (a mapping need not end with its granule).
const MARGIN_ABOVE: u64 = 1;

/// The table, seen through the arena.
fn table() -> &'static mut [u8; translate::ALIAS_TABLE as usize] {
    // SAFETY: mapped at start; only the running space's monitor writes it.
    unsafe { &mut *(ALIASES as *mut [u8; translate::ALIAS_TABLE as usize]) }
}

/// Are kernel mappings near this user address?
pub fn is_aliased(va: u64) -> bool {
    *table().at(translate::alias_index(va) as usize) != 0
}

impl Monitor {
    /// Kernel pages are about to be mapped at `[host, host + len)`: user pages
    /// there must bear their key, in all spaces.
    pub(super) fn mark_aliases(&mut self, host: u64, len: u64) {
        if self.is_separate() {
            // The halves are in different processes.
            return;
        }
        let first = (host >> 21).saturating_sub(MARGIN_BELOW);
        let last = (((host + len - 1) >> 21) + MARGIN_ABOVE).min((1 << 26) - 1);
        let mut fresh = false;
        for granule in first..=last {
            let byte = table().at_mut(granule as usize);
            fresh |= *byte == 0;
            *byte = 1;
        }
        if fresh {
            self.spaces.aliases += 1;
            self.rekey_aliased();
        }
    }

    /// Marks the monitor's places: the guest kernel's accesses to user memory
    /// there are done in software, or refused.
    pub fn mark_own_places(&mut self) {
        for (start, size) in super::reserved() {
            self.mark_aliases(start, size);
        }
    }

    /// Drops the user pages of the running space that lie at addresses marked
    /// since they were mapped.
    pub(super) fn rekey_aliased(&mut self) {
        let now = self.spaces.aliases;
        if core::mem::replace(&mut self.space().aliases, now) == now {
            return;
        }
        let mut found = alloc::vec::Vec::new();
        for (granule, region) in &self.space().user.regions {
            if is_aliased(granule << 21) {
                for i in region.indices() {
                    if !region.pages.at(i).is_at_shared_address() {
                        found.push((granule << 21) + ((i as u64) << 12));
                    }
                }
            }
        }
        for page in found {
            self.unmap_user_page(page);
        }
    }

    /// Runs an instruction of the guest kernel on user memory at an aliased
    /// address: in software, or on a copy of its operand. `Some` = go on there.
    pub fn run_aliased(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        if self.is_separate() {
            return self.run_on_user(ins);
        }
        if crate::string::is_handled(ins) {
            return self.run_string(ins);
        }
        let (va, size) = (self.operand_address(ins), operand_size(ins));
        let last = va.wrapping_add(size - 1);
        let canonical = is_canonical(va) && is_canonical(last);
        let has_place = !is_reserved(va) && !is_reserved(last) && !self.has_no_place(va);
        if canonical && !has_place {
            // A kernel knows what to do about a page that is not there.
            let write = writes_memory(ins);
            self.frame_for(va, write)?;
            self.frame_for(last, write)?;
        }
        if !canonical || !has_place {
            return Err(Fault::Vector { vector: 13, code: Some(0) });
        }
        if is_kernel(va) {
            context().displacement = translate::FOLD;
            return self.run_alone(ins.ip());
        }
        if self.run_move(ins, va)? {
            return Ok(None);
        }
        self.run_on_copy(ins, va, size)
    }

    /// Runs it on a copy of the operand, which kernel mode can reach, and copies that back.
    fn run_on_copy(&mut self, ins: &Instruction, va: u64, size: u64) -> Result<Option<u64>, Fault> {
        let write = writes_memory(ins);
        // As aligned as the operand is.
        let copy = OPERAND + va % OPERAND_ALIGNMENT;
        if size > PAGE {
            return Err(Fault::Vector { vector: 6, code: None });
        }
        self.copy_operand(copy, va, size, write, false)?;
        context().displacement = copy.wrapping_sub(va);
        let done = self.run_alone(ins.ip())?;
        // An interrupt can have come first.
        if write && done != Some(ins.ip()) {
            self.copy_operand(copy, va, size, write, true)?;
        }
        Ok(done)
    }

    /// Copies the `size` bytes of user memory at `va`, a page at most, to `copy`, or `back`. They can be the
    /// instruction's own page, which was protected since: each time it is asked for.
    fn copy_operand(
        &mut self,
        copy: u64,
        va: u64,
        size: u64,
        write: bool,
        back: bool,
    ) -> Result<(), Fault> {
        let first = size.min(PAGE - va % PAGE);
        let mut pieces = [(self.seen_at(va, write)?, first), (0, 0)];
        if first < size {
            pieces[1] = (self.seen_at(va.wrapping_add(first), write)?, size - first);
        }
        let mut copy = copy as *mut u8;
        for (seen, size) in pieces.into_iter().filter(|(_, size)| *size != 0) {
            let (seen, size) = (seen as *mut u8, size as usize);
            let (from, to) = if back { (copy, seen) } else { (seen, copy) };
            // SAFETY: both pieces lie in the monitor's view of guest frames, each within a page, and together
            // they fit where copies lie.
            unsafe {
                core::ptr::copy_nonoverlapping(from.cast_const(), to, size);
                copy = copy.add(size);
            }
        }
        Ok(())
    }
}

/// Bytes of the memory operand, at least one.
pub fn operand_size(ins: &Instruction) -> u64 {
    match ins.memory_size().size() {
        // XSAVE areas: as large as the guest's state is.
        0 => u64::from(crate::cpuid::guest_xsave_size()).max(1),
        n => n as u64,
    }
}

/// Does the instruction write its memory operand?
pub fn writes_memory(ins: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    factory.info(ins).used_memory().iter().any(|m| {
        matches!(
            m.access(),
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        )
    })
}
