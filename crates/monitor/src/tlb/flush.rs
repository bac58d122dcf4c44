//! Dropping what the guest's tables no longer say.

use abi::mmu::{PTE_NX, PTE_PRESENT, PTE_PSE, PTE_USER, PTE_WRITE};
use alloc::vec::Vec;
use core::ops::Range;

use super::mapped::{Installed, bits};
use crate::{
    guest::{fold, frame_of, is_kernel},
    proven::Masked,
    state::Monitor,
};

impl Monitor {
    /// A TLB flush: both halves of the running space are compared with the tables.
    pub fn flush_all(&mut self) {
        self.forget_places();
        self.revalidate_user();
        self.spaces.kernel_flushes += 1;
        self.revalidate_kernel();
        self.check_code_pages();
    }

    /// One address may have changed.
    pub fn flush_page(&mut self, va: u64) {
        let page = va & !0xfff;
        if is_kernel(va) {
            self.spaces.note_kernel_page(page);
            self.check_code_page(page);
            let installed = self.space().kernel.get(page);
            if installed.is_some() && !self.kernel_page_valid(page, installed) {
                self.host_unmap(fold(page), 1);
                self.space().kernel.set(page, Installed::default());
            }
            return;
        }
        self.forget_place(va);
        if !self.user_half_is_loaded() {
            return;
        }
        let installed = self.user_space().user.get(page);
        if installed.is_some() {
            let ok =
                self.walk(page).is_some_and(|l| self.still_valid(installed, l.entry, l.rights));
            if !ok {
                self.user_unmap(page, 1);
                self.user_space().user.set(page, Installed::default());
                if installed.is_shadow() {
                    self.forget_continuations();
                }
            }
        }
    }

    /// Drops every user page of the running space that the tables changed.
    pub fn revalidate_user(&mut self) {
        if !self.user_half_is_loaded() {
            return;
        }
        let mut regions = core::mem::take(&mut self.user_space().user.regions);
        let mut code_gone = false;
        let (mut gone, mut closed) = (Runs::default(), Runs::default());
        regions.retain(|key, region| {
            let base = key << 21;
            let table = self.upper(base);
            for i in region.indices() {
                let installed = *region.pages.at(i);
                let entry = table.and_then(|(t, upper)| Some((self.entry(t, i)?, upper)));
                let valid = |p| entry.is_some_and(|(e, upper)| self.still_valid(p, e, upper));
                if valid(installed) {
                    continue;
                }
                let page = base + ((i as u64) << 12);
                // A fork takes write access from all of its parent's pages.
                let reduced = installed.read_only();
                if installed.write() && !installed.exec() && valid(reduced) {
                    region.set(i, reduced);
                    closed.add(page);
                } else {
                    code_gone |= installed.is_shadow();
                    region.set(i, Installed::default());
                    gone.add(page);
                }
            }
            !region.is_empty()
        });
        self.user_space().user.regions = regions;
        self.stats.dropped += gone.pages() + closed.pages();
        // From here on all pages may go, where the host has no mapping left to part one.
        gone.0.into_iter().for_each(|(page, count)| self.user_unmap(page, count));
        closed.0.into_iter().for_each(|(page, count)| self.user_write_protect(page, count, false));
        if code_gone {
            self.forget_continuations();
        }
    }

    /// The last-level table for a region, and what is above it: write and user
    /// bits and-ed, NX or-ed.
    fn upper(&self, va: u64) -> Option<(u32, u64)> {
        let mut table = self.vcpu.kernel_root;
        let mut allow = PTE_WRITE | PTE_USER;
        let mut nx = 0;
        for level in (1..4).rev() {
            let entry = self.entry(table, (va >> (12 + 9 * level)) as usize & 511)?;
            if entry & PTE_PRESENT == 0 || entry & PTE_PSE != 0 {
                return None;
            }
            allow &= entry;
            nx |= entry & PTE_NX;
            table = frame_of(entry);
        }
        self.has_frame(table).then_some((table, allow | nx))
    }

    fn kernel_page_valid(&self, page: u64, installed: Installed) -> bool {
        self.walk(page).is_some_and(|l| {
            let protected = self.frames.get(l.frame() as usize).is_some_and(|f| f.is_protected());
            l.frame() == installed.frame() && (!installed.write() || (l.writable() && !protected))
        })
    }

    /// Drops kernel pages (outside the direct map and image) that changed. There are thousands, and the
    /// guest flushes often. Pages of protected frames are read-only already.
    pub fn revalidate_kernel(&mut self) {
        let mut regions = core::mem::take(&mut self.space().kernel.regions);
        let mut gone = Runs::default();
        regions.retain(|key, region| {
            let base = (key << 21) | crate::guest::KERNEL_HALF;
            let stale = match self.upper(base) {
                Some((table, upper)) => region.stale(&self.entries(table), upper),
                None => region.present,
            };
            for i in bits(stale) {
                region.set(i, Installed::default());
                gone.add(fold(base + ((i as u64) << 12)));
            }
            !region.is_empty()
        });
        let flushes = self.spaces.kernel_flushes;
        let space = self.space();
        space.kernel.regions = regions;
        space.kernel_flushes = flushes;
        self.stats.dropped += gone.pages();
        gone.0.into_iter().for_each(|(page, count)| self.host_unmap(page, count));
    }

    /// Unmaps the whole user half of the running space.
    pub fn drop_user_half(&mut self) {
        if self.is_separate() {
            self.user_space().user.regions.clear();
            self.runner_unmap_all();
            return self.forget_continuations();
        }
        let regions = core::mem::take(&mut self.user_space().user.regions);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (key, region) in &regions {
            let base = key << 21;
            let (Some(first), Some(last)) = (region.indices().next(), region.indices().last())
            else {
                continue;
            };
            let (start, end) = (base + ((first as u64) << 12), base + ((last as u64 + 1) << 12));
            // Pages between may belong to the kernel half where both use the addresses.
            let shared = region.indices().any(|i| region.pages.at(i).is_at_shared_address());
            match runs.last_mut() {
                Some(run) if !shared && start - run.1 <= 0x20_0000 => run.1 = end,
                _ if shared => runs.extend(region.indices().map(|i| {
                    let page = base + ((i as u64) << 12);
                    (page, page + 4096)
                })),
                _ => runs.push((start, end)),
            }
        }
        for (start, end) in runs {
            self.host_unmap(start, (end - start) >> 12);
        }
        self.forget_continuations();
    }

    /// No mapping of `frame` may be writable from now on, in any space.
    pub fn protect_frame(&mut self, frame: u32, why: u8) {
        self.protect_frames(frame..frame + 1, why);
    }

    /// The same for frames that follow each other.
    pub fn protect_frames(&mut self, frames: Range<u32>, why: u8) {
        let mut fresh = false;
        for frame in frames.clone() {
            let Some(flags) = self.frames.get_mut(frame as usize) else { return };
            let was = flags.is_protected();
            flags.0 |= why;
            if !was {
                fresh = true;
                self.shorten_protected();
                self.spaces.protected.push(frame);
            }
        }
        if fresh {
            self.forget_writable_places();
            self.write_protect_here(frames);
            let n = self.spaces.protected.len();
            self.space().protected_seen = n;
            self.user_space().protected_seen = n;
        }
    }

    /// Code that is written and run in turn makes its frame protected again and again: the list
    /// is kept about as long as there are protected frames.
    fn shorten_protected(&mut self) {
        let spaces = &mut self.spaces;
        let before = spaces.protected.len();
        if before < spaces.protected_most {
            return;
        }
        let frames = &self.frames;
        spaces.protected.sort_unstable();
        spaces.protected.dedup();
        spaces.protected.retain(|f| frames.get(*f as usize).is_some_and(|f| f.is_protected()));
        let after = spaces.protected.len();
        spaces.protected_most = (2 * after).max(spaces.protected_most);
        for s in &mut spaces.all {
            // Who was behind applies all of it.
            s.protected_seen = if s.protected_seen == before { after } else { 0 };
        }
    }

    /// The frames that were protected since so many were, in runs, and how many are so now.
    fn protected_since(&self, seen: usize) -> (Vec<Range<u32>>, usize) {
        let all = &self.spaces.protected;
        let is_protected = |f: &u32| self.frames.get(*f as usize).is_some_and(|f| f.is_protected());
        let new = all.get(seen..).unwrap_or_default();
        let mut frames: Vec<u32> = new.iter().copied().filter(is_protected).collect();
        frames.sort_unstable();
        let mut runs: Vec<Range<u32>> = Vec::new();
        for frame in frames {
            match runs.last_mut() {
                Some(run) if frame <= run.end => run.end = run.end.max(frame + 1),
                _ => runs.push(frame..frame + 1),
            }
        }
        (runs, all.len())
    }

    /// A runner catches up with what happened while another was loaded.
    pub fn catch_up_user(&mut self) {
        let seen = self.user_space().protected_seen;
        let (runs, n) = self.protected_since(seen);
        for run in runs {
            self.write_protect_half(run, false);
        }
        self.user_space().protected_seen = n;
        if core::mem::take(&mut self.user_space().stale) {
            self.drop_user_half();
        } else {
            self.revalidate_user();
        }
    }

    /// Catches up with what other spaces changed while this one was parked.
    pub fn catch_up(&mut self) {
        let seen = self.space().protected_seen;
        let (runs, n) = self.protected_since(seen);
        self.write_protect_runs(&runs);
        self.space().protected_seen = n;
        if self.space().kernel_flushes != self.spaces.kernel_flushes {
            self.revalidate_kernel();
        }
        self.unmap_noted_kernel_pages();
        self.rekey_aliased();
    }

    /// Takes write access to runs of frames, in rising order, from all mappings of the running space.
    fn write_protect_runs(&mut self, runs: &[Range<u32>]) {
        if runs.len() <= FEW_RUNS {
            for run in runs {
                self.write_protect_here(run.clone());
            }
            return;
        }
        for frames in runs {
            self.drop_writable_linear(frames);
        }
        self.write_protect_protected(true);
        self.write_protect_protected(false);
    }

    /// Single kernel pages that changed while this space was parked.
    fn unmap_noted_kernel_pages(&mut self) {
        let pages = core::mem::take(&mut self.space().stale_kernel_pages);
        for page in pages {
            let installed = self.space().kernel.get(page);
            if installed.is_some() && !self.kernel_page_valid(page, installed) {
                self.host_unmap(fold(page), 1);
                self.space().kernel.set(page, Installed::default());
            }
        }
    }
}

/// As many runs of frames are looked for one after the other; beyond, one look at all pages and another
/// fault at what the kernel uses are cheaper.
const FEW_RUNS: usize = 16;

/// Pages to be unmapped or closed, neighbours in one call: address and count.
#[derive(Default)]
struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn add(&mut self, page: u64) {
        match self.0.last_mut() {
            Some((start, count)) if page == *start + (*count << 12) => *count += 1,
            _ => self.0.push((page, 1)),
        }
    }

    fn pages(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}
