//! The part of a vCPU's state that translated code reads and writes.

/// Registers and scratch space of a vCPU, at a fixed host address. In kernel
/// mode `regs[4]` (RSP) is folded. Everything here may be changed by the guest
/// kernel; nothing in it is trusted.
#[repr(C, align(64))]
pub struct Context {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15.
    pub regs: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// Guest instruction pointer given with an exit.
    pub rip: u64,
    /// Guest address an indirect or unlinked branch wants to reach.
    pub target: u64,
    /// Tag of the link that led here, else 0.
    pub argument: u64,
    /// Why translated code left (see the monitor's exit reasons).
    pub reason: u64,
    /// Host address at which the monitor enters translated code.
    pub enter: u64,
    /// Scratch for translated code.
    pub spill: [u64; 4],
    /// RCX while an address is looked up in the table of aliases.
    pub lookup_rcx: u64,
    /// What was added to RDI around a string instruction.
    pub delta_rdi: u64,
    /// What was added to RSI (or to the address of a user-accessing instruction).
    pub delta_rsi: u64,
    /// [`crate::FOLD`], kept here as an operand.
    pub fold: u64,
    /// Host FS and GS base to load on entry.
    pub fs_base: u64,
    /// See `fs_base`.
    pub gs_base: u64,
    /// What RCX is too low by within a piece of a run ([`crate::Fix::COUNT`]).
    pub count_left: u64,
    /// How far from its own address user memory is reached ([`crate::UserMemory::Displaced`]).
    pub displacement: u64,
    /// Not 0: vector registers and the like hold nothing of the guest's
    /// ([`crate::Request::state_may_be_away`]).
    pub state_away: u64,
    /// For the monitor's gates.
    pub gate: [u64; 14],
    /// Vector registers 0..15, low halves, while the monitor runs.
    pub xmm: [u128; 16],
}
