//! Indirect branches: from a guest address to host code through hash tables.
//!
//! A mode has two tables of [`LOOKUP_ENTRIES`] entries, one directly after the
//! other, each with its own hash. The first is searched inline, the second in a
//! routine the monitor places once per mode ([`emit_lookup_miss`]). Nothing in
//! the sequence touches flags: hashes by `rorx` and `lea`, the comparison by
//! adding the negated address and `jrcxz`.
//!
//! The tables decide where guest code may jump. They must be readable in the
//! mode that uses them, and writable by the monitor only.

use crate::emit::{Address, Emitter, Field, Gpr};
use crate::{LOOKUP_ENTRIES, Mode, Targets};

/// Bytes of the prologue in front of every block: lookups end there with RDX still in spill slot 2. Links go
/// behind it.
pub const PROLOGUE: u64 = 7;

/// Rotation of the first hash, as an instruction's immediate.
const FIRST: u8 = 13;
/// Rotation of the second hash.
const SECOND: u8 = 5;

/// One place in a lookup table.
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookupEntry {
    /// The guest address, negated.
    pub tag: u64,
    /// Host address of the block's prologue.
    pub host: u64,
}

impl LookupEntry {
    /// An entry for guest address `va` whose block's prologue is at `host`.
    #[must_use]
    pub const fn new(va: u64, host: u64) -> LookupEntry {
        LookupEntry { tag: va.wrapping_neg(), host }
    }

    /// What to put in an unused place. `slot` counts through both tables.
    ///
    /// The tag is that of an address which never leads to this slot, so that no
    /// guest address, however odd, matches.
    #[must_use]
    pub const fn empty(slot: usize) -> LookupEntry {
        let [first, second] = lookup_slots(u64::MAX);
        let tag = if slot == first || slot == second { 2 } else { 1 };
        LookupEntry { tag, host: 0 }
    }

    const fn is_of(&self, va: u64) -> bool {
        self.tag == va.wrapping_neg()
    }

    const fn is_unused(&self) -> bool {
        self.host == 0
    }
}

/// The two places for guest address `va`, counted from the start of the mode's
/// first table: the first within the first table, the second within the second.
#[must_use]
pub const fn lookup_slots(va: u64) -> [usize; 2] {
    let first = hash(va, FIRST);
    let second = hash(va, SECOND) + LOOKUP_ENTRIES;
    [first as usize, second as usize]
}

/// Entries of both tables of a mode.
const ENTRIES: usize = 2 * LOOKUP_ENTRIES as usize;

/// Both tables of a mode. An address has one place at most, that of the first table if it was free.
#[derive(Debug)]
pub struct LookupTables<'a>(&'a mut [LookupEntry; ENTRIES]);

impl<'a> LookupTables<'a> {
    /// The tables in these entries, of which each is empty or was put there by [`Self::insert`].
    #[must_use]
    pub fn new(entries: &'a mut [LookupEntry; ENTRIES]) -> LookupTables<'a> {
        LookupTables(entries)
    }

    /// Empties the tables.
    pub fn clear(&mut self) {
        for (slot, entry) in self.0.iter_mut().enumerate() {
            *entry = LookupEntry::empty(slot);
        }
    }

    /// Host address of the prologue that `va` leads to, if it has a place.
    #[must_use]
    pub fn find(&self, va: u64) -> Option<u64> {
        let entries = lookup_slots(va).map(|slot| self.0.get(slot));
        let found = entries.into_iter().flatten().find(|entry| entry.is_of(va))?;
        Some(found.host)
    }

    /// Has `va` lead to the prologue at `host`. Where both its places are taken, the one that is found
    /// faster is made free, and who had it goes to its own second place; who had that is forgotten.
    pub fn insert(&mut self, va: u64, host: u64) {
        self.remove(va);
        let new = LookupEntry::new(va, host);
        let [first, second] = lookup_slots(va);
        for slot in [first, second] {
            if let Some(entry) = self.0.get_mut(slot).filter(|entry| entry.is_unused()) {
                *entry = new;
                return;
            }
        }
        let Some(entry) = self.0.get_mut(first) else { return };
        let moved = core::mem::replace(entry, new);
        let [_, second] = lookup_slots(moved.tag.wrapping_neg());
        if let Some(entry) = self.0.get_mut(second) {
            *entry = moved;
        }
    }

    /// Has `va` lead nowhere.
    pub fn remove(&mut self, va: u64) {
        for slot in lookup_slots(va) {
            if let Some(entry) = self.0.get_mut(slot).filter(|entry| entry.is_of(va)) {
                *entry = LookupEntry::empty(slot);
            }
        }
    }
}

const fn hash(va: u64, rotation: u8) -> u64 {
    va.rotate_right(rotation as u32).wrapping_add(va) & (LOOKUP_ENTRIES - 1)
}

/// Where in the first table the entry of guest address `va` is, in bytes.
pub(crate) const fn place_of(va: u64) -> u64 {
    hash(va, FIRST) * size_of::<LookupEntry>() as u64
}

/// Size of one table in bytes.
const TABLE: u64 = LOOKUP_ENTRIES * size_of::<LookupEntry>() as u64;

// The emitted hash keeps 16 bits of twice the sum and scales them by 8.
const _: () = assert!(LOOKUP_ENTRIES == 1 << 15 && size_of::<LookupEntry>() == 16);

/// Emits the block prologue. Most blocks are entered by links only: what can be done at the place of the jump
/// is done there, so that less of the cache is filled with what does not run.
pub(crate) fn emit_prologue(code: &mut Emitter) {
    code.restore(Gpr::RDX, Field::spill(2));
}

/// Emits the jump to guest address RCX. The guest's RCX is in spill slot 0.
pub(crate) fn emit_lookup(code: &mut Emitter, table: u64, miss: u64) {
    code.save(Gpr::RAX, Field::spill(1));
    code.save(Gpr::RDX, Field::spill(2));
    emit_probe(code, table, FIRST);
    code.bytes(&[0xe3, 5]); // jrcxz past the jump
    code.jump(miss);
    emit_arrival(code);
}

/// Emits the jump to the block of the entry at RDX.
fn emit_arrival(code: &mut Emitter) {
    code.restore(Gpr::RCX, Field::spill(0));
    code.restore(Gpr::RAX, Field::spill(1));
    code.bytes(&[0xff, 0x62, 8]); // jmp [rdx+8]
}

/// Leaves RDX = the entry's address, RAX = its tag, RCX = guest address + tag.
fn emit_probe(code: &mut Emitter, table: u64, rotation: u8) {
    code.rotate_right(Gpr::RAX, Gpr::RCX, rotation);
    code.bytes(&[0x8d, 0x04, 0x08]); // lea eax, [rax+rcx]
    code.bytes(&[0x8d, 0x04, 0x00]); // lea eax, [rax+rax]
    code.bytes(&[0x0f, 0xb7, 0xc0]); // movzx eax, ax
    code.lea_place(Gpr::RDX, table);
    code.lea(Gpr::RDX, Address { base: Some(Gpr::RDX), index: Some((Gpr::RAX, 3)), disp: 0 });
    code.load(Gpr::RAX, Address::base(Gpr::RDX));
    code.lea(Gpr::RCX, Address::sum(Gpr::RCX, Gpr::RAX));
}

/// RCX = guest address again, after a probe: RCX - RAX without flags.
fn emit_unprobe(code: &mut Emitter) {
    code.not(Gpr::RAX);
    code.lea(Gpr::RCX, Address { base: Some(Gpr::RCX), index: Some((Gpr::RAX, 0)), disp: 1 });
}

/// Emits the routine that searches the second table of `mode` and leaves to
/// `targets.exit_indirect` if that misses too. It will run at `at_host`. Needs
/// at most 128 bytes of `buffer`. Returns the bytes written, or `None` if the
/// buffer is too small or a target too far away.
#[must_use]
pub fn emit_lookup_miss(
    targets: &Targets,
    at_host: u64,
    buffer: &mut [u8],
    mode: Mode,
) -> Option<usize> {
    let mut code = Emitter::new(buffer, at_host, targets.context_of(mode));
    emit_unprobe(&mut code);
    emit_probe(&mut code, targets.lookup_of(mode).wrapping_add(TABLE), SECOND);
    let mut tail_buffer = [0; 96];
    let tail_host = code.here().wrapping_add(2);
    let mut tail = Emitter::new(&mut tail_buffer, tail_host, targets.context_of(mode));
    emit_unprobe(&mut tail);
    tail.save(Gpr::RCX, Field::TARGET);
    tail.restore(Gpr::RCX, Field::spill(0));
    tail.restore(Gpr::RAX, Field::spill(1));
    tail.restore(Gpr::RDX, Field::spill(2));
    tail.jump(targets.exit_indirect);
    let (tail_len, tail_bad) = (tail.len(), tail.overflow || tail.out_of_reach);
    code.bytes(&[0xe3, u8::try_from(tail_len).ok()?]); // jrcxz past the miss
    code.bytes(tail_buffer.get(..tail_len)?);
    emit_arrival(&mut code);
    (!tail_bad && !code.overflow && !code.out_of_reach).then(|| code.len())
}
