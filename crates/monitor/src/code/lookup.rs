//! The tables in which translated code looks up indirect branch targets.

use translate::{LOOKUP_ENTRIES, LookupEntry, PROLOGUE, lookup_slots};

use super::Code;
use crate::{
    layout::{ARENA_TABLES, at},
    proven::Masked,
};

/// Entries of both tables of a mode.
const ENTRIES: usize = 2 * LOOKUP_ENTRIES as usize;

/// A mode's two tables, seen through the arena.
fn tables(user: bool) -> &'static mut [LookupEntry; ENTRIES] {
    let offset = ARENA_TABLES + if user { 0x10_0000 } else { 0 };
    // SAFETY: the arena holds the tables there; only the running space's
    // monitor writes them.
    unsafe { &mut *((at::ARENA + offset) as *mut [LookupEntry; ENTRIES]) }
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
        let b = self.block(block);
        let t = tables(b.user);
        for slot in lookup_slots(b.va) {
            *t.at_mut(slot) = LookupEntry::new(b.va, at::CODE + u64::from(b.host));
        }
    }

    /// The host address to enter at for `va`, if published.
    pub fn published(&self, va: u64, user: bool) -> Option<u64> {
        let e = tables(user).at(lookup_slots(va)[0]);
        (e.tag == va.wrapping_neg()).then_some(e.host + PROLOGUE)
    }

    /// Takes an address out of the tables.
    pub(super) fn remove_lookup(&self, va: u64, user: bool) {
        let t = tables(user);
        for slot in lookup_slots(va) {
            let e = t.at_mut(slot);
            if e.tag == va.wrapping_neg() {
                *e = LookupEntry::empty(slot);
            }
        }
    }
}
