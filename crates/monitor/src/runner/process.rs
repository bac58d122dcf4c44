//! The runner's side. A runner is a clone of the *nursery*, itself a clone of
//! the first space from the time before anything of the guest was mapped.

use core::sync::atomic::Ordering;

use boundary::{at, fd};

use super::{
    gates::{is_on_entry, runner_enter, runner_save},
    mailbox::{self, Command, Event, Mailbox, Signal, request},
    turn::ticks,
};
use crate::{
    direct,
    layout::{
        MAILBOX, RETURNS, RETURNS_SIZE, RUNNER_RETURNS, RUNNER_SIZE, RUNNER_TARGETS, SITE_STUBS,
    },
    signal::{self, UContext},
    space::local,
    sys::{self, MAP_FIXED, MAP_SHARED, READ, WRITE_ACCESS},
};

/// The nursery's mailbox; runners have the others.
pub const NURSERY: usize = 0;

/// Clones this process into the nursery. Before guest code runs.
pub fn become_nursery() {
    // SAFETY: both sides go on: here, and in `nursery`.
    match unsafe { sys::clone() } {
        0 => nursery(),
        pid if pid > 0 => mailbox::of(NURSERY).pid.store(pid as i32, Ordering::Relaxed),
        _ => {}
    }
}

fn map_part(to: u64, len: u64, prot: u32, offset: u64) {
    // SAFETY: places of the monitor's that a runner uses for this.
    let r = unsafe { sys::mmap(to, len, prot, MAP_SHARED | MAP_FIXED, fd::ARENA, offset) };
    if r as u64 != to {
        sys::exit(90);
    }
}

/// Unmaps all that a program must not reach.
fn forget_the_monitor() {
    let end_of_code = SITE_STUBS;
    let ranges = [
        (at::CONTEXT, at::PRIVATE),
        (at::TABLES, at::CODE),
        (at::CODE, end_of_code),
        (at::ALIASES, at::END),
    ];
    for (from, to) in ranges {
        // SAFETY: a runner uses none of it; it has its stack, image, mailbox and the sites' stubs.
        unsafe { sys::munmap(from, to - from) };
    }
}

fn nursery() -> ! {
    sys::die_with_parent();
    map_part(MAILBOX, RUNNER_TARGETS, READ | WRITE_ACCESS, mailbox::part_of(NURSERY));
    forget_the_monitor();
    local().runner = true;
    let mut turn = 0;
    loop {
        let own = mailbox::own();
        turn = wait_for_turn(own, NURSERY, turn);
        let number = own.argument as usize;
        let born = if own.request == request::BEAR && number <= crate::space::MOST {
            // SAFETY: the child goes on in `run`.
            unsafe { sys::clone() }
        } else {
            -1
        };
        if born == 0 {
            run(number);
        }
        own.event = if born > 0 { Event::DONE } else { Event::FAILED };
        give_back(own, turn);
    }
}

/// A new runner's life.
fn run(number: usize) -> ! {
    sys::die_with_parent();
    let part = mailbox::part_of(number);
    map_part(MAILBOX, RUNNER_TARGETS, READ | WRITE_ACCESS, part);
    map_part(at::SITES, at::SITES_SIZE, READ, part + RUNNER_TARGETS);
    map_part(RETURNS, RETURNS_SIZE, READ, part + RUNNER_RETURNS);
    let own = mailbox::own();
    own.selector = 0;
    sys::dispatch_syscalls(core::ptr::from_ref(&own.selector) as u64);
    sys::fault_on_cpuid();
    own.pid.store(sys::getpid(), Ordering::Release);
    let mut turn = 0;
    loop {
        turn = wait_for_turn(own, number, turn);
        match carry_out(own) {
            false => own.event = Event::FAILED,
            true if own.request == request::RUN => run_program(own),
            true if own.request == request::SAVE => {
                if own.load_state == 0 {
                    // SAFETY: keeps registers that calls keep; writes the mailbox.
                    unsafe { runner_save() };
                }
                own.event = Event::DONE;
            }
            true => own.event = Event::DONE,
        }
        give_back(own, turn);
    }
}

fn run_program(own: &mut Mailbox) {
    if own.timer_us != 0 {
        sys::set_timer(own.timer_us);
    }
    own.event = Event::UNTOUCHED;
    local().in_program = true;
    // SAFETY: the gate comes back with this loop's registers.
    unsafe { runner_enter() };
    local().in_program = false;
}

/// Carries out the commands; false if the host refused one.
fn carry_out(own: &Mailbox) -> bool {
    let count = (own.count as usize).min(mailbox::COMMANDS);
    own.commands[..count].iter().all(|c| {
        // SAFETY: addresses of the user half, checked by the space that wrote them.
        let r = unsafe {
            match c.what {
                Command::MAP => {
                    let flags = MAP_SHARED | MAP_FIXED | c.flags;
                    let r = sys::mmap(c.start, c.len, c.prot, flags, c.file, c.offset);
                    if r as u64 == c.start { 0 } else { -1 }
                }
                Command::UNMAP => sys::munmap(c.start, c.len),
                // Pages that are gone need no protection.
                _ => {
                    sys::mprotect(c.start, c.len, c.prot);
                    0
                }
            }
        };
        r == 0
    })
}

/// Waits for a turn after number `last`; its number. A runner whose space turns
/// to another one wakes that and sleeps: on one CPU this is a plain context
/// switch, while the space, on another, would have to interrupt this one.
fn wait_for_turn(own: &Mailbox, number: usize, last: u32) -> u32 {
    let mine = mailbox::turn_seen(number);
    let end = ticks().wrapping_add(own.awake.load(Ordering::Relaxed));
    loop {
        let given = mine.given.load(Ordering::Acquire);
        if given != last {
            return given;
        }
        if ticks() < end && mine.baton.load(Ordering::Relaxed) == 0 {
            core::hint::spin_loop();
            continue;
        }
        own.runner_sleeps.store(1, Ordering::SeqCst);
        let baton = mine.baton.load(Ordering::SeqCst) as usize;
        if (1..=crate::space::MOST + 1).contains(&baton) {
            sys::futex_wake(&mailbox::turn_seen(baton - 1).given);
        }
        sys::futex_wait(&mine.given, last, None);
        own.runner_sleeps.store(0, Ordering::SeqCst);
    }
}

fn give_back(own: &mut Mailbox, turn: u32) {
    own.done_at = ticks();
    own.done.store(turn, Ordering::SeqCst);
    if own.space_sleeps.load(Ordering::SeqCst) != 0 {
        sys::futex_wake(&own.done);
    }
}

/// Added to the address of the signal's vector state: leave the program, which
/// has not run; and leave it, with that state as its own.
const LEAVE: u64 = 1;
const KEEP: u64 = 2;

/// A host signal in a runner. What the signal gate expects: 0 = return from it.
pub fn on_signal(number: u32, info: *const u8, uc: &mut UContext) -> u64 {
    let own = mailbox::own();
    own.selector = 0;
    let asks = matches!(number, signal::SIGALRM | signal::SIGUSR1);
    if number == signal::SIGALRM {
        own.armed.store(0, Ordering::Relaxed);
    }
    let rip = uc.mc.rip;
    if is_on_entry(rip) {
        if !asks {
            // IRETQ refused what it was given: the program's general protection fault.
            own.event = Event::SIGNAL;
            own.signal = describe(number, info, uc);
        }
        return uc.mc.fpstate | LEAVE;
    }
    let stub = (SITE_STUBS..at::CODE + at::CODE_SIZE).contains(&rip);
    let monitors = (at::IMAGE..at::END).contains(&rip) && !stub;
    if monitors && asks {
        own.kicked.store(1, Ordering::Relaxed);
        return 0;
    }
    if monitors && number == signal::SIGTRAP {
        // The program's steps end at the gate.
        uc.mc.flags &= !signal::TRAP;
        return 0;
    }
    if monitors && !local().in_program {
        sys::exit(97);
    }
    if stub {
        match direct::behind_site(rip) {
            Some(next) => uc.mc.rip = next,
            // On its way to the gate, which leaves the program anyway.
            None if asks => {
                own.kicked.store(1, Ordering::Relaxed);
                return 0;
            }
            None if number == signal::SIGTRAP => {
                uc.mc.flags &= !signal::TRAP;
                return 0;
            }
            None => {}
        }
    }
    own.regs = uc.mc.regs();
    own.frame.rip = uc.mc.rip;
    own.frame.rflags = uc.mc.flags;
    own.frame.rsp = uc.mc.rsp;
    own.event = Event::SIGNAL;
    own.signal = describe(number, info, uc);
    uc.mc.fpstate | KEEP
}

fn describe(number: u32, info: *const u8, uc: &UContext) -> Signal {
    // SAFETY: `siginfo` (asm-generic/siginfo.h): `si_code` at offset 8; of SIGSYS
    // `si_call_addr` at 16 and `si_arch` at 28.
    unsafe {
        Signal {
            number,
            code: info.add(8).cast::<u32>().read_unaligned(),
            call: info.add(16).cast::<u64>().read_unaligned(),
            arch: info.add(28).cast::<u32>().read_unaligned(),
            trap: uc.mc.trapno as u32,
            error: uc.mc.error,
            address: uc.mc.cr2,
        }
    }
}

const _: () = assert!(RUNNER_SIZE >= 0x9_0000);
