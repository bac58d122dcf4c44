//! The tables in which translated code looks up indirect branch targets.

use translate::{LookupTables, PROLOGUE};

use super::Code;
use crate::{
    layout::{ARENA_TABLES, at},
    runner::ticks,
};

/// When the kernel's tables are emptied next, in ticks of the TSC. Places go to who comes first. After
/// a while most belong to what ran at boot or in the last burst of work and what runs now is found in
/// the second table, or pushes others out; emptied, they go to what runs most.
pub struct Freshness {
    until: u64,
    period: u64,
}

impl Freshness {
    /// About a second: a kernel has booted.
    const SHORTEST: u64 = 1 << 31;
    /// About a minute: filling them again takes a millisecond or two.
    const LONGEST: u64 = 1 << 37;

    pub(super) fn new() -> Freshness {
        Freshness { until: ticks().wrapping_add(Self::SHORTEST), period: Self::SHORTEST }
    }

    fn is_over(&mut self) -> bool {
        let now = ticks();
        // Half of the range lies ahead, half behind.
        let over = now.wrapping_sub(self.until) as i64 >= 0;
        if over {
            self.period = (2 * self.period).min(Self::LONGEST);
            self.until = now.wrapping_add(self.period);
        }
        over
    }
}

/// A mode's two tables, seen through the arena.
fn tables(user: bool) -> LookupTables<'static> {
    let offset = ARENA_TABLES + if user { 0x10_0000 } else { 0 };
    // SAFETY: the arena holds the tables there; only the running space's
    // monitor writes them.
    LookupTables::new(unsafe { &mut *((at::ARENA + offset) as *mut _) })
}

impl Code {
    /// Empties the tables.
    pub(super) fn clear_lookup(&self) {
        for user in [false, true] {
            tables(user).clear();
        }
    }

    /// Lets indirect branches to the block's address find it.
    pub fn publish(&mut self, block: u32) {
        let b = *self.block(block);
        if self.freshness.is_over() {
            tables(b.user).clear();
        }
        tables(b.user).insert(b.va, at::CODE + u64::from(b.host));
    }

    /// The host address to enter at for `va`, if published.
    pub fn published(&self, va: u64, user: bool) -> Option<u64> {
        tables(user).find(va).map(|prologue| prologue + PROLOGUE)
    }

    /// Takes an address out of the tables.
    pub(super) fn remove_lookup(&self, va: u64, user: bool) {
        tables(user).remove(va);
    }
}
