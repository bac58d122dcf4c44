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

use super::host::Access;
use crate::{
    guest::{is_canonical, is_kernel},
    layout::{ALIASES, key},
    proven::Masked,
    state::{Fault, Monitor},
    tlb::{UserAccess, is_reserved},
};

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
    /// address: in software, or alone with the user's page in place. `Some` =
    /// go on there, `None` = it ran (or will run) by itself.
    pub fn run_aliased(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        if self.is_separate() {
            return self.run_on_user(ins);
        }
        if crate::string::is_handled(ins) {
            return self.run_string(ins);
        }
        let (va, size) = (self.operand_address(ins), operand_size(ins));
        let write = writes_memory(ins);
        let last = va.wrapping_add(size - 1);
        let canonical = is_canonical(va) && is_canonical(last);
        let has_place = !is_reserved(va) && !is_reserved(last) && !self.has_no_place(va);
        if canonical && !has_place {
            // A kernel knows what to do about a page that is not there.
            self.frame_for(va, write)?;
            self.frame_for(last, write)?;
        }
        if !canonical || !has_place {
            return Err(Fault::Vector { vector: 13, code: Some(0) });
        }
        if !self.user_half_is_loaded() {
            // Other spaces may run meanwhile: the vCPU is not where it was.
            self.load_user_half();
            return Ok(Some(self.vcpu.rip));
        }
        let pages = [va & !0xfff, last & !0xfff];
        let mut ready = Ok(());
        if !is_kernel(va) {
            for page in pages {
                let access = UserAccess { write, fetch: false, from_user: false };
                let at = page.max(va);
                ready = ready.and_then(|()| {
                    self.resolve(at, access, true).map_err(|code| Fault::Page { address: at, code })
                });
            }
            for page in pages {
                self.open_for_kernel(page, true);
            }
        }
        let done = ready.and_then(|()| self.run_alone(ins.ip()));
        if !is_kernel(va) {
            for page in pages {
                self.open_for_kernel(page, false);
            }
        }
        done
    }

    /// Opens a user page at an aliased address to kernel mode, or closes it.
    fn open_for_kernel(&mut self, page: u64, open: bool) {
        let installed = self.space().user.get(page);
        if !installed.is_at_shared_address() {
            return;
        }
        if !open && installed.is_supervisor() {
            // With that key it would be open to programs.
            return self.unmap_user_page(page);
        }
        let page_key = if open { key::USER } else { key::SHARED_ADDRESS };
        let access = Access {
            write: installed.write(),
            exec: installed.exec(),
            key: page_key,
            shadow: false,
        };
        self.host_map(page, installed.frame(), 1, access);
    }
}

/// Bytes of the memory operand, at least one.
pub fn operand_size(ins: &Instruction) -> u64 {
    match ins.memory_size().size() {
        // XSAVE areas: as large as the guest's state is.
        0 => crate::cpuid::guest_xsave_size().into(),
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
