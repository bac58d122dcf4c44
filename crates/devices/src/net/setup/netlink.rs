//! Rtnetlink (rtnetlink(7)): messages as bytes, so that addresses and routes can be put back exactly
//! as they were found, attributes we know nothing of among them.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;

/// Length of a message's header.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Flags of requests.
pub mod flag {
    /// A request.
    pub(super) const REQUEST: u16 = 1;
    /// An answer is wanted.
    pub(super) const ACK: u16 = 4;
    /// All of them.
    pub(super) const DUMP: u16 = 0x300;
    /// Make it.
    pub const CREATE: u16 = 0x400;
    /// It must not be there.
    pub const EXCLUSIVE: u16 = 0x200;
}

/// A message without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `RTM_*`.
    pub kind: u16,
    /// A fixed part, then attributes.
    pub body: Vec<u8>,
}

impl Message {
    /// A 32-bit number of the fixed part.
    pub fn number(&self, at: usize) -> Option<u32> {
        self.body.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// A byte of the fixed part.
    pub fn byte(&self, at: usize) -> Option<u8> {
        self.body.get(at).copied()
    }

    /// Its attributes behind `fixed` bytes: type and value.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed..).unwrap_or_default())
    }

    /// The value of an attribute.
    pub fn attribute(&self, fixed: usize, kind: u16) -> Option<&[u8]> {
        self.attributes(fixed).find(|(other, _)| *other == kind).map(|(_, value)| value)
    }
}

/// Attributes.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`.
        const FLAGS: u16 = 0xc000;
        let [a, b, c, d] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !FLAGS, value))
    }
}

/// Appends an attribute.
pub fn add(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one, in this thread's network namespace.
    ///
    /// # Errors
    /// As the system says.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            flags,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Asks for a change, and waits until it is made.
    ///
    /// # Errors
    /// As the system says.
    pub fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, flags | flag::ACK, body)?;
        self.collect().map(drop)
    }

    /// Asks for all there are.
    ///
    /// # Errors
    /// As the system says.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.send(kind, flag::DUMP, body)?;
        self.collect()
    }

    /// Receives messages up to the one that ends the answer.
    fn collect(&mut self) -> io::Result<Vec<Message>> {
        let mut buffer = vec![0; 64 << 10];
        let mut messages = Vec::new();
        loop {
            let (_, length) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((message, sequence, behind)) = split(rest) {
                rest = behind;
                if sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(messages),
                    NLMSG_ERROR => {
                        let code = message.number(0).unwrap_or(0).cast_signed();
                        return match code {
                            0 => Ok(messages),
                            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    _ => messages.push(message),
                }
            }
        }
    }
}

/// The first message, its sequence number, and what is behind it.
fn split(bytes: &[u8]) -> Option<(Message, u32, &[u8])> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
    let length = word(0)? as usize;
    let kind = u16::try_from(word(4)? & 0xffff).ok()?;
    let body = bytes.get(HEADER..length)?.to_vec();
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Message { kind, body }, word(8)?, behind))
}
