//! The guest as a backend sees it: memory, grants, event channels.

mod events;
mod grants;
#[allow(unsafe_code)]
mod memory;
#[cfg(test)]
pub mod tests;

pub use events::Port;
pub use grants::{Access, Grant, GrantError, Grants};
pub(crate) use memory::Mapping;
pub use memory::Memory;

use boundary::Backend;
use rustix::event::EventfdFlags;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What of a domain's setup backends need, as the domain process says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Frames that the guest may own; frames behind these are the monitor's.
    pub max_pages: u64,
    /// All frames.
    pub nr_frames: u64,
    /// First frame of the grant table.
    pub grant_mfn: u64,
}

/// Descriptors that reach a guest.
#[derive(Debug)]
pub struct GuestFds {
    /// Guest RAM.
    pub ram: OwnedFd,
    /// The arena.
    pub arena: OwnedFd,
    /// The backend's bell.
    pub bell: OwnedFd,
    /// Interrupts guests that run.
    pub kick: OwnedFd,
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    memory: Memory,
    backend: Backend,
    bell: OwnedFd,
    kick: OwnedFd,
    /// Since when the guest is to be interrupted, as nobody knows whether it looks by itself.
    owed: Mutex<Option<Instant>>,
    /// Uses of each grant, by its reference: each segment of a request takes and gives up one.
    uses: Mutex<Vec<grants::Uses>>,
}

impl Guest {
    /// Maps a guest's memory.
    ///
    /// # Errors
    /// When the host gives no mapping, or the memory is smaller than `layout` says.
    pub fn new(layout: Layout, backend: Backend, fds: GuestFds) -> io::Result<Arc<Self>> {
        let GuestFds { ram, arena, bell, kick } = fds;
        let memory = Memory::new(layout, backend, &ram, arena)?;
        let (owed, uses) = (Mutex::default(), Mutex::new(grants::no_uses()));
        Ok(Arc::new(Self { memory, backend, bell, kick, owed, uses }))
    }

    /// Its memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Is readable when the guest notified one of this backend's ports since [`Self::clear_bell`].
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Forgets notifications so far: to be called before rings are looked at.
    pub fn clear_bell(&self) {
        let mut count = [0; 8];
        let _was_clear = rustix::io::read(&self.bell, &mut count);
    }

    /// Binds an event channel of the guest's, which notifies this backend from now on.
    /// `None` if there is no such port.
    pub fn bind(self: &Arc<Self>, port: u32) -> Option<Port> {
        Port::bind(self.clone(), port)
    }

    /// Maps a frame that the guest granted to Domain-0.
    ///
    /// # Errors
    /// As [`GrantError`] says.
    pub fn map(self: &Arc<Self>, reference: u32, access: Access) -> Result<Grant, GrantError> {
        Grant::map(self.clone(), reference, access)
    }

    /// The same for all frames of a request: all or none.
    ///
    /// # Errors
    /// As [`GrantError`] says, of the first that cannot be used.
    pub fn map_all(
        self: &Arc<Self>,
        references: impl ExactSizeIterator<Item = u32>,
        access: Access,
    ) -> Result<Grants, GrantError> {
        Grants::map(self, references, access)
    }
}

/// A new event counter that does not block (eventfd(2)).
///
/// # Errors
/// When the host has no descriptor left.
pub fn event_counter() -> io::Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(rustix::event::eventfd(0, flags)?)
}
