//! What the translator hands back besides code.

/// How to make guest registers precise at a host instruction boundary
/// ([`crate::repair`]) and how to read a fault there ([`crate::guest_fault`]).
///
/// Bits 0..20: four 5-bit fields, one per spill slot: 0, or the number of the
/// register saved there plus 1 (RAX = 1 .. R15 = 16). The rest are the flags below.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fix(pub u32);

impl Fix {
    /// Registers are precise as they are.
    pub const NONE: Fix = Fix(0);
    /// RDI holds a host address, `context.delta_rdi` above the guest's.
    pub const RDI: Fix = Fix(1 << 20);
    /// RSI holds a host address, `context.delta_rsi` above the guest's.
    pub const RSI: Fix = Fix(1 << 21);
    /// The operand's host address is `context.delta_rsi` above the guest's.
    pub const AWARE: Fix = Fix(1 << 22);
    /// The operand was assumed to be kernel memory. A general protection fault
    /// here may come from a user address.
    pub const ASSUMED: Fix = Fix(1 << 23);
    /// A return address was pushed, but not all of it is right yet: RSP is 8 too low.
    pub const PUSHED: Fix = Fix(1 << 24);

    /// A piece of a string instruction's run: RCX is `context.count_left` too low.
    pub const COUNT: Fix = Fix(1 << 25);

    /// The same repairs and those of `other`.
    #[must_use]
    pub const fn with(self, other: Fix) -> Fix {
        Fix(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Fix) -> bool {
        self.0 & other.0 == other.0
    }

    /// "Register `register` is in spill slot `slot`."
    pub(crate) const fn spilled(slot: usize, register: u8) -> Fix {
        Fix((register as u32 + 1) << (5 * slot))
    }

    /// The register that spill slot `slot` holds.
    pub(crate) const fn register(self, slot: usize) -> Option<usize> {
        ((self.0 >> (5 * slot)) as usize & 31).checked_sub(1)
    }
}

/// A host instruction boundary at which guest state is precise after `fix`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Offset from the block's host start.
    pub host: u16,
    /// Offset from the block's guest start.
    pub guest: u16,
    /// Repairs.
    pub fix: Fix,
}

/// A direct branch out of the block. Its 4-byte displacement at `site` first
/// leads to the stub at `stub`; linking writes the displacement to the target's
/// host address, unlinking writes the stub's again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Offset of the displacement from the block's host start.
    pub site: u16,
    /// Offset of the exit stub from the start of the stub output.
    pub stub: u16,
    /// Guest address it leads to.
    pub target: u64,
}

/// Largest block in instructions.
pub const MAX_INSTRUCTIONS: usize = 40;
/// Most entries of a block.
pub const MAX_ENTRIES: usize = 256;
/// Most links of a block.
pub const MAX_LINKS: usize = MAX_INSTRUCTIONS + 2;

/// The result of one translation; reused between calls.
pub struct Output {
    /// Bytes of code written.
    pub code_len: usize,
    /// Bytes of exit stubs written (placed apart from the code).
    pub stub_len: usize,
    /// Bytes of guest code covered.
    pub guest_len: usize,
    /// Precise points, by strictly rising `host`.
    pub entries: [Entry; MAX_ENTRIES],
    /// Valid entries.
    pub entry_count: usize,
    /// Links.
    pub links: [Link; MAX_LINKS],
    /// Valid links.
    pub link_count: usize,
    /// Its code ends with a jump through the tables ([`crate::underway`]).
    pub ends_in_lookup: bool,
}

impl Output {
    /// An empty result.
    #[must_use]
    pub const fn new() -> Output {
        Output {
            code_len: 0,
            stub_len: 0,
            guest_len: 0,
            entries: [Entry { host: 0, guest: 0, fix: Fix::NONE }; MAX_ENTRIES],
            entry_count: 0,
            links: [Link { site: 0, stub: 0, target: 0 }; MAX_LINKS],
            link_count: 0,
            ends_in_lookup: false,
        }
    }

    /// The valid entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.entries.get(..self.entry_count).unwrap_or_default()
    }

    /// The valid links.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        self.links.get(..self.link_count).unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.code_len = 0;
        self.stub_len = 0;
        self.guest_len = 0;
        self.entry_count = 0;
        self.link_count = 0;
        self.ends_in_lookup = false;
    }

    /// Adds a precise point. One at the same host address replaces the last
    /// one: an instruction that left no code has no point of its own.
    pub(crate) fn add_entry(&mut self, entry: Entry) {
        let last = self.entry_count.wrapping_sub(1);
        match self.entries.get_mut(last) {
            Some(slot) if slot.host == entry.host => *slot = entry,
            _ => {
                if let Some(slot) = self.entries.get_mut(self.entry_count) {
                    *slot = entry;
                    self.entry_count += 1;
                }
            }
        }
    }

    pub(crate) fn add_link(&mut self, link: Link) {
        if let Some(slot) = self.links.get_mut(self.link_count) {
            *slot = link;
            self.link_count += 1;
        }
    }
}

impl Default for Output {
    fn default() -> Output {
        Output::new()
    }
}
