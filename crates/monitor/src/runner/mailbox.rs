//! What a runner shares with the space.
//!
//! - [`Orders`]: what the space says. Runners only read it, each its own.
//! - [`Mailbox`]: registers, and what the runner says. The guest program in the
//!   runner may change all of it, so the space copies what it takes and believes
//!   it only of that program: wrong registers are the program's own.
//! - [`Wake`]: a word to sleep on for each runner, which all runners can see.
//!
//! The order of fields is that of cache lines: each costs some sixty nanoseconds
//! on its way to the other side.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::{
    layout::{ARENA_RUNNERS, ARENA_WAKES, MAILBOX, ORDERS, RUNNER_ORDERS, RUNNER_SIZE, WAKES, at},
    space::Vector,
    user_signal::UserSignal,
};

/// A word that a sleeping runner waits on. Only the space can write it.
#[repr(C, align(64))]
pub struct Wake {
    /// Counts wake-ups; a futex.
    pub count: AtomicU32,
}

const _: () =
    assert!((crate::space::MOST + 1) * size_of::<Wake>() <= crate::layout::WAKES_SIZE as usize);

/// A runner's word, at `base` in this process.
fn wake_at(base: u64, runner: usize) -> &'static Wake {
    assert!(runner <= crate::space::MOST);
    // SAFETY: mapped at start; an atomic.
    unsafe { &*((base as *const Wake).add(runner)) }
}

/// A runner's word as the space writes it.
pub fn wake_of(runner: usize) -> &'static Wake {
    wake_at(at::ARENA + ARENA_WAKES, runner)
}

/// A runner's word as runners see it.
pub fn wake_seen(runner: usize) -> &'static Wake {
    wake_at(WAKES, runner)
}

/// What the runner is asked to do (`Orders::request`).
pub mod request {
    /// Carry out the commands, then run the program.
    pub const RUN: u32 = 1;
    /// Carry out the commands.
    pub const MAP: u32 = 2;
    /// Carry out the commands, then put the program's vector state into `vector`.
    pub const SAVE: u32 = 4;
    /// The nursery's: make the runner whose number is in `argument`.
    pub const BEAR: u32 = 3;
}

/// Why the turn came back (`Mailbox::event`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The commands are done, or the new runner is there.
    Done,
    /// A command or a clone failed.
    Failed,
    /// A patched system call; `rip` is the address after it.
    SystemCall,
    /// A host signal, described in the mailbox.
    Signal,
    /// Interrupted before the program ran: its registers are as they were given.
    Untouched,
    /// It did not: the runner is gone, and another has its number. No runner says so itself.
    Gone,
}

impl Event {
    pub(super) const DONE: u32 = 0;
    pub(super) const FAILED: u32 = 1;
    pub(super) const SYSTEM_CALL: u32 = 2;
    pub(super) const SIGNAL: u32 = 3;
    pub(super) const UNTOUCHED: u32 = 4;

    /// Any other number is taken for a failure.
    pub(super) fn of(number: u32) -> Event {
        match number {
            Event::DONE => Event::Done,
            Event::SYSTEM_CALL => Event::SystemCall,
            Event::SIGNAL => Event::Signal,
            Event::UNTOUCHED => Event::Untouched,
            _ => Event::Failed,
        }
    }
}

/// A change of the runner's mappings.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Command {
    /// [`Command::MAP`], [`Command::UNMAP`] or [`Command::PROTECT`].
    pub what: u32,
    /// `PROT_*`.
    pub prot: u32,
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Offset in the file.
    pub offset: u64,
    /// File descriptor.
    pub file: i32,
}

impl Command {
    /// `mmap` of a memfd.
    pub const MAP: u32 = 0;
    /// `munmap`.
    pub const UNMAP: u32 = 1;
    /// `mprotect`.
    pub const PROTECT: u32 = 2;

    /// Are all pages of `other` among this one's?
    pub fn covers(&self, other: &Command) -> bool {
        other.start >= self.start && other.start + other.len <= self.start + self.len
    }
}

/// Most commands at once.
pub const COMMANDS: usize = 512;

/// IRETQ's frame.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Frame {
    /// Instruction pointer.
    pub rip: u64,
    /// Code segment of 64-bit user code.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

/// Which registers a program is to have.
pub mod registers {
    /// Those in the mailbox.
    pub const MAILBOX: u32 = 0;
    /// Those it left with, but for what the orders say.
    pub const KEPT: u32 = 1;
    /// The same, with RCX and R11 as after SYSRET.
    pub const RETURNED: u32 = 2;
}

/// What the space says to a runner: the first 64 bytes with every turn.
#[repr(C, align(64))]
pub struct Orders {
    /// Counts the turns given to the runner.
    pub given: AtomicU32,
    /// Not 0: another has the turn. Wake that one (the number less one) and sleep.
    pub baton: AtomicU32,
    /// What to do ([`request`]).
    pub request: u32,
    /// Commands to carry out first.
    pub count: u32,
    /// How long to look for the next turn before sleeping, in ticks.
    pub awake: u32,
    /// Microseconds after which the runner's timer fires, 0 = leave it.
    pub timer_us: u32,
    /// Which registers to load ([`registers`]).
    pub registers: u32,
    /// RFLAGS.
    pub rflags: u32,
    /// RAX.
    pub rax: u64,
    /// RIP.
    pub rip: u64,
    /// RSP.
    pub rsp: u64,
    /// For `request`.
    pub argument: u32,
    /// The commands.
    pub commands: [Command; COMMANDS],
}

const _: () = assert!(core::mem::offset_of!(Orders, argument) <= 60);

impl Orders {
    /// The last of the commands.
    pub fn last(&self) -> Option<&Command> {
        self.commands.get((self.count as usize).checked_sub(1)?)
    }
}
const _: () = assert!(size_of::<Orders>() as u64 <= crate::layout::ORDERS_SIZE);

/// What the runner says, and registers on their way.
#[repr(C, align(64))]
pub struct Mailbox {
    /// The last turn that the runner gave back; a futex.
    pub done: AtomicU32,
    /// What became of it ([`Event`]).
    pub event: u32,
    /// TSC when it was last given back to a space that slept.
    pub done_at: u64,
    _line1: [u64; 6],
    /// RAX, RCX, RDX, RBX, (RSP), RBP, RSI, RDI, R8..R15.
    pub regs: [u64; 16],
    /// The rest of the registers.
    pub frame: Frame,
    _line2: [u64; 3],
    /// The runner sleeps, or is about to, and must be woken for its next turn.
    pub runner_sleeps: AtomicU32,
    /// The space waits on `done` and must be woken.
    pub space_sleeps: AtomicU32,
    /// A signal asked for attention at a moment when the program could not be left.
    pub kicked: AtomicU32,
    /// Process id, 0 = not there yet.
    pub pid: AtomicI32,
    /// FS base to run with.
    pub fs: u64,
    /// GS base to run with.
    pub gs: u64,
    /// Not 0: the program's vector state is in `vector`, else in the runner's registers.
    pub load_state: u64,
    _line3: [u64; 2],
    /// With [`Event::Signal`].
    pub signal: UserSignal,
    /// 1: host system calls raise SIGSYS.
    pub selector: u64,
    /// Low halves of the program's vector registers while the runner itself runs.
    pub low: [u128; 16],
    /// Vector state on its way.
    pub vector: Vector,
}

const _: () = assert!(core::mem::offset_of!(Mailbox, regs) == 64);
const _: () = assert!(core::mem::offset_of!(Mailbox, runner_sleeps) == 256);
const _: () = assert!(size_of::<Mailbox>() as u64 <= crate::layout::MAILBOX_SIZE);

/// Offset in the arena of a runner's part.
pub fn part_of(runner: usize) -> u64 {
    ARENA_RUNNERS + runner as u64 * RUNNER_SIZE
}

/// A runner's mailbox as the space sees it.
pub fn of(runner: usize) -> &'static mut Mailbox {
    assert!(runner <= crate::space::MOST);
    // SAFETY: within the arena; the turn says whose it is, and what a hostile
    // program writes meanwhile are plain numbers.
    unsafe { &mut *((at::ARENA + part_of(runner)) as *mut Mailbox) }
}

/// A runner's orders as the space writes them.
pub fn orders_of(runner: usize) -> &'static mut Orders {
    assert!(runner <= crate::space::MOST);
    // SAFETY: within the arena; runners read it only.
    unsafe { &mut *((at::ARENA + part_of(runner) + RUNNER_ORDERS) as *mut Orders) }
}

/// Makes a runner's mailbox and orders ready for another process.
pub fn reset(runner: usize) {
    let (b, o) = (of(runner), orders_of(runner));
    for word in [&b.done, &b.runner_sleeps, &b.space_sleeps, &b.kicked, &o.given, &o.baton] {
        word.store(0, Ordering::SeqCst);
    }
    b.pid.store(0, Ordering::SeqCst);
    (o.request, o.count, o.awake) = (request::MAP, 0, 0);
}

/// The orders of this process, a runner.
pub fn own_orders() -> &'static Orders {
    // SAFETY: mapped when the runner was made. The space writes only while it
    // has the turn, but for the atomics.
    unsafe { &*(ORDERS as *const Orders) }
}

/// The mailbox of this process, a runner.
pub fn own() -> &'static mut Mailbox {
    // SAFETY: mapped when the runner was made; as in `of`.
    unsafe { &mut *(MAILBOX as *mut Mailbox) }
}
