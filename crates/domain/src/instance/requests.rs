//! What tools can ask of a domain.

use super::{Instance, Turn};
use crate::devices::Wish;
use crate::server::{Answer, Id};
use crate::xenstore::GuestStore;
use boundary::vcpu_state;
use control::xenstore::StoreError;
use control::{
    DomainInfo, ErrorCode, Failure, Hint, MAX_REPLY, Record, Request, Response, ShutdownReason,
    StateFlags, kill_point,
};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// Pages in a MiB.
pub(super) const PAGES_PER_MIB: u64 = 256;
/// Most bytes of the log that are sent.
const MOST_LOG: u64 = 1 << 20;

/// What becomes of a request.
pub(super) enum Reply {
    /// It is answered, now or later.
    Answer(Answer),
    /// The domain goes.
    Turn(Turn),
}

/// What a memory file takes of the host, in MiB.
fn resident_mib(file: BorrowedFd<'_>) -> Option<u64> {
    // st_blocks counts units of 512 bytes, whatever the file system (inode(7)).
    let blocks = rustix::fs::fstat(file).ok()?.st_blocks;
    u64::try_from(blocks).ok().map(|blocks| blocks / (2 << 10))
}

impl Instance {
    /// Answers a request, or says how it ends this life of the domain.
    pub(super) fn handle(&mut self, id: Id, request: &Request) -> Reply {
        Reply::Answer(match request {
            Request::Destroy => return Reply::Turn(Turn::Destroy(Some(id))),
            Request::Reset => return Reply::Turn(Turn::Reset(id)),
            Request::Info { brief } => Answer::Line(Response::Info(Box::new(self.info(!*brief)))),
            Request::Pause => self.pause().into(),
            Request::Unpause => self.unpause().into(),
            Request::Hold => self.hold(id).into(),
            Request::Shutdown { reason } => self.store_order(|s| s.request_shutdown(reason.word())),
            Request::Sysrq { key } if !key.is_ascii_alphanumeric() => {
                Err(Failure::new(ErrorCode::BadRequest, "A SysRq key is a letter or digit")).into()
            }
            Request::Sysrq { key } => self.store_order(|store| store.sysrq(*key)),
            Request::MemorySet { mib } => self.set_memory(*mib),
            Request::MemoryLimit { mib } => self.limit_memory(*mib).into(),
            Request::Memory => self.hand_out_memory(),
            Request::Stats => self.ask_stats(id),
            Request::DebugKey { key } => self.debug_key(*key).into(),
            Request::DeviceAttach { device } => self.attach_device(id, device),
            Request::DeviceDetach { class, number, force } => {
                self.detach_device(id, class, *number, *force)
            }
            Request::MediumChange { disk } => self.change_medium(id, disk),
            Request::DeviceRefresh { number } => self.refresh_device(id, *number),
            Request::DeviceResize { number, size } => self.resize_device(id, *number, *size),
            Request::Channel => self.talk(id),
            Request::Rename { name } => self.rename(name).into(),
            Request::Configure { config } => self.configure(config).into(),
            Request::Console => Answer::Console,
            Request::ConsoleHistory => Answer::Bytes(self.console.history().all()),
            Request::Log => match self.log.tail(MOST_LOG) {
                Ok(bytes) => Answer::Bytes(bytes),
                Err(error) => {
                    let path = self.log.path().display();
                    let message = format!("Cannot read the log {path}: {error}");
                    Err(Failure::new(ErrorCode::NotFound, message)).into()
                }
            },
            Request::CrashReport => self.crash_report(),
            Request::Wait { until } => Answer::Later(*until),
        })
    }

    /// Refuses what needs a running guest.
    pub(super) fn check_running(&self) -> Result<(), Failure> {
        let name = &self.registration.entry().name;
        let state = match self.stopped {
            None => return Ok(()),
            Some(ShutdownReason::Crash | ShutdownReason::Watchdog) => "has crashed",
            Some(_) => "has shut down",
        };
        Err(Failure::new(ErrorCode::WrongState, format!("Domain '{name}' {state}"))
            .with_hint(format!("'xm destroy {name}' removes it.")))
    }

    pub(super) fn pause(&mut self) -> Result<(), Failure> {
        self.check_running()?;
        self.guest.group.stop();
        self.paused = true;
        self.held = None;
        kill_point("xendomain.paused");
        Ok(())
    }

    fn unpause(&mut self) -> Result<(), Failure> {
        self.check_running()?;
        self.guest.group.resume();
        self.paused = false;
        self.held = None;
        kill_point("xendomain.unpaused");
        self.devices.wish(Wish::Retry);
        Ok(())
    }

    /// Stops the guest for a tool, unless it stands still already.
    fn hold(&mut self, id: Id) -> Result<(), Failure> {
        if self.paused {
            return self.check_running();
        }
        self.pause()?;
        self.held = Some(id);
        Ok(())
    }

    /// Lets the guest go on whose holder has gone, however that came.
    pub(super) fn let_go(&mut self) {
        if self.held.is_some_and(|id| !self.server.is_connected(id))
            && let Err(failure) = self.unpause()
        {
            self.held = None;
            self.log.write(Record::error("cannot go on").with("error", failure));
        }
    }

    /// Writes to the guest's xenstore, if there is anybody to read it.
    pub(super) fn store_order(
        &mut self,
        order: impl FnOnce(&mut GuestStore) -> Result<(), StoreError>,
    ) -> Answer {
        let name = &self.registration.entry().name;
        if self.stopped.is_none() && self.paused {
            return Err(Failure::new(ErrorCode::WrongState, format!("Domain '{name}' is paused"))
                .with_hint(format!("'xm unpause {name}' lets it run.")))
            .into();
        }
        let written = self.check_running().and_then(|()| {
            order(&mut self.guest.store)
                .map_err(|error| Failure::new(ErrorCode::Host, error.to_string()))
        });
        kill_point("xendomain.wish-written");
        written.into()
    }

    /// Keeps a configuration for the next life.
    fn configure(&mut self, config: &config::DomainConfig) -> Result<(), Failure> {
        let name = self.registration.entry().name.clone();
        self.spec.follow_with(config.clone(), &name)?;
        self.log.write(Record::info("another configuration holds from the next restart on"));
        Ok(())
    }

    fn rename(&mut self, name: &str) -> Result<(), Failure> {
        self.registration.rename(name).map_err(|error| {
            let failure = Failure::new(ErrorCode::Busy, error.to_string());
            match error.hint() {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            }
        })?;
        let old = std::mem::replace(&mut self.spec.create.config.general.name, name.into());
        if let Some(next) = &mut self.spec.next {
            next.general.name = name.into();
        }
        let path = self.registration.registry().dirs().log(name);
        let record = Record::info(format!("renamed to {name}, whose log has what follows"));
        self.log.write(record.with("file", path.display()));
        self.log.move_to(&path, name);
        kill_point("xendomain.rename.log-moved");
        self.log.write(Record::info(format!("renamed from {old}, whose log has what was before")));
        let renamed = self.guest.store.rename(name);
        kill_point("xendomain.rename.in-store");
        renamed.map_err(|error| Failure::new(ErrorCode::Host, error.to_string()))
    }

    fn crash_report(&self) -> Answer {
        let path = self.last_crash.as_ref().and_then(|crash| crash.report.as_ref());
        let Some(path) = path else {
            let message = "There is no crash report of this domain";
            return Err(Failure::new(ErrorCode::NotFound, message)).into();
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path);
        match file.and_then(|file| file.take(MAX_REPLY as u64).read_to_end(&mut bytes)) {
            Ok(_) => Answer::Bytes(bytes),
            Err(error) => {
                let message = format!("Cannot read the report {}: {error}", path.display());
                Err(Failure::new(ErrorCode::NotFound, message)).into()
            }
        }
    }

    pub(super) fn state(&self) -> StateFlags {
        let crashed =
            matches!(self.stopped, Some(ShutdownReason::Crash | ShutdownReason::Watchdog));
        let blocked = self.guest.page().vcpu_state() == vcpu_state::BLOCKED;
        let alive = self.stopped.is_none();
        StateFlags {
            running: alive && !self.paused && !blocked,
            blocked: alive && blocked,
            paused: alive && self.paused,
            shutdown: !alive && !crashed,
            crashed,
            dying: false,
        }
    }

    fn info(&self, with_config: bool) -> DomainInfo {
        let entry = self.registration.entry();
        let setup = &self.guest.memory.setup;
        DomainInfo {
            domid: entry.domid,
            name: entry.name.clone(),
            uuid: entry.uuid,
            pid: entry.pid,
            memory_mib: self.guest.pages() / PAGES_PER_MIB,
            maxmem_mib: setup.max_pages / PAGES_PER_MIB,
            resident_mib: resident_mib(self.guest.memory.ram.as_fd()),
            vcpus: setup.vcpus,
            state: self.state(),
            shutdown_reason: self.stopped,
            cpu_seconds: self.guest.time.seconds(),
            started: entry.started,
            restarts: self.spec.restarts,
            jail: self.walls.clone(),
            last_crash: self.last_crash.clone(),
            config: with_config.then(|| Box::new(self.spec.config().clone())),
            next_config: self.spec.next.clone().filter(|_| with_config),
        }
    }
}
