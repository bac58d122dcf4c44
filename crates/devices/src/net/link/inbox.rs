//! Frames of a stream that came, and wait for the guest.
//!
//! The socket is always read empty, as a network card does with its wire: what the guest has no room
//! for is dropped here, the newest first. Left in the socket, frames would find it full, and `passt`
//! (2023) then sends a part of one and loses its place in the stream.

use super::{LONGEST, SHORTEST};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io;
use std::os::fd::AsFd;

/// Bytes before a frame: its length.
pub(super) const PREFIX: usize = 4;
/// Bytes that are kept at most; at least half as many are.
const MOST: usize = 4 << 20;
/// Room behind them, where frames arrive before it is clear that they are too many.
const ARRIVALS: usize = 4 * (PREFIX + LONGEST);

/// The frames.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    /// Whole frames from here...
    start: usize,
    /// ...to here; behind them a part of one...
    whole: usize,
    /// ...to here.
    end: usize,
    dropped: u64,
    /// The other side has closed the stream.
    ended: bool,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let buffer = vec![0; MOST + ARRIVALS].into_boxed_slice();
        Self { buffer, start: 0, whole: 0, end: 0, dropped: 0, ended: false }
    }

    /// The other side has closed the stream, and no frame is left.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.start == self.whole
    }

    /// The other side has closed the stream.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Frames that were dropped since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Reads what is in the socket; whether anything came.
    ///
    /// # Errors
    /// When the socket is broken, or what came are no frames.
    pub(super) fn fill(&mut self, socket: impl AsFd) -> io::Result<bool> {
        /// Reads in a row, if there is always more.
        const TURN: usize = 64;
        let mut heard = false;
        for _ in 0..TURN {
            if self.ended {
                break;
            }
            self.make_room();
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match rustix::net::recv(&socket, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.ended = true,
                Ok((_, count)) => {
                    heard = true;
                    self.end += count;
                    self.sort()?;
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(heard)
    }

    fn make_room(&mut self) {
        if self.start == self.end || self.start >= MOST / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.whole -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Finds the frames that became whole, and drops those that are too many.
    fn sort(&mut self) -> io::Result<()> {
        let mut at = self.whole;
        while let Some(next) = self.frame_end(at)? {
            if at == self.whole && next <= MOST {
                self.whole = next;
            } else {
                self.dropped += 1;
            }
            at = next;
        }
        // The part of a frame behind those that were dropped.
        if at > self.whole {
            self.buffer.copy_within(at..self.end, self.whole);
            self.end -= at - self.whole;
        }
        Ok(())
    }

    /// Where the frame at `at` ends, if it is whole.
    fn frame_end(&self, at: usize) -> io::Result<Option<usize>> {
        let there = self.buffer.get(at..self.end).unwrap_or_default();
        let Some(prefix) = there.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if (SHORTEST..=LONGEST).contains(&length) {
            return Ok((there.len() >= PREFIX + length).then_some(at + PREFIX + length));
        }
        let why = format!("the user-mode network sent a frame of {length} bytes");
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// The first frame.
    pub(super) fn first(&mut self) -> Option<&mut [u8]> {
        let end = self.first_end()?;
        self.buffer.get_mut(self.start + PREFIX..end)
    }

    /// Forgets it.
    pub(super) fn forget_first(&mut self) {
        if let Some(end) = self.first_end() {
            self.start = end;
        }
    }

    fn first_end(&self) -> Option<usize> {
        if self.start == self.whole {
            return None;
        }
        self.frame_end(self.start).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
    use std::os::fd::OwnedFd;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None).unwrap()
    }

    fn framed(number: u32, length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        bytes.resize(PREFIX + length, number as u8);
        bytes[PREFIX..PREFIX + 4].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn put(socket: &OwnedFd, bytes: &[u8]) {
        assert_eq!(rustix::net::send(socket, bytes, SendFlags::empty()), Ok(bytes.len()));
    }

    fn number(frame: &[u8]) -> u32 {
        u32::from_be_bytes(*frame.first_chunk().unwrap())
    }

    /// Frames in pieces of any size, to a guest that takes some of them: those that come are in order
    /// and as they were, and each is counted.
    #[test]
    fn what_is_too_much_is_dropped_in_whole_frames() {
        let (near, far) = pair();
        let mut inbox = Inbox::new();
        let (mut state, mut waiting) = (5u64, Vec::new());
        let mut dice = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let (mut sent, mut came, mut dropped, mut last) = (0u32, 0u64, 0, None);
        for round in 0..6000 {
            let length = [14, 60, 1514, 9000, LONGEST][dice(5)];
            waiting.extend(framed(sent, length));
            sent += 1;
            let piece = (1 + dice(60_000)).min(waiting.len());
            put(&far, &waiting[..piece]);
            waiting.drain(..piece);
            assert!(inbox.fill(&near).unwrap());
            dropped += inbox.take_dropped();
            // Nothing for a while, then a little, then all.
            let most = [0, 1, 10][round / 2000];
            for _ in 0..most {
                let Some(frame) = inbox.first() else { break };
                let number = number(frame);
                assert!(frame[4..].iter().all(|byte| *byte == number as u8), "{number}");
                assert!(last.is_none_or(|last| last < number));
                last = Some(number);
                came += 1;
                inbox.forget_first();
            }
            let held = inbox.end - inbox.start;
            assert!(held <= MOST + PREFIX + LONGEST && (dropped > 0 || round < 2000 || held > 0));
        }
        while !waiting.is_empty() {
            let piece = waiting.len().min(50_000);
            put(&far, &waiting[..piece]);
            waiting.drain(..piece);
            inbox.fill(&near).unwrap();
        }
        dropped += inbox.take_dropped();
        while inbox.first().is_some() {
            came += 1;
            inbox.forget_first();
        }
        assert_eq!(came + dropped, u64::from(sent));
        assert!(dropped > 100 && came > 1000, "{came} came, {dropped} were dropped");
        // A process that another test is just starting may have the descriptor too.
        rustix::net::shutdown(&far, rustix::net::Shutdown::Both).unwrap();
        assert!(!inbox.is_over() && !inbox.fill(&near).unwrap() && inbox.is_over());
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for length in [0, 1, 13, LONGEST as u32 + 1, 1 << 31, u32::MAX] {
            let (near, far) = pair();
            let mut inbox = Inbox::new();
            put(&far, &[&framed(1, 60)[..], &length.to_be_bytes()].concat());
            assert!(inbox.fill(&near).is_err(), "{length}");
        }
    }
}
