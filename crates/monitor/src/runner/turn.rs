//! Giving a runner the turn, and what it comes back with.

use core::sync::atomic::{Ordering, fence};

use super::{
    gone::{LOST, Waiting},
    mailbox::{self, Event, Mailbox, Orders, registers, request},
};
use crate::{
    gate::{context, gate, reason},
    proven::Masked,
    space::local,
    state::{Monitor, page},
    sys,
};

/// How long a side waits awake before it goes to sleep, in ticks of the TSC: 100
/// to 200 microseconds. Being woken on another CPU costs 10 to 25 in virtual
/// machines; the rest pays for the turns in which nobody comes.
const AWAKE: u32 = 400_000;
/// How sure staying awake must have paid off lately, and how sure one can be.
const SURE: u32 = 3;
const SUREST: u32 = 12;
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
        self.0 =
            if took < AWAKE.into() { (self.0 + 1).min(SUREST) } else { self.0.saturating_sub(1) };
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
        self.settle(runner);
        self.take_turn_at(runner, what, ticks())
    }

    /// The same for a runner that is settled; it is `now` by the TSC.
    fn take_turn_at(&mut self, runner: usize, what: u32, now: u64) -> Event {
        self.try_turn(runner, what, now).unwrap_or_else(|| {
            self.replace_runner(runner);
            Event::Gone
        })
    }

    /// The same; none: its process is gone.
    pub(super) fn try_turn(&mut self, runner: usize, what: u32, now: u64) -> Option<Event> {
        let (b, o) = (mailbox::of(runner), mailbox::orders_of(runner));
        let short = self.runners.ours.note(now.wrapping_sub(self.runners.since));
        o.awake = self.awake_if(short);
        o.request = what;
        let turn = self.give_turn(runner, b, o);
        if !self.await_awake(b, turn, now) {
            if !self.await_asleep(runner, b, turn) {
                return None;
            }
            self.runners.theirs.note(b.done_at.wrapping_sub(now));
            self.runners.since = ticks();
        }
        o.count = 0;
        Some(Event::of(b.event))
    }

    /// Has a runner carry out its commands while the space goes on.
    pub(super) fn post_turn(&mut self, runner: usize) {
        let (b, o) = (mailbox::of(runner), mailbox::orders_of(runner));
        (o.request, o.awake) = (request::MAP, 0);
        let (turn, sleeps) = raise_turn(runner, b, o);
        if sleeps {
            sys::futex_wake(&mailbox::wake_of(runner).count);
        }
        self.spaces.of_mut(runner).posted = Some(turn);
    }

    /// Waits until a runner is done with what was posted to it.
    pub(super) fn settle(&mut self, runner: usize) {
        let Some(turn) = self.spaces.all.get_mut(runner).and_then(|s| s.posted.take()) else {
            return;
        };
        let b = mailbox::of(runner);
        if !self.await_awake(b, turn, ticks()) && !self.await_asleep(runner, b, turn) {
            // It was to forget a program that had ended already.
            self.replace_runner(runner);
            self.spaces.of_mut(runner).lost = false;
        }
        mailbox::orders_of(runner).count = 0;
    }

    /// Gives a runner its next turn, of which this is the number, and wakes it:
    /// through the one that had the last turn, if that is awake. The caller waits
    /// for the turn's end, so a baton has been taken before there is another.
    fn give_turn(&mut self, runner: usize, b: &Mailbox, o: &Orders) -> u32 {
        let (turn, sleeps) = raise_turn(runner, b, o);
        let before = core::mem::replace(&mut self.runners.last, runner);
        let mut passed = false;
        if before != runner {
            let baton = &mailbox::orders_of(before).baton;
            baton.store(runner as u32 + 1, Ordering::SeqCst);
            let busy = self.spaces.all.get(before).is_some_and(|s| s.posted.is_some());
            passed = !busy && mailbox::of(before).runner_sleeps.load(Ordering::SeqCst) == 0;
        }
        if sleeps && !passed {
            sys::futex_wake(&mailbox::wake_of(runner).count);
        }
        turn
    }

    /// Looks for the turn's end for a while if that paid off lately; it was given
    /// at `given`.
    fn await_awake(&mut self, b: &Mailbox, turn: u32, given: u64) -> bool {
        let awake = self.awake_if(self.runners.theirs.is_short());
        let end = given.wrapping_add(awake.into());
        let mut now = given;
        loop {
            if b.done.load(Ordering::Acquire) == turn {
                self.runners.theirs.note(0);
                self.runners.since = now;
                return true;
            }
            if awake == 0 || now > end {
                return false;
            }
            core::hint::spin_loop();
            now = ticks();
        }
    }

    /// Sleeps until the turn ends; false: it never will, the runner is gone.
    fn await_asleep(&self, runner: usize, b: &Mailbox, turn: u32) -> bool {
        let mut waiting = Waiting::begin(self.pid_of(runner));
        let ended = loop {
            b.space_sleeps.store(1, Ordering::SeqCst);
            let done = b.done.load(Ordering::SeqCst);
            if done == turn || waiting.is_over() {
                break done == turn;
            }
            let before = self.now();
            sys::futex_wait(&b.done, done, Some(waiting.slice()));
            if waiting.slept(self.now().saturating_sub(before)) {
                let wake = &mailbox::wake_of(runner).count;
                wake.fetch_add(1, Ordering::SeqCst);
                sys::futex_wake(wake);
            }
        };
        b.space_sleeps.store(0, Ordering::Relaxed);
        waiting.end();
        ended
    }

    /// On a single CPU nobody comes while somebody looks.
    fn awake_if(&self, short: bool) -> u32 {
        if short && self.setup.cpus > 1 { AWAKE } else { 0 }
    }

    /// Runs the guest program in the loaded runner until it leaves. The context
    /// holds its registers before and after, and why it left.
    pub fn run_program(&mut self, rip: u64) {
        let runner = self.runners.loaded;
        let (b, o) = (mailbox::of(runner), mailbox::orders_of(runner));
        let c = context();
        c.reason = reason::ATTENTION;
        c.rip = self.vcpu.rip;
        self.settle(runner);
        if self.take_lost() {
            (self.vcpu.fault, c.reason) = (LOST, reason::FAULT);
            return;
        }
        if core::mem::take(&mut self.spaces.of_mut(runner).stale) {
            self.drop_user_half();
        }
        let now = ticks();
        if !self.arm_runner(o, now) || page().inbox.load(Ordering::SeqCst) != 0 {
            local().pending.raise();
            return;
        }
        order_registers(b, o, rip);
        let given = self.give_state(runner);
        // With nothing mapped the program cannot have gone on by a single instruction.
        let empty = self.spaces.of(runner).user.regions.is_empty();
        let event = self.take_turn_at(runner, request::RUN, now);
        if event == Event::Gone && given && empty {
            // Whoever used the process before spoiled it. The new one is as good.
            self.take_state(runner);
            self.spaces.of_mut(runner).lost = false;
        }
        self.take_program(b, event);
        if b.kicked.load(Ordering::Relaxed) != 0 {
            b.kicked.store(0, Ordering::Relaxed);
            local().pending.raise();
            self.spaces.of_mut(runner).armed = 0;
        }
    }

    /// Tells the domain process whom to interrupt when it posts to the inbox:
    /// this runner, which then does not run its program, or leaves it.
    pub(super) fn announce_runner(&self) {
        let pid = self.pid_of(self.runners.loaded).cast_signed();
        page().active_pid.store(pid, Ordering::SeqCst);
    }

    /// Sees to it that the runner's timer fires in time; false if it is time now.
    fn arm_runner(&mut self, o: &mut Orders, now: u64) -> bool {
        o.timer_us = 0;
        let deadline = self.timer.deadline;
        if deadline == 0 {
            return true;
        }
        let armed = self.spaces.of(self.runners.loaded).armed;
        let now = self.time_at(now);
        if deadline <= now {
            return false;
        }
        if armed == 0 || armed > deadline || armed < now {
            o.timer_us = (deadline - now).div_ceil(1000).min(LONGEST) as u32;
            self.spaces.of_mut(self.runners.loaded).armed = deadline;
        }
        true
    }

    /// What the program left behind.
    fn take_program(&mut self, b: &mut Mailbox, event: Event) {
        let c = context();
        match event {
            Event::Failed | Event::Done => return self.mapping_refused(),
            // It is told when it is to run again, which is now.
            Event::Gone => return,
            Event::Untouched => {
                local().pending.raise();
                self.user_space().armed = 0;
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
            let signal = b.signal;
            self.program_signal(&signal);
        }
    }
}

/// Raises a runner's turn: its number, and whether the runner must be woken.
fn raise_turn(runner: usize, b: &Mailbox, o: &Orders) -> (u32, bool) {
    o.baton.store(0, Ordering::Relaxed);
    let turn = o.given.load(Ordering::Relaxed).wrapping_add(1);
    // As in `process::give_back`.
    o.given.store(turn, Ordering::Release);
    fence(Ordering::SeqCst);
    let sleeps = b.runner_sleeps.load(Ordering::SeqCst) != 0;
    if sleeps {
        mailbox::wake_of(runner).count.fetch_add(1, Ordering::SeqCst);
    }
    (turn, sleeps)
}

const RAX: usize = 0;
const RCX: usize = 1;
const RSP: usize = 4;
const R11: usize = 11;

/// Says with which registers the program is to go on at `rip`. What it left with
/// lies in its own cache still: only what changed since is sent.
fn order_registers(b: &mut Mailbox, o: &mut Orders, rip: u64) {
    let c = context();
    (o.rip, o.rflags, o.rsp, o.rax) = (rip, c.rflags as u32, c.regs[RSP], c.regs[RAX]);
    let differ = |i: usize| c.regs.at(i) != b.regs.at(i);
    let others = (0..16).any(|i| ![RAX, RCX, RSP, R11].contains(&i) && differ(i));
    o.registers = if !others && c.regs[RCX] == rip && c.regs[R11] == c.rflags {
        registers::RETURNED
    } else if !others && !differ(RCX) && !differ(R11) {
        registers::KEPT
    } else {
        b.regs = c.regs;
        registers::MAILBOX
    };
    let g = gate();
    if (b.fs, b.gs) != (g.user_fs, g.user_gs) {
        (b.fs, b.gs) = (g.user_fs, g.user_gs);
    }
}
