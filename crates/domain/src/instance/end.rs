//! How a life ends: kept, destroyed, or followed by another.

use super::Instance;
use crate::life::{CrashDetails, Next, Report, decide};
use crate::server::{Answer, Id};
use control::{
    CrashSummary, Ended, EndedAs, LaunchError, Record, RegistryError, Response, ShutdownReason,
    Started, Uuid, WaitUntil, kill_point, launch,
};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Names that are tried for a domain that is set aside.
const MOST_ASIDE: u32 = 1000;

/// How the domain process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit;

/// For the log: another domain goes on.
pub(super) fn restarted(started: &Started) -> Record {
    Record::info("restarted").with("successor", started.domid)
}

/// For the log: none does.
pub(super) fn not_restarted(error: &LaunchError) -> Record {
    Record::error("the restart failed").with("error", error)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Instance {
    /// Notes that the guest stopped; its spaces end. Returns what becomes of it.
    pub(super) fn stop(&mut self, reason: ShutdownReason, crash: Option<CrashDetails>) -> Next {
        self.console.pump(&self.guest.memory.ram);
        self.guest.group.kill();
        kill_point("xendomain.stop.dead");
        self.devices.end();
        kill_point("xendomain.stop.without-devices");
        self.guest.time.stop();
        self.guest.store.shut_down();
        self.take_rings();
        self.stopped = Some(reason);
        self.paused = false;
        self.held = None;
        self.log.write(Record::info("the guest stopped").with("reason", reason));
        if let Some(details) = crash {
            self.report(&details);
            kill_point("xendomain.stop.reported");
        }
        let ending = decide(&self.spec.config().events, reason, now(), self.spec.last_restart);
        for note in &ending.notes {
            self.log.write(Record::warning(note));
        }
        self.log.write(Record::info(match ending.next {
            Next::Destroy => "destroying the domain",
            Next::Restart => "restarting the domain",
            Next::Preserve => "the domain stays listed",
            Next::RenameRestart => "the domain stays listed under another name and is restarted",
        }));
        let outcome = match ending.next {
            Next::Destroy => EndedAs::Destroyed,
            Next::Restart | Next::RenameRestart => EndedAs::Restarting,
            Next::Preserve => EndedAs::Preserved,
        };
        kill_point("xendomain.stop.decided");
        self.server.ended(WaitUntil::Shutdown, Ended { reason, outcome });
        self.server.flush(self.console.history());
        kill_point("xendomain.stop.told");
        ending.next
    }

    /// Writes the crash report.
    fn report(&mut self, details: &CrashDetails) {
        self.log.write(Record::error("the guest crashed").with("reason", &details.reason));
        let entry = self.registration.entry();
        let path = self.registration.registry().dirs().crash_report(&entry.name, entry.domid);
        let kernel = self.spec.kernel().unwrap_or_default();
        let console = self.console.history().all();
        let at = SystemTime::now();
        let report = Report {
            name: &entry.name,
            domid: entry.domid,
            kernel: &kernel,
            details,
            console: &console,
            at,
        };
        let saved: Option<PathBuf> = match report.save(&path) {
            Ok(()) => Some(path),
            Err(error) => {
                let record = Record::error("no crash report").with("file", path.display());
                self.log.write(record.with("error", error));
                None
            }
        };
        let summary = CrashSummary { reason: details.reason.clone(), at: now(), report: saved };
        self.last_crash = Some(summary);
    }

    /// Ends the domain for a tool (which is answered when it is gone) or a signal.
    pub(super) fn destroy(mut self, asker: Option<Id>) -> Exit {
        self.guest.group.kill();
        kill_point("xendomain.destroy.dead");
        self.devices.end();
        kill_point("xendomain.destroying");
        self.log.write(Record::info("destroyed"));
        let reason = self.stopped.unwrap_or(ShutdownReason::Destroyed);
        let ended = Ended { reason, outcome: EndedAs::Destroyed };
        self.server.ended(WaitUntil::Shutdown, ended);
        self.depart(ended, asker)
    }

    /// Ends a domain whose guest stopped.
    pub(super) fn leave(self, reason: ShutdownReason) -> Exit {
        self.depart(Ended { reason, outcome: EndedAs::Destroyed }, None)
    }

    /// Removes the domain, then tells those who wait for it.
    fn depart(self, ended: Ended, asker: Option<Id>) -> Exit {
        let Self { registration, guest, mut server, console, .. } = self;
        drop(guest);
        drop(registration);
        kill_point("xendomain.unregistered");
        if let Some(id) = asker {
            server.answer(id, Answer::Line(Response::Ok), console.history());
        }
        server.gone(ended);
        kill_point("xendomain.depart.answered");
        server.close(console.history());
        kill_point("xendomain.depart.closed");
        Exit
    }

    /// Starts the domain anew under another number, and goes.
    pub(super) fn restart(self, reason: ShutdownReason) -> Exit {
        let successor = self.spec.successor(now(), self.last_crash.clone());
        let Self { registration, guest, mut server, console, mut log, .. } = self;
        // The new one needs the memory, the name and the UUID.
        drop(guest);
        drop(registration);
        kill_point("xendomain.restart.left");
        let outcome = match launch(&successor) {
            Ok(started) => {
                kill_point("xendomain.restart.launched");
                log.write(restarted(&started));
                EndedAs::Restarted { domid: started.domid }
            }
            Err(error) => {
                log.write(not_restarted(&error));
                EndedAs::Destroyed
            }
        };
        server.gone(Ended { reason, outcome });
        server.close(console.history());
        Exit
    }

    /// Keeps this domain under another name and starts a new one.
    pub(super) fn rename_restart(&mut self) {
        let name = self.registration.entry().name.clone();
        if let Err(error) = self.set_aside(&name) {
            let record = Record::error("not restarted: the domain cannot be renamed");
            self.log.write(record.with("error", error));
            return;
        }
        kill_point("xendomain.aside.renamed");
        let entry = self.registration.entry();
        if let Err(error) = self.guest.store.set_aside(&entry.name, entry.uuid) {
            let record = Record::warning("xenstore keeps the domain's old name");
            self.log.write(record.with("error", error));
        }
        kill_point("xendomain.aside.in-store");
        let successor = self.spec.successor(now(), self.last_crash.clone());
        match launch(&successor) {
            Ok(started) => {
                kill_point("xendomain.aside.launched");
                self.log.write(restarted(&started));
            }
            Err(error) => self.log.write(not_restarted(&error)),
        }
    }

    fn set_aside(&mut self, name: &str) -> Result<(), RegistryError> {
        let uuid = Uuid::random().unwrap_or(self.registration.entry().uuid);
        let mut number = 1;
        loop {
            match self.registration.set_aside(&format!("{name}-{number}"), uuid) {
                Err(RegistryError::NameTaken { .. }) if number < MOST_ASIDE => number += 1,
                other => return other,
            }
        }
    }
}
