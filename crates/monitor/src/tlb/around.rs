//! Mapping what lies around a user page that is mapped.
//!
//! A guest kernel fills tables in clusters (fault-around, fork), so the pages
//! next to a touched one are often present and about to be touched. Pages whose
//! frames continue each other cost nothing more: they are one host mapping.

use abi::mmu::{PTE_ACCESSED, PTE_DIRTY, PTE_NX, PTE_PRESENT, PTE_USER, PTE_WRITE};

use super::{alias::is_aliased, host::Access, mapped::Installed, user::is_available};
use crate::{
    guest::{Leaf, frame_of},
    layout::key,
    proven::Masked,
    state::{Frame, Monitor},
};

/// Pages of the cluster looked at; divides 512.
const CLUSTER: usize = 16;
const _: () = assert!(CLUSTER << 12 <= crate::runner::LONGEST as usize);

/// A page to map.
#[derive(Clone, Copy)]
pub struct Page {
    pub frame: u32,
    pub access: Access,
    pub installed: Installed,
    /// The guest has touched it, or thinks that it will be.
    pub accessed: bool,
}

type Cluster = [Option<Page>; CLUSTER];

/// Whether the pages at two neighbouring places can be one mapping.
fn continues(cluster: &Cluster, at: usize, next: usize) -> bool {
    match (*cluster.at(at), *cluster.at(next)) {
        (Some(a), Some(b)) => b.frame == a.frame.wrapping_add(1) && a.access == b.access,
        _ => false,
    }
}

/// The first place after `start` that does not continue the run there.
fn end_of_run(cluster: &Cluster, start: usize) -> usize {
    let mut end = start + 1;
    while end < CLUSTER && continues(cluster, end - 1, end) {
        end += 1;
    }
    end
}

impl Monitor {
    /// Maps `this` at user page `page`, found at `leaf`, with what of its cluster
    /// continues it; in a runner, which maps many in one go, also all that is
    /// accessed. Linux marks what it maps around a fault as accessed, and what a
    /// fork copies as not: a child seldom touches much of it.
    pub(super) fn map_cluster(&mut self, page: u64, leaf: &Leaf, this: Page) {
        let wanted = leaf.index % CLUSTER;
        let base = page - ((wanted as u64) << 12);
        let mut cluster: Cluster = [None; CLUSTER];
        *cluster.at_mut(wanted) = Some(this);
        if self.is_separate() {
            self.map_accessed(base, leaf, cluster, wanted);
        } else {
            self.map_continued(base, leaf, cluster, wanted);
        }
    }

    /// Maps the run of pages that the wanted one is in. Mostly it is alone, which the entries beside it say.
    fn map_continued(&mut self, base: u64, leaf: &Leaf, mut cluster: Cluster, wanted: usize) {
        let Some(this) = *cluster.at(wanted) else { return };
        let (mut start, mut first) = (wanted, this);
        while start > 0
            && let Some(frame) = first.frame.checked_sub(1)
            && let Some(page) = self.neighbour(base, leaf, start - 1, this.access, Some(frame))
            && self.may_be_one_mapping(&page, &first)
        {
            (start, first) = (start - 1, page);
            *cluster.at_mut(start) = Some(page);
        }
        let (mut end, mut last) = (wanted + 1, this);
        while end < CLUSTER
            && let Some(page) = self.neighbour(base, leaf, end, this.access, Some(last.frame + 1))
            && self.may_be_one_mapping(&last, &page)
        {
            *cluster.at_mut(end) = Some(page);
            (end, last) = (end + 1, page);
        }
        self.map_run(base, &cluster, start, end);
    }

    /// Code may not be executed beside all other code.
    fn may_be_one_mapping(&self, left: &Page, right: &Page) -> bool {
        left.access == right.access
            && (!left.access.exec || self.may_follow(left.frame, right.frame))
    }

    /// Maps the run of pages that the wanted one is in, and all others that are accessed.
    fn map_accessed(&mut self, base: u64, leaf: &Leaf, mut cluster: Cluster, wanted: usize) {
        let Some(this) = *cluster.at(wanted) else { return };
        for (i, slot) in cluster.iter_mut().enumerate().filter(|(i, _)| *i != wanted) {
            *slot = self.neighbour(base, leaf, i, this.access, None);
        }
        let mut start = wanted;
        while start > 0 && continues(&cluster, start - 1, start) {
            start -= 1;
        }
        let end = end_of_run(&cluster, start);
        self.map_run(base, &cluster, start, end);
        cluster.iter_mut().take(end).skip(start).for_each(|slot| *slot = None);
        for slot in &mut cluster {
            *slot = slot.filter(|p| p.accessed);
        }
        let mut at = 0;
        while at < CLUSTER {
            let end = end_of_run(&cluster, at);
            self.map_run(base, &cluster, at, end);
            at = end;
        }
    }

    /// Looks through the code that continues user page `page`, found at `leaf`, in its cluster: it will be
    /// mapped with it, and taking write access from frames that continue each other costs little.
    pub(super) fn scan_around(&mut self, page: u64, leaf: &Leaf) {
        let wanted = leaf.index % CLUSTER;
        let base = page - ((wanted as u64) << 12);
        let first = leaf.index - wanted;
        let frame = leaf.frame();
        let continues = |at: usize, frame: u32| {
            self.unseen_code(base + ((at as u64) << 12), leaf, first + at) == Some(frame)
        };
        if !continues(wanted, frame) {
            return;
        }
        let before = (1..=wanted as u32).take_while(|n| {
            frame.checked_sub(*n).is_some_and(|f| continues(wanted - *n as usize, f))
        });
        let before = before.count() as u32;
        let after = (1..(CLUSTER - wanted) as u32)
            .take_while(|n| continues(wanted + *n as usize, frame + n));
        let after = after.count() as u32;
        self.scan(frame - before..frame + after + 1);
    }

    /// The frame of the page at another entry of the same table, if programs may execute and not
    /// write it, and it was not looked through yet.
    fn unseen_code(&self, page: u64, leaf: &Leaf, index: usize) -> Option<u32> {
        let entry = self.entry(leaf.table, index)?;
        let frame = frame_of(entry);
        let allow = entry & leaf.upper;
        let facts = self.frames.get(frame as usize)?;
        (entry & PTE_PRESENT != 0
            && allow & PTE_USER != 0
            && allow & PTE_WRITE == 0
            && (entry | leaf.upper) & PTE_NX == 0
            && facts.0 & (Frame::EXECUTED | Frame::CLOSED | Frame::SHADOW) == 0
            && self.guest_may_map(frame)
            && is_available(page)
            && !is_aliased(page))
        .then_some(frame)
    }

    /// Maps the pages at places `start..end`, which continue each other.
    fn map_run(&mut self, base: u64, cluster: &Cluster, start: usize, end: usize) {
        let Some(head) = *cluster.at(start) else { return };
        let va = base + ((start as u64) << 12);
        self.user_map(va, head.frame, (end - start) as u64, head.access);
        for (i, p) in cluster.iter().take(end).skip(start).flatten().enumerate() {
            if p.installed.write() {
                self.note_writable(p.frame);
            }
            self.user_space().user.set(va + ((i as u64) << 12), p.installed);
        }
    }

    /// The page at another place of the cluster at `base`, if user code may have it now and it is the frame that
    /// is wanted.
    fn neighbour(
        &mut self,
        base: u64,
        leaf: &Leaf,
        place: usize,
        this: Access,
        wanted: Option<u32>,
    ) -> Option<Page> {
        let entry = self.entry(leaf.table, leaf.index - leaf.index % CLUSTER + place)?;
        let frame = frame_of(entry);
        if wanted.is_some_and(|wanted| wanted != frame) {
            return None;
        }
        let page = base + ((place as u64) << 12);
        let allow = entry & leaf.upper;
        let executable = (entry | leaf.upper) & PTE_NX == 0;
        let facts = self.frames.get(frame as usize).copied().unwrap_or_default();
        let separate = self.is_separate();
        let plain = entry & PTE_PRESENT != 0
            && allow & PTE_USER != 0
            && self.guest_may_map(frame)
            && is_available(page)
            && (separate || !is_aliased(page))
            && !(executable && facts.0 & Frame::SHADOW != 0);
        if !plain {
            return None;
        }
        let installed = self.user_space().user.get(page);
        // It was read before; beside code it is code.
        let may_become_code = !separate
            && executable
            && this.exec
            && installed == Installed::new(frame, false, false);
        if installed.is_some() && !may_become_code {
            return None;
        }
        let mut exec = executable && !self.translates_user();
        if exec && !separate {
            // Code next to code is looked through with it.
            exec = (this.exec || self.is_executed(frame)) && self.may_execute(page, frame);
            if exec && self.has_traps(frame) {
                return None;
            }
        }
        if may_become_code && !exec {
            return None;
        }
        let facts = self.frames.get(frame as usize).copied().unwrap_or_default();
        let write = allow & PTE_WRITE != 0 && entry & PTE_DIRTY != 0 && !facts.is_protected();
        Some(Page {
            frame,
            access: Access { write, exec, key: key::USER, shadow: false },
            installed: Installed::new(frame, write, exec),
            accessed: entry & PTE_ACCESSED != 0,
        })
    }
}
