//! Giving a runner the turn, and what it comes back with.

use core::sync::atomic::Ordering;

use super::mailbox::{self, Event, Frame, Mailbox, request};
use crate::{
    gate::{context, gate, reason},
    signal::UserSignal,
    space::local,
    state::{Monitor, page},
    sys,
};

/// How long a side waits awake before it goes to sleep, in ticks of the TSC: some
/// forty microseconds, a few times what being woken on another CPU costs.
const AWAKE: u64 = 400_000;
/// How sure staying awake must have paid off lately, and how sure one can be.
const SURE: u32 = 3;
const SUREST: u32 = 12;
/// Code and stack segment of 64-bit user code on the host (asm/segment.h).
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// Most of the timer's ticks in one go, µs.
const LONGEST: u64 = 3_600_000_000;

/// Whether one side's turns were short lately, so that it pays for the other to
/// stay awake meanwhile instead of going to sleep and being woken.
#[derive(Clone, Copy)]
pub struct Turns(u32);

impl Turns {
    /// Short ones are expected.
    pub fn new() -> Turns {
        Turns(SUREST)
    }

    fn is_short(self) -> bool {
        self.0 >= SURE
    }

    /// Notes how long a turn took; whether the next is expected to be short.
    fn note(&mut self, took: u64) -> bool {
        self.0 = if took < AWAKE { (self.0 + 1).min(SUREST) } else { self.0.saturating_sub(1) };
        self.is_short()
    }
}

/// The TSC.
pub fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

impl Monitor {
    /// Has a runner do what `what` says and waits until it is done.
    pub(super) fn take_turn(&mut self, runner: usize, what: u32) -> Event {
        let b = mailbox::of(runner);
        b.request = what;
        let given = ticks();
        let short = self.runners.ours.note(given.wrapping_sub(self.runners.since));
        b.awake.store(self.awake_if(short), Ordering::Relaxed);
        let turn = self.give_turn(runner, b);
        if !self.await_awake(b, turn) {
            self.await_asleep(b, turn);
            self.runners.theirs.note(b.done_at.wrapping_sub(given));
        }
        self.runners.since = ticks();
        b.count = 0;
        Event::of(b.event)
    }

    /// Gives a runner its next turn, of which this is the number, and wakes it:
    /// through the one that had the last turn, if that is awake.
    fn give_turn(&mut self, runner: usize, b: &Mailbox) -> u32 {
        let mine = mailbox::turn_of(runner);
        let before = core::mem::replace(&mut self.runners.last, runner);
        mine.baton.store(0, Ordering::Relaxed);
        let turn = mine.given.load(Ordering::Relaxed).wrapping_add(1);
        mine.given.store(turn, Ordering::SeqCst);
        let mut passed = false;
        if before != runner {
            mailbox::turn_of(before).baton.store(runner as u32 + 1, Ordering::SeqCst);
            passed = mailbox::of(before).runner_sleeps.load(Ordering::SeqCst) == 0;
        }
        if !passed && b.runner_sleeps.load(Ordering::SeqCst) != 0 {
            sys::futex_wake(&mine.given);
        }
        turn
    }

    /// Looks for the turn's end for a while if that paid off lately.
    fn await_awake(&mut self, b: &Mailbox, turn: u32) -> bool {
        let awake = self.awake_if(self.runners.theirs.is_short());
        let end = ticks().wrapping_add(awake);
        while awake != 0 {
            if b.done.load(Ordering::Acquire) == turn {
                self.runners.theirs.note(0);
                return true;
            }
            if ticks() > end {
                break;
            }
            core::hint::spin_loop();
        }
        false
    }

    fn await_asleep(&self, b: &Mailbox, turn: u32) {
        loop {
            b.space_sleeps.store(1, Ordering::SeqCst);
            let done = b.done.load(Ordering::SeqCst);
            if done == turn {
                break;
            }
            sys::futex_wait(&b.done, done, None);
        }
        b.space_sleeps.store(0, Ordering::Relaxed);
    }

    /// On a single CPU nobody comes while somebody looks.
    fn awake_if(&self, short: bool) -> u64 {
        if short && self.setup.cpus > 1 { AWAKE } else { 0 }
    }

    /// Runs the guest program in the loaded runner until it leaves. The context
    /// holds its registers before and after, and why it left.
    pub fn run_program(&mut self, rip: u64) {
        let b = mailbox::of(self.runners.loaded);
        let c = context();
        c.reason = reason::ATTENTION;
        c.rip = self.vcpu.rip;
        b.regs = c.regs;
        b.frame = Frame { rip, cs: USER_CS, rflags: c.rflags, rsp: c.regs[4], ss: USER_SS };
        (b.fs, b.gs) = (gate().user_fs, gate().user_gs);
        if !self.arm_runner(b) || page().inbox.load(Ordering::SeqCst) != 0 {
            local().pending = true;
            return;
        }
        self.give_state(self.runners.loaded);
        let event = self.take_turn(self.runners.loaded, request::RUN);
        self.take_program(b, event);
        if b.kicked.load(Ordering::Relaxed) != 0 {
            b.kicked.store(0, Ordering::Relaxed);
            local().pending = true;
        }
    }

    /// Tells the domain process whom to interrupt when it posts to the inbox:
    /// this runner, which then does not run its program, or leaves it.
    pub(super) fn announce_runner(&self) {
        let b = mailbox::of(self.runners.loaded);
        page().active_pid.store(b.pid.load(Ordering::Acquire), Ordering::SeqCst);
    }

    /// Sees to it that the runner's timer fires in time; false if it is time now.
    fn arm_runner(&mut self, b: &mut Mailbox) -> bool {
        b.timer_us = 0;
        let deadline = self.timer.deadline;
        if deadline == 0 {
            return true;
        }
        let armed = b.armed.load(Ordering::Relaxed);
        let now = self.now();
        if deadline <= now {
            return false;
        }
        if armed == 0 || armed > deadline || armed < now {
            b.timer_us = (deadline - now).div_ceil(1000).min(LONGEST);
            b.armed.store(deadline, Ordering::Relaxed);
        }
        true
    }

    /// What the program left behind.
    fn take_program(&mut self, b: &mut Mailbox, event: Event) {
        let c = context();
        match event {
            Event::Failed | Event::Done => return self.mapping_refused(),
            Event::Untouched => {
                local().pending = true;
                return;
            }
            Event::SystemCall => {
                c.reason = reason::SYSCALL;
            }
            Event::Signal => {}
        }
        self.runners.refused = false;
        c.regs = b.regs;
        c.regs[4] = b.frame.rsp;
        c.rflags = b.frame.rflags;
        c.rip = b.frame.rip;
        gate().user_mode = 1;
        if event == Event::Signal {
            self.program_signal(&UserSignal::from(&b.signal));
        }
    }
}
