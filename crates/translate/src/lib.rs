//! x86-64 to x86-64 translator for guest code that may not run as it is.
//!
//! The input and the output are the same instruction set, registers map one to
//! one, and inserted code leaves flags alone, so most instructions are copied.
//! What changes is where memory lies (kernel mode: folded by [`FOLD`]), the
//! stack pointer (kernel mode: kept folded), branches, and instructions that
//! would show or change host state: those leave to the monitor.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod alias;
mod block;
pub mod context;
mod control;
mod emit;
pub mod forbidden;
mod layout;
mod lookup;
mod memory;
pub mod output;
mod repair;
mod scratch;
mod sensitive;
mod stack;
mod state;
mod string;
mod string_run;
mod underway;
mod user_tlb;

pub use alias::{ALIAS_MASK, ALIAS_TABLE, UserMemory, alias_index};
pub use block::{Error, MOST_CODE, Request, Translator};
pub use context::Context;
pub use lookup::{LookupEntry, LookupTables, PROLOGUE, emit_lookup_miss, lookup_slots};
pub use output::{Entry, Fix, Link, Output};
pub use repair::{FaultKind, guest_fault, repair};
pub use underway::{Jump, underway};
pub use user_tlb::{USER_TLB_EMPTY, USER_TLB_ENTRIES, UserTlb, UserTlbTable, user_tlb_index};

/// The fold: a guest kernel address `va` lives at host address `va + FOLD`.
pub const FOLD: u64 = 0x7fff_ffff_0000;

/// In which guest mode the code runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Guest kernel: addresses folded, host GS base = FOLD, host FS base = the
    /// guest's kernel GS base + FOLD, RSP kept folded.
    Kernel,
    /// Guest user: addresses as they are, host FS/GS bases are the guest's.
    User,
}

/// Host addresses that translated code refers to. All must lie within ±2 GiB of
/// the place where the code will run.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// The vCPU's [`Context`] (kernel mode: readable and writable).
    pub context: u64,
    /// A [`Context`] writable in user mode (user-mode translations spill here).
    pub user_context: u64,
    /// Lookup tables of kernel mode: two of [`LOOKUP_ENTRIES`] entries, one after the other.
    pub kernel_lookup: u64,
    /// The same for user mode.
    pub user_lookup: u64,
    /// Where the routine of [`emit_lookup_miss`] for kernel mode lies.
    pub kernel_lookup_miss: u64,
    /// The same for user mode.
    pub user_lookup_miss: u64,
    /// Reached when a direct link has no translation: `context.target` = guest
    /// address, `context.argument` = link tag.
    pub exit_link: u64,
    /// Reached when an indirect lookup misses: `context.target` = guest address.
    pub exit_indirect: u64,
    /// Reached at an instruction to be emulated: `context.rip` = its address.
    pub exit_emulate: u64,
    /// Reached at `syscall` with `context.rip` = address after it; all registers
    /// (RCX and R11 too) and flags hold guest values.
    pub exit_syscall: u64,
    /// Reached at an instruction that needs the vector state while
    /// `context.state_away` is not 0: `context.rip` = its address.
    pub exit_state: u64,
    /// State components (low half of XCR0 as the guest sees it) that XSAVE and
    /// XRSTOR may touch. PKRU (bit 9) is left out whatever this says.
    pub xsave_mask: u32,
    /// Table of [`ALIAS_TABLE`] bytes, readable in kernel mode: not 0 where user
    /// addresses (see [`alias_index`]) are left to the monitor.
    pub aliases: u64,
    /// A word that holds [`ALIAS_MASK`], readable in kernel mode.
    pub alias_mask: u64,
    /// A [`UserTlb`], readable in kernel mode.
    pub user_tlb: u64,
}

impl Targets {
    pub(crate) fn context_of(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Kernel => self.context,
            Mode::User => self.user_context,
        }
    }

    pub(crate) fn lookup_of(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Kernel => self.kernel_lookup,
            Mode::User => self.user_lookup,
        }
    }

    pub(crate) fn lookup_miss_of(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Kernel => self.kernel_lookup_miss,
            Mode::User => self.user_lookup_miss,
        }
    }
}

/// Entries of one lookup table.
pub const LOOKUP_ENTRIES: u64 = 32768;
