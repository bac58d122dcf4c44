//! What a domain process and its spaces share: fixed addresses and the domain page.
//!
//! The *domain page* lies at offset 0 of the arena memfd. `xendomain` fills its
//! configuration part before the first space starts and treats everything in it
//! as hostile input from then on: spaces run guest code, and a guest that broke
//! its space can write any of it.
#![no_std]

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

/// Size of a page and of a machine frame in bytes.
pub const PAGE: u64 = 4096;

/// File descriptors of a space, in the order in which `xendomain` hands them over.
pub mod fd {
    /// Guest RAM and the frames that the monitor adds to it.
    pub const RAM: i32 = 3;
    /// Monitor state, the domain page at offset 0.
    pub const ARENA: i32 = 4;
    /// The code cache.
    pub const CODE: i32 = 5;
    /// Shadow copies of user code pages, indexed by frame like RAM.
    pub const SHADOW: i32 = 6;
    /// Bells of the device backends, by [`super::Backend`]: event counters (eventfd(2)).
    pub const BELLS: i32 = 7;
    /// First one that is none of these.
    pub const END: i32 = BELLS + super::Backend::COUNT as i32;
}

/// The processes that serve a domain's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Backend {
    /// Disks.
    Block,
    /// Network interfaces.
    Net,
    /// Channels: consoles besides the first.
    Channel,
}

impl Backend {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Block, Self::Net, Self::Channel];
}

/// What a backend process finds as descriptors 3, 4, ...
pub mod backend_fd {
    /// Orders of the domain process (a socket of packets).
    pub const ORDERS: i32 = 3;
    /// Guest RAM, as [`super::fd::RAM`].
    pub const RAM: i32 = 4;
    /// The arena, of which a backend uses the domain page, the frames' flags, and its [`super::holds`].
    pub const ARENA: i32 = 5;
    /// Its own bell.
    pub const BELL: i32 = 6;
    /// Counts notifications of guests that run (eventfd(2)): the domain process interrupts them.
    pub const KICK: i32 = 7;
}

/// What the monitor knows of a frame, a byte each ([`DomainPage::frame_flags`]).
pub mod frame_flag {
    /// Translations were made from it.
    pub const CODE: u8 = 1;
    /// It has a shadow copy with patched sites.
    pub const SHADOW: u8 = 2;
    /// It was mapped writable elsewhere than in the direct map and the image.
    pub const WRITABLE: u8 = 4;
    /// It was looked through, and programs may execute it.
    pub const EXECUTED: u8 = 8;
    /// It was looked through, and programs may execute it translated only.
    pub const CLOSED: u8 = 16;
    /// The guest has given it back, or never had it: its memory is the host's.
    pub const GIVEN: u8 = 32;
    /// What was made of its content is stale once it is written: the monitor must hear of it.
    pub const WATCHED: u8 = CODE | SHADOW | EXECUTED | CLOSED;
}

/// How many requests write to a frame just now: a byte in the arena for each frame and backend.
///
/// A backend counts before it looks at the frame's [`frame_flag`], the monitor flags a frame before it looks
/// here: one of them sees the other, and no program executes directly what a device is about to change.
pub mod holds {
    use super::{Backend, PAGE, at};

    /// Bytes of the arena for a backend.
    pub const SIZE: u64 = at::RAM_MAX / PAGE;
    /// Offset in the arena of the first backend's.
    pub const START: u64 = 0x1_8000_0000;

    const _: () = assert!(START + SIZE * Backend::COUNT as u64 <= at::ARENA_SIZE);

    /// Offset in the arena of a backend's count for frame 0.
    pub const fn of(backend: Backend) -> u64 {
        START + SIZE * backend as u64
    }
}

/// Fixed host addresses inside a space. Everything between `IMAGE` and
/// `CODE + CODE_SIZE` lies within 2 GiB, so that code reaches it RIP-relative.
pub mod at {
    /// Start of the monitor's own range: no guest page is ever mapped from here to `END`.
    pub const START: u64 = IMAGE;
    /// The monitor's program image (the linker's image base).
    pub const IMAGE: u64 = 0x5c00_0000_0000;
    /// The vCPU's context (shared between the spaces of a vCPU, key C).
    pub const CONTEXT: u64 = 0x5c00_1000_0000;
    /// Size of the context area in bytes.
    pub const CONTEXT_SIZE: u64 = 0x1_0000;
    /// Pages that each space has for itself.
    pub const PRIVATE: u64 = 0x5c00_1010_0000;
    /// Lookup tables for indirect branches (shared, read-only to the guest).
    pub const TABLES: u64 = 0x5c00_1100_0000;
    /// Size of the lookup tables in bytes.
    pub const TABLES_SIZE: u64 = 0x40_0000;
    /// The code cache, executable view.
    pub const CODE: u64 = 0x5c00_2000_0000;
    /// Size of the code cache in bytes.
    pub const CODE_SIZE: u64 = 0x800_0000;
    /// Table of addresses that both halves of the guest use (`translate::ALIAS_TABLE` bytes).
    pub const ALIASES: u64 = 0x5c00_5000_0000;
    /// Monitor stack and signal stack, each space its own.
    pub const STACKS: u64 = 0x5c00_4000_0000;
    /// The code cache, writable view.
    pub const CODE_RW: u64 = 0x5c08_0000_0000;
    /// The arena.
    pub const ARENA: u64 = 0x5c10_0000_0000;
    /// Size of the arena in bytes (sparse).
    pub const ARENA_SIZE: u64 = 0x2_0000_0000;
    /// The monitor's view of guest RAM.
    pub const RAM: u64 = 0x5c80_0000_0000;
    /// The monitor's view of the shadow copies.
    pub const SHADOW: u64 = 0x5d80_0000_0000;
    /// End of the monitor's own range.
    pub const END: u64 = 0x5e80_0000_0000;
    /// The largest guest RAM in bytes that the views have room for.
    pub const RAM_MAX: u64 = SHADOW - RAM;
    /// Table of jump targets of patched system-call sites (low, so that a
    /// 7-byte `jmp [abs32]` reaches it; bytes 06/07 in its addresses trap where a
    /// system call is restarted).
    pub const SITES: u64 = 0x6_0000;
    /// Size of that table in bytes.
    pub const SITES_SIZE: u64 = 0x2_0000;
}

/// Identifies the layout below; both sides check it.
pub const MAGIC: u64 = 0x0003_6874_696c_6e78;

/// Bits of [`DomainPage::bells`]: what a space tells the domain process.
pub mod bell {
    /// The guest notified its console's event channel.
    pub const CONSOLE: u32 = 1 << 0;
    /// The guest notified its xenstore event channel.
    pub const STORE: u32 = 1 << 1;
    /// Bytes were added to the emergency console ring.
    pub const EMERGENCY: u32 = 1 << 2;
    /// The guest shut down; [`DomainPage::shutdown_reason`] is set.
    pub const SHUTDOWN: u32 = 1 << 3;
    /// The monitor ended the domain; [`CrashRecord`] is filled.
    pub const CRASH: u32 = 1 << 4;
    /// Bytes were added to the monitor log ring.
    pub const LOG: u32 = 1 << 5;
    /// [`super::DomainPage::runner`] does not answer: interrupt it.
    pub const INTERRUPT_RUNNER: u32 = 1 << 6;
    /// It must not go on: kill it.
    pub const KILL_RUNNER: u32 = 1 << 7;
}

/// Bits of [`DomainPage::inbox`]: what the domain process tells the vCPU.
pub mod inbox {
    /// Raise the console's event channel.
    pub const CONSOLE: u32 = 1 << 0;
    /// Raise the xenstore event channel.
    pub const STORE: u32 = 1 << 1;
    /// Look at [`super::Channels`].
    pub const CHANNELS: u32 = 1 << 2;
    /// Write the counters into the log ring.
    pub const STATISTICS: u32 = 1 << 3;
    /// Write the registers into [`super::CrashRecord`], then raise
    /// [`super::DomainPage::snapshots`].
    pub const REGISTERS: u32 = 1 << 4;
}

/// Words of a bitmap with a bit for each event channel (two-level ABI: 4096).
pub const CHANNEL_WORDS: usize = 64;
/// Frames that backends can report as written at a time.
pub const WRITTEN_SLOTS: usize = 64;

/// Event channels between the guest and its device backends.
#[repr(C)]
pub struct Channels {
    /// Ports of each backend; set and cleared by it.
    pub bound: [[AtomicU64; CHANNEL_WORDS]; Backend::COUNT],
    /// Ports that backends notified since the monitor looked.
    pub raised: [AtomicU64; CHANNEL_WORDS],
    /// Watched frames that backends wrote, plus one; 0 once the monitor has forgotten what it made of
    /// their content.
    pub written: [AtomicU32; WRITTEN_SLOTS],
}

/// Values of [`DomainPage::vcpu_state`].
pub mod vcpu_state {
    /// Not yet started.
    pub const STARTING: u32 = 0;
    /// Guest code or the monitor runs.
    pub const RUNNING: u32 = 1;
    /// The guest blocked: the active space waits on [`super::DomainPage::wake`].
    pub const BLOCKED: u32 = 2;
    /// The domain ended; its spaces wait to be killed.
    pub const ENDED: u32 = 3;
}

/// Event-channel ports that the builder binds before the guest starts.
pub mod port {
    /// xenstore.
    pub const STORE: u32 = 1;
    /// Console.
    pub const CONSOLE: u32 = 2;
}

/// What the monitor needs to know of the domain; written by the builder,
/// read-only for spaces by agreement. Frame numbers index the RAM memfd.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Frames of guest RAM (`start_info.nr_pages`).
    pub nr_pages: u64,
    /// Frames the guest may own at most (`maxmem`); RAM is that large.
    pub max_pages: u64,
    /// All frames of the RAM memfd, those of the monitor included.
    pub nr_frames: u64,
    /// Frame of `shared_info` (≥ `max_pages`).
    pub shared_info_mfn: u64,
    /// Frame of the console ring.
    pub console_mfn: u64,
    /// Frame of the xenstore ring.
    pub store_mfn: u64,
    /// First of 32 frames for the grant table (≥ `max_pages`).
    pub grant_mfn: u64,
    /// First frame of the machine-to-physical table, `nr_frames` u64 entries
    /// (≥ `max_pages`).
    pub m2p_mfn: u64,
    /// Frames of that table.
    pub m2p_frames: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// Domain number.
    pub domid: u32,
    /// Domain UUID.
    pub uuid: [u8; 16],
    /// Guest instruction pointer to start at.
    pub entry: u64,
    /// Guest stack pointer to start with (a guest address, not folded).
    pub stack: u64,
    /// Guest address of `start_info` (RSI at start).
    pub start_info: u64,
    /// Frame of the initial top-level page table.
    pub cr3_mfn: u64,
    /// `tsc_to_system_mul` of `vcpu_time_info` (xen.h): ns = (ticks << shift) * mul >> 32.
    pub tsc_mul: u32,
    /// `tsc_shift` of `vcpu_time_info`.
    pub tsc_shift: i32,
    /// Host TSC at system time 0.
    pub tsc_start: u64,
    /// Wall-clock seconds at system time 0.
    pub wall_sec: u64,
    /// Wall-clock nanoseconds at system time 0.
    pub wall_nsec: u32,
    /// Bit flags, see [`setup_flag`].
    pub flags: u32,
    /// Host CPUs that the domain may use.
    pub cpus: u32,
    /// Process id of `xendomain` as its spaces see it, 0 = they see another.
    pub parent: i32,
    /// CPUID flags taken away from the guest, by the crate `cpuid`'s words.
    pub cpuid_hidden: [u32; CPUID_WORDS],
    /// Number of its level, 0 = the host's processor.
    pub cpuid_level: u32,
}

/// Registers of CPUID with feature flags.
pub const CPUID_WORDS: usize = 11;

/// Bits of [`Setup::flags`].
pub mod setup_flag {
    /// Translate guest user code instead of running it directly.
    pub const TRANSLATE_USER: u32 = 1 << 0;
    /// Do not patch system-call sites.
    pub const NO_PATCH: u32 = 1 << 1;
    /// Print statistics to the log ring when the domain ends.
    pub const STATISTICS: u32 = 1 << 3;
    /// Run without the seccomp filter (debugging the monitor only).
    pub const NO_SECCOMP: u32 = 1 << 4;
    /// Guest programs run in processes of their own (runners), not beside their
    /// kernel behind protection keys. Set where the host has no keys.
    pub const SEPARATE: u32 = 1 << 5;
}

/// Size of the rings below in bytes.
pub const RING: usize = 32768;

/// A ring of bytes that spaces fill and the domain process empties. Positions
/// run freely; the data lies at `position % RING`.
#[repr(C)]
pub struct ByteRing {
    /// Bytes read so far (written by the domain process).
    pub read: AtomicU32,
    /// Bytes written so far (written by spaces).
    pub written: AtomicU32,
    /// Data.
    pub data: [u8; RING],
}

/// Last blocks kept in a crash record.
pub const LAST_BLOCKS: usize = 64;

/// Why and where a domain ended; filled before [`bell::CRASH`] is rung.
#[repr(C)]
pub struct CrashRecord {
    /// Text, UTF-8, zero-terminated.
    pub reason: [u8; 256],
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15 (guest values, not folded).
    pub regs: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// 1 if the guest was in kernel mode.
    pub kernel: u64,
    /// Faulting address of the last page fault.
    pub cr2: u64,
    /// Frame of the kernel's top-level page table.
    pub cr3_mfn: u64,
    /// Words on the guest's kernel stack from RSP on (0 where unreadable).
    pub stack: [u64; 64],
    /// Guest addresses of the last translated blocks entered from the monitor, oldest first.
    pub blocks: [u64; LAST_BLOCKS],
}

/// The page (in fact several) at the start of the arena.
#[repr(C)]
pub struct DomainPage {
    /// [`MAGIC`].
    pub magic: u64,
    /// Configuration.
    pub setup: Setup,
    /// Futex for the domain process: counts rings.
    pub doorbell: AtomicU32,
    /// What was rung ([`bell`]).
    pub bells: AtomicU32,
    /// Futex of the idle vCPU: raised whenever `inbox` gains a bit.
    pub wake: AtomicU32,
    /// What the domain process wants raised ([`inbox`]).
    pub inbox: AtomicU32,
    /// [`vcpu_state`].
    pub vcpu_state: AtomicU32,
    /// Process id of the space that runs the vCPU now (a claim to be checked).
    pub active_pid: AtomicI32,
    /// Process id of the process that makes runners (a claim to be checked).
    pub nursery: AtomicU32,
    /// Process id of the runner that a bell is about (a claim to be checked).
    pub runner: AtomicU32,
    /// Process id of a runner that is dead: the last one that died, or that a bell was about.
    pub runner_gone: AtomicU32,
    /// `SHUTDOWN_*` reason (sched.h) once the guest shut down.
    pub shutdown_reason: AtomicU32,
    /// Spaces made so far.
    pub spaces: AtomicU32,
    /// How often the registers were written on request.
    pub snapshots: AtomicU32,
    /// Frames, of [`Setup::max_pages`], that the guest does not have: it gave them back by
    /// ballooning or never asked for them.
    pub ballooned: AtomicU64,
    /// Frames that the guest may have from now on, at most [`Setup::max_pages`] (`xm mem-max`).
    pub most_pages: AtomicU64,
    /// Offset in the arena of [`frame_flag`] bytes, one for each of `nr_frames`; 0 = not yet there.
    pub frame_flags: AtomicU64,
    /// Devices.
    pub channels: Channels,
    /// Emergency console (`HYPERVISOR_console_io`).
    pub emergency: ByteRing,
    /// Monitor log: lines.
    pub log: ByteRing,
    /// Why the domain ended.
    pub crash: CrashRecord,
}

/// Bytes of the arena reserved for the domain page.
pub const DOMAIN_PAGE_SIZE: u64 = 0x2_0000;

const _: () = assert!(size_of::<DomainPage>() as u64 <= DOMAIN_PAGE_SIZE);
