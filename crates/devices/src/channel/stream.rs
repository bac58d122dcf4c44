//! A channel to whoever connects to the domain's socket, or opens its terminal: bytes as they are.
//!
//! A Linux guest whose ring is full stands still as a whole (hvc_xen.c, `domU_write_console`), so what
//! it says is always taken; what nobody reads is kept up to a bound, and then the oldest is dropped.

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Bytes of the guest that wait for a reader.
const MOST_KEPT: usize = 1 << 20;
/// Bytes for the guest that wait for room in its ring; beyond that the host's side waits.
const MOST_WAITING: usize = 8 << 10;
/// Bytes moved at once.
const CHUNK: usize = 4096;

/// Who is at the other end now.
#[derive(Debug)]
struct Peer {
    file: OwnedFd,
    /// It may still send.
    sends: bool,
    /// It may still read.
    reads: bool,
}

/// The host's end of a channel.
#[derive(Debug)]
pub struct Stream {
    /// Where the next one connects; a terminal has none.
    listener: Option<OwnedFd>,
    peer: Option<Peer>,
    to_peer: VecDeque<u8>,
    to_guest: Vec<u8>,
    loss: Loss,
}

/// Whether something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    New,
    /// It was told: a guest that goes on must not fill the log.
    Told,
}

impl Stream {
    /// A stream with whoever connects to `listener`, one after the other. Neither it nor what it accepts
    /// blocks.
    pub fn listening(listener: OwnedFd) -> Self {
        Self { listener: Some(listener), ..Self::with(None) }
    }

    /// A stream with the master side of a terminal that does not block, and whose other side stays open.
    pub fn terminal(master: OwnedFd) -> Self {
        Self::with(Some(Peer::new(master)))
    }

    fn with(peer: Option<Peer>) -> Self {
        let (to_peer, to_guest) = (VecDeque::new(), Vec::new());
        Self { listener: None, peer, to_peer, to_guest, loss: Loss::None }
    }

    /// Takes what the guest sent.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.to_peer.extend(bytes);
        let excess = self.to_peer.len().saturating_sub(MOST_KEPT);
        self.to_peer.drain(..excess);
        if excess > 0 && self.loss == Loss::None {
            self.loss = Loss::New;
        }
    }

    /// Whether anything was dropped for want of a reader; true once for each of them.
    pub fn has_lost(&mut self) -> bool {
        let is_new = self.loss == Loss::New;
        if is_new {
            self.loss = Loss::Told;
        }
        is_new
    }

    /// What is polled for, in the order of [`Self::attend`].
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let peer = self.peer.as_ref().and_then(|peer| {
            let takes = peer.sends && self.to_guest.len() < MOST_WAITING;
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, takes);
            flags.set(PollFlags::OUT, peer.reads && !self.to_peer.is_empty());
            // That one has hung up is told again and again: it is not asked for what it has still sent
            // before there is room for that.
            (takes || peer.reads).then(|| PollFd::new(&peer.file, flags))
        });
        // One at a time: the next one waits to be accepted.
        let next = self.listener.as_ref().filter(|_| self.peer.is_none());
        peer.into_iter().chain(next.map(|listener| PollFd::new(listener, PollFlags::IN)))
    }

    /// Acts on what [`Self::poll_fds`] brought.
    pub fn attend(&mut self, ready: &[PollFlags]) {
        let Some(flags) = ready.first() else { return };
        match (&mut self.peer, &self.listener) {
            (Some(peer), _) => peer.reads &= !flags.intersects(PollFlags::HUP | PollFlags::ERR),
            (None, Some(listener)) if flags.contains(PollFlags::IN) => {
                let how = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                // One that went away before it was accepted is no fault.
                self.peer = accept_with(listener, how).ok().map(Peer::new);
                self.loss = Loss::None;
            }
            (None, _) => {}
        }
    }

    /// Moves bytes both ways, as far as they go.
    pub fn pump(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.write(&mut self.to_peer);
            peer.read(&mut self.to_guest);
            if !peer.sends && !peer.reads {
                self.peer = None;
            }
        }
    }

    /// What is to go to the guest.
    pub fn to_guest(&self) -> &[u8] {
        &self.to_guest
    }

    /// So much of it went.
    pub fn sent(&mut self, count: usize) {
        self.to_guest.drain(..count.min(self.to_guest.len()));
    }
}

impl Peer {
    fn new(file: OwnedFd) -> Self {
        Self { file, sends: true, reads: true }
    }

    /// Writes what it takes of `bytes`.
    fn write(&mut self, bytes: &mut VecDeque<u8>) {
        while self.reads && !bytes.is_empty() {
            let (front, _) = bytes.as_slices();
            match rustix::io::write(&self.file, front) {
                Ok(count) => drop(bytes.drain(..count.min(bytes.len()))),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.reads = false,
            }
        }
    }

    /// Reads what there is room for. One that only says that it sends no more may still read.
    fn read(&mut self, into: &mut Vec<u8>) {
        let mut chunk = [0; CHUNK];
        while self.sends && into.len() < MOST_WAITING {
            match rustix::io::read(&self.file, &mut chunk) {
                Ok(0) => self.sends = false,
                Ok(count) => into.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => (self.sends, self.reads) = (false, false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::{UnixListener, UnixStream};

    struct Rig {
        stream: Stream,
        place: tempfile::TempDir,
    }

    fn rig() -> Rig {
        let place = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(place.path().join("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        Rig { stream: Stream::listening(listener.into()), place }
    }

    impl Rig {
        fn connect(&self) -> UnixStream {
            UnixStream::connect(self.place.path().join("s")).unwrap()
        }

        /// A turn of the server's loop.
        fn turn(&mut self) {
            let mut fds: Vec<PollFd<'_>> = self.stream.poll_fds().collect();
            let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut fds, Some(&at_once)).unwrap();
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            drop(fds);
            self.stream.attend(&ready);
            self.stream.pump();
        }
    }

    fn read(peer: &mut UnixStream) -> Vec<u8> {
        peer.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        let _would_block = peer.read_to_end(&mut all);
        all
    }

    #[test]
    fn what_is_said_before_somebody_comes_is_kept() {
        let mut rig = rig();
        rig.stream.hear(b"hello ");
        rig.turn();
        let mut peer = rig.connect();
        rig.turn();
        rig.stream.hear(b"there");
        rig.turn();
        assert_eq!(read(&mut peer), b"hello there");
        peer.write_all(b"answer").unwrap();
        rig.turn();
        assert_eq!(rig.stream.to_guest(), b"answer");
        rig.stream.sent(3);
        assert_eq!(rig.stream.to_guest(), b"wer");
    }

    #[test]
    fn one_is_served_at_a_time() {
        let mut rig = rig();
        let mut first = rig.connect();
        rig.turn();
        let mut second = rig.connect();
        second.write_all(b"2").unwrap();
        rig.stream.hear(b"for the first");
        rig.turn();
        assert_eq!(rig.stream.to_guest(), b"");
        assert_eq!(read(&mut first), b"for the first");
        drop(first);
        (0..3).for_each(|_| rig.turn());
        assert_eq!(rig.stream.to_guest(), b"2");
        rig.stream.hear(b"for the second");
        rig.turn();
        assert_eq!(read(&mut second), b"for the second");
    }

    #[test]
    fn one_that_sends_no_more_may_still_read() {
        let mut rig = rig();
        let mut peer = rig.connect();
        peer.write_all(b"question").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        (0..3).for_each(|_| rig.turn());
        assert_eq!(rig.stream.to_guest(), b"question");
        let mut fds: Vec<PollFd<'_>> = rig.stream.poll_fds().collect();
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(0), "its end wakes nobody");
        drop(fds);
        rig.stream.hear(b"answer");
        rig.turn();
        assert_eq!(read(&mut peer), b"answer");
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_the_newest_is_kept() {
        let mut rig = rig();
        let mut deaf = rig.connect();
        rig.turn();
        for number in 0..3000u32 {
            rig.stream.hear(&number.to_le_bytes().repeat(256));
            rig.turn();
        }
        assert!(rig.stream.to_peer.len() <= MOST_KEPT);
        assert!(rig.stream.has_lost());
        assert!(!rig.stream.has_lost(), "told once");
        let mut all = Vec::new();
        while !rig.stream.to_peer.is_empty() {
            all.append(&mut read(&mut deaf));
            rig.turn();
        }
        all.append(&mut read(&mut deaf));
        assert!((MOST_KEPT..2 * MOST_KEPT).contains(&all.len()), "{}", all.len());
        assert_eq!(all[all.len() - 4..], 2999u32.to_le_bytes());
    }

    #[test]
    fn what_a_peer_sends_waits_for_the_guest() {
        let mut rig = rig();
        let mut peer = rig.connect();
        peer.set_nonblocking(true).unwrap();
        let mut sent = 0;
        for _ in 0..1000 {
            if let Ok(count) = peer.write(&[7; 4096]) {
                sent += count;
            }
            rig.turn();
        }
        assert!(rig.stream.to_guest().len() < MOST_WAITING + CHUNK);
        drop(peer);
        rig.turn();
        assert_eq!(rig.stream.poll_fds().count(), 0, "its end wakes nobody before there is room");
        let mut got = 0;
        for _ in 0..2000 {
            got += rig.stream.to_guest().len();
            rig.stream.sent(usize::MAX);
            rig.turn();
        }
        assert_eq!(got, sent, "all that was sent before it went comes");
    }
}
