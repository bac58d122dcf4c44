//! One life of a domain, from start to end.
//!
//! The main thread does everything: it waits for signals, rings of the guest and
//! the control socket, and serves whatever came. A restart is a new process with
//! a new domid; this one ends when the new one runs.

mod devices;
mod end;
mod guest;
mod memory;
mod requests;
mod reset;
mod start;
mod stats;

pub use end::Exit;
pub use guest::Guest;

use crate::console::Console;
use crate::devices::Devices;
use crate::life::{CrashDetails, Next};
use crate::server::{Answer, Id, Server};
use crate::space::reap_others;
use crate::spec::Spec;
use crate::sys::signals::Signals;
use boundary::bell;
use control::{CrashSummary, Log, Record, Registration, ShutdownReason};
use requests::Reply;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use store::ring::{NextLook, SOON};

/// Waits, as poll(2) wants them.
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const SHORT_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: SOON.as_nanos() as i64 };

/// Place of the backends' kick in what is polled; the server follows.
const KICK: usize = 4;

/// One life of a domain.
pub struct Instance {
    spec: Spec,
    registration: Registration,
    guest: Guest,
    devices: Devices<Id>,
    console: Console,
    server: Server,
    log: Log,
    walls: Vec<String>,
    paused: bool,
    /// The tool for which it is paused, as long as that is connected.
    held: Option<Id>,
    /// Why it stopped, for a domain that is kept.
    stopped: Option<ShutdownReason>,
    last_crash: Option<CrashSummary>,
}

/// What is to happen after a round of the loop.
#[derive(Debug)]
enum Turn {
    /// The guest stopped.
    Stopped(ShutdownReason, Option<CrashDetails>),
    /// A tool or a signal ends the domain; the tool waits for an answer.
    Destroy(Option<Id>),
    /// A tool, which waits for an answer, has the guest end and start anew.
    Reset(Id),
}

/// Whether backends want the guest interrupted, and nobody wants anything else.
fn only_kicked(ready: &[PollFlags]) -> bool {
    ready.iter().enumerate().all(|(at, flags)| flags.is_empty() != (at == KICK))
}

impl Instance {
    /// Serves the domain until it goes.
    pub fn run(mut self, signals: &Signals) -> Exit {
        let mut next = NextLook::WhenAsked;
        loop {
            let ready = self.wait(signals, next);
            if only_kicked(&ready) && next == NextLook::WhenAsked {
                // Many times a second, and nothing else is to be done.
                self.kick();
                continue;
            }
            let turn = self.round(signals, &ready, &mut next);
            self.server.flush(self.console.history());
            match turn {
                None => {}
                Some(Turn::Destroy(id)) => return self.destroy(id),
                Some(Turn::Reset(id)) => return self.reset(id),
                Some(Turn::Stopped(reason, crash)) => {
                    let next = self.stop(reason, crash);
                    match next {
                        Next::Destroy => return self.leave(reason),
                        Next::Restart => return self.restart(reason),
                        Next::RenameRestart => self.rename_restart(),
                        Next::Preserve => {}
                    }
                }
            }
        }
    }

    /// Waits for something to do; the result is in the order of signals,
    /// doorbell, store, devices, kick, and what the server polls.
    fn wait(&self, signals: &Signals, next: NextLook) -> Vec<PollFlags> {
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(&self.guest.doorbell, PollFlags::IN),
            self.guest.store.poll_fd(),
            self.devices.poll_fd(),
            PollFd::from_borrowed_fd(self.guest.memory.kick(), PollFlags::IN),
        ];
        fds.extend(self.server.poll_fds(self.console.history(), self.console.room()));
        let timeout = match next {
            NextLook::WhenAsked => None,
            NextLook::Soon => Some(&SHORT_WAIT),
            NextLook::Now => Some(&NO_WAIT),
        };
        match poll(&mut fds, timeout) {
            Ok(_) => fds.iter().map(PollFd::revents).collect(),
            Err(_) => vec![PollFlags::empty(); fds.len()],
        }
    }

    fn round(
        &mut self,
        signals: &Signals,
        ready: &[PollFlags],
        next: &mut NextLook,
    ) -> Option<Turn> {
        let mut turn = None;
        // One that dies from here on brings another signal.
        let mut has_dead = false;
        while let Some(signal) = signals.next() {
            has_dead |= signal == libc::SIGCHLD;
            if matches!(signal, libc::SIGTERM | libc::SIGINT) {
                self.log.write(Record::info("ended by a signal"));
                return Some(Turn::Destroy(None));
            }
        }
        if self.stopped.is_none() {
            if ready.get(KICK).is_some_and(|flags| !flags.is_empty()) {
                self.kick();
            }
            self.attend_devices();
            turn = self.attend_guest(has_dead);
        } else if has_dead {
            // A successor that this process started.
            reap_others();
        }
        let input =
            self.server.take_input(ready.get(KICK + 1..).unwrap_or_default(), self.console.room());
        self.console.type_in(&input.typed);
        self.let_go();
        for (id, request) in input.requests {
            match self.handle(id, &request) {
                Reply::Answer(answer) => self.answer(id, answer),
                Reply::Turn(turn) => return Some(turn),
            }
        }
        *next = if self.stopped.is_none() && turn.is_none() {
            self.pump()
        } else {
            self.log_lines(|guest| guest.store.turn());
            NextLook::WhenAsked
        };
        turn
    }

    fn answer(&mut self, id: Id, answer: Answer) {
        let typed = self.server.answer(id, answer, self.console.history());
        self.console.type_in(&typed);
    }

    /// Looks at what the spaces did, and which are dead if some may be.
    fn attend_guest(&mut self, has_dead: bool) -> Option<Turn> {
        self.guest.doorbell.clear();
        let page = self.guest.page();
        let bells = page.take_bells();
        self.take_rings();
        if bells & bell::CRASH != 0 {
            let details = CrashDetails::from_record(self.guest.page().crash_record());
            return Some(Turn::Stopped(ShutdownReason::Crash, Some(details)));
        }
        if bells & bell::SHUTDOWN != 0 {
            let reason = crate::life::reason_of(self.guest.page().shutdown_reason());
            let crash = matches!(reason, ShutdownReason::Crash | ShutdownReason::Watchdog);
            let details = crash.then(|| self.guest_crash(reason));
            return Some(Turn::Stopped(reason, details));
        }
        let death = if has_dead { self.guest.reap() } else { None };
        if bells & (bell::INTERRUPT_RUNNER | bell::KILL_RUNNER) != 0 {
            self.guest.attend_runner(bells & bell::KILL_RUNNER != 0);
        }
        let death = death?;
        // What the dead left in the rings.
        self.take_rings();
        let details = CrashDetails::without_record(&death);
        Some(Turn::Stopped(ShutdownReason::Crash, Some(details)))
    }

    /// A crash that the guest itself reported.
    fn guest_crash(&self, reason: ShutdownReason) -> CrashDetails {
        let record = self.guest.page().crash_record();
        // Registers alone are there when a tool asked for them before.
        let is_filled = record.first().is_some_and(|byte| *byte != 0);
        if is_filled {
            return CrashDetails::from_record(record);
        }
        CrashDetails::without_record(match reason {
            ShutdownReason::Watchdog => "the guest's watchdog ran out",
            _ => "the guest kernel reported a crash (see its console output)",
        })
    }

    /// Takes the emergency console and the monitor's log.
    fn take_rings(&mut self) {
        let emergency = self.guest.take_emergency();
        self.console.print(&emergency);
        for line in self.guest.take_log() {
            self.log.write(Record::info(line).by("space"));
        }
    }

    /// Moves console and xenstore bytes and notifies the guest; returns when to do it again.
    fn pump(&mut self) -> NextLook {
        let console = self.console.pump(&self.guest.memory.ram);
        let store = self.guest.store.pump();
        for line in &store.lines {
            self.log.write(Record::warning(line));
        }
        if let Some(why) = &store.broken {
            self.log.write(Record::error("the guest broke its xenstore ring").with("error", why));
        }
        self.guest.notify(console, store.notify);
        store.next
    }

    fn log_lines(&mut self, lines: impl FnOnce(&mut Guest) -> Vec<String>) {
        for line in lines(&mut self.guest) {
            self.log.write(Record::warning(line));
        }
    }
}
