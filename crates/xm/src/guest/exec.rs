//! `exec`: a command in a guest, with this process's standard input and outputs.

use super::GuestError;
use super::session::{Event, Session, Source};
use crate::error::Error;
use crate::signals::{Signals, obey};
use crate::terminal::RawTerminal;
use clap::ArgMatches;
use guest_agent::message::{Kind, Outcome};
use guest_agent::request::{Command, Request, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGHUP, SIGTSTP, SIGWINCH};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A pipe that polls as writable takes this much without blocking (`PIPE_BUF` on Linux).
const SAFE_WRITE: usize = 4096;
/// What shells add to the number of a signal that killed a command.
const KILLED: u8 = 128;

/// `exec [-t] [-n] [-e KEY=VALUE] [-w DIR] [--timeout SECONDS] D COMMAND...`.
///
/// # Errors
///
/// When the domain or its agent cannot be reached, or the command cannot be started.
pub fn exec(matches: &ArgMatches) -> Result<u8, Error> {
    let wants_terminal = matches.get_flag("tty");
    let stdin = std::io::stdin();
    if wants_terminal && !stdin.is_terminal() {
        let text = "-t needs a terminal as standard input.";
        return Err(Error::usage("exec", text));
    }
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let request = Request::Run(Command {
        words: bytes(crate::words(matches, "command")),
        environment: environment(matches, wants_terminal)?,
        directory: crate::word(matches, "workdir").as_bytes().to_vec(),
        terminal: wants_terminal.then(size),
    });
    let patience = patience(matches);
    let mut session =
        Session::open(crate::word(matches, "domain"), "run a command in", &request, patience)?;
    let input_open = !matches.get_flag("no-stdin");
    if !input_open {
        session.say_end();
    }
    let terminal = if wants_terminal { Some(RawTerminal::enter(stdin.as_fd())?) } else { None };
    let resized = resized().map_err(Error::Signals)?;
    let end = Exec {
        session,
        terminal: terminal.as_ref(),
        resized,
        waiting: VecDeque::new(),
        input_open,
        end: None,
        told: false,
    }
    .run(&mut signals);
    drop(terminal);
    match end? {
        End::Outcome(Outcome::Exited(code)) => Ok(code),
        End::Outcome(Outcome::Killed(signal)) => Ok(KILLED.saturating_add(signal)),
        End::Signal(signal) => {
            obey(signal);
            Ok(KILLED)
        }
        End::OutputClosed => Err(Error::OutputClosed),
    }
}

fn bytes(words: Vec<String>) -> Vec<Vec<u8>> {
    words.into_iter().map(String::into_bytes).collect()
}

/// How long to wait for an agent.
pub(super) fn patience(matches: &ArgMatches) -> Duration {
    let seconds = matches.get_one::<f64>("timeout").copied().unwrap_or(10.0);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn environment(matches: &ArgMatches, wants_terminal: bool) -> Result<Vec<Vec<u8>>, Error> {
    let given = crate::words(matches, "env");
    if let Some(wrong) = given.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(Error::usage("exec", format!("-e {wrong}: give KEY=VALUE.")));
    }
    let kind = std::env::var("TERM").ok().filter(|_| wants_terminal);
    let usual = kind.map(|kind| format!("TERM={kind}"));
    Ok(bytes(usual.into_iter().chain(given).collect()))
}

fn size() -> Size {
    match tcgetwinsize(std::io::stdin()) {
        // A terminal that does not know its size says 0.
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            Size { rows: size.ws_row, columns: size.ws_col }
        }
        _ => Size { rows: 24, columns: 80 },
    }
}

/// Readable when the terminal has another size.
fn resized() -> std::io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGWINCH, write)?;
    Ok(read)
}

/// How it ended.
enum End {
    Outcome(Outcome),
    Signal(i32),
    OutputClosed,
}

struct Exec<'a> {
    session: Session,
    terminal: Option<&'a RawTerminal>,
    resized: UnixStream,
    /// Output that is to be written here.
    waiting: VecDeque<(Source, Vec<u8>)>,
    input_open: bool,
    end: Option<Outcome>,
    /// The command was told of a signal already.
    told: bool,
}

/// What is ready.
#[derive(Default)]
struct Ready {
    signal: bool,
    resized: bool,
    session: bool,
    input: bool,
    output: bool,
}

impl Exec<'_> {
    fn run(mut self, signals: &mut Signals) -> Result<End, GuestError> {
        loop {
            self.session.flush()?;
            if self.waiting.is_empty()
                && let Some(outcome) = self.end
            {
                return Ok(End::Outcome(outcome));
            }
            self.session.check_patience()?;
            let ready = self.wait(signals)?;
            if ready.signal
                && let Some(end) = self.on_signals(signals)
            {
                return Ok(end);
            }
            if ready.resized {
                self.resize();
            }
            if ready.output && !self.write_output()? {
                return Ok(End::OutputClosed);
            }
            if ready.input {
                self.read_input()?;
            }
            if ready.session && self.waiting.is_empty() {
                match self.session.hear()? {
                    Some(Event::Data(source, bytes)) => self.waiting.push_back((source, bytes)),
                    Some(Event::Done(outcome)) => self.end = Some(outcome),
                    None => {}
                }
            }
        }
    }

    fn wait(&self, signals: &Signals) -> Result<Ready, GuestError> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
            PollFd::new(&self.resized, PollFlags::IN),
        ];
        // A descriptor that is not wanted is left out: poll would report its hang-up for ever.
        let mut place = |wanted: bool, fd, flags| {
            wanted.then(|| {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                fds.len() - 1
            })
        };
        let reads = self.waiting.is_empty() && self.end.is_none();
        let mut flags = self.session.interest();
        if !reads {
            flags.remove(PollFlags::IN);
        }
        let takes_input = self.input_open && self.end.is_none() && self.session.room() > 0;
        let session = place(!flags.is_empty(), self.session.as_fd(), flags);
        let input = place(takes_input, stdin.as_fd(), PollFlags::IN);
        let output = match self.waiting.front() {
            Some((Source::Out, _)) => place(true, stdout.as_fd(), PollFlags::OUT),
            Some((Source::Err, _)) => place(true, stderr.as_fd(), PollFlags::OUT),
            None => None,
        };
        let left = self.session.patience_left();
        let timeout =
            left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(GuestError::Host(errno.into())),
        }
        let is_ready = |index: Option<usize>| {
            index.and_then(|index| fds.get(index)).is_some_and(|fd| !fd.revents().is_empty())
        };
        Ok(Ready {
            signal: is_ready(Some(0)),
            resized: is_ready(Some(1)),
            session: reads && is_ready(session),
            input: is_ready(input),
            output: is_ready(output),
        })
    }

    /// The first signal is the command's; with the second one this process ends.
    fn on_signals(&mut self, signals: &mut Signals) -> Option<End> {
        for signal in signals.take() {
            if signal == SIGTSTP {
                self.stop();
                continue;
            }
            if signal == SIGHUP || std::mem::replace(&mut self.told, true) {
                return Some(End::Signal(signal));
            }
            // Before there is an agent there is no command either.
            if self.session.patience_left().is_some() {
                return Some(End::Signal(signal));
            }
            self.session.say(Kind::Signal, &[u8::try_from(signal).unwrap_or(0)]);
        }
        None
    }

    /// Stops as job control asks, with the terminal as it was.
    fn stop(&self) {
        if let Some(terminal) = self.terminal {
            terminal.suspend();
        }
        obey(SIGTSTP);
        if let Some(terminal) = self.terminal {
            let _the_terminal_is_gone = terminal.make_raw();
        }
    }

    fn resize(&mut self) {
        let mut bytes = [0; 64];
        let _was_clear = rustix::io::read(&self.resized, &mut bytes);
        if self.terminal.is_some() {
            self.session.say(Kind::Resize, &size().encode());
        }
    }

    fn read_input(&mut self) -> Result<(), GuestError> {
        let room = self.session.room();
        if room == 0 {
            // What was written meanwhile took it; and a read of nothing looks like the end.
            return Ok(());
        }
        let mut bytes = vec![0; room];
        match rustix::io::read(std::io::stdin(), &mut bytes) {
            // A closed descriptor is an empty input.
            Ok(0) | Err(Errno::BADF | Errno::IO) => {
                self.input_open = false;
                self.session.say_end();
            }
            Ok(count) => self.session.say_data(bytes.get(..count).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(GuestError::Host(errno.into())),
        }
        Ok(())
    }

    /// Writes some output; false if nobody reads it.
    fn write_output(&mut self) -> Result<bool, GuestError> {
        let Some((source, bytes)) = self.waiting.front_mut() else { return Ok(true) };
        let part = bytes.get(..SAFE_WRITE).unwrap_or(bytes);
        let written = match source {
            Source::Out => rustix::io::write(std::io::stdout(), part),
            Source::Err => rustix::io::write(std::io::stderr(), part),
        };
        let count = match written {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(Errno::PIPE | Errno::IO | Errno::BADF) => return Ok(false),
            Err(errno) => return Err(GuestError::Host(errno.into())),
        };
        bytes.drain(..count.min(bytes.len()));
        if bytes.is_empty() {
            self.waiting.pop_front();
        }
        self.session.took(count);
        Ok(true)
    }
}
