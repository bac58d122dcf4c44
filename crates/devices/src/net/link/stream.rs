//! The socket of a user-mode network (`passt`): each frame is preceded by its length, 32 bits,
//! big-endian (passt(1), qemu's `-netdev stream`).
//!
//! There is no way to leave checksums blank, so they are computed here. Packets that are to be cut
//! into segments need no cutting: `passt` ends TCP itself and takes segments of any size.

use super::inbox::{Inbox, PREFIX};
use super::watch::{Step, Watch};
use super::{LONGEST, Offload, Sent};
use crate::net::checksum::complete;
use crate::net::gather::Packet;
use crate::net::headers::Headers;
use crate::net::question::{self, question};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Bytes that wait to be sent before the guest has to wait.
const ENOUGH: usize = 256 << 10;
/// Longest frame that `passt` takes (its `ETH_MAX_MTU`).
const LONGEST_SENT: usize = 65535;
/// Bytes that are sent at once, in whole frames. So many lie in one buffer of a unix socket, which the
/// other side finds whole or not at all; a frame that spans several may be cut where it reads, and
/// `passt` (2023) reads the rest once, and then takes for a length whatever follows.
const PIECE: usize = 32 << 10;

/// The socket.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    /// What waits to be sent, from `sent` on; `piece` is the end of what is being sent.
    out: Vec<u8>,
    sent: usize,
    piece: usize,
    /// The Ethernet address that the guest sends from.
    mac: [u8; 6],
    inbox: Inbox,
    watch: Watch,
}

impl Stream {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let out = Vec::with_capacity(ENOUGH + PREFIX + LONGEST);
        let (inbox, watch) = (Inbox::new(), Watch::new());
        Self { fd, out, sent: 0, piece: 0, mac: [0; 6], inbox, watch }
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
        if let Some(mac) = packet.head().get(6..).and_then(|head| head.first_chunk()) {
            self.mac = *mac;
        }
        self.watch.sent();
        Ok(Sent::Yes)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.inbox.fill(&self.fd)? {
            self.watch.heard();
        }
        match self.watch.step(Instant::now()) {
            Step::Wait => {}
            Step::Ask => self.ask(),
            Step::GiveUp => {
                let why = "the user-mode network does not answer any more";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
        self.push()
    }

    fn ask(&mut self) {
        self.out.extend_from_slice(&[0, 0, 0, question::LENGTH as u8]);
        self.out.extend_from_slice(&question(self.mac));
    }

    /// Sends what waits, as far as that goes.
    fn push(&mut self) -> io::Result<()> {
        loop {
            if self.sent == self.piece {
                self.piece = self.next_piece();
            }
            let rest = self.out.get(self.sent..self.piece).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match rustix::net::send(&self.fd, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        (self.sent, self.piece) = (0, 0);
        Ok(())
    }

    /// Where the next piece ends: one frame, or several that make no more than [`PIECE`].
    fn next_piece(&self) -> usize {
        let mut end = self.sent;
        while let Some(prefix) = self.out.get(end..).and_then(|rest| rest.first_chunk::<PREFIX>()) {
            let next = end + PREFIX + u32::from_be_bytes(*prefix) as usize;
            if end > self.sent && next - self.sent > PIECE {
                break;
            }
            end = next;
        }
        end
    }

    pub(super) fn receive(&mut self) -> io::Result<Option<(&mut [u8], Offload)>> {
        while self.inbox.first().is_some_and(|frame| self.watch.takes(frame)) {
            self.inbox.forget_first();
        }
        if self.inbox.is_over() {
            let why = "the user-mode network has ended";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        // It came from a process on this host, by no wire that could have changed it.
        let offload = Offload { validated: true, ..Offload::default() };
        Ok(self.inbox.first().map(|frame| (frame, offload)))
    }

    pub(super) fn done(&mut self) {
        self.inbox.forget_first();
    }

    pub(super) fn take_dropped(&mut self) -> u64 {
        self.inbox.take_dropped()
    }

    pub(super) fn waits_for(&self, receives: bool) -> (BorrowedFd<'_>, PollFlags) {
        let wanted = receives || !self.inbox.has_ended();
        let mut flags = if wanted { PollFlags::IN } else { PollFlags::empty() };
        flags.set(PollFlags::OUT, !self.out.is_empty());
        (self.fd.as_fd(), flags)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.watch.due()
    }
}
