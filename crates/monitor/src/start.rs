//! How a space comes up: the first one builds the monitor, the others are clones.

#[cfg(not(fuzzing))]
use core::arch::global_asm;

use alloc::{boxed::Box, vec};

use abi::trap::TrapInfo;
use boundary::{MAGIC, at, fd};

use crate::{
    code::Code,
    cpuid, direct,
    event::Events,
    gate::{context, gate, syscall_slow},
    heap,
    layout::{
        ALIAS_MASK_WORD, ARENA_ALIASES, ARENA_CONTEXT, ARENA_TABLES, ARENA_WAKES, LOCAL,
        PKRU_KERNEL, PRIVATE, SCRATCH, SIGNAL_STACK, SIGNAL_STACK_SIZE, STACK, STACK_SIZE, WAKES,
        WAKES_SIZE, key,
    },
    runner::{self, Pool},
    scan::Traps,
    signal,
    space::{self, Spaces, local},
    state::{Callback, Fault, Frame, Monitor, Stats, Vcpu, is_separate, page},
    sys::{
        self, MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, READ, WRITE_ACCESS,
    },
    time::Timer,
};

/// Where the monitor's address is kept in the arena.
const MONITOR: u64 = at::ARENA + 0x1_f000;
const _: () = assert!(boundary::DOMAIN_PAGE_SIZE <= 0x2_0000);

/// The monitor, once built.
pub fn monitor() -> *mut Monitor {
    // SAFETY: the word lies in the arena; it is set before guest code runs.
    unsafe { *(MONITOR as *const *mut Monitor) }
}

/// Since 6.12 Linux writes signal frames whatever PKRU says; before, a fault of
/// guest code would kill its space.
const OLDEST_KERNEL: (u32, u32) = (6, 12);

/// The jail's filters, compiled by the build script: for spaces with protection keys, for those
/// without, and for the process that makes runners.
static JAIL_KEYS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/jail-keys.bpf"));
static JAIL_SPACE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/jail-space.bpf"));
pub static JAIL_NURSERY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/jail-nursery.bpf"));

#[cfg(not(fuzzing))]
global_asm!(
    ".globl _start",
    "_start:",
    // Map a stack of our own before the one the kernel gave is unmapped.
    "mov eax, 9",
    "mov rdi, {stack}",
    "mov esi, {size}",
    "mov edx, 3",
    "mov r10d, 0x32",
    "mov r8d, -1",
    "xor r9d, r9d",
    "syscall",
    "mov rsp, {top}",
    "xor ebp, ebp",
    "call start",
    "ud2",
    stack = const STACK,
    size = const STACK_SIZE,
    top = const STACK + STACK_SIZE,
);

/// Says why the space cannot start and ends it.
fn refuse(why: &str, code: u32) -> ! {
    sys::stderr(b"space: ");
    sys::stderr(why.as_bytes());
    sys::stderr(b"\n");
    sys::exit(code)
}

fn map(to: u64, len: u64, prot: u32, flags: u32, file: i32, offset: u64, protection_key: u32) {
    // SAFETY: reserved places in the monitor's range (and the table of sites),
    // mapped once at start.
    let r = unsafe { sys::mmap(to, len, prot, flags | MAP_FIXED, file, offset) };
    if r as u64 != to || !give_key(to, len, prot, protection_key) {
        refuse("a memory mapping failed at start", 91);
    }
}

/// Puts a key on pages, where keys are used.
fn give_key(at: u64, len: u64, prot: u32, protection_key: u32) -> bool {
    // SAFETY: places of the monitor's; it can use all keys.
    is_separate() || unsafe { sys::pkey_mprotect(at, len, prot, protection_key) } == 0
}

/// Maps the arena, which says how this domain is to run, and gets the keys ready.
fn map_arena() {
    let rw = READ | WRITE_ACCESS;
    let flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED;
    // SAFETY: a reserved place, mapped once.
    let r = unsafe { sys::mmap(at::ARENA, at::ARENA_SIZE, rw, flags, fd::ARENA, 0) };
    if r as u64 != at::ARENA {
        refuse("the arena could not be mapped", 91);
    }
    if page().magic != MAGIC {
        refuse("the arena is not one of this version", 92);
    }
    if is_separate() {
        return leave_out_keys();
    }
    for wanted in 1..=key::COUNT {
        if sys::pkey_alloc() != i64::from(wanted) {
            refuse("this host has no protection keys (PKU)", 93);
        }
    }
    give_key(at::ARENA, at::ARENA_SIZE, rw, key::MONITOR);
}

/// Makes the gates do without WRPKRU.
fn leave_out_keys() {
    /// `nop dword ptr [rax]`.
    const NOTHING: [u8; 3] = [0x0f, 0x1f, 0x00];
    /// `xchg ax, ax`.
    const SHORT: [u8; 2] = [0x66, 0x90];
    for &at in crate::gate::key_loads() {
        overwrite(at, &NOTHING);
    }
    overwrite(crate::gate::plain_only as *const () as u64, &SHORT);
}

/// Replaces instructions of the gates.
fn overwrite(at: u64, with: &[u8]) {
    let (first, last) = (at & !0xfff, (at + with.len() as u64 - 1) & !0xfff);
    let len = last - first + 0x1000;
    // SAFETY: a private mapping of the image, in which instructions that cannot run
    // are replaced by as many bytes that do nothing.
    unsafe {
        let open = READ | WRITE_ACCESS | sys::EXEC;
        if sys::mprotect(first, len, open) != 0 {
            refuse("the host does not let the monitor adapt its own code", 91);
        }
        core::ptr::copy_nonoverlapping(with.as_ptr(), at as *mut u8, with.len());
        sys::mprotect(first, len, READ | sys::EXEC);
    }
}

/// Unmaps everything outside the monitor's image and stack.
fn unmap_the_rest() {
    let image_end = at::CONTEXT;
    let stack_end = STACK + STACK_SIZE;
    for (from, to) in [(0x1_0000, at::IMAGE), (image_end, STACK), (stack_end, 0x7fff_ffff_f000)] {
        // SAFETY: nothing of the monitor lies there yet: image and stack are kept.
        unsafe { sys::munmap(from, to - from) };
    }
}

fn map_areas() {
    let rw = READ | WRITE_ACCESS;
    let anonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if page().setup.nr_frames >= crate::tlb::Installed::FRAMES {
        refuse("the domain's memory is larger than 512 GiB: give it less", 97);
    }
    map(at::CONTEXT, at::CONTEXT_SIZE, rw, MAP_SHARED, fd::ARENA, ARENA_CONTEXT, key::KERNEL);
    map(at::TABLES, at::TABLES_SIZE, READ, MAP_SHARED, fd::ARENA, ARENA_TABLES, key::TABLE);
    map(
        at::ALIASES,
        translate::ALIAS_TABLE,
        READ,
        MAP_SHARED,
        fd::ARENA,
        ARENA_ALIASES,
        key::TABLE,
    );
    map(at::CODE, at::CODE_SIZE, READ | sys::EXEC, MAP_SHARED, fd::CODE, 0, key::TABLE);
    map(at::CODE_RW, at::CODE_SIZE, rw, MAP_SHARED, fd::CODE, 0, key::MONITOR);
    let ram = page().setup.nr_frames << 12;
    map(at::RAM, ram, rw, MAP_SHARED | MAP_NORESERVE, fd::RAM, 0, key::MONITOR);
    map(at::SHADOW, ram, rw, MAP_SHARED | MAP_NORESERVE, fd::SHADOW, 0, key::MONITOR);
    map(PRIVATE, 0x1000, rw, anonymous, -1, 0, key::ENTRY);
    map(SCRATCH, 0x1000, rw, anonymous, -1, 0, key::USER);
    map(SCRATCH + 0x1000, LOCAL - SCRATCH - 0x1000, rw, anonymous, -1, 0, key::TABLE);
    map(LOCAL, 0x1000, rw, anonymous, -1, 0, key::MONITOR);
    if is_separate() {
        let (offset, none) = (ARENA_WAKES, key::TABLE);
        map(WAKES, WAKES_SIZE, READ, MAP_SHARED, fd::ARENA, offset, none);
    }
    map(SIGNAL_STACK, SIGNAL_STACK_SIZE, rw, anonymous, -1, 0, key::MONITOR);
    map(at::SITES, at::SITES_SIZE, rw, anonymous, -1, 0, key::TABLE);
}

unsafe extern "C" {
    static __executable_start: u8;
    static end: u8;
}

/// Programs can jump into the monitor's own code: it may hold the instructions that
/// load PKRU where the gates check them and nowhere else, at any byte.
fn check_image() {
    /// XRSTOR in the gates: of signals, of vector state, of runners.
    const RESTORES: usize = 3;
    let found = core::cell::Cell::new(0);
    let (first, last) = image_range();
    image_segments(first, last, |from, to, prot| {
        if prot & sys::EXEC != 0 {
            // SAFETY: a segment of the image, mapped and unchanging.
            let code =
                unsafe { core::slice::from_raw_parts(from as *const u8, (to - from) as usize) };
            found.set(found.get() + translate::forbidden::count(code));
        }
    });
    if found.get() != crate::gate::key_loads().len() + RESTORES {
        refuse("this build of the monitor holds instructions that programs could abuse", 99);
    }
}

/// Puts the key on the monitor's own image and stack.
fn guard_image() {
    let (first, last) = image_range();
    // The segments keep their protection: code readable and executable, data as the
    // linker made it.
    image_segments(first, last, |from, to, prot| {
        give_key(from, to - from, prot, key::MONITOR);
    });
    give_key(STACK, STACK_SIZE, READ | WRITE_ACCESS, key::MONITOR);
}

/// First address of the image and the one behind it, in whole pages.
fn image_range() -> (u64, u64) {
    let address = |s: &u8| core::ptr::from_ref(s) as u64;
    // SAFETY: linker symbols; only their addresses are used.
    unsafe { (address(&__executable_start) & !4095, (address(&end) + 4095) & !4095) }
}

/// Calls `f` for each loadable segment of the image, from its own ELF header.
fn image_segments(first: u64, last: u64, f: impl Fn(u64, u64, u32)) {
    // SAFETY: the image begins with its ELF header (the linker puts it into the
    // first segment); offsets are those of Elf64_Ehdr and Elf64_Phdr.
    unsafe {
        let word = |at: u64| (at as *const u64).read_unaligned();
        let half = |at: u64| (at as *const u16).read_unaligned();
        let headers = first + word(first + 32);
        for i in 0..u64::from(half(first + 56)) {
            let h = headers + i * 56;
            if (h as *const u32).read_unaligned() != 1 {
                continue;
            }
            let flags = ((h + 4) as *const u32).read_unaligned();
            let (from, size) = (word(h + 16), word(h + 40));
            let (from, to) = (from & !4095, (from + size + 4095) & !4095);
            if from >= first && to <= last {
                let prot = (flags >> 2 & 1) | (flags & 2) | (flags & 1) << 2;
                f(from, to, prot);
            }
        }
    }
}

/// Maps what a space has at start into a fuzzer's process.
#[cfg(fuzzing)]
pub fn prepare() {
    map_arena();
    map_areas();
    cpuid::read_host();
}

#[cfg_attr(not(fuzzing), unsafe(no_mangle))]
extern "C" fn start() -> ! {
    sys::close_from(fd::END);
    unmap_the_rest();
    map_arena();
    map_areas();
    if !is_separate() {
        check_image();
    }
    guard_image();
    if !is_separate() && sys::kernel_version() < OLDEST_KERNEL {
        crate::log::line(format_args!(
            "this host's kernel is older than 6.12: it cannot deliver signals to code that has closed \
             the signal stack's protection key, which the pv engine needs"
        ));
        refuse("the host's kernel is older than 6.12", 96);
    }
    if !sys::can_dispatch() {
        crate::log::line(format_args!(
            "this host's kernel cannot send system calls of programs to the monitor (Syscall User \
             Dispatch, Linux 5.11), which the pv engine needs"
        ));
        refuse("the host's kernel has no Syscall User Dispatch", 98);
    }
    cpuid::read_host();
    if let Some(what) = cpuid::missing(!is_separate()) {
        crate::log::line(format_args!(
            "this host's processor lacks {what}: the pv engine needs it"
        ));
        refuse("the processor lacks a feature the pv engine needs", 94);
    }
    // SAFETY: the arena is fresh and nothing has allocated.
    unsafe { heap::init() };
    signal::install();
    direct::init_tables();
    runner::init_places();
    sys::close_to_others();
    let m = build(Code::new());
    if !is_separate() {
        space::arm_dispatch();
    }
    if !sys::landlock() {
        refuse("Landlock was refused", 95);
    }
    if is_separate() {
        m.runners.nursery = runner::become_nursery(&m.setup);
        page().nursery.store(m.runners.nursery, core::sync::atomic::Ordering::Release);
        // Unlike runners the space returns from all its signals.
        signal::take(signal::REQUESTS);
    }
    close_jail(if is_separate() { JAIL_SPACE } else { JAIL_KEYS });
    page().active_pid.store(m.pid, core::sync::atomic::Ordering::Release);
    page().spaces.store(1, core::sync::atomic::Ordering::Relaxed);
    crate::run::run(m)
}

/// From here on only what the jail's filter lists can be asked of the host.
pub fn close_jail(filter: &[u8]) {
    if page().setup.flags & boundary::setup_flag::NO_SECCOMP != 0 {
        return;
    }
    // SAFETY: the build script wrote arrays of `struct sock_filter`.
    if unsafe { sys::seccomp(filter) } != 0 {
        refuse("the seccomp filter was refused", 95);
    }
}

/// The monitor of a fresh domain.
pub fn build(code: Code) -> &'static mut Monitor {
    let setup = page().setup;
    let root = setup.cr3_mfn as u32;
    let vcpu = Vcpu {
        rip: setup.entry,
        kernel_root: root,
        traps: [TrapInfo::default(); 256],
        callbacks: [Callback::default(); 8],
        kernel_stack: setup.stack,
        fs_user: 0,
        gs_user: 0,
        gs_kernel: 0,
        debug: [0; 8],
        task_switched: false,
        info_frame: setup.shared_info_mfn as u32,
        info_offset: 0,
        fault: Fault::Vector { vector: 6, code: None },
        expected: None,
        alone: None,
    };
    let m = Box::leak(Box::new(Monitor {
        setup,
        vcpu,
        events: Events::new(),
        timer: Timer::default(),
        code,
        sites: direct::Sites::new(),
        traps: Traps::new(),
        spaces: Spaces::new(if is_separate() { space::FREE } else { root }),
        frames: frames(&setup),
        complaints: hashbrown::HashSet::with_hasher(crate::code::Hash::default()),
        stats: Stats::default(),
        runners: Pool::new(),
        pid: sys::getpid(),
        area: None,
        huge: crate::tlb::HugePages::default(),
        halted: crate::run::Halts::default(),
        ended: false,
    }));
    // SAFETY: the word is reserved for this.
    unsafe { *(MONITOR as *mut *mut Monitor) = core::ptr::from_mut(m) };
    let c = context();
    c.regs[4] = crate::guest::fold(setup.stack);
    c.regs[6] = setup.start_info;
    c.rflags = 0x202;
    c.fold = translate::FOLD;
    let g = gate();
    g.pkru_kernel = PKRU_KERNEL;
    g.syscall_path = syscall_slow();
    // SAFETY: the word lies at the end of the tables, seen through the arena.
    unsafe {
        *((at::ARENA + ARENA_TABLES + (ALIAS_MASK_WORD - at::TABLES)) as *mut u64) =
            translate::ALIAS_MASK
    };
    let flags = (m.frames.as_ptr() as u64).wrapping_sub(at::ARENA);
    page().frame_flags.store(flags, core::sync::atomic::Ordering::Release);
    m.mark_own_places();
    m.map_vcpu_info();
    m.write_wall_clock();
    let time = m.time_info();
    // SAFETY: vcpu_info 0 lies at the start of shared_info, its time record at 32.
    unsafe {
        let info = m.frame_ptr(setup.shared_info_mfn as u32);
        info.add(32).cast::<abi::vcpu::TimeInfo>().write_volatile(time);
    }
    (local().index, local().pid) = (0, m.pid);
    m
}

/// What is known of the frames at first: beyond `nr_pages` the guest has none of its own yet.
fn frames(setup: &boundary::Setup) -> Box<[Frame]> {
    let mut frames = vec![Frame::default(); setup.nr_frames as usize];
    let own = setup.nr_pages as usize;
    let later = setup.max_pages.saturating_sub(setup.nr_pages) as usize;
    for frame in frames.iter_mut().skip(own).take(later) {
        frame.0 = Frame::GIVEN;
    }
    frames.into_boxed_slice()
}
