//! How a backend's process begins: what it was left by the domain process (`boundary::backend_fd`).

use crate::guest::{Guest, GuestFds};
use crate::wire::{self, Order};
use boundary::{Backend, backend_fd};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Takes over the descriptors and the first order: the socket of orders, and the guest. `None` if
/// the domain process is gone already.
///
/// # Errors
/// When they are not what they should be.
pub fn begin(backend: Backend) -> io::Result<Option<(OwnedFd, Arc<Guest>)>> {
    let orders = inherited(backend_fd::ORDERS)?;
    let fds = GuestFds {
        ram: inherited(backend_fd::RAM)?,
        arena: inherited(backend_fd::ARENA)?,
        bell: inherited(backend_fd::BELL)?,
        kick: inherited(backend_fd::KICK)?,
    };
    let Some((first, _)) = wire::receive::<Order>(&orders)? else { return Ok(None) };
    let Order::Guest(layout) = first else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first order names no guest"));
    };
    Ok(Some((orders, Guest::new(layout, backend, fds)?)))
}

/// Takes over a descriptor that the process was started with.
fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the numbers are the process's by agreement, and each is taken over once, before
    // anything else is opened.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl_getfd(&fd) {
        Ok(flags) => {
            fcntl_setfd(&fd, flags | FdFlags::CLOEXEC)?;
            Ok(fd)
        }
        Err(_) => {
            // It is none: nothing to close.
            std::mem::forget(fd);
            let why = format!("descriptor {number} is not open: backends are started by xendomain");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}
