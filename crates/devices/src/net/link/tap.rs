//! A tap of the host's, with `IFF_VNET_HDR` (Linux: Documentation/networking/tuntap.rst).

use super::vnet::{self, VnetHeader};
use super::{LONGEST, Offload, Sent};
use crate::net::checksum::{complete, complete_at, make_blank};
use crate::net::frontend::Features;
use crate::net::gather::Packet;
use crate::net::headers::{Headers, LOOKED_AT};
use crate::net::ioctl::{self, Offloads};
use rustix::event::PollFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, IntoBytes};

/// A tap.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    /// A frame with its header.
    buffer: Box<[u8]>,
    /// Bytes in it.
    filled: usize,
    /// What is to be done with it, once that was found out.
    offload: Offload,
    /// A copy of a packet whose checksum we have to compute.
    copy: Vec<u8>,
}

impl Tap {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let buffer = vec![0; vnet::LENGTH + LONGEST].into_boxed_slice();
        Self { fd, buffer, filled: 0, offload: Offload::default(), copy: Vec::new() }
    }

    pub(super) fn open(&mut self, features: &Features) -> io::Result<()> {
        /// More than a tap's queue has by default (1000).
        const MOST: usize = 4096;
        let allowed = Offloads::new(features.blank4, features.gso4, features.gso6);
        ioctl::set_offloads(&self.fd, allowed)?;
        self.done();
        for _ in 0..MOST {
            if self.receive()?.is_none() {
                break;
            }
            self.done();
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        packet: &mut Packet,
        headers: Option<&Headers>,
        offload: &Offload,
    ) -> io::Result<Sent> {
        let header = VnetHeader::outgoing(headers, offload);
        let written = match headers {
            Some(headers) if offload.blank && self.needs_copy(packet, headers) => {
                if !complete(&mut self.copy, headers) {
                    return Ok(Sent::Refused);
                }
                let plain = VnetHeader::default();
                let pieces = [io::IoSlice::new(plain.as_bytes()), io::IoSlice::new(&self.copy)];
                rustix::io::writev(&self.fd, &pieces).map(drop).map_err(io::Error::from)
            }
            Some(headers) if offload.blank => {
                make_blank(packet.head_mut(), headers);
                packet.write_to(header.as_bytes(), &self.fd)
            }
            _ => packet.write_to(header.as_bytes(), &self.fd),
        };
        match written {
            Ok(()) => Ok(Sent::Yes),
            // The tap was removed.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(error),
            // It is down, the host lacks memory, or does not like the packet: as a wire, it loses it.
            Err(_) => Ok(Sent::Refused),
        }
    }

    /// The kernel sums to the end of a frame. One with padding behind the packet is copied, so that
    /// the checksum can be computed here; they are short.
    fn needs_copy(&mut self, packet: &Packet, headers: &Headers) -> bool {
        if packet.head().len() >= LOOKED_AT || headers.end >= packet.head().len() {
            return false;
        }
        self.copy.clear();
        packet.copy_to(&mut self.copy);
        true
    }

    pub(super) fn receive(&mut self) -> io::Result<Option<(&mut [u8], Offload)>> {
        while self.filled <= vnet::LENGTH {
            self.filled = match rustix::io::read(&self.fd, &mut *self.buffer) {
                Ok(count) => count,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if self.filled <= vnet::LENGTH || self.look().is_none() {
                self.filled = 0;
            }
        }
        let frame = self.buffer.get_mut(vnet::LENGTH..self.filled).unwrap_or_default();
        Ok(Some((frame, self.offload)))
    }

    /// Finds out what is to be done with the frame that came; `None` for what nobody asked for.
    fn look(&mut self) -> Option<()> {
        let (header, frame) =
            self.buffer.get_mut(..self.filled)?.split_at_mut_checked(vnet::LENGTH)?;
        let (mut offload, checksum) = VnetHeader::read_from_bytes(header).ok()?.incoming()?;
        if let Some((start, at)) = checksum {
            let usual = Headers::parse(frame.get(..LOOKED_AT).unwrap_or(frame));
            // The guest looks for the checksum where TCP or UDP has it. In tunnels it is elsewhere.
            if !usual.is_some_and(|usual| usual.start == start && usual.checksum() == at) {
                if offload.gso.is_some() || !complete_at(frame, start, at) {
                    return None;
                }
                offload.blank = false;
            }
        }
        self.offload = offload;
        Some(())
    }

    pub(super) fn done(&mut self) {
        self.filled = 0;
    }

    pub(super) fn waits_for(&self, receives: bool) -> (BorrowedFd<'_>, PollFlags) {
        (self.fd.as_fd(), if receives { PollFlags::IN } else { PollFlags::empty() })
    }
}
