//! A guest's memory as it is handed to a tool, for a core file.

use serde::{Deserialize, Serialize};

/// What the descriptor that comes along holds. Machine frames are the guest's own: frame `n` lies at
/// byte `n` times 4096.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryImage {
    /// Frames of the guest; what follows in the descriptor is none of its memory.
    pub frames: u64,
    /// Frame of `shared_info`, beyond the guest's own.
    pub shared_info: u64,
    /// Registers of vCPU 0, if they are known.
    pub registers: Option<Registers>,
    /// Whether the vCPU stood still when the registers were read.
    pub stopped: bool,
}

/// Registers of a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Whether the guest's kernel ran, not a program.
    pub kernel: bool,
    /// Address of the last page fault.
    pub cr2: u64,
    /// Frame of the top-level page table.
    pub root: u64,
}
