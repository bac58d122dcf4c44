//! The socket of a user-mode network (`passt`): each frame is preceded by its length, 32 bits,
//! big-endian (passt(1), qemu's `-netdev stream`).
//!
//! There is no way to leave checksums blank, so they are computed here. Packets that are to be cut
//! into segments need no cutting: `passt` ends TCP itself and takes segments of any size.

use super::{LONGEST, Offload, SHORTEST, Sent};
use crate::net::checksum::complete;
use crate::net::gather::Packet;
use crate::net::headers::Headers;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes before a frame.
const PREFIX: usize = 4;
/// Bytes that wait to be sent before the guest has to wait.
const ENOUGH: usize = 256 << 10;
/// Bytes that are received at once.
const BUFFER: usize = 256 << 10;
/// Longest frame that `passt` takes (its `ETH_MAX_MTU`).
const LONGEST_SENT: usize = 65535;

/// The socket.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    /// What waits to be sent, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// What came: bytes from `start` to `end` of the buffer.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

fn wait(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::INTR)
}

impl Stream {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let out = Vec::with_capacity(ENOUGH + PREFIX + LONGEST);
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { fd, out, sent: 0, buffer, start: 0, end: 0 }
    }

    pub(super) fn has_room(&self) -> bool {
        self.out.len() < ENOUGH
    }

    pub(super) fn send(
        &mut self,
        packet: &Packet,
        headers: Option<&Headers>,
        offload: &Offload,
    ) -> io::Result<Sent> {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; PREFIX]);
        packet.copy_to(&mut self.out);
        let length = self.out.len() - start - PREFIX;
        let frame = self.out.get_mut(start + PREFIX..).unwrap_or_default();
        let complete = !offload.blank || headers.is_some_and(|headers| complete(frame, headers));
        let prefix = u32::try_from(length).ok().filter(|_| length <= LONGEST_SENT);
        match (complete, prefix, self.out.get_mut(start..start + PREFIX)) {
            (true, Some(length), Some(place)) => place.copy_from_slice(&length.to_be_bytes()),
            _ => {
                self.out.truncate(start);
                return Ok(Sent::Refused);
            }
        }
        Ok(Sent::Yes)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match rustix::net::send(&self.fd, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.sent += count,
                Err(error) if wait(error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// The length of the frame at the start of the buffer, if its prefix is there.
    fn next(&self) -> io::Result<Option<usize>> {
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(prefix) = waiting.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if (SHORTEST..=LONGEST).contains(&length) {
            return Ok((waiting.len() >= PREFIX + length).then_some(length));
        }
        let why = format!("the user-mode network sent a frame of {length} bytes");
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    pub(super) fn receive(&mut self) -> io::Result<Option<(&mut [u8], Offload)>> {
        let mut next = self.next()?;
        if next.is_none() {
            self.refill()?;
            next = self.next()?;
        }
        let Some(length) = next else { return Ok(None) };
        let start = self.start + PREFIX;
        let frame = self.buffer.get_mut(start..start + length).unwrap_or_default();
        // It came from a process on this host, by no wire that could have changed it.
        Ok(Some((frame, Offload { validated: true, ..Offload::default() })))
    }

    fn refill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match rustix::net::recv(&self.fd, room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the user-mode network has ended"))
            }
            Ok((_, count)) => {
                self.end += count;
                Ok(())
            }
            Err(error) if wait(error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn done(&mut self) {
        if let Ok(Some(length)) = self.next() {
            self.start += PREFIX + length;
        }
    }

    pub(super) fn waits_for(&self, receives: bool) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = if receives { PollFlags::IN } else { PollFlags::empty() };
        flags.set(PollFlags::OUT, !self.out.is_empty());
        (self.fd.as_fd(), flags)
    }
}
