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
    state::{Frame, Monitor},
};

/// Pages of the cluster looked at; divides 512.
const CLUSTER: usize = 16;

/// A page to map.
#[derive(Clone, Copy)]
pub struct Page {
    pub frame: u32,
    pub access: Access,
    pub installed: Installed,
}

impl Page {
    fn continues(self, before: Page, distance: u32) -> bool {
        self.frame == before.frame.wrapping_add(distance) && self.access == before.access
    }
}

impl Monitor {
    /// Maps `this` at user page `page`, found at `leaf`, and of its cluster what
    /// is present and not mapped: all of it in a runner, which does that in one
    /// go, else only what continues the page.
    pub(super) fn map_cluster(&mut self, page: u64, leaf: &Leaf, this: Page) {
        let first = leaf.index & !(CLUSTER - 1);
        let base = page - (((leaf.index - first) as u64) << 12);
        let mut cluster = [None; CLUSTER];
        for (i, slot) in cluster.iter_mut().enumerate() {
            *slot = if first + i == leaf.index {
                Some(this)
            } else {
                self.neighbour(base + ((i as u64) << 12), leaf, first + i)
            };
        }
        let wanted = leaf.index - first;
        let mut start = 0;
        while start < CLUSTER {
            let Some(head) = cluster[start] else {
                start += 1;
                continue;
            };
            let mut end = start + 1;
            while end < CLUSTER
                && cluster[end].is_some_and(|p| p.continues(head, (end - start) as u32))
            {
                end += 1;
            }
            if self.is_separate() || (start..end).contains(&wanted) {
                let va = base + ((start as u64) << 12);
                self.user_map(va, head.frame, (end - start) as u64, head.access);
                for (i, p) in cluster[start..end].iter().flatten().enumerate() {
                    self.user_space().user.set(va + ((i as u64) << 12), p.installed);
                }
            }
            start = end;
        }
    }

    /// The page at another entry of the same table, if user code may have it now.
    fn neighbour(&mut self, page: u64, leaf: &Leaf, index: usize) -> Option<Page> {
        let entry = self.entry(leaf.table, index)?;
        let frame = frame_of(entry);
        let allow = entry & leaf.upper;
        let executable = (entry | leaf.upper) & PTE_NX == 0;
        let facts = self.frames.get(frame as usize).copied().unwrap_or_default();
        let separate = self.is_separate();
        // Linux marks what it maps around a fault as accessed, and what a fork
        // copies as not: a child seldom touches much of it.
        let plain = entry & (PTE_PRESENT | PTE_ACCESSED) == PTE_PRESENT | PTE_ACCESSED
            && allow & PTE_USER != 0
            && self.guest_may_map(frame)
            && is_available(page)
            && (separate || !is_aliased(page))
            && !(executable && facts.0 & Frame::SHADOW != 0)
            && !self.user_space().user.get(page).is_some();
        if !plain {
            return None;
        }
        let write = allow & PTE_WRITE != 0 && entry & PTE_DIRTY != 0 && !facts.is_protected();
        let exec = executable && !self.translates_user();
        Some(Page {
            frame,
            access: Access { write, exec, key: key::USER, shadow: false },
            installed: Installed::new(frame, write, exec),
        })
    }
}
