//! User memory as the guest kernel's instructions reach it: by frame, through
//! the monitor's own view of RAM.

use abi::mmu::{PTE_ACCESSED, PTE_DIRTY};
use iced_x86::Instruction;
use translate::{USER_TLB_EMPTY, UserTlb, user_tlb_index};

use crate::{
    gate::context,
    guest::{is_canonical, is_kernel},
    layout::{ARENA_TABLES, USER_TLB, WINDOWS, at},
    proven::Masked,
    state::{Fault, Monitor},
    sys::{self, MAP_FIXED, MAP_SHARED, READ, WRITE_ACCESS},
    tlb::{operand_size, writes_memory},
};

const PAGE: u64 = 4096;

/// The tables of translated code, as the monitor writes them.
fn user_tlb() -> &'static mut UserTlb {
    // SAFETY: within the tables' part of the arena; guest code does not run now.
    unsafe { &mut *((at::ARENA + ARENA_TABLES + (USER_TLB - at::TABLES)) as *mut UserTlb) }
}

/// Pairs of frames that are shown side by side, for accesses that cross a page's end.
#[derive(Default)]
pub struct Windows {
    shown: [Option<(u32, u32)>; 8],
    next: usize,
}

/// Which of the tables hold anything.
#[derive(Default)]
pub struct Noted {
    read: bool,
    written: bool,
}

/// Empties them at start.
pub fn init_places() {
    user_tlb().init();
}

impl Monitor {
    /// The frame behind `va` for an access of the guest kernel, as the guest's
    /// tables allow it.
    pub fn frame_for(&mut self, va: u64, write: bool) -> Result<u32, Fault> {
        let code = if write { 2 } else { 0 };
        if !is_canonical(va) {
            return Err(Fault::Vector { vector: 13, code: Some(0) });
        }
        let Some(leaf) = self.walk(va) else { return Err(Fault::Page { address: va, code }) };
        // The direct map's page tables may be written: see `tlb::kernel`.
        if write && !leaf.writable() && !is_kernel(va) {
            return Err(Fault::Page { address: va, code: code | 1 });
        }
        let bits = PTE_ACCESSED | if write { PTE_DIRTY } else { 0 };
        self.mark_entry(leaf.table, leaf.index, bits);
        let frame = leaf.frame();
        if write {
            self.before_write(frame);
        }
        Ok(frame)
    }

    /// Runs an instruction of the guest kernel on user memory. `Some` = go on there.
    pub fn run_on_user(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        if crate::string::is_handled(ins) {
            return self.run_string(ins);
        }
        let (va, size) = (self.operand_address(ins), operand_size(ins));
        let last = va.wrapping_add(size - 1);
        let write = writes_memory(ins);
        let kernel = is_kernel(va);
        if !kernel && (va >> 47 != 0 || last >> 47 != 0) {
            return Err(Fault::Vector { vector: 13, code: Some(0) });
        }
        let displacement =
            if kernel { translate::FOLD } else { self.place_of(va, last, write)?.wrapping_sub(va) };
        let one_page = (va ^ last) & !(PAGE - 1) == 0;
        if write && !kernel && self.writes_own_code(ins.ip(), va, last) {
            return self.run_on_own_code(ins, displacement, [va, last]);
        }
        if one_page && ins.memory_size().size() != 0 && self.note_place(va, displacement, write) {
            // Now the instruction finds it by itself.
            return Ok(Some(ins.ip()));
        }
        context().displacement = displacement;
        self.run_alone(ins.ip())
    }

    /// Makes a run of string elements, which lie within a page each way, one that translated
    /// code goes on with by itself; false if it cannot.
    pub fn hand_run_back(&mut self, ins: &Instruction, copies: bool) -> Result<bool, Fault> {
        if !self.is_separate() || !ins.has_rep_prefix() {
            return Ok(false);
        }
        let (from, to) = (context().regs[6], context().regs[7]);
        let mut is_new = false;
        for (va, write, is_used) in [(from, false, copies), (to, true, true)] {
            if is_used && !is_kernel(va) {
                let frame = self.frame_for(va, write)?;
                let place = at::RAM + (u64::from(frame) << 12);
                is_new |= self.note_place(va, place.wrapping_sub(va & !(PAGE - 1)), write);
            }
        }
        if !is_new || self.writes_own_code(ins.ip(), to, to) {
            return Ok(false);
        }
        if self.code.user_access.insert(ins.ip()) {
            self.invalidate_code_at(ins.ip());
        }
        Ok(true)
    }

    /// Does code at `rip` write to a page that its own block may be made from?
    fn writes_own_code(&self, rip: u64, va: u64, last: u64) -> bool {
        let frame = |va: u64| self.walk(va).map(|leaf| leaf.frame());
        let written = [frame(va), frame(last)];
        [rip, rip.wrapping_add(PAGE)].into_iter().any(|code| {
            let found = frame(code);
            found.is_some() && written.contains(&found)
        })
    }

    /// Linux patches the page that its copy routine lies in. Translated as usual
    /// the routine would protect the page again each time before it wrote.
    fn run_on_own_code(
        &mut self,
        ins: &Instruction,
        displacement: u64,
        written: [u64; 2],
    ) -> Result<Option<u64>, Fault> {
        context().displacement = displacement;
        let done = self.run_alone(ins.ip());
        for va in written {
            if let Some(leaf) = self.walk(va) {
                self.before_write(leaf.frame());
            }
        }
        done
    }

    /// Notes where translated code finds the page of `va`; false if it was noted
    /// before, and the instruction could not use it.
    fn note_place(&mut self, va: u64, displacement: u64, write: bool) -> bool {
        let tlb = user_tlb();
        let table = if write { &mut tlb.write } else { &mut tlb.read };
        let (i, tag) = (user_tlb_index(va), (va & !(PAGE - 1)).wrapping_neg());
        let (noted, delta) = (table.tags.at_mut(i), table.deltas.at_mut(i));
        if *noted == tag && *delta == displacement {
            return false;
        }
        (*noted, *delta) = (tag, displacement);
        let noted = &mut self.runners.noted;
        *(if write { &mut noted.written } else { &mut noted.read }) = true;
        true
    }

    /// Forgets where user pages were found: the tables may have changed.
    pub fn forget_places(&mut self) {
        if core::mem::take(&mut self.runners.noted.read) {
            user_tlb().read.tags.fill(USER_TLB_EMPTY);
        }
        self.forget_writable_places();
    }

    /// Forgets pages found for writing.
    pub fn forget_writable_places(&mut self) {
        if core::mem::take(&mut self.runners.noted.written) {
            user_tlb().write.tags.fill(USER_TLB_EMPTY);
        }
    }

    /// The same for one address.
    pub fn forget_place(&mut self, va: u64) {
        if self.is_separate() {
            let (tlb, i) = (user_tlb(), user_tlb_index(va));
            *tlb.read.tags.at_mut(i) = USER_TLB_EMPTY;
            *tlb.write.tags.at_mut(i) = USER_TLB_EMPTY;
        }
    }

    /// Where the monitor sees `[va, last]`, at most a page long.
    fn place_of(&mut self, va: u64, last: u64, write: bool) -> Result<u64, Fault> {
        let first = self.frame_for(va, write)?;
        let here = at::RAM + (u64::from(first) << 12) + va % PAGE;
        if (va ^ last) & !(PAGE - 1) == 0 {
            return Ok(here);
        }
        let second = self.frame_for(last & !(PAGE - 1), write)?;
        if second == first + 1 {
            return Ok(here);
        }
        Ok(self.window(first, second) + va % PAGE)
    }

    /// Two pages side by side that show two frames.
    fn window(&mut self, first: u32, second: u32) -> u64 {
        let wanted = Some((first, second));
        let windows = &mut self.runners.windows;
        if let Some(i) = windows.shown.iter().position(|w| *w == wanted) {
            return WINDOWS + i as u64 * 2 * PAGE;
        }
        let i = windows.next;
        windows.next = (i + 1) % windows.shown.len();
        *windows.shown.at_mut(i) = wanted;
        let window = WINDOWS + i as u64 * 2 * PAGE;
        for (to, frame) in [(window, first), (window + PAGE, second)] {
            // SAFETY: windows are reserved for this; both frames are the guest's.
            let r = unsafe {
                let (prot, offset) = (READ | WRITE_ACCESS, u64::from(frame) << 12);
                sys::mmap(to, PAGE, prot, MAP_SHARED | MAP_FIXED, boundary::fd::RAM, offset)
            };
            if r < 0 {
                crate::crash::end(self, "the host gave no memory mapping for a window");
            }
        }
        window
    }
}
