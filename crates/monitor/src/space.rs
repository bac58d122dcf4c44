//! The pool of spaces and the hand-over of the vCPU between them.
//!
//! A space holds the user half of one guest address space, named by the frame
//! of its top-level table, and the kernel half. Loading another base pointer is
//! lazy: the guest kernel goes on in the running space, with user pages closed
//! by their key, until it touches a user address or returns to user mode; where it did each time before,
//! the other space gets the vCPU at once.

use alloc::vec::Vec;
use core::{
    arch::asm,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use hashbrown::HashMap;

use crate::{
    code::Hash,
    gate::{entry_page, gate},
    layout::{LOCAL, PKRU_KERNEL, PKRU_KERNEL_NO_USER, STACK, STACK_SIZE, at, key},
    state::{Monitor, page},
    sys,
    tlb::{Half, Linear},
};

/// Most spaces of a domain: least recently used ones are recycled beyond.
pub const MOST: usize = 128;
/// No address space: the user half is empty.
pub const FREE: u32 = u32::MAX;

/// After so many times the guest is expected to need a user half again.
const SURE: u8 = 2;

/// Entries of [`Spaces::protected`] from which on it is looked for superfluous ones, and of
/// [`Space::stale_kernel_pages`] from which on all pages are looked at instead.
const PROTECTED: usize = 4096;
const STALE: usize = 512;

/// What a space has mapped, and what it must catch up with.
pub struct Space {
    /// Frame of the top-level table whose user half it holds, or [`FREE`].
    pub root: u32,
    /// User pages.
    pub user: Half,
    /// Kernel pages outside the direct map and image.
    pub kernel: Half,
    /// Where those may be writable.
    pub linear: Linear,
    /// How much of `Spaces::protected` it has applied.
    pub protected_seen: usize,
    /// `Spaces::kernel_flushes` at its last revalidation.
    pub kernel_flushes: u64,
    /// `Spaces::aliases` likewise.
    pub aliases: u64,
    /// Kernel pages that were flushed while it was parked.
    pub stale_kernel_pages: Vec<u64>,
    /// A runner's continuations of patched sites: address, where to go instead.
    pub continuations: HashMap<u64, u64, Hash>,
    /// The user half belongs to an address space that is gone, or is not as it is noted here.
    pub stale: bool,
    /// A runner's program lost its process, and was not told yet.
    pub lost: bool,
    /// A runner's process id, 0 = none yet.
    pub pid: u32,
    /// A runner's process has run another program before.
    pub used_before: bool,
    /// System time for which the timer of a runner, or of a parked space, was armed last; it has fired
    /// once that is past.
    pub armed: u64,
    /// A runner carries out commands that nobody waits for yet: the number of its turn.
    pub posted: Option<u32>,
    /// Switch count when it last ran.
    pub used: u64,
    /// How many times in a row the guest needed its user half after it had loaded its base pointer.
    needed_at_once: u8,
    /// Frame that it has mapped as the vcpu_info page.
    info_frame: u32,
    /// Futex: 1 = run.
    turn: AtomicU32,
}

/// All spaces.
pub struct Spaces {
    /// By index.
    pub all: Vec<Space>,
    /// The one that runs the vCPU.
    pub current: usize,
    /// Frames that became protected, in order.
    pub protected: Vec<u32>,
    /// Length of that list at which it is made shorter.
    pub protected_most: usize,
    /// Counts flushes of the kernel half.
    pub kernel_flushes: u64,
    /// Counts kernel mappings that appeared where user pages may lie open.
    pub aliases: u64,
    /// The guest loaded the base pointer of a parked space whose user half it will need.
    another_wanted: bool,
    /// The running space got the vCPU for that reason, and no program of its has run yet.
    unproven: bool,
    /// Counts switches.
    switches: u64,
    /// Where vector state waits during a hand-over, or on its way from a runner.
    pub vector: alloc::boxed::Box<Vector>,
    /// What stands for a space that does not exist.
    none: Space,
}

/// An XSAVE area.
#[repr(C, align(64))]
pub struct Vector(pub [u8; 8192]);

/// What a signal handler tells the code that it interrupts.
#[repr(transparent)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Raises it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Is it raised?
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    /// Lowers it. Was it raised? Between a look and a store that lowers it whatever it was a
    /// signal would be lost.
    pub fn take(&self) -> bool {
        self.is_raised() && self.0.swap(false, Ordering::Relaxed)
    }
}

/// Data of this space only (key MONITOR).
#[repr(C)]
pub struct Local {
    /// Stack pointer of the run loop while guest code runs (first: the gates use it).
    pub rsp: u64,
    /// This space's index.
    pub index: usize,
    /// This process.
    pub pid: i32,
    /// A signal asks for attention: the gates to guest code look at it too.
    pub pending: Flag,
    /// The host timer fired while the monitor ran.
    pub timer_fired: Flag,
    /// The monitor single-steps translated code to a precise point.
    pub stepping: bool,
    /// The guest single-steps its user code.
    pub user_step: bool,
    /// This process is a runner (or the nursery).
    pub runner: bool,
    /// The runner's program runs, or a gate to or from it.
    pub in_program: bool,
    /// Translated user code runs.
    pub user_translated: bool,
    /// Not 0: a signal handler runs, or frames are not checked here.
    pub nested: u64,
    /// Where a frame begins that interrupts guest code.
    pub first_frame: u64,
    /// Where the last frame began.
    pub last_frame: u64,
    /// Frames are checked from now on.
    pub frames_checked: bool,
    /// 1: the monitor loads vector state.
    pub restoring: u64,
    /// What `first_frame` names where frames are not checked.
    pub no_frame: u64,
}

/// This space's own data.
pub fn local() -> &'static mut Local {
    // SAFETY: a private page mapped at start; spaces are single-threaded and
    // signal handlers change only the flags.
    unsafe { &mut *(LOCAL as *mut Local) }
}

impl Spaces {
    /// The first space, which holds the initial page tables.
    pub fn new(root: u32) -> Spaces {
        let mut s = Spaces {
            all: Vec::with_capacity(MOST),
            current: 0,
            protected: Vec::new(),
            protected_most: PROTECTED,
            kernel_flushes: 0,
            aliases: 0,
            another_wanted: false,
            unproven: false,
            switches: 0,
            vector: alloc::boxed::Box::new(Vector([0; 8192])),
            none: Space::new(FREE),
        };
        s.all.push(Space::new(root));
        s
    }

    /// A space, or a runner's half, by its number.
    pub fn of(&self, number: usize) -> &Space {
        self.all.get(number).unwrap_or(&self.none)
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, number: usize) -> &mut Space {
        self.all.get_mut(number).unwrap_or(&mut self.none)
    }

    /// A kernel page may have changed: parked spaces look at it later.
    pub fn note_kernel_page(&mut self, page: u64) {
        let (current, flushes) = (self.current, self.kernel_flushes);
        for (i, s) in self.all.iter_mut().enumerate() {
            // A flush of all pages is due anyway.
            if i == current || s.kernel_flushes != flushes || !s.kernel.get(page).is_some() {
                continue;
            }
            if s.stale_kernel_pages.len() < STALE {
                s.stale_kernel_pages.push(page);
            } else {
                s.stale_kernel_pages.clear();
                s.kernel_flushes = flushes.wrapping_sub(1);
            }
        }
    }

    /// An address space is gone.
    pub fn retire(&mut self, root: u32) {
        for s in &mut self.all {
            if s.root == root {
                s.root = FREE;
                s.stale = true;
            }
        }
    }
}

impl Space {
    /// Nothing mapped yet.
    pub fn new(root: u32) -> Space {
        Space {
            root,
            user: Half::default(),
            kernel: Half::default(),
            linear: Linear::default(),
            protected_seen: 0,
            kernel_flushes: 0,
            aliases: 0,
            stale_kernel_pages: Vec::new(),
            continuations: HashMap::with_hasher(Hash::default()),
            stale: false,
            lost: false,
            pid: 0,
            used_before: false,
            armed: 0,
            posted: None,
            used: 0,
            needed_at_once: 0,
            info_frame: FREE,
            turn: AtomicU32::new(0),
        }
    }
}

impl Monitor {
    /// Does the running space hold the user half of the guest's current base pointer?
    pub fn user_half_is_loaded(&self) -> bool {
        self.spaces.of(self.user_index()).root == self.vcpu.kernel_root
    }

    /// Index of the space, or the runner, that holds the user half used now.
    pub fn user_index(&self) -> usize {
        if self.is_separate() { self.runners.loaded } else { self.spaces.current }
    }

    /// What it has mapped.
    pub fn user_space(&mut self) -> &mut Space {
        let i = self.user_index();
        self.spaces.of_mut(i)
    }

    /// The guest loaded a base pointer.
    pub fn base_changed(&mut self) {
        self.forget_places();
        let loaded = self.user_half_is_loaded();
        gate().pkru_kernel = if loaded { PKRU_KERNEL } else { PKRU_KERNEL_NO_USER };
        if core::mem::take(&mut self.spaces.unproven) {
            self.space().needed_at_once = 0;
        }
        self.spaces.another_wanted = false;
        if loaded {
            // Back where we were: its tables may have changed meanwhile.
            self.revalidate_user();
        } else if !self.is_separate() {
            let wanted = self.vcpu.kernel_root;
            let is_wanted = |s: &Space| s.root == wanted && s.needed_at_once >= SURE;
            self.spaces.another_wanted = self.spaces.all.iter().any(is_wanted);
        }
    }

    /// Gives the vCPU to the space that the guest has just switched to, if it has needed that one's user
    /// half each time.
    pub fn follow_base(&mut self) {
        if core::mem::take(&mut self.spaces.another_wanted) {
            self.spaces.unproven = true;
            self.load_user_half();
        }
    }

    /// The guest needs the user half of the current base pointer now.
    pub fn need_user_half(&mut self) {
        let wanted = self.vcpu.kernel_root;
        if let Some(space) = self.spaces.all.iter_mut().find(|s| s.root == wanted) {
            space.needed_at_once = (space.needed_at_once + 1).min(SURE);
        }
        self.load_user_half();
    }

    /// Was the vCPU given to this space before it was known that its programs run?
    pub fn is_unproven(&self) -> bool {
        self.spaces.unproven
    }

    /// They do.
    pub fn note_program(&mut self) {
        self.spaces.unproven = false;
    }

    /// Gets the user half of the current base pointer loaded. In the space that
    /// gives the vCPU away this returns only when it gets it back.
    pub fn load_user_half(&mut self) {
        if self.user_half_is_loaded() {
            return;
        }
        if self.is_separate() {
            return self.load_runner();
        }
        let wanted = self.vcpu.kernel_root;
        let here = self.spaces.current;
        let holds = self.spaces.all.iter().position(|s| s.root == wanted);
        let target = holds
            .or_else(|| (self.spaces.of(here).root == FREE).then_some(here))
            .or_else(|| self.spaces.all.iter().position(|s| s.root == FREE))
            .unwrap_or_else(|| self.new_or_oldest());
        let space = self.spaces.of_mut(target);
        if space.root != wanted {
            space.stale |= space.root != FREE;
            (space.root, space.needed_at_once) = (wanted, 0);
        }
        if target == here {
            self.stats.adopted += 1;
            self.arrive();
        } else {
            self.hand_over(target);
        }
    }

    /// A new space's index, or the least recently used other one's.
    fn new_or_oldest(&mut self) -> usize {
        let here = self.spaces.current;
        if self.spaces.all.len() < MOST {
            return self.clone_space();
        }
        let others = self.spaces.all.iter().enumerate().filter(|(i, _)| *i != here);
        others.min_by_key(|(_, s)| s.used).map_or(here, |(i, _)| i)
    }

    /// Clones this process; the new space parks at once.
    fn clone_space(&mut self) -> usize {
        let here = self.spaces.current;
        let index = self.spaces.all.len();
        self.stats.clones += 1;
        // The copy starts with this space's mappings: the kernel half is kept,
        // the user half is dropped when it first runs.
        let mut space = Space::new(FREE);
        space.stale = true;
        let from = self.spaces.of(here);
        space.protected_seen = from.protected_seen;
        space.kernel_flushes = from.kernel_flushes;
        space.aliases = from.aliases;
        space.info_frame = from.info_frame;
        space.linear = from.linear.clone();
        for (k, r) in &from.user.regions {
            space.user.regions.insert(*k, r.clone());
        }
        for (k, r) in &from.kernel.regions {
            space.kernel.regions.insert(*k, r.clone());
        }
        self.spaces.all.push(space);
        page().spaces.store(self.spaces.all.len() as u32, Ordering::Relaxed);
        // SAFETY: the new process continues in `start_clone` below and parks.
        match unsafe { sys::clone() } {
            0 => {
                local().index = index;
                local().pid = sys::getpid();
                local().pending.take();
                sys::die_with_parent(self.setup.parent);
                arm_dispatch();
                run_on_fresh_stack()
            }
            r if r < 0 => {
                self.spaces.all.pop();
                // The host gives no more processes: recycle.
                let others = self.spaces.all.iter().enumerate().filter(|(i, _)| *i != here);
                match others.min_by_key(|(_, s)| s.used) {
                    Some((i, _)) => i,
                    None => {
                        // Only this space: it serves in turn for all address spaces.
                        self.spaces.of_mut(here).stale = true;
                        here
                    }
                }
            }
            _ => index,
        }
    }

    /// A cloned space waits for its first turn, then runs the vCPU for good.
    fn park_and_run(&mut self, index: usize) -> ! {
        self.wait_for_turn(index);
        restore_vector(&self.spaces.vector);
        self.arrive();
        crate::run::run(self)
    }

    /// Gives the vCPU to another space and waits to get it back.
    fn hand_over(&mut self, target: usize) {
        let here = self.spaces.current;
        self.stats.switches += 1;
        save_vector(&mut self.spaces.vector);
        self.spaces.switches += 1;
        let switches = self.spaces.switches;
        let armed = self.timer.armed;
        let space = self.spaces.of_mut(here);
        (space.used, space.armed) = (switches, armed);
        self.spaces.current = target;
        let turn = &self.spaces.of(target).turn;
        turn.store(1, Ordering::Release);
        sys::futex_wake(turn);
        self.wait_for_turn(here);
        restore_vector(&self.spaces.vector);
        self.arrive();
    }

    fn wait_for_turn(&self, index: usize) {
        let turn = &self.spaces.of(index).turn;
        while turn.load(Ordering::Acquire) == 0 {
            sys::futex_wait(turn, 0, None);
        }
        turn.store(0, Ordering::Relaxed);
    }

    /// This space runs the vCPU from now on: catch up with what happened.
    fn arrive(&mut self) {
        page().active_pid.store(local().pid, Ordering::Release);
        self.map_vcpu_info();
        self.catch_up();
        if core::mem::take(&mut self.space().stale) {
            self.drop_user_half();
        } else {
            self.revalidate_user();
        }
        gate().pkru_kernel = PKRU_KERNEL;
        local().pending.raise();
        let armed = core::mem::take(&mut self.space().armed);
        self.take_over_timer(armed);
    }

    /// Maps the frame of `vcpu_info` where the gates look for it.
    pub fn map_vcpu_info(&mut self) {
        let frame = self.vcpu.info_frame;
        gate().vcpu_info = crate::layout::VCPU_PAGE + u64::from(self.vcpu.info_offset);
        if self.space().info_frame == frame {
            return;
        }
        self.space().info_frame = frame;
        let prot = sys::READ | sys::WRITE_ACCESS;
        let flags = sys::MAP_SHARED | sys::MAP_FIXED;
        // SAFETY: the page is reserved for this; the frame is guest memory.
        unsafe {
            let offset = u64::from(frame) << 12;
            sys::mmap(crate::layout::VCPU_PAGE, 4096, prot, flags, boundary::fd::RAM, offset);
            if !self.is_separate() {
                sys::pkey_mprotect(crate::layout::VCPU_PAGE, 4096, prot, key::KERNEL);
            }
        }
    }
}

/// Leaves the stack of the space that this one is a copy of: copies of copies would use it up.
fn run_on_fresh_stack() -> ! {
    extern "C" fn start() -> ! {
        // SAFETY: the stack that a reference to it was on is left for good.
        let monitor = unsafe { &mut *crate::start::monitor() };
        monitor.park_and_run(local().index)
    }
    // SAFETY: this space's own copy of the stack, of which nothing is used any more.
    unsafe {
        asm!("mov rsp, {top}", "call {start}", "ud2", top = in(reg) STACK + STACK_SIZE, start = sym start,
             options(noreturn))
    }
}

/// Sends user code's system calls and CPUIDs to the monitor, in this process.
pub fn arm_dispatch() {
    entry_page().selector = 0;
    sys::dispatch_syscalls(core::ptr::from_ref(&entry_page().selector) as u64);
    // Where the CPU cannot, programs see the host's CPUID.
    sys::fault_on_cpuid();
}

/// All state components but PKRU.
pub const COMPONENTS: u32 = 0xffff & !(1 << 9);

/// Saves the vector state.
pub fn save_vector(to: &mut Vector) {
    // SAFETY: the area is aligned and large enough for every component but AMX
    // tiles, which XCR0 lacks unless a process asks for them.
    unsafe {
        asm!("xsave64 [{}]", in(reg) to.0.as_mut_ptr(), in("eax") COMPONENTS, in("edx") 0,
             options(nostack));
    }
}

/// Loads what [`save_vector`] saved.
pub fn restore_vector(from: &Vector) {
    // SAFETY: what `save_vector` wrote. XMM0..15 are the compiler's to use, and it
    // is told that they change with a call.
    unsafe { crate::gate::gate_restore_vector(from.0.as_ptr(), COMPONENTS) };
}

const _: () = assert!(at::PRIVATE == crate::layout::PRIVATE);
