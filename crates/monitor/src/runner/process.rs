//! The runner's side. A runner is a clone of the *nursery*, itself a clone of
//! the first space from the time before anything of the guest was mapped.

use core::sync::atomic::{Ordering, fence};

use boundary::{Setup, at, fd};

use super::{
    filter,
    gates::{
        FORGED, is_gate, is_on_entry, is_unproved, runner_enter, runner_map, runner_protect,
        runner_save, runner_unmap,
    },
    mailbox::{self, Command, Event, Frame, Mailbox, Orders, registers, request},
    turn::ticks,
};
use crate::{
    direct,
    layout::{
        MAILBOX, MAILBOX_SIZE, ORDERS, ORDERS_SIZE, RETURNS, RETURNS_SIZE, RUNNER_ORDERS,
        RUNNER_RETURNS, RUNNER_SIZE, RUNNER_TARGETS, SIGNAL_STACK, SIGNAL_STACK_SIZE, SITE_STUBS,
    },
    signal::{self, UContext},
    space::local,
    start,
    sys::{self, MAP_FIXED, MAP_SHARED, READ, WRITE_ACCESS},
    user_signal::UserSignal,
};

/// Code and stack segment of 64-bit user code on the host (asm/segment.h).
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;

/// Both stacks of a runner.
const STACKS: u64 = at::STACKS;
const STACKS_END: u64 = SIGNAL_STACK + SIGNAL_STACK_SIZE;

/// The nursery's mailbox; runners have the others.
pub const NURSERY: usize = 0;

/// Clones this process into the nursery, which closes its jail by itself; the nursery's
/// process id. Before guest code runs.
pub fn become_nursery(setup: &Setup) -> u32 {
    // SAFETY: both sides go on: here, and in `nursery`.
    match unsafe { sys::clone() } {
        0 => nursery(setup.parent, setup.flags),
        pid => pid.max(0) as u32,
    }
}

fn map_part(to: u64, len: u64, prot: u32, offset: u64) {
    // SAFETY: places of the monitor's that a runner uses for this.
    let r = unsafe { sys::mmap(to, len, prot, MAP_SHARED | MAP_FIXED, fd::ARENA, offset) };
    if r as u64 != to {
        sys::exit(90);
    }
}

fn map_mailbox(number: usize) {
    let part = mailbox::part_of(number);
    map_part(MAILBOX, MAILBOX_SIZE, READ | WRITE_ACCESS, part);
    map_part(ORDERS, ORDERS_SIZE, READ, part + RUNNER_ORDERS);
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

fn nursery(parent: i32, flags: u32) -> ! {
    start::close_jail(start::JAIL_NURSERY);
    sys::die_with_parent(parent);
    map_mailbox(NURSERY);
    forget_the_monitor();
    local().runner = true;
    let mut turn = 0;
    loop {
        let (own, orders) = (mailbox::own(), mailbox::own_orders());
        turn = wait_for_turn(own, orders, NURSERY, turn);
        let number = orders.argument as usize;
        let born = if orders.request == request::BEAR && number <= crate::space::MOST {
            // SAFETY: the child goes on in `run`.
            unsafe { sys::clone() }
        } else {
            -1
        };
        if born == 0 {
            run(number, parent, flags);
        }
        own.event = if born > 0 { Event::DONE } else { Event::FAILED };
        give_back(own, turn);
    }
}

/// A new runner's life.
fn run(number: usize, parent: i32, flags: u32) -> ! {
    sys::die_with_parent(parent);
    let part = mailbox::part_of(number);
    map_mailbox(number);
    map_part(at::SITES, at::SITES_SIZE, READ, part + RUNNER_TARGETS);
    map_part(RETURNS, RETURNS_SIZE, READ, part + RUNNER_RETURNS);
    let own = mailbox::own();
    own.selector = 0;
    sys::dispatch_syscalls(core::ptr::from_ref(&own.selector) as u64);
    sys::fault_on_cpuid();
    own.pid.store(sys::getpid(), Ordering::Release);
    filter::close(flags);
    let orders = mailbox::own_orders();
    let mut turn = 0;
    loop {
        turn = wait_for_turn(own, orders, number, turn);
        match carry_out(orders) {
            false => own.event = Event::FAILED,
            true if orders.request == request::RUN => run_program(own, orders),
            true if orders.request == request::SAVE => {
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

fn run_program(own: &mut Mailbox, orders: &Orders) {
    if orders.timer_us != 0 {
        sys::set_timer(orders.timer_us.into());
    }
    if orders.registers != registers::MAILBOX {
        own.regs[0] = orders.rax;
        if orders.registers == registers::RETURNED {
            (own.regs[1], own.regs[11]) = (orders.rip, orders.rflags.into());
        }
    }
    let (rip, rflags, rsp) = (orders.rip, orders.rflags.into(), orders.rsp);
    own.frame = Frame { rip, cs: USER_CS, rflags, rsp, ss: USER_SS };
    own.event = Event::UNTOUCHED;
    local().in_program = true;
    // SAFETY: the gate comes back with this loop's registers.
    unsafe { runner_enter() };
    local().in_program = false;
}

/// Carries out the commands; false if the host refused one.
fn carry_out(orders: &Orders) -> bool {
    let commands = orders.commands.iter().take(orders.count as usize);
    (0..).zip(commands).all(|(number, command)| {
        // SAFETY: addresses of the user half, checked by the space that wrote them.
        unsafe {
            match command.what {
                Command::MAP => runner_map(number) as u64 == command.start,
                Command::UNMAP => runner_unmap(number) == 0,
                _ => {
                    // Pages that are gone need no protection.
                    runner_protect(number);
                    true
                }
            }
        }
    })
}

/// Waits for a turn after number `last`; its number. A runner whose space turns
/// to another one wakes that and sleeps: on one CPU this is a plain context
/// switch, while the space, on another, would have to interrupt this one.
fn wait_for_turn(own: &Mailbox, orders: &Orders, number: usize, last: u32) -> u32 {
    let end = ticks().wrapping_add(orders.awake.into());
    loop {
        let given = orders.given.load(Ordering::Acquire);
        if given != last {
            return given;
        }
        if ticks() < end && orders.baton.load(Ordering::Relaxed) == 0 {
            core::hint::spin_loop();
            continue;
        }
        sleep(own, orders, number, last);
    }
}

/// Sleeps until woken, unless the turn has come.
fn sleep(own: &Mailbox, orders: &Orders, number: usize, last: u32) {
    let wake = mailbox::wake_seen(number);
    let before = wake.count.load(Ordering::SeqCst);
    own.runner_sleeps.store(1, Ordering::SeqCst);
    let baton = orders.baton.load(Ordering::SeqCst) as usize;
    if (1..=crate::space::MOST + 1).contains(&baton) {
        sys::futex_wake(&mailbox::wake_seen(baton - 1).count);
    }
    if orders.given.load(Ordering::SeqCst) == last {
        sys::futex_wait(&wake.count, before, None);
    }
    own.runner_sleeps.store(0, Ordering::SeqCst);
}

fn give_back(own: &mut Mailbox, turn: u32) {
    // A plain store is on its way while those before it still are; the fence is
    // for the flag alone.
    own.done.store(turn, Ordering::Release);
    fence(Ordering::SeqCst);
    if own.space_sleeps.load(Ordering::SeqCst) != 0 {
        own.done_at = ticks();
        sys::futex_wake(&own.done);
    }
}

/// Added to the address of the signal's vector state: leave the program, which
/// has not run; and leave it, with that state as its own.
const LEAVE: u64 = 1;
const KEEP: u64 = 2;

/// Bytes of a `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

/// Does the runner itself run: a gate, or Rust code on its stacks? A program that
/// jumps into the monitor's code is still the program, and leaves it as anywhere else.
fn is_own_code(rip: u64, rsp: u64) -> bool {
    is_gate(rip) || (at::IMAGE..at::CONTEXT).contains(&rip) && (STACKS..STACKS_END).contains(&rsp)
}

/// A host signal in a runner. What the signal gate expects: 0 = return from it.
pub fn on_signal(number: u32, info: *const u8, uc: &mut UContext) -> u64 {
    let own = mailbox::own();
    own.selector = 0;
    let asks = matches!(number, signal::SIGALRM | signal::SIGUSR1);
    let rip = uc.mc.rip;
    if is_unproved(rip) {
        // Whoever made the call, nothing happens before it is compared with the orders.
        if !asks {
            sys::exit(FORGED);
        }
        own.kicked.store(1, Ordering::Relaxed);
        return 0;
    }
    if is_on_entry(rip) {
        if !asks {
            // IRETQ refused what it was given: the program's general protection fault.
            own.event = Event::SIGNAL;
            own.signal = UserSignal::new(number, info, &uc.mc);
        }
        local().in_program = false;
        return uc.mc.fpstate | LEAVE;
    }
    let stub = (SITE_STUBS..at::CODE + at::CODE_SIZE).contains(&rip);
    let own_code = is_own_code(rip, uc.mc.rsp);
    if own_code && asks {
        own.kicked.store(1, Ordering::Relaxed);
        return 0;
    }
    if own_code && number == signal::SIGTRAP {
        // The program's steps end at the gate.
        uc.mc.flags &= !signal::TRAP;
        return 0;
    }
    if !local().in_program {
        if own_code && number == signal::SIGSYS {
            // The program jumped to the end of a gate, and the selector was still its own.
            uc.mc.rip = rip.wrapping_sub(SYSCALL_LEN);
            return 0;
        }
        // The program spoiled the stack, and the way out of it leads nowhere.
        sys::exit(97);
    }
    if stub && let Some(next) = direct::behind_site(rip) {
        uc.mc.rip = next;
    }
    own.regs = uc.mc.regs();
    own.frame.rip = uc.mc.rip;
    own.frame.rflags = uc.mc.flags;
    own.frame.rsp = uc.mc.rsp;
    own.event = Event::SIGNAL;
    own.signal = UserSignal::new(number, info, &uc.mc);
    local().in_program = false;
    uc.mc.fpstate | KEEP
}

const _: () = assert!(RUNNER_SIZE >= 0x9_0000);
