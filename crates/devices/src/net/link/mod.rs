//! Where a network interface leads.

mod inbox;
mod stream;
mod tap;
mod vnet;
mod watch;

use super::frontend::Features;
use super::gather::Packet;
use super::headers::Headers;
use super::netif::Gso;
use crate::wire::NetLink;
use rustix::event::PollFlags;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;
use stream::Stream;
use tap::Tap;

/// Longest frame: the largest IP packet, an Ethernet header and a VLAN tag.
pub const LONGEST: usize = 65535 + 14 + 4;
/// Shortest frame.
pub const SHORTEST: usize = 14;

/// What is left to do with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum is to be computed.
    pub blank: bool,
    /// The checksum is known to be right.
    pub validated: bool,
    /// It is to be cut into segments.
    pub gso: Option<Gso>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// The link does not take it.
    Refused,
}

/// A link.
#[derive(Debug)]
pub enum Link {
    /// A tap.
    Tap(Tap),
    /// The socket of a user-mode network.
    Stream(Stream),
}

impl Link {
    /// A link of this kind, with the descriptors that came along.
    ///
    /// # Errors
    /// If it is not one descriptor.
    pub fn new(kind: NetLink, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let [fd]: [OwnedFd; 1] = fds.try_into().map_err(|fds: Vec<_>| {
            let why = format!("a link has one descriptor, not {}", fds.len());
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(match kind {
            NetLink::Tap => Self::Tap(Tap::new(fd)),
            NetLink::Stream => Self::Stream(Stream::new(fd)),
        })
    }

    /// Gets ready for a frontend, and forgets what was meant for the one before.
    ///
    /// # Errors
    /// When the host does not allow it.
    pub fn open(&mut self, features: &Features) -> io::Result<()> {
        match self {
            Self::Tap(tap) => tap.open(features),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Whether a packet can be sent now.
    pub fn has_room(&self) -> bool {
        match self {
            Self::Tap(_) => true,
            Self::Stream(stream) => stream.has_room(),
        }
    }

    /// Sends a packet of the guest's.
    ///
    /// # Errors
    /// When the link is gone.
    pub fn send(
        &mut self,
        packet: &mut Packet,
        headers: Option<&Headers>,
        offload: &Offload,
    ) -> io::Result<Sent> {
        match self {
            Self::Tap(tap) => tap.send(packet, headers, offload),
            Self::Stream(stream) => stream.send(packet, headers, offload),
        }
    }

    /// Sends what is left in buffers, as far as that goes.
    ///
    /// # Errors
    /// When the link is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tap(_) => Ok(()),
            Self::Stream(stream) => stream.flush(),
        }
    }

    /// The next frame that came. It stays until [`Self::done`]. `None` if none is there.
    ///
    /// # Errors
    /// When the link is gone.
    pub fn receive(&mut self) -> io::Result<Option<(&mut [u8], Offload)>> {
        match self {
            Self::Tap(tap) => tap.receive(),
            Self::Stream(stream) => stream.receive(),
        }
    }

    /// Forgets the frame that came.
    pub fn done(&mut self) {
        match self {
            Self::Tap(tap) => tap.done(),
            Self::Stream(stream) => stream.done(),
        }
    }

    /// What to wait for, if `receives` frames too.
    pub fn waits_for(&self, receives: bool) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Tap(tap) => tap.waits_for(receives),
            Self::Stream(stream) => stream.waits_for(receives),
        }
    }

    /// When to call [`Self::flush`] again, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        match self {
            Self::Tap(_) => None,
            Self::Stream(stream) => stream.due(),
        }
    }

    /// Frames that found no room here since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        match self {
            Self::Tap(_) => 0,
            Self::Stream(stream) => stream.take_dropped(),
        }
    }
}
