//! Starting a domain: with a time limit, with Ctrl+C, and whatever becomes of the daemon.
//!
//! The daemon answers when the domain runs. If it takes too long or the user gives up, the start
//! is called off: nothing half-done is left. If the daemon is killed meanwhile, the next one is
//! asked for the domain by its UUID.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use api::types::Started;
use api::{Daemon, Error as ApiError, Pending};
use control::{ErrorCode, Uuid, kill_point};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Error;
use crate::signals::Signals;

/// How long a domain may take to start. The daemon's own limit is shorter.
pub const LIMIT: Duration = Duration::from_secs(110);

/// How often a start is tried whose daemon was killed.
const MOST_ATTEMPTS: u32 = 5;

/// Has a domain started by `begin` and returns when it runs.
///
/// # Errors
///
/// When it does not start, after the limit, and on a signal; there is no such domain then.
pub fn launch(
    daemon: &Daemon,
    begin: impl Fn() -> Result<Pending, ApiError>,
    name: &str,
    uuid: Uuid,
    signals: &mut Signals,
) -> Result<Started, Error> {
    let deadline = Instant::now() + LIMIT;
    let mut attempt = 1;
    loop {
        let pending = begin()?;
        kill_point("xm.create.asked");
        match wait(&pending, deadline, signals)? {
            Waited::Answer => kill_point("xm.create.waited"),
            Waited::TooLong => {
                cancel(daemon, uuid);
                return Err(Error::TooSlow { name: name.into(), seconds: LIMIT.as_secs() });
            }
            Waited::Signal(signal) => {
                cancel(daemon, uuid);
                return Err(Error::Interrupted { name: name.into(), signal });
            }
        }
        let error = match pending.finish() {
            Ok(started) => {
                kill_point("xm.create.started");
                return Ok(started);
            }
            Err(error) => error,
        };
        // The name may be taken by what an attempt before has started.
        let is_ours = attempt > 1 && error.code() == Some(ErrorCode::Busy);
        if !(is_ours || error.is_break() && attempt < MOST_ATTEMPTS) {
            return Err(error.into());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match daemon.started_meanwhile(uuid, left)? {
            Some(started) => return Ok(started),
            None if is_ours => return Err(error.into()),
            None => attempt += 1,
        }
    }
}

enum Waited {
    Answer,
    TooLong,
    Signal(i32),
}

/// Waits until there is an answer to read or a reason to give up.
fn wait(pending: &Pending, deadline: Instant, signals: &mut Signals) -> Result<Waited, Error> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Waited::TooLong);
        }
        let timeout = Timespec::try_from(left).ok();
        let is_ready = {
            let mut fds = [
                PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(pending.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(ApiError::Broken(errno.into()).into()),
            }
            !fds[1].revents().is_empty()
        };
        if let Some(signal) = signals.ending() {
            return Ok(Waited::Signal(signal));
        }
        if is_ready {
            return Ok(Waited::Answer);
        }
    }
}

/// Calls the start off, or ends the domain if it came up just now. A failure is ignored: there is
/// already an error to report, and the daemon gives up a start whose client is gone.
fn cancel(daemon: &Daemon, uuid: Uuid) {
    kill_point("xm.create.cancelling");
    drop(daemon.destroy(&uuid.to_string()));
    kill_point("xm.create.cancelled");
}
