//! The process that serves a domain's disks, its network interfaces, or its channel.

use super::Owner;
use crate::sys::{JailedProgram, Keeper, Kind, SpawnError, Spawned, spawn};
use boundary::{Backend, backend_fd, holds};
use control::{LaunchError, kill_point, kill_point_of};
use devices::guest::Layout;
use devices::wire::{self, Order, Report};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Most that is taken at a time of what a backend says, in bytes.
const MOST_SAID: usize = 4096;

/// The program of a backend, and the environment variable that names another one.
pub(super) fn program(backend: Backend) -> (&'static str, &'static str) {
    match backend {
        Backend::Block => ("xenblock", "XENOLITH_XENBLOCK"),
        Backend::Net => ("xennet", "XENOLITH_XENNET"),
        Backend::Channel => ("xenchannel", "XENOLITH_XENCHANNEL"),
    }
}

/// Finds a backend's program.
///
/// # Errors
/// When it is nowhere.
pub fn find(backend: Backend) -> Result<PathBuf, LaunchError> {
    let (name, variable) = program(backend);
    control::find_program(name, variable)
}

/// Why a backend could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The program is missing.
    #[error(transparent)]
    Missing(#[from] LaunchError),
    /// The program cannot be executed.
    #[error("{0}")]
    Spawn(#[from] SpawnError),
    /// The host has no sockets left, or the program ended at once.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A backend's process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    socket: OwnedFd,
    /// Its standard error.
    said: OwnedFd,
    leader: Pid,
    group: Pid,
    keeper: Option<Keeper>,
}

impl Process {
    /// Starts the process, as a child of this thread, and tells it of the guest.
    ///
    /// # Errors
    /// When the program is missing or cannot be started.
    pub fn start(backend: Backend, owner: &Owner) -> Result<Self, BackendError> {
        let (name, _) = program(backend);
        let program = File::open(find(backend)?)?;
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)?;
        let memory = &owner.memory;
        // What one that died wrote to is written to no more.
        let frames = memory.setup.nr_frames;
        let (punch, at) = (FallocateFlags::PUNCH_HOLE, holds::of(backend));
        fallocate(&memory.arena, punch | FallocateFlags::KEEP_SIZE, at, frames)
            .map_err(io::Error::from)?;
        // In the order of `backend_fd`.
        let descriptors: [BorrowedFd<'_>; (backend_fd::KICK - backend_fd::ORDERS + 1) as usize] = [
            theirs.as_fd(),
            memory.ram.as_fd(),
            memory.arena.as_fd(),
            memory.bell(backend),
            memory.kick(),
        ];
        let (said, say) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        rustix::io::ioctl_fionbio(&said, true).map_err(io::Error::from)?;
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let empty = crate::space::empty_directory(&owner.dirs.runtime)?;
        let empty = CString::new(empty.into_os_string().into_vec()).unwrap_or_default();
        let Spawned { leader, group, keeper, walls: _ } = spawn(&JailedProgram {
            program: program.as_fd(),
            arguments: &[text(name), text(&owner.name)],
            descriptors: &descriptors,
            kind: Kind::Backend { empty_directory: &empty },
            // It says there why it cannot start. It gets no descriptor of the log, in which it could
            // write whatever it wants to.
            stderr: Some(say.as_fd()),
            stopped: false,
        })?;
        let process = Self { socket: ours, said, leader, group, keeper };
        kill_point("devices.backend.started");
        process.kill_backend(&["xenblock.started", "xennet.started"], backend);
        rustix::io::ioctl_fionbio(&process.socket, true).map_err(io::Error::from)?;
        let setup = &memory.setup;
        let layout = Layout {
            max_pages: setup.max_pages,
            nr_frames: setup.nr_frames,
            grant_mfn: setup.grant_mfn,
        };
        process.order(&Order::Guest(layout), &[])?;
        kill_point("devices.backend.told");
        process.kill_backend(&["xenblock.told", "xennet.told"], backend);
        Ok(process)
    }

    /// Marks a point of the backend's: its names for disks, for interfaces, as far as they have it.
    pub fn kill_backend(&self, points: &[&'static str], backend: Backend) {
        if let Some(point) = points.get(backend as usize) {
            kill_point_of(self.leader, point);
        }
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

    /// What it said on standard error since the last call, line by line and at most [`MOST_SAID`] bytes.
    pub fn said(&self) -> Vec<String> {
        let mut text = vec![0; MOST_SAID];
        let length = rustix::io::read(&self.said, &mut text).unwrap_or(0);
        text.truncate(length);
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// How it ended; kills it if it has not.
    pub fn end(&self) -> String {
        let _gone_already = kill_process_group(self.group, Signal::KILL);
        kill_point("devices.backend.ended");
        match waitpid(Some(self.leader), WaitOptions::empty()) {
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "of unknown cause".to_owned(),
            },
            // Reaped with others.
            Ok(None) | Err(_) => "of unknown cause".to_owned(),
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
        let _gone_already = kill_process_group(self.group, Signal::KILL);
        let _reaped_already = waitpid(Some(self.leader), WaitOptions::empty());
        if let Some(keeper) = self.keeper.take() {
            let pid = keeper.pid;
            drop(keeper);
            let _reaped_already = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}
