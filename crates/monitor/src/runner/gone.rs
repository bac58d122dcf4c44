//! Runners that are gone, and those that do not answer.
//!
//! A program can end the process that it runs in, or make it deaf: the runner's memory and its
//! system calls are within its reach. That must cost no other. The space cannot see processes, nor
//! signal them, so it asks the domain process, which is the parent of all: first to interrupt the
//! runner, then to kill it. Nobody uses a runner's number again before its process is known to be
//! gone. The program finds an empty address space, filled anew as it is touched, and gets a general
//! protection fault where it was.

use core::sync::atomic::Ordering;

use boundary::bell;

use super::{mailbox, process::NURSERY};
use crate::{
    log,
    state::{Fault, Monitor, page},
    sys,
};

/// Time until a runner is woken once more, in ns: the one that was to wake it may not have.
const FIRST: u64 = 10_000_000;
/// Time until it is interrupted, and again after each.
const SLICE: u64 = 100_000_000;
/// Interruptions that it may leave without an answer.
const PATIENCE: u32 = 30;
/// The same for one that is on its way, whose number is not known yet: it runs no program.
const PATIENCE_AT_BIRTH: u32 = 600;

/// The fault of a program whose runner is gone.
pub(super) const LOST: Fault = Fault::Vector { vector: 13, code: Some(0) };

/// The space waits for a runner.
pub(super) struct Waiting {
    pid: u32,
    waited: u64,
    asked: u32,
}

impl Waiting {
    /// Begins to wait for a process, 0 = one that is being born.
    pub fn begin(pid: u32) -> Waiting {
        Waiting { pid, waited: 0, asked: 0 }
    }

    /// It will not answer any more.
    pub fn is_over(&self) -> bool {
        if self.pid == 0 { self.asked > PATIENCE_AT_BIRTH } else { is_gone(self.pid) }
    }

    /// What was asked for may be done late: nobody is to be killed then.
    pub fn end(self) {
        if self.asked > 1 {
            page().runner.store(0, Ordering::SeqCst);
        }
    }

    /// How long to sleep, in ns.
    pub fn slice(&self) -> u64 {
        if self.asked == 0 { FIRST } else { SLICE }
    }

    /// So long it slept. True if the runner is to be woken: it should have answered. Time in which
    /// the domain was paused counts as one slice.
    pub fn slept(&mut self, time: u64) -> bool {
        self.waited += time.min(SLICE);
        let long = self.waited >= self.slice();
        if long {
            self.waited = 0;
            self.asked = self.asked.saturating_add(1);
            if self.asked > 1 && self.pid != 0 {
                ask(self.pid, self.asked > PATIENCE);
            }
        }
        long
    }
}

fn is_gone(pid: u32) -> bool {
    page().runner_gone.load(Ordering::SeqCst) == pid
}

/// Asks the domain process to interrupt a runner, or to kill it.
fn ask(pid: u32, kill: bool) {
    page().runner.store(pid, Ordering::SeqCst);
    log::ring(if kill { bell::KILL_RUNNER } else { bell::INTERRUPT_RUNNER });
}

impl Monitor {
    /// The process of a runner, 0 = not known yet.
    pub(super) fn pid_of(&self, runner: usize) -> u32 {
        if runner == NURSERY { self.runners.nursery } else { self.spaces.of(runner).pid }
    }

    /// Kills a runner that cannot be used, and has another take its place.
    pub(super) fn condemn(&mut self, runner: usize) {
        let pid = self.pid_of(runner);
        while !is_gone(pid) {
            ask(pid, true);
            let gone = &page().runner_gone;
            let seen = gone.load(Ordering::SeqCst);
            if seen != pid {
                sys::futex_wait(gone, seen, Some(FIRST));
            }
        }
        page().runner.store(0, Ordering::SeqCst);
        self.replace_runner(runner);
    }

    /// The process of a runner is gone, and all that it had mapped: another takes its number. Its
    /// program is told when it is to run again.
    pub(super) fn replace_runner(&mut self, runner: usize) {
        self.stats.replaced += 1;
        if self.runners.has_state == Some(runner) {
            self.start_state();
        }
        if self.runners.last == runner {
            self.runners.last = NURSERY;
        }
        let space = self.spaces.of_mut(runner);
        space.user.regions.clear();
        space.continuations.clear();
        // What is noted as mapped from here on may have been lost too.
        space.stale = true;
        (space.pid, space.posted, space.armed) = (0, None, 0);
        (space.lost, space.used_before) = (true, false);
        mailbox::reset(runner);
        if !self.start_runner(runner) {
            crate::crash::end(self, "the host gave no process to run guest programs in");
        }
        if self.runners.loaded == runner {
            self.announce_runner();
        }
    }

    /// A program met a fault at a place of the monitor's, in a process that ran another program before:
    /// that may have taken away what patched system calls need. Has it try again in a fresh one;
    /// false if it is in one already, and reached for the place itself.
    pub fn leave_spoiled_runner(&mut self) -> bool {
        let runner = self.runners.loaded;
        if !self.spaces.of(runner).used_before {
            return false;
        }
        self.fetch_state();
        // Unless it was replaced for not giving the state.
        if self.spaces.of(runner).used_before {
            self.condemn(runner);
            self.spaces.of_mut(runner).lost = false;
        }
        true
    }

    /// Does the loaded runner's program have to learn that it lost its process?
    pub(super) fn take_lost(&mut self) -> bool {
        let runner = self.runners.loaded;
        core::mem::take(&mut self.spaces.of_mut(runner).lost)
    }
}

/// A process that has been born with the number of one that is gone is another.
pub(super) fn is_born(pid: u32) {
    let _another = page().runner_gone.compare_exchange(pid, 0, Ordering::SeqCst, Ordering::SeqCst);
}
