//! Ending a domain whose process does not listen any more.

use crate::entry::Entry;
use crate::error::PathError;
use crate::registry::{Registry, RegistryError};
use kill_point::kill_point;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Kills the domain's process; its spaces end with it, and the kernel takes everything back.
/// Returns when it is gone, or after `patience` in any case.
///
/// # Errors
/// When the registry cannot be read or the process cannot be killed. A process that is gone
/// already is no error.
pub fn kill(registry: &Registry, entry: &Entry, patience: Duration) -> Result<(), RegistryError> {
    let failed = |errno: Errno| PathError::at("kill the process of", &entry.directory)(errno);
    let Some(pid) = i32::try_from(entry.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(failed(errno).into()),
    };
    // A process that holds the domain's lock now, after the descriptor was opened, is the one
    // that the descriptor stands for: the number was not given to another process before.
    let same = |other: &Entry| (other.domid, other.pid) == (entry.domid, entry.pid);
    if !registry.list()?.iter().any(same) {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(failed(errno).into()),
    }
    kill_point("domain-killed.sent");
    wait_for_end(&process, patience);
    kill_point("domain-killed.dead");
    // The list takes away what a dead domain left.
    registry.list()?;
    Ok(())
}

fn wait_for_end(process: &OwnedFd, patience: Duration) {
    let patience = Timespec::try_from(patience).ok();
    let _ended_or_late = poll(&mut [PollFd::new(process, PollFlags::IN)], patience.as_ref());
}

/// Waits until a process that is ending has let go of all its files, or `patience` is over.
pub(crate) fn outlast(pid: u32, patience: Duration) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        wait_for_end(&process, patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dirs, Uuid};
    use std::process::Command;

    #[test]
    fn a_process_that_does_not_hold_the_lock_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        let registry = Registry::with_dirs(dirs).unwrap();
        let registration = registry.register("one", Uuid::random().unwrap()).unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let stale = Entry { pid: other.id(), ..registration.entry().clone() };
        kill(&registry, &stale, Duration::from_secs(1)).unwrap();
        assert!(other.try_wait().unwrap().is_none(), "a stranger was killed");
        other.kill().unwrap();
        other.wait().unwrap();
        kill(&registry, &stale, Duration::from_secs(1)).unwrap();
    }
}
