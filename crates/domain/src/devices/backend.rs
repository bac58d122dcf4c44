//! The process that serves a domain's disks, or its network interfaces.

use super::Owner;
use boundary::Backend;
use devices::guest::Layout;
use devices::wire::{self, Order, Report};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// The program of a backend.
fn program(backend: Backend) -> &'static str {
    match backend {
        Backend::Block => "xenblock",
        Backend::Net => "xennet",
    }
}

/// Environment variable that names another program.
fn variable(backend: Backend) -> &'static str {
    match backend {
        Backend::Block => "XENOLITH_XENBLOCK",
        Backend::Net => "XENOLITH_XENNET",
    }
}

/// A backend's process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    socket: OwnedFd,
    child: Child,
}

impl Process {
    /// Starts the process and tells it of the guest.
    ///
    /// # Errors
    /// When the program is missing or cannot be started.
    pub fn start(backend: Backend, owner: &Owner) -> io::Result<Self> {
        let path = control::find_program(program(backend), variable(backend))
            .map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(path)
            .arg(&owner.name)
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let process = Self { socket: ours, child };
        let memory = &owner.memory;
        let setup = &memory.setup;
        let layout = Layout {
            max_pages: setup.max_pages,
            nr_frames: setup.nr_frames,
            grant_mfn: setup.grant_mfn,
        };
        let fds = [memory.ram.as_fd(), memory.arena.as_fd(), memory.bell(backend), memory.kick()];
        process.order(&Order::Guest(layout), &fds)?;
        Ok(process)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// When the process is gone, or does not read.
    pub fn order(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.socket, order, fds)
    }

    /// The next report, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; anything else, or `None`, when the process is gone or talks
    /// nonsense.
    pub fn report(&self) -> io::Result<Option<Report>> {
        Ok(wire::receive(&self.socket)?.map(|(report, _no_fds)| report))
    }

    /// How it ended; kills it if it has not.
    pub fn end(&mut self) -> String {
        let _gone_already = self.child.kill();
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
