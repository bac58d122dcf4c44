//! The state of a domain as its monitor keeps it, in the arena.
//!
//! State proper ([`Vcpu`], [`crate::event::Events`]) is plain data that could be
//! written out at any guest instruction boundary; everything else here is cache.

use alloc::boxed::Box;

use abi::trap::TrapInfo;
use boundary::{DomainPage, Setup, frame_flag};

use crate::{
    code::Code,
    direct::Sites,
    event::Events,
    layout::at,
    run::Halts,
    runner::Pool,
    scan::Traps,
    space::{Space, Spaces, Vector},
    time::Timer,
};

/// A callback the guest registered (callback.h).
#[derive(Clone, Copy, Default)]
pub struct Callback {
    /// Handler, 0 = none.
    pub address: u64,
    /// `CALLBACKF_*`.
    pub flags: u16,
}

/// What a trapped instruction raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #PF with address and error code.
    Page { address: u64, code: u32 },
    /// Any other exception, with its error code where it has one.
    Vector { vector: u8, code: Option<u32> },
}

/// A vCPU's state apart from the registers in its context.
pub struct Vcpu {
    /// Guest instruction pointer.
    pub rip: u64,
    /// Frame of the kernel's top-level page table.
    pub kernel_root: u32,
    /// Virtual IDT.
    pub traps: [TrapInfo; 256],
    /// Callbacks by `CALLBACKTYPE_*`.
    pub callbacks: [Callback; 8],
    /// Guest kernel stack for entries from user mode.
    pub kernel_stack: u64,
    /// Bases as the guest set them.
    pub fs_user: u64,
    /// See `fs_user`.
    pub gs_user: u64,
    /// See `fs_user`.
    pub gs_kernel: u64,
    /// Debug registers as the guest set them.
    pub debug: [u64; 8],
    /// Virtual CR0.TS.
    pub task_switched: bool,
    /// Frame that holds `vcpu_info`, and the offset in it.
    pub info_frame: u32,
    /// See `info_frame`.
    pub info_offset: u32,
    /// Fault noted by the signal handler for the run loop.
    pub fault: Fault,
    /// User page fault last given to the guest, address and error code: its page is mapped when the
    /// guest returns.
    pub expected: Option<(u64, u32)>,
    /// User code at this address cannot be executed directly.
    pub alone: Option<u64>,
}

/// What is known of a frame. Backends look at it too.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Frame(pub u8);

impl Frame {
    /// Translations were made from it.
    pub const CODE: u8 = frame_flag::CODE;
    /// It has a shadow copy with patched sites.
    pub const SHADOW: u8 = frame_flag::SHADOW;
    /// It was mapped writable elsewhere than in the direct map and the image.
    pub const WRITABLE: u8 = frame_flag::WRITABLE;
    /// It was looked through, and programs may execute it (`crate::scan`).
    pub const EXECUTED: u8 = frame_flag::EXECUTED;
    /// It was looked through, and programs may execute it translated only.
    pub const CLOSED: u8 = frame_flag::CLOSED;
    /// The guest does not have it.
    pub const GIVEN: u8 = frame_flag::GIVEN;
    /// It must not be mapped writable.
    pub fn is_protected(self) -> bool {
        self.0 & frame_flag::WATCHED != 0
    }
}

/// Everything.
pub struct Monitor {
    /// What the builder said.
    pub setup: Setup,
    /// The vCPU.
    pub vcpu: Vcpu,
    /// Event channels.
    pub events: Events,
    /// The single-shot timer.
    pub timer: Timer,
    /// Translations.
    pub code: Code,
    /// Patched system-call sites.
    pub sites: Sites,
    /// Instructions of programs that are breakpoints.
    pub traps: Traps,
    /// The pool.
    pub spaces: Spaces,
    /// Facts about frames, by MFN.
    pub frames: Box<[Frame]>,
    /// Hypercalls and instructions already complained about.
    pub complaints: hashbrown::HashSet<u64, crate::code::Hash>,
    /// Counters.
    pub stats: Stats,
    /// Processes for guest programs, where they run apart from their kernel.
    pub runners: Pool,
    /// Id of the first space.
    pub pid: i32,
    /// Room for the state that an emulated XRSTOR loads.
    pub area: Option<Box<Vector>>,
    /// Which huge pages the host was asked for.
    pub huge: crate::tlb::HugePages,
    /// How long the guest was idle lately.
    pub halted: Halts,
    /// The guest ended.
    pub ended: bool,
}

/// Counters, for tuning and tests.
#[derive(Default, Clone, Copy, Debug)]
pub struct Stats {
    /// Blocks translated.
    pub blocks: u64,
    /// Guest instructions in them.
    pub instructions: u64,
    /// Host faults.
    pub faults: u64,
    /// Page faults given to the guest.
    pub page_faults: u64,
    /// Host mapping calls.
    pub maps: u64,
    /// Host unmapping calls.
    pub unmaps: u64,
    /// Frames whose translations were dropped.
    pub invalidations: u64,
    /// Hand-overs between spaces.
    pub switches: u64,
    /// Changes of address space done without one.
    pub adopted: u64,
    /// Spaces cloned.
    pub clones: u64,
    /// Runners replaced, since they died or did not answer.
    pub replaced: u64,
    /// System calls that came by signal.
    pub trapped_syscalls: u64,
    /// System calls through the slow gate.
    pub slow_syscalls: u64,
    /// Hypercalls that reached Rust.
    pub hypercalls: u64,
    /// Instructions emulated.
    pub emulated: u64,
    /// Upcalls.
    pub upcalls: u64,
    /// Code cache flushes.
    pub flushes: u64,
    /// User pages swapped at addresses that both halves use.
    pub collisions: u64,
    /// Vector states fetched from runners.
    pub states: u64,
    /// User mappings dropped by revalidation.
    pub dropped: u64,
    /// Frames looked through before programs executed them.
    pub scanned: u64,
    /// Instructions of programs emulated or run by themselves.
    pub alone: u64,
    /// Huge pages that the host gave.
    pub huge: u64,
}

/// The domain page.
pub fn page() -> &'static DomainPage {
    // SAFETY: the arena starts with it; fields that others write are atomics.
    unsafe { &*(at::ARENA as *const DomainPage) }
}

/// Do guest programs run in processes of their own?
pub fn is_separate() -> bool {
    page().setup.flags & boundary::setup_flag::SEPARATE != 0
}

impl Monitor {
    /// Do guest programs run in processes of their own?
    pub fn is_separate(&self) -> bool {
        self.setup.flags & boundary::setup_flag::SEPARATE != 0
    }

    /// The space that runs the vCPU now (this process).
    pub fn space(&mut self) -> &mut Space {
        let i = self.spaces.current;
        self.spaces.of_mut(i)
    }
}
