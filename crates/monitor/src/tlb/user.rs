//! Installing pages of the user half.

use abi::mmu::{PTE_ACCESSED, PTE_DIRTY, PTE_WRITE};
use boundary::at;

use super::{alias::is_aliased, around::Page, host::Access, mapped::Installed};
use crate::{
    guest::{Leaf, unfold},
    layout::key,
    state::{Frame, Monitor, page},
};

/// Page-fault error code bits (SDM vol. 3A 4.7).
pub mod code {
    /// The page was present.
    pub const PRESENT: u32 = 1;
    /// It was a write.
    pub const WRITE: u32 = 2;
    /// It came from user mode.
    pub const USER: u32 = 4;
    /// It was an instruction fetch.
    pub const FETCH: u32 = 16;
}

/// An access to a user address.
#[derive(Clone, Copy, Debug)]
pub struct UserAccess {
    /// It writes.
    pub write: bool,
    /// It fetches an instruction.
    pub fetch: bool,
    /// It comes from guest user mode (else the kernel reaches for user memory).
    pub from_user: bool,
}

impl UserAccess {
    /// A program's access that met a page fault with this error code.
    pub fn from_code(code: u32) -> Self {
        Self { write: code & code::WRITE != 0, fetch: code & code::FETCH != 0, from_user: true }
    }

    fn code(self) -> u32 {
        (if self.write { code::WRITE } else { 0 })
            | (if self.fetch { code::FETCH } else { 0 })
            | (if self.from_user { code::USER } else { 0 })
    }
}

/// Lowest user address that may be mapped.
pub const LOWEST: u64 = 0x1_0000;
/// End of the user half.
pub const END: u64 = 0x7fff_ffff_f000;

/// The monitor's own places, start and size.
pub fn reserved() -> [(u64, u64); 6] {
    let ram = page().setup.nr_frames << 12;
    [
        (at::START, at::ALIASES + translate::ALIAS_TABLE - at::START),
        (at::CODE_RW, at::CODE_SIZE),
        (at::ARENA, at::ARENA_SIZE),
        (at::RAM, ram),
        (at::SHADOW, ram),
        (at::SITES, at::SITES_SIZE),
    ]
}

/// Is it in one of the monitor's own places?
pub fn is_reserved(va: u64) -> bool {
    reserved().iter().any(|(start, size)| va.wrapping_sub(*start) < *size)
}

/// May this user address be mapped at all?
pub fn is_available(va: u64) -> bool {
    (LOWEST..END).contains(&va) && !is_reserved(va)
}

impl Monitor {
    /// Do the guest's tables map a user address that the host lets nobody map?
    /// A page fault there would be handled by the guest's kernel for ever.
    pub fn has_no_place(&self, va: u64) -> bool {
        va < LOWEST && self.walk(va).is_some_and(|leaf| leaf.user())
    }

    /// Makes a user page present on the host if the guest's tables allow the
    /// access; else the #PF error code to give to the guest.
    pub fn resolve_user(&mut self, va: u64, access: UserAccess) -> Result<(), u32> {
        if !is_available(va) {
            return Err(access.code());
        }
        let Some(leaf) = self.walk(va) else { return Err(access.code()) };
        // CR0.WP is set under Xen: the kernel's writes obey the tables too.
        if (access.from_user && !leaf.user())
            || (access.write && !leaf.writable())
            || (access.fetch && !leaf.executable())
        {
            return Err(access.code() | code::PRESENT);
        }
        // A page for the kernel alone: only its key keeps programs from it.
        let bears_key = !self.is_separate() && !is_aliased(va);
        if !leaf.user() && !bears_key {
            return Err(access.code() | code::PRESENT);
        }
        self.install_user(va & !0xfff, &leaf, access);
        Ok(())
    }

    fn install_user(&mut self, page: u64, leaf: &Leaf, access: UserAccess) {
        let frame = leaf.frame();
        if access.write {
            self.before_write(frame);
        }
        self.mark_entry(
            leaf.table,
            leaf.index,
            PTE_ACCESSED | if access.write { PTE_DIRTY } else { 0 },
        );
        let dirty = access.write || leaf.entry & PTE_DIRTY != 0;
        let mut exec = leaf.executable() && leaf.user() && !self.translates_user();
        if exec && !self.is_separate() {
            if access.fetch {
                self.scan_around(page, leaf);
            }
            // Executable and writable pages are one or the other, as last used.
            exec = (access.fetch || self.is_executed(frame)) && self.may_execute(page, frame);
        }
        let flags = self.frames.get(frame as usize).copied().unwrap_or_default();
        let write = leaf.writable() && dirty && !flags.is_protected();
        // The kernel half may use the host address too.
        let shared = !self.is_separate() && is_aliased(page);
        if shared {
            self.stats.collisions += 1;
            self.space().kernel.set(unfold(page), Installed::default());
        }
        if exec
            && !write
            && access.fetch
            && flags.0 & Frame::SHADOW != 0
            && self.install_shadow(page, frame, shared)
        {
            return;
        }
        // Its true form must not run.
        exec &= !self.has_traps(frame);
        let page_key = if shared {
            key::SHARED_ADDRESS
        } else if leaf.user() {
            key::USER
        } else {
            // The kernel's own page in the user half, as the initial P2M.
            key::KERNEL
        };
        let mut installed = Installed::new(frame, write, exec);
        if shared {
            installed = installed.at_shared_address();
        }
        if !leaf.user() {
            installed = installed.supervisor();
        }
        let before = self.user_space().user.get(page);
        let map_access = Access { write, exec, key: page_key, shadow: false };
        let this = Page { frame, access: map_access, installed, accessed: true };
        self.map_cluster(page, leaf, this);
        if before.is_shadow() {
            self.forget_continuations();
        }
    }

    /// Was the frame found fit for execution?
    pub(super) fn is_executed(&self, frame: u32) -> bool {
        self.frames.get(frame as usize).is_some_and(|f| f.0 & Frame::EXECUTED != 0)
    }

    /// Unmaps a user page; the next access finds it again.
    pub fn unmap_user_page(&mut self, page: u64) {
        let installed = self.user_space().user.get(page);
        if installed.is_some() {
            self.user_unmap(page, 1);
            self.user_space().user.set(page, Installed::default());
            if installed.is_shadow() {
                self.forget_continuations();
            }
        }
    }

    /// Maps the shadow copy of `frame` at `page`; false if it may not be.
    fn install_shadow(&mut self, page: u64, frame: u32, shared: bool) -> bool {
        if shared || !self.fill_sites(page, frame) {
            return false;
        }
        let access = Access { write: false, exec: true, key: key::SHADOW, shadow: true };
        self.user_map(page, frame, 1, access);
        self.user_space().user.set(page, Installed::shadow(frame));
        true
    }

    /// Maps the true frame over a shadow copy, after user code read from it or
    /// single-steps in it. False if no shadow copy was there.
    pub fn replace_shadow(&mut self, va: u64) -> bool {
        let page = va & !0xfff;
        let installed = self.user_space().user.get(page);
        if !installed.is_shadow() {
            return false;
        }
        let exec = !self.has_traps(installed.frame());
        let access = Access { write: false, exec, key: key::USER, shadow: false };
        self.user_map(page, installed.frame(), 1, access);
        self.user_space().user.set(page, Installed::new(installed.frame(), false, exec));
        self.forget_continuations();
        true
    }

    /// Does what is installed at a user page still agree with the guest's tables?
    pub(super) fn still_valid(&self, installed: Installed, entry: u64, upper: u64) -> bool {
        let flags = self.frames.get(installed.frame() as usize).copied().unwrap_or_default();
        entry & abi::mmu::PTE_PRESENT != 0
            && (installed.is_supervisor() || entry & upper & abi::mmu::PTE_USER != 0)
            && crate::guest::frame_of(entry) == installed.frame()
            && (!installed.write()
                || (entry & upper & PTE_WRITE != 0
                    && entry & PTE_DIRTY != 0
                    && !flags.is_protected()))
            && (!installed.exec()
                || ((entry | upper) & abi::mmu::PTE_NX == 0
                    && (self.is_separate() || flags.0 & Frame::EXECUTED != 0)))
            && (!installed.is_shadow() || flags.0 & Frame::SHADOW != 0)
    }
}
