//! Signals as a descriptor to poll.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Signals that are blocked and arrive through a descriptor instead.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// Size of `struct signalfd_siginfo` (signalfd(2)).
const RECORD: usize = 128;

impl Signals {
    /// Blocks `signals` for this thread and all threads it starts from now on.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set that the other calls read.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal's number, if one waits.
    pub fn next(&self) -> Option<i32> {
        let mut record = [0; RECORD];
        let length = rustix::io::read(&self.0, &mut record).ok()?;
        let number = record.first_chunk::<4>().filter(|_| length == RECORD)?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

/// Has a program start with no signal blocked, whatever this process blocks.
pub fn unblock_in(command: &mut Command) {
    let unblock = || {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set that the other call reads; both may be called
        // between fork and exec (signal-safety(7)).
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
        }
        Ok(())
    };
    // SAFETY: the function makes two signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(unblock) };
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
