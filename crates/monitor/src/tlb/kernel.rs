//! Installing pages of the kernel half, in runs.

use core::ops::Range;

use abi::mmu::{PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_WRITE};

use super::{alias::is_aliased, host::Access, mapped::Installed, user::code};
use crate::{
    guest::{DIRECT_MAP, IMAGE_MAP, Leaf, M2P, fold, frame_of},
    proven::Masked,
    state::{Frame, Monitor},
};

/// What became of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Mapped: try again.
    Mapped,
    /// A page fault for the guest, with its error code.
    Fault(u32),
}

/// Is `va` part of a mapping that never changes: the direct map or the kernel image?
pub fn is_linear(va: u64, frame: u32) -> bool {
    let pa = u64::from(frame) << 12;
    let page = va & !0xfff;
    page.wrapping_sub(DIRECT_MAP) == pa || page.wrapping_sub(IMAGE_MAP) == pa
}

/// Is it in the mapping of the kernel's image?
pub(super) fn is_image(page: u64) -> bool {
    page >= IMAGE_MAP
}

impl Monitor {
    /// Makes a kernel page present on the host, and the pages around it that
    /// continue it in frames and rights.
    pub fn resolve_kernel(&mut self, va: u64, write: bool) -> Outcome {
        let fault = if write { code::WRITE } else { 0 };
        if !super::is_available(fold(va)) {
            return Outcome::Fault(fault);
        }
        if va >= M2P && va < M2P + self.setup.m2p_frames * 4096 {
            if write {
                return Outcome::Fault(fault | code::PRESENT);
            }
            let frame = u32::try_from(self.setup.m2p_mfn).unwrap_or(u32::MAX);
            self.mark_aliases(fold(M2P), self.setup.m2p_frames << 12);
            self.host_map(fold(M2P), frame, self.setup.m2p_frames, Access::kernel(false));
            return Outcome::Mapped;
        }
        let Some(leaf) = self.walk(va) else { return Outcome::Fault(fault) };
        let linear = is_linear(va, leaf.frame());
        // Read-only entries of the direct map are page tables that the guest
        // gave up to the monitor. It writes some of them all the same, with
        // single instructions (`ptep_get_and_clear`): they are caches' input
        // here, not trusted, and may be written.
        if write && !leaf.writable() && !linear {
            return Outcome::Fault(fault | code::PRESENT);
        }
        if write {
            self.before_write(leaf.frame());
        }
        self.mark_entry(leaf.table, leaf.index, PTE_ACCESSED | if write { PTE_DIRTY } else { 0 });
        self.install_run(va & !0xfff, &leaf, linear);
        Outcome::Mapped
    }

    /// May the entry's page be mapped writable?
    fn run_write(&self, entry: u64, frame: u32, linear: bool) -> bool {
        let protected = self.frames.get(frame as usize).is_some_and(|f| f.is_protected());
        (linear || entry & PTE_WRITE != 0) && !protected
    }

    fn install_run(&mut self, page: u64, leaf: &Leaf, linear: bool) {
        let frame = leaf.frame();
        if linear {
            self.ask_for_huge_page(frame);
        }
        let write = (linear || leaf.writable()) && self.run_write(leaf.entry, frame, linear);
        let region = page & !0x1f_ffff;
        let fits = |m: &Monitor, index: usize| {
            let Some(entry) = m.entry(leaf.table, index) else { return false };
            let f = frame_of(entry);
            entry & PTE_PRESENT != 0
                && i64::from(f) == i64::from(frame) + index as i64 - leaf.index as i64
                && m.guest_may_map(f)
                && is_linear(region + ((index as u64) << 12), f) == linear
                && m.run_write(entry, f, linear) == write
        };
        let (mut first, mut last) = (leaf.index, leaf.index);
        while first > 0
            && super::is_available(fold(region + ((first as u64 - 1) << 12)))
            && fits(self, first - 1)
        {
            first -= 1;
        }
        while last < 511
            && super::is_available(fold(region + ((last as u64 + 1) << 12)))
            && fits(self, last + 1)
        {
            last += 1;
        }
        let start = region + ((first as u64) << 12);
        let count = (last - first + 1) as u64;
        let first_frame = frame - (leaf.index - first) as u32;
        self.mark_aliases(fold(start), count << 12);
        self.host_map(fold(start), first_frame, count, Access::kernel(write));
        // The kernel owns these host pages now.
        let separate = self.is_separate();
        let space = self.space();
        if !separate {
            space.user.forget(fold(start), count << 12);
        }
        if linear && write {
            let frames = first_frame..first_frame + count as u32;
            self.space().linear.add(start, &frames);
        } else if !linear {
            for i in 0..count * u64::from(write) {
                self.note_writable(first_frame + i as u32);
            }
            let space = self.space();
            for i in 0..count {
                let installed = Installed::new(first_frame + i as u32, write, false);
                space.kernel.set(start + (i << 12), installed);
            }
        }
    }

    /// Takes write access to frames from every mapping of the running space.
    pub(super) fn write_protect_here(&mut self, frames: Range<u32>) {
        self.write_protect_linear(frames.clone());
        self.write_protect_half(frames.clone(), true);
        self.write_protect_half(frames, false);
    }

    /// The same for the direct map and the kernel's image alone.
    fn write_protect_linear(&mut self, frames: Range<u32>) {
        if frames.len() > 1 {
            // They are found again when they are used.
            return self.drop_writable_linear(&frames);
        }
        for page in self.space().linear.places(frames.start) {
            self.host_write_protect(fold(page), 1, false);
        }
    }

    /// Unmaps all linear pages around frames that may be writable.
    pub(super) fn drop_writable_linear(&mut self, frames: &Range<u32>) {
        for (page, count) in self.space().linear.take(frames) {
            self.drop_linear(fold(page), count);
        }
    }

    /// Unmaps linear pages of the kernel's. Where user pages have their place, those go: what is
    /// remembered of them must not name what is not mapped.
    fn drop_linear(&mut self, host: u64, count: u64) {
        if self.is_separate() {
            return self.host_unmap(host, count);
        }
        let end = host + (count << 12);
        let mut run = host..host;
        let mut start = host;
        while start < end {
            let next = (((start >> 21) + 1) << 21).min(end);
            // Elsewhere the kernel never had a page, and all of them are the program's.
            if is_aliased(start) {
                run.end = next;
            } else {
                self.drop_run(run);
                run = next..next;
            }
            start = next;
        }
        self.drop_run(run);
    }

    fn drop_run(&mut self, run: Range<u64>) {
        if !run.is_empty() {
            let len = run.end - run.start;
            self.host_unmap(run.start, len >> 12);
            self.space().user.forget(run.start, len);
        }
    }

    /// Notes that a frame is mapped writable where only a search finds it.
    pub(super) fn note_writable(&mut self, frame: u32) {
        if let Some(facts) = self.frames.get_mut(frame as usize) {
            facts.0 |= Frame::WRITABLE;
        }
    }

    fn was_mapped_writable(&self, frames: Range<u32>) -> bool {
        let facts = self.frames.get(frames.start as usize..frames.end as usize);
        facts.unwrap_or_default().iter().any(|f| f.0 & Frame::WRITABLE != 0)
    }

    /// The same for what is remembered of one half.
    pub(super) fn write_protect_half(&mut self, frames: Range<u32>, kernel: bool) {
        if self.was_mapped_writable(frames.clone()) {
            self.write_protect_pages(kernel, |frame, _| frames.contains(&frame));
        }
    }

    /// Takes write access from all pages of one half whose frames are protected.
    pub(super) fn write_protect_protected(&mut self, kernel: bool) {
        self.write_protect_pages(kernel, |_, facts| facts.is_protected());
    }

    fn write_protect_pages(&mut self, kernel: bool, is_meant: impl Fn(u32, Frame) -> bool) {
        let number = if kernel { self.spaces.current } else { self.user_index() };
        let mut found = [(0u64, Installed::default()); 16];
        loop {
            let mut n = 0;
            let (facts, space) = (&self.frames, self.spaces.of_mut(number));
            let half = if kernel { &mut space.kernel } else { &mut space.user };
            for (key, region) in &mut half.regions {
                for i in region.indices() {
                    let page = region.pages.at_mut(i);
                    let p = *page;
                    let frame = p.frame();
                    let is_meant =
                        || is_meant(frame, facts.get(frame as usize).copied().unwrap_or_default());
                    if p.write() && n < found.len() && is_meant() {
                        *page = p.read_only();
                        *found.at_mut(n) = ((key << 21) + ((i as u64) << 12), p);
                        n += 1;
                    }
                }
            }
            for (va, p) in found.iter().take(n) {
                if kernel {
                    self.host_write_protect(fold(*va), 1, p.exec());
                } else {
                    self.user_write_protect(*va, 1, p.exec());
                }
            }
            if n < found.len() {
                return;
            }
        }
    }
}
