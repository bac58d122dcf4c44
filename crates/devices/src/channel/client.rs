//! A tool that uses a channel: a socket of packets, and what waits to be sent there.

use guest_agent::WINDOW;
use guest_agent::frame::MOST_COUNTED;
use guest_agent::message::Kind;
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that may wait for a tool: what it has allowed the guest to send, and some more for what is
/// not data. Each packet counts for a bit more than its bytes.
const MOST_WAITING: usize = 2 * WINDOW as usize;
const PACKET: usize = 64;

/// What came from a tool.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// This.
    Some(Kind, Vec<u8>),
    /// Nothing yet.
    None,
    /// It is gone.
    Gone,
}

/// A tool.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Client {
    /// A tool with this socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new(), bytes: 0 }
    }

    /// Queues a packet; false if too much waits already.
    #[must_use]
    pub fn push(&mut self, kind: Kind, payload: &[u8]) -> bool {
        let packet: Vec<u8> = [kind as u8].into_iter().chain(payload.iter().copied()).collect();
        self.bytes = self.bytes.saturating_add(packet.len() + PACKET);
        self.waiting.push_back(packet);
        self.bytes <= MOST_WAITING
    }

    /// Sends what the socket takes; false if the tool is gone.
    #[must_use]
    pub fn flush(&mut self) -> bool {
        while let Some(packet) = self.waiting.front() {
            match send(&self.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => {
                    self.bytes = self.bytes.saturating_sub(packet.len() + PACKET);
                    self.waiting.pop_front();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes a packet.
    pub fn take(&mut self) -> Packet {
        let mut packet = vec![0; MOST_COUNTED + 1];
        let (count, _) = match recv(&self.socket, &mut packet, RecvFlags::DONTWAIT) {
            Ok(got) => got,
            Err(error) => {
                return match io::Error::from(error).kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Packet::None,
                    _ => Packet::Gone,
                };
            }
        };
        packet.truncate(count);
        let Some((number, payload)) = packet.split_first() else { return Packet::Gone };
        let may_be_sent = |kind: &Kind| {
            use Kind::{Credit, Data, End, Open, Resize, Signal};
            matches!(kind, Open | Data | End | Credit | Signal | Resize)
        };
        match Kind::from_number(*number).filter(may_be_sent) {
            Some(kind) => Packet::Some(kind, payload.to_vec()),
            None => Packet::Gone,
        }
    }

    /// What to poll for; `reads` says whether there is room for what it sends.
    pub fn interest(&self, reads: bool) -> PollFlags {
        let mut flags = if reads { PollFlags::IN } else { PollFlags::empty() };
        if !self.waiting.is_empty() {
            flags |= PollFlags::OUT;
        }
        flags
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
