//! Starting a domain process, with a time limit and with Ctrl+C.
//!
//! `xendomain` reads a [`CreateSpec`] on its standard input, detaches itself and answers with one
//! [`StartReply`] line. If it takes too long or the user gives up, the process is ended and the
//! domain too, should it have come into being in the meantime: nothing half-done is left.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use control::{
    Client, CreateSpec, LaunchError, LineError, LineReader, MAX_REPLY, PathError, Registry,
    StartReply, Started, find_program,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Error;
use crate::signals::Signals;

/// How long a domain may take to start: the device wait limit of xend.
pub const LIMIT: Duration = Duration::from_secs(100);

/// Starts the domain and returns when it runs (or is paused, as `spec` says).
///
/// # Errors
///
/// When `xendomain` is missing or fails, after `limit`, and on a signal; there is no such domain
/// then.
pub fn launch(
    registry: &Registry,
    spec: &CreateSpec,
    name: &str,
    limit: Duration,
    signals: &mut Signals,
) -> Result<Started, Error> {
    let before: Vec<u32> = registry.list()?.into_iter().map(|entry| entry.domid).collect();
    let deadline = Instant::now() + limit;
    let mut child = start(spec)?;
    let Some(output) = child.stdout.take() else { return Err(LaunchError::Silent.into()) };
    let waited = await_reply(output, deadline, signals);
    let failure = match waited {
        Ok(Waited::Reply(StartReply::Started(started))) => return Ok(started),
        Ok(Waited::Reply(StartReply::Failed(failure))) => {
            return Err(LaunchError::Failed(failure).into());
        }
        Ok(Waited::TooLong) => Error::TooSlow { name: name.into(), seconds: limit.as_secs() },
        Ok(Waited::Signal(signal)) => Error::Interrupted { name: name.into(), signal },
        Err(error) => error.into(),
    };
    cancel(registry, &mut child, name, &before);
    Err(failure)
}

/// Runs `xendomain` and hands it the specification.
fn start(spec: &CreateSpec) -> Result<Child, Error> {
    let program = find_program("xendomain", "XENOLITH_XENDOMAIN")?;
    let text = serde_json::to_vec(spec)?;
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(PathError::at("run", &program))?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(&text) {
            // It ended without reading; its reply says why.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                return Err(PathError::at("talk to", &program)(error).into());
            }
            _ => {}
        }
    }
    Ok(child)
}

enum Waited {
    Reply(StartReply),
    TooLong,
    Signal(i32),
}

fn await_reply(
    mut output: ChildStdout,
    deadline: Instant,
    signals: &mut Signals,
) -> Result<Waited, LaunchError> {
    let mut lines = LineReader::new(MAX_REPLY);
    loop {
        match wait_readable(&output, deadline, signals)? {
            Some(end) => return Ok(end),
            None => match lines.read(&mut Once { from: &mut output, done: false }) {
                Ok(Some(reply)) => return Ok(Waited::Reply(reply)),
                Ok(None) => return Err(LaunchError::Silent),
                Err(LineError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
}

/// Waits until there is something to read (`None`) or a reason to give up.
fn wait_readable(
    output: &ChildStdout,
    deadline: Instant,
    signals: &mut Signals,
) -> Result<Option<Waited>, LaunchError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Some(Waited::TooLong));
        }
        let timeout = Timespec::try_from(left).ok();
        let ready = {
            let signal = signals.fd();
            let mut fds = [
                PollFd::from_borrowed_fd(signal, PollFlags::IN),
                PollFd::new(output, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(LineError::Io(errno.into()).into()),
            }
            !fds[1].revents().is_empty()
        };
        if let Some(signal) = signals.ending() {
            return Ok(Some(Waited::Signal(signal)));
        }
        if ready {
            return Ok(None);
        }
    }
}

/// A reader that blocks at most once, right after `poll` has said that it will not.
struct Once<'a> {
    from: &'a mut ChildStdout,
    done: bool,
}

impl Read for Once<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::replace(&mut self.done, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.from.read(buffer)
    }
}

/// Ends the process, and the domain if it got as far as the registry.
///
/// Failures are ignored: there is already an error to report, and a process whose answer nobody
/// reads any more ends its domain itself.
fn cancel(registry: &Registry, child: &mut Child, name: &str, before: &[u32]) {
    drop(child.kill());
    drop(child.wait());
    let Ok(entries) = registry.list() else { return };
    for entry in entries.iter().filter(|entry| entry.name == name && !before.contains(&entry.domid))
    {
        if let Ok(mut client) = Client::open(entry) {
            drop(client.destroy());
        }
    }
}
