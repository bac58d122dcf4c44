//! Raw terminal mode that is always undone.
//!
//! [`RawTerminal`] puts a terminal into raw mode and back. Three things undo it, so that one is
//! left in every case:
//!
//! 1. dropping it (return, error, a signal that the caller handles);
//! 2. the panic hook ([`install_panic_hook`]);
//! 3. a watcher, a small child process ([`watch`]) that notices when this process dies without
//!    a word, as it does under `SIGKILL`.
//!
//! The watcher holds one end of a socket pair. It reads the terminal's settings itself, says
//! that it is ready, and waits: one byte means that all is well, end of file means that the
//! other side is gone. It is in a session of its own. The terminal is then not its controlling
//! terminal, so it gets neither `SIGINT` nor `SIGHUP` from it, and job control (`SIGTTOU`) does
//! not stop it from restoring the settings after the shell has taken the terminal back.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The hidden subcommand that runs [`watch`].
pub const WATCH_COMMAND: &str = "__watch-terminal";

/// How long the watcher may take to start.
const WATCHER_START: Duration = Duration::from_secs(5);

/// What the panic hook restores.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The terminal could not be switched.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// `tcgetattr` or `tcsetattr` failed.
    #[error("Cannot {action} the terminal's settings: {source}")]
    Settings {
        /// "read" or "change".
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The process that guards the terminal did not start.
    #[error("Cannot start the process that guards the terminal's settings: {0}")]
    Watcher(std::io::Error),
}

fn settings(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> TerminalError {
    move |errno| TerminalError::Settings { action, source: errno.into() }
}

/// A terminal in raw mode; dropping it restores the settings from before.
#[derive(Debug)]
pub struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
    watcher: Option<Watcher>,
}

impl RawTerminal {
    /// Switches `terminal` to raw mode.
    ///
    /// # Errors
    ///
    /// When the settings cannot be read or changed, or the watcher does not start; the terminal
    /// is then as it was.
    pub fn enter(terminal: BorrowedFd<'_>) -> Result<Self, TerminalError> {
        Self::begin(terminal, Shown::Lines)
    }

    /// The same for a program that then takes the whole screen.
    ///
    /// # Errors
    ///
    /// As [`RawTerminal::enter`].
    pub fn enter_screen(terminal: BorrowedFd<'_>) -> Result<Self, TerminalError> {
        Self::begin(terminal, Shown::Screen)
    }

    fn begin(terminal: BorrowedFd<'_>, shown: Shown) -> Result<Self, TerminalError> {
        let before = tcgetattr(terminal).map_err(settings("read"))?;
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(TerminalError::Watcher);
        let watcher = Watcher::start(own(terminal)?, shown).map_err(TerminalError::Watcher)?;
        let raw = Self { terminal: own(terminal)?, before, watcher: Some(watcher) };
        if let Ok(mut saved) = SAVED.lock() {
            *saved = Some((own(terminal)?, raw.before.clone()));
        }
        raw.make_raw()?;
        Ok(raw)
    }

    /// Restores the settings for a while, as before a stop by job control.
    pub fn suspend(&self) {
        // Nothing can be done about a failure: the terminal is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }

    /// Back to raw mode after [`RawTerminal::suspend`].
    ///
    /// # Errors
    ///
    /// When the settings cannot be changed.
    pub fn make_raw(&self) -> Result<(), TerminalError> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Now, &raw).map_err(settings("change"))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.suspend();
        if let Ok(mut saved) = SAVED.lock() {
            *saved = None;
        }
        if let Some(watcher) = self.watcher.take() {
            watcher.dismiss();
        }
    }
}

/// Restores a terminal's settings if this process dies, for a part of it that changes them by itself.
#[derive(Debug)]
pub struct Guard {
    watcher: Option<Watcher>,
}

impl Guard {
    /// Guards `terminal` until this is dropped.
    ///
    /// # Errors
    ///
    /// When the watcher does not start.
    pub fn of(terminal: impl AsFd) -> Result<Self, TerminalError> {
        let terminal = terminal.as_fd().try_clone_to_owned().map_err(TerminalError::Watcher)?;
        let watcher = Watcher::start(terminal, Shown::Lines).map_err(TerminalError::Watcher)?;
        Ok(Self { watcher: Some(watcher) })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.dismiss();
        }
    }
}

/// The process that restores the terminal if this one dies.
#[derive(Debug)]
struct Watcher {
    child: Child,
    line: UnixStream,
}

/// What a program shows on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Lines, one after the other.
    Lines,
    /// The alternate screen, perhaps without a cursor.
    Screen,
}

/// Leaves the alternate screen and shows the cursor (xterm's control sequences, private modes 1049
/// and 25).
const LEAVE_SCREEN: &[u8] = b"\x1b[?1049l\x1b[?25h";
/// Word that has the watcher do so.
const SCREEN: &str = "screen";

impl Watcher {
    fn start(terminal: OwnedFd, shown: Shown) -> std::io::Result<Self> {
        let (line, far) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg(WATCH_COMMAND)
            .args((shown == Shown::Screen).then_some(SCREEN))
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::from(terminal))
            .stderr(Stdio::null())
            .spawn()?;
        let mut watcher = Self { child, line };
        match watcher.await_ready() {
            Ok(()) => Ok(watcher),
            Err(error) => {
                drop(watcher.child.kill());
                drop(watcher.child.wait());
                Err(error)
            }
        }
    }

    fn await_ready(&mut self) -> std::io::Result<()> {
        self.line.set_read_timeout(Some(WATCHER_START))?;
        self.line.read_exact(&mut [0])
    }

    fn dismiss(mut self) {
        drop(self.line.write_all(b"."));
        drop(self.line);
        drop(self.child.wait());
    }
}

/// The body of the watcher process: standard input is the socket pair, standard output the
/// terminal. Returns when its job is done.
///
/// # Errors
///
/// When the terminal or the socket pair is not there, as when a user calls it by hand.
pub fn watch(words: &[String]) -> std::io::Result<()> {
    let terminal = std::io::stdout().as_fd().try_clone_to_owned()?;
    let mut line = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let before = tcgetattr(&terminal)?;
    rustix::process::setsid()?;
    line.write_all(b".")?;
    match line.read(&mut [0]) {
        Ok(1..) => {}
        Ok(0) | Err(_) => {
            tcsetattr(&terminal, OptionalActions::Now, &before)?;
            if words.first().is_some_and(|word| word == SCREEN) {
                std::io::stdout().write_all(LEAVE_SCREEN)?;
                std::io::stdout().flush()?;
            }
        }
    }
    Ok(())
}

/// Makes a panic restore the terminal before its message is printed.
pub fn install_panic_hook() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // `try_lock`: the panic may have happened while the lock was held.
        if let Ok(saved) = SAVED.try_lock()
            && let Some((terminal, before)) = saved.as_ref()
        {
            let _ = tcsetattr(terminal, OptionalActions::Now, before);
        }
        print(panic);
    }));
}
