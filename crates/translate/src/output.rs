//! What the translator hands back besides code.

/// How to make guest registers precise at a host instruction boundary, as the
/// list of repairs to do (see [`Fix`] constants and `crate::repair`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fix(pub u16);

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
    /// Precise points, by rising `host`.
    pub entries: [Entry; MAX_ENTRIES],
    /// Valid entries.
    pub entry_count: usize,
    /// Links.
    pub links: [Link; MAX_LINKS],
    /// Valid links.
    pub link_count: usize,
}
