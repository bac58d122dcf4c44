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
/// Bytes that are taken before the guest has room for them: `passt` drops frames that find the socket
/// full, and what is lost of a connection comes again after a second at best.
const BUFFER: usize = 4 << 20;
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
    /// The other side has closed it.
    ended: bool,
}

fn wait(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::INTR)
}

impl Stream {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let out = Vec::with_capacity(ENOUGH + PREFIX + LONGEST);
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { fd, out, sent: 0, buffer, start: 0, end: 0, ended: false }
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
        self.refill()?;
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
        let Some(length) = self.next()? else {
            if self.ended {
                let why = "the user-mode network has ended";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            return Ok(None);
        };
        let start = self.start + PREFIX;
        let frame = self.buffer.get_mut(start..start + length).unwrap_or_default();
        // It came from a process on this host, by no wire that could have changed it.
        Ok(Some((frame, Offload { validated: true, ..Offload::default() })))
    }

    /// Takes what is there, as far as there is room.
    fn refill(&mut self) -> io::Result<()> {
        while !self.ended {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            } else if self.end == self.buffer.len() && self.start >= self.buffer.len() / 2 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            if room.is_empty() {
                return Ok(());
            }
            match rustix::net::recv(&self.fd, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.ended = true,
                Ok((_, count)) => self.end += count,
                Err(error) if wait(error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether more can be taken, be it for later.
    fn has_space(&self) -> bool {
        !self.ended && (self.end < self.buffer.len() || self.start >= self.buffer.len() / 2)
    }

    pub(super) fn done(&mut self) {
        if let Ok(Some(length)) = self.next() {
            self.start += PREFIX + length;
        }
    }

    pub(super) fn waits_for(&self, receives: bool) -> (BorrowedFd<'_>, PollFlags) {
        let wanted = self.has_space() || receives && self.ended;
        let mut flags = if wanted { PollFlags::IN } else { PollFlags::empty() };
        flags.set(PollFlags::OUT, !self.out.is_empty());
        (self.fd.as_fd(), flags)
    }
}
