//! Where things lie in a space, and the protection keys that guard them.
//!
//! Fixed addresses shared with the domain process are in `boundary::at`; this
//! file divides the monitor's own areas. The gates reach them by symbols that
//! `build.rs` defines from the same constants (see `layout_symbols.rs`).

pub use boundary::at;

#[expect(dead_code, reason = "the build script uses all of it")]
mod symbols {
    include!("layout_symbols.rs");
}
pub use symbols::*;

/// Protection keys. Key 0 is what a plain `mmap` gives: guest user pages, which
/// are mapped most often, bear it, and everything else asks for its key.
pub mod key {
    /// Guest user pages.
    pub const USER: u32 = 0;
    /// Monitor memory. The keys from here on are allocated in this order.
    pub const MONITOR: u32 = 1;
    /// Guest kernel pages and the vCPU context.
    pub const KERNEL: u32 = 2;
    /// The page a space is entered through: user mode reads it, kernel mode writes it.
    pub const ENTRY: u32 = 3;
    /// Tables that guest code only reads.
    pub const TABLE: u32 = 4;
    /// User pages whose host address also belongs to the folded kernel: closed
    /// in kernel mode, so that neither side ever sees the other's page.
    pub const SHARED_ADDRESS: u32 = 5;
    /// Shadow copies of user code: executable, not readable.
    pub const SHADOW: u32 = 6;
    /// How many are allocated.
    pub const COUNT: u32 = 6;
}

/// `PKRU` has two bits a key: access disable, write disable (SDM vol. 3A 4.6.2).
const fn closed(k: u32) -> u32 {
    1 << (2 * k)
}
const fn read_only(k: u32) -> u32 {
    2 << (2 * k)
}
/// Keys that nobody allocated stay closed.
const UNUSED: u32 = 0x5555_5555 & !((1 << (2 * (key::COUNT + 1))) - 1);

/// PKRU in guest kernel mode, user pages open.
pub const PKRU_KERNEL: u32 = UNUSED
    | closed(key::MONITOR)
    | read_only(key::TABLE)
    | closed(key::SHARED_ADDRESS)
    | closed(key::SHADOW);
/// PKRU in guest kernel mode while the space holds another address space's user half.
pub const PKRU_KERNEL_NO_USER: u32 = PKRU_KERNEL | closed(key::USER);
/// PKRU in guest user mode.
pub const PKRU_USER: u32 = UNUSED
    | closed(key::MONITOR)
    | closed(key::KERNEL)
    | read_only(key::ENTRY)
    | read_only(key::TABLE)
    | closed(key::SHADOW);

/// Monitor stack of a space.
pub const STACK: u64 = at::STACKS + 0x1000;
/// Size of the monitor stack in bytes.
pub const STACK_SIZE: u64 = 0x4_0000;
/// Signal stack of a space (guard pages on both sides).
pub const SIGNAL_STACK: u64 = STACK + STACK_SIZE + 0x1000;
/// Size of the signal stack in bytes.
pub const SIGNAL_STACK_SIZE: u64 = 0x2_0000;

/// Context of translated user code (`translate::Context`), in the scratch page.
pub const USER_CTX: u64 = SCRATCH + 0x400;

/// Offset in the arena of what is mapped at `at::CONTEXT`.
pub const ARENA_CONTEXT: u64 = 0x2_0000;
/// Offset in the arena of what is mapped at `at::TABLES`.
pub const ARENA_TABLES: u64 = 0x10_0000;
/// Offset in the arena where the heap starts.
pub const ARENA_HEAP: u64 = 0x80_0000;

/// Offset in the arena of what is mapped at `at::ALIASES`.
pub const ARENA_ALIASES: u64 = 0x1_0000_0000;
/// Offset in the arena of what runners share with the monitor, [`RUNNER_SIZE`] each.
pub const ARENA_RUNNERS: u64 = 0x1_1000_0000;
/// Bytes of the arena for a runner: mailbox, orders, site targets, return addresses.
pub const RUNNER_SIZE: u64 = 0x10_0000;
/// Offset in the arena of the words that runners sleep on.
pub const ARENA_WAKES: u64 = ARENA_RUNNERS - 0x1_0000;
/// Their size in bytes.
pub const WAKES_SIZE: u64 = 0x3000;
/// Bytes of a runner's mailbox, with which its part of the arena begins.
pub const MAILBOX_SIZE: u64 = 0x1_0000;
/// Offset of a runner's orders in its part.
pub const RUNNER_ORDERS: u64 = MAILBOX_SIZE;
/// Their size in bytes.
pub const ORDERS_SIZE: u64 = 0x1_0000;
/// Offset of a runner's table of jump targets in its part.
pub const RUNNER_TARGETS: u64 = 0x2_0000;
/// Offset of its return addresses.
pub const RUNNER_RETURNS: u64 = 0x4_0000;
/// Bytes of the table of return addresses.
pub const RETURNS_SIZE: u64 = SITE_SLOTS as u64 * 16;
/// Pairs of pages that the monitor maps side by side for accesses that cross a page's end.
pub const WINDOWS: u64 = PRIVATE + 0x8_0000;
/// The alias table as the monitor writes it.
pub const ALIASES: u64 = at::ARENA + ARENA_ALIASES;
/// A word with `translate::ALIAS_MASK`, at the end of the lookup tables.
pub const ALIAS_MASK_WORD: u64 = at::TABLES + at::TABLES_SIZE - 8;

/// Where kernel code looks up user memory (`translate::UserTlb`), in the tables.
pub const USER_TLB: u64 = at::TABLES + 0x20_0000;

/// Where the frame with the vCPU's `vcpu_info` is mapped.
pub const VCPU_PAGE: u64 = at::CONTEXT + 0x8000;

/// Where a kernel instruction on user memory finds a copy of its operand (`Monitor::run_aliased`).
pub const OPERAND: u64 = at::CONTEXT + 0xa000;
/// The strictest alignment that an instruction asks for: that of XSAVE.
pub const OPERAND_ALIGNMENT: u64 = 64;
// An operand is at most a page.
const _: () = assert!(OPERAND + OPERAND_ALIGNMENT + 0x1000 <= at::CONTEXT + at::CONTEXT_SIZE);

/// Slots for patched system-call sites.
pub const SITE_SLOTS: usize = (at::SITES_SIZE / 8) as usize;
/// Bytes of a site's stub.
pub const SITE_STUB: u64 = 32;
/// Where the stubs of sites lie: at the end of the code cache.
pub const SITE_STUBS: u64 = at::CODE + at::CODE_SIZE - SITE_SLOTS as u64 * SITE_STUB;
/// Entries of the continuation table.
pub const CONTINUE_ENTRIES: usize = 4096;
