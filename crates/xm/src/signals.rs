//! Signals as something to poll for, next to sockets and terminals.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// Signals that end the program; it restores what it changed first.
pub const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// The signals of interest, caught from [`Signals::catch`] on until the process ends.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Starts to catch [`ENDING`] signals and `SIGTSTP`.
    ///
    /// # Errors
    ///
    /// When the host has no descriptors left or refuses the handlers.
    pub fn catch() -> std::io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let wanted = ENDING.iter().chain(&[SIGTSTP]);
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, wanted)?;
        Ok(Self { delivery })
    }

    /// Readable when a signal has arrived.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    /// The signals that arrived since the last call.
    pub fn take(&mut self) -> Vec<i32> {
        self.delivery.pending().collect()
    }

    /// The first [`ENDING`] signal that arrived since the last call.
    pub fn ending(&mut self) -> Option<i32> {
        self.take().into_iter().find(|signal| ENDING.contains(signal))
    }
}

/// Ends (or stops) the process as `signal` would have done, so that a shell sees the true cause.
pub fn obey(signal: i32) {
    drop(signal_hook::low_level::emulate_default_handler(signal));
}
