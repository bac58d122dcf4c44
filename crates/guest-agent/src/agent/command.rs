//! Running a command.

use super::session::{Input, Link};
use super::terminal;
use crate::message::{Kind, Outcome};
use crate::request::{Command, Size};
use crate::{CHUNK, exit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How long output may be missing before a command that has ended is taken to have no more: what it
/// started in the background may keep its output open for ever.
const LAST_OUTPUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What a command finds in its environment, unless it is given something else.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOME: &str = "/root";

/// End of transmission: what ends the input on a terminal.
const EOT: u8 = 4;

/// Runs a command and tells how it ended.
pub(super) fn run(link: &Arc<Link>, input: Input, command: &Command) {
    let running = match start(command) {
        Ok(running) => running,
        Err((code, text)) => return link.refuse(code, &text),
    };
    let Running { mut child, stdin, outputs, terminal } = running;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        link.started(group, terminal);
    }
    let on_terminal = command.terminal.is_some();
    // It ends with the session, or with the command's last reader.
    let feeder = Feeder { link: link.clone(), input, stdin, on_terminal };
    let _feeder = std::thread::Builder::new().spawn(move || feeder.run());
    let ended = Arc::new(AtomicBool::new(false));
    let pumps: Vec<io::Result<JoinHandle<()>>> = outputs
        .into_iter()
        .map(|(kind, output)| {
            let (link, ended) = (link.clone(), ended.clone());
            std::thread::Builder::new().spawn(move || pump(&link, kind, &output, &ended))
        })
        .collect();
    let status = child.wait();
    link.ended();
    ended.store(true, Ordering::Release);
    for pump in pumps.into_iter().flatten() {
        let _ended_in_any_case = pump.join();
    }
    match status {
        Ok(status) => link.done(outcome(status)),
        Err(error) => link.refuse(exit::FAULT, &format!("The guest lost its command: {error}")),
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited(byte(code)),
        (None, signal) => Outcome::Killed(byte(signal.unwrap_or(0))),
    }
}

/// A command that runs.
struct Running {
    child: Child,
    stdin: File,
    outputs: Vec<(Kind, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

fn start(command: &Command) -> Result<Running, (u8, String)> {
    let fault = |error: &dyn std::fmt::Display| {
        (exit::FAULT, format!("The guest cannot prepare the command: {error}"))
    };
    let words: Vec<&OsStr> = command.words.iter().map(|word| OsStr::from_bytes(word)).collect();
    let Some((program, arguments)) = words.split_first() else {
        return Err(fault(&"it has no words"));
    };
    let directory = directory(command);
    if !directory.is_dir() {
        let text = format!("The guest has no directory '{}'", directory.display());
        return Err((exit::NOT_EXECUTABLE, text));
    }
    let mut order = match command.terminal {
        None => {
            let mut order = std::process::Command::new(program);
            order.process_group(0);
            order
        }
        Some(_) => {
            let helper = std::env::current_exe().map_err(|error| fault(&error))?;
            let mut order = std::process::Command::new(helper);
            order.arg(terminal::OPTION).arg(program);
            order
        }
    };
    order.args(arguments).current_dir(directory).env_clear().envs(environment(command));
    let spawned = |error: io::Error| (terminal::code(&error), terminal::refusal(program, &error));
    match command.terminal {
        None => {
            order.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = order.spawn().map_err(spawned)?;
            let (Some(stdin), Some(stdout), Some(stderr)) =
                (child.stdin.take(), child.stdout.take(), child.stderr.take())
            else {
                return Err(fault(&"it has no pipes"));
            };
            let outputs = vec![(Kind::Data, stdout.into()), (Kind::ErrorData, stderr.into())];
            Ok(Running { child, stdin: OwnedFd::from(stdin).into(), outputs, terminal: None })
        }
        Some(size) => {
            let (ours, theirs) = pseudo_terminal(size).map_err(|error| fault(&error))?;
            let copy = || theirs.try_clone().map_err(|error| fault(&error));
            order.stdin(copy()?).stdout(copy()?).stderr(copy()?);
            let child = order.spawn().map_err(spawned)?;
            // The command alone holds its end.
            drop((order, theirs));
            let copy = || ours.try_clone().map_err(|error| fault(&error));
            let (stdin, output, terminal) = (File::from(copy()?), copy()?, Some(copy()?));
            Ok(Running { child, stdin, outputs: vec![(Kind::Data, output)], terminal })
        }
    }
}

fn directory(command: &Command) -> PathBuf {
    if !command.directory.is_empty() {
        return PathBuf::from(OsStr::from_bytes(&command.directory));
    }
    home()
}

/// Root's home, or where there is none the root directory.
pub(super) fn home() -> PathBuf {
    let home = Path::new(HOME);
    if home.is_dir() { home.to_owned() } else { PathBuf::from("/") }
}

fn environment(command: &Command) -> Vec<(OsString, OsString)> {
    let usual = [("PATH", PATH), ("HOME", HOME), ("USER", "root"), ("LOGNAME", "root")];
    let usual = usual.map(|(key, value)| (OsString::from(key), OsString::from(value)));
    let given = command.environment.iter().filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (entry.get(..at)?, entry.get(at + 1..)?);
        Some((OsStr::from_bytes(key).to_owned(), OsStr::from_bytes(value).to_owned()))
    });
    // A later one of the same name wins.
    usual.into_iter().chain(given).filter(|(key, _)| !key.is_empty()).collect()
}

/// A terminal of this size: our end, and the command's.
fn pseudo_terminal(size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let path = Path::new(OsStr::from_bytes(name.as_bytes()));
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let theirs = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    resize(&ours, size);
    Ok((ours, theirs))
}

/// Gives a terminal another size.
pub(super) fn resize(terminal: &OwnedFd, size: Size) {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _gone_with_its_command = tcsetwinsize(terminal, size);
}

/// Gives the command its input.
struct Feeder {
    link: Arc<Link>,
    input: Input,
    stdin: File,
    on_terminal: bool,
}

impl Feeder {
    fn run(mut self) {
        if let Err(error) = self.feed() {
            self.link.refuse(exit::FAULT, &format!("The command's input was lost: {error}"));
        }
    }

    fn feed(&mut self) -> io::Result<()> {
        loop {
            match self.input.next() {
                Ok(Some(bytes)) => self.write(&bytes)?,
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // The session is over.
                Err(_) => return Ok(()),
            }
        }
        if self.on_terminal { self.write(&[EOT]) } else { Ok(()) }
    }

    /// A command that does not want it loses it: so do pipes and terminals that nobody reads.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stdin.write_all(bytes) {
            Err(error) if !is_closed(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(code) if [Errno::PIPE, Errno::IO].map(Errno::raw_os_error).contains(&code))
}

/// Gives the host what the command writes.
fn pump(link: &Link, kind: Kind, output: &OwnedFd, ended: &AtomicBool) {
    let mut bytes = [0; 4 * CHUNK];
    loop {
        let had_ended = ended.load(Ordering::Acquire);
        let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&LAST_OUTPUT)) {
            Ok(0) if had_ended => return,
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        match rustix::io::read(output, &mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                if link.send_data(kind, bytes.get(..count).unwrap_or_default()).is_err() {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            // A terminal that nobody holds any more says EIO.
            Err(_) => return,
        }
    }
}
