//! The guest's state while a jump through the tables ([`crate::lookup`]) is under way: there the last
//! guest instruction is done and the next one is not reached, but its address is known. Returns are
//! frequent, so that interrupts often come there.

use crate::output::Fix;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;

/// RCX is in its slot; then RAX too; then all that the jump uses; at the end RDX alone.
const FIRST: Fix = Fix::spilled(0, RCX as u8);
const SECOND: Fix = FIRST.with(Fix::spilled(1, RAX as u8));
const ALL: Fix = SECOND.with(LAST);
const LAST: Fix = Fix::spilled(2, RDX as u8);

/// A place in such a jump.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Jump {
    /// So many bytes before the end of a block that has [`crate::Output::ends_in_lookup`].
    Inline(u64),
    /// So many bytes behind the start of [`crate::emit_lookup_miss`]'s routine.
    Miss(u64),
    /// So many bytes behind the start of the block at this guest address: its prologue.
    Arriving(u64, u64),
}

/// Where the guest goes on, and what makes `regs` its registers ([`crate::repair`]). `None` if the place
/// is none of those that are known; after some steps it is.
#[must_use]
pub fn underway(jump: Jump, regs: &[u64; 16]) -> Option<(u64, Fix)> {
    let plain = regs[RCX];
    // The tag was added.
    let probed = regs[RCX].wrapping_sub(regs[RAX]);
    let inverted = regs[RCX].wrapping_add(regs[RAX]).wrapping_add(1);
    // The tag alone is left.
    let found = regs[RAX].wrapping_neg();
    Some(match jump {
        Jump::Inline(71) => (plain, FIRST),
        Jump::Inline(64) => (plain, SECOND),
        Jump::Inline(57 | 51 | 48 | 45 | 42 | 35 | 31 | 28) => (plain, ALL),
        Jump::Inline(24 | 22 | 17) => (probed, ALL),
        Jump::Inline(10) => (found, ALL),
        Jump::Miss(0 | 41 | 43 | 84) => (probed, ALL),
        Jump::Miss(3 | 46) => (inverted, ALL),
        Jump::Miss(8 | 14 | 17 | 20 | 23 | 30 | 34 | 37 | 51) => (plain, ALL),
        Jump::Miss(91) => (found, ALL),
        Jump::Arriving(va, 0) => (va, LAST),
        _ => return None,
    })
}
