//! The tables in which translated code looks up indirect branch targets.

use translate::{LOOKUP_ENTRIES, LookupEntry, PROLOGUE, lookup_slots};

use super::Code;
use crate::layout::{ARENA_TABLES, at};

/// A mode's two tables, seen through the arena.
fn tables(user: bool) -> &'static mut [LookupEntry] {
    let offset = ARENA_TABLES + if user { 0x10_0000 } else { 0 };
    let entries = 2 * LOOKUP_ENTRIES as usize;
    // SAFETY: the arena holds the tables there; only the running space's
    // monitor writes them.
    unsafe { core::slice::from_raw_parts_mut((at::ARENA + offset) as *mut LookupEntry, entries) }
}

impl Code {
    /// Empties the tables.
    pub(super) fn clear_lookup(&self) {
        for user in [false, true] {
            for (slot, e) in tables(user).iter_mut().enumerate() {
                *e = LookupEntry::empty(slot);
            }
        }
    }

    /// Lets indirect branches to the block's address find it.
    pub fn publish(&self, block: u32) {
        let b = &self.blocks[block as usize];
        let t = tables(b.user);
        for slot in lookup_slots(b.va) {
            t[slot] = LookupEntry::new(b.va, at::CODE + u64::from(b.host));
        }
    }

    /// The host address to enter at for `va`, if published.
    pub fn published(&self, va: u64, user: bool) -> Option<u64> {
        let e = &tables(user)[lookup_slots(va)[0]];
        (e.tag == va.wrapping_neg()).then_some(e.host + PROLOGUE)
    }

    /// Takes an address out of the tables.
    pub(super) fn remove_lookup(&self, va: u64, user: bool) {
        let t = tables(user);
        for slot in lookup_slots(va) {
            if t[slot].tag == va.wrapping_neg() {
                t[slot] = LookupEntry::empty(slot);
            }
        }
    }
}
