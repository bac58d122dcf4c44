//! The ring page that carries a connection between a domain and the store
//! (`struct xenstore_domain_interface` in `xen/include/public/io/xs_wire.h`).
//!
//! The page belongs to the guest, which may write anything into it at any time. So the two
//! indexes that the store owns live in [`Ring`] and are only published to the page; the two that
//! the guest owns are read once per step and checked before use.

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::connection::ConnectionError;

/// Size of the page in bytes.
pub const PAGE_SIZE: usize = 4096;
/// Size of each of the two rings in bytes (`XENSTORE_RING_SIZE`).
pub const RING_SIZE: u32 = 1024;

const REQ: usize = 0;
const RSP: usize = 1024;
const REQ_CONS: usize = 2048;
const REQ_PROD: usize = 2052;
const RSP_CONS: usize = 2056;
const RSP_PROD: usize = 2060;
const SERVER_FEATURES: usize = 2064;
const CONNECTION: usize = 2068;
const ERROR: usize = 2072;

const FEATURE_RECONNECTION: u32 = 1;
const FEATURE_ERROR: u32 = 2;
const FEATURE_WATCH_DEPTH: u32 = 4;
/// What a guest may rely on (`XENSTORE_SERVER_FEATURE_*`).
pub const FEATURES: u32 = FEATURE_RECONNECTION | FEATURE_ERROR | FEATURE_WATCH_DEPTH;
const CONNECTED: u32 = 0;
const RECONNECT: u32 = 1;
const ERROR_NONE: u32 = 0;
const ERROR_RING_INDEX: u32 = 2;
const ERROR_PROTOCOL: u32 = 3;

/// Bytes moved per call of [`Ring::pump`], so that one busy guest cannot hold its caller.
const BUDGET: usize = 64 * 1024;

/// Access to the page that the guest shares. Offsets passed in always lie inside the page, and
/// those of 32-bit words are multiples of 4.
///
/// The guest changes the page at the same time, so an implementation must not hand out references
/// into it: words are accessed atomically, byte ranges copied with volatile or relaxed accesses.
pub trait SharedPage {
    /// Reads a word with acquire ordering: ring bytes read later are at least as new.
    fn load_u32(&self, offset: usize) -> u32;
    /// Writes a word with release ordering: the guest sees all bytes written or read before.
    fn store_u32(&self, offset: usize, value: u32);
    /// Copies bytes out of the page.
    fn read(&self, offset: usize, bytes: &mut [u8]);
    /// Copies bytes into the page.
    fn write(&self, offset: usize, bytes: &[u8]);
}

/// What a ring carries bytes to and from: one client of a store.
pub trait Channel {
    /// Takes bytes of the guest; gives the number taken, fewer than offered when too much waits.
    ///
    /// # Errors
    /// When the guest broke the protocol; always the same from then on.
    fn input(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError>;
    /// Bytes for the guest, or none.
    fn output(&mut self) -> &[u8];
    /// Notes that the first `count` bytes of the last [`Channel::output`] have been sent.
    fn consume(&mut self, count: usize);
    /// Returns to the state of a client that was never there.
    fn reset(&mut self);
}

/// Why a ring has stopped. It stays stopped until the guest asks to reconnect or the domain is
/// introduced anew with [`Ring::attach`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// The guest's request index is impossible.
    #[error(
        "Ring is broken: req_prod {producer} is not within 1024 bytes after req_cons {consumer}"
    )]
    RequestIndex {
        /// `req_prod` as read.
        producer: u32,
        /// `req_cons` of the store.
        consumer: u32,
    },
    /// The guest's response index is impossible.
    #[error(
        "Ring is broken: rsp_cons {consumer} is not within 1024 bytes before rsp_prod {producer}"
    )]
    ResponseIndex {
        /// `rsp_prod` of the store.
        producer: u32,
        /// `rsp_cons` as read.
        consumer: u32,
    },
    /// The guest broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ConnectionError),
}

impl RingError {
    const fn code(self) -> u32 {
        match self {
            Self::RequestIndex { .. } | Self::ResponseIndex { .. } => ERROR_RING_INDEX,
            Self::Protocol(_) => ERROR_PROTOCOL,
        }
    }
}

/// What [`Ring::pump`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// An index moved: send the event to the guest.
    pub notify: bool,
    /// When to call it again.
    pub next: NextLook,
}

/// When a ring is to be looked at again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextLook {
    /// When the guest sends its event, or the store has something for it.
    #[default]
    WhenAsked,
    /// Also in about [`SOON`], without being asked: an index moved. Linux's guests send an event only if
    /// they find the ring empty (requests) or full (replies), and look at the other side's index
    /// without a barrier behind the write of their own. The processor may do the look first: then
    /// each side sees the other's old index, no event is sent, and both wait for ever. A look that comes
    /// earlier, for an event that was on its way, may be too early.
    Soon,
    /// At once; the call stopped only so that others get their turn.
    Now,
}

/// Long after what a processor wrote is seen by all others, and no time to a guest.
pub const SOON: Duration = Duration::from_millis(1);

/// The store's end of one ring.
#[derive(Debug)]
pub struct Ring {
    req_cons: u32,
    rsp_prod: u32,
    /// When an index moved last, until it is looked at long enough afterwards.
    moved: Option<Instant>,
    broken: Option<RingError>,
}

impl Ring {
    /// Takes over a page: zeroed for a new domain, or left by an earlier store whose messages have
    /// all been taken. Publishes the features and marks the connection as established.
    pub fn attach<P: SharedPage + ?Sized>(page: &P) -> Self {
        let ring = Self {
            req_cons: page.load_u32(REQ_CONS),
            rsp_prod: page.load_u32(RSP_PROD),
            moved: None,
            broken: None,
        };
        page.store_u32(SERVER_FEATURES, FEATURES);
        page.store_u32(ERROR, ERROR_NONE);
        page.store_u32(CONNECTION, CONNECTED);
        ring
    }

    /// Why the ring has stopped, if it has.
    pub const fn error(&self) -> Option<RingError> {
        self.broken
    }

    /// Moves what can be moved: requests to the connection, replies and events to the guest.
    /// Call it when the guest sent its event, and when the store has events for the client.
    ///
    /// # Errors
    /// The reason when the ring is broken; it is also published in the page's error field.
    pub fn pump<P: SharedPage + ?Sized>(
        &mut self,
        page: &P,
        channel: &mut impl Channel,
    ) -> Result<Pumped, RingError> {
        if page.load_u32(CONNECTION) == RECONNECT {
            self.reconnect(page, channel);
            return Ok(Pumped { notify: true, next: NextLook::Now });
        }
        if let Some(error) = self.broken {
            return Err(error);
        }
        self.transfer(page, channel).inspect_err(|error| {
            self.broken = Some(*error);
            page.store_u32(ERROR, error.code());
        })
    }

    /// Drops all state of the connection and empties both rings, as the guest asked.
    fn reconnect<P: SharedPage + ?Sized>(&mut self, page: &P, channel: &mut impl Channel) {
        channel.reset();
        *self = Self { req_cons: 0, rsp_prod: 0, moved: None, broken: None };
        for index in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD] {
            page.store_u32(index, 0);
        }
        page.store_u32(ERROR, ERROR_NONE);
        page.store_u32(CONNECTION, CONNECTED);
    }

    fn transfer<P: SharedPage + ?Sized>(
        &mut self,
        page: &P,
        channel: &mut impl Channel,
    ) -> Result<Pumped, RingError> {
        // Before the look: the time until it begins does not count.
        self.moved = self.moved.filter(|moved| moved.elapsed() < SOON);
        let mut moved = 0;
        while moved < BUDGET {
            let sent = self.send(page, channel.output())?;
            channel.consume(sent);
            let received = self.receive(page, channel)?;
            if sent == 0 && received == 0 {
                break;
            }
            moved += sent + received;
        }
        if moved > 0 {
            self.moved = Some(Instant::now());
        }
        let next = match self.moved {
            _ if moved >= BUDGET => NextLook::Now,
            Some(_) => NextLook::Soon,
            None => NextLook::WhenAsked,
        };
        Ok(Pumped { notify: moved > 0, next })
    }

    /// Copies the start of `bytes` into the response ring; gives the number of bytes copied.
    fn send<P: SharedPage + ?Sized>(&mut self, page: &P, bytes: &[u8]) -> Result<usize, RingError> {
        let (producer, consumer) = (self.rsp_prod, page.load_u32(RSP_CONS));
        let used = producer.wrapping_sub(consumer);
        let room =
            RING_SIZE.checked_sub(used).ok_or(RingError::ResponseIndex { producer, consumer })?;
        let (start, length) = span(producer, room, bytes.len());
        let chunk = bytes.get(..length as usize).unwrap_or_default();
        if chunk.is_empty() {
            return Ok(0);
        }
        page.write(RSP + start, chunk);
        self.rsp_prod = producer.wrapping_add(length);
        page.store_u32(RSP_PROD, self.rsp_prod);
        Ok(chunk.len())
    }

    /// Gives the next bytes of the request ring to the connection, and their number.
    fn receive<P: SharedPage + ?Sized>(
        &mut self,
        page: &P,
        channel: &mut impl Channel,
    ) -> Result<usize, RingError> {
        let (producer, consumer) = (page.load_u32(REQ_PROD), self.req_cons);
        let available = producer.wrapping_sub(consumer);
        if available > RING_SIZE {
            return Err(RingError::RequestIndex { producer, consumer });
        }
        let mut buffer = [0; RING_SIZE as usize];
        let (start, length) = span(consumer, available, buffer.len());
        let chunk = buffer.get_mut(..length as usize).unwrap_or_default();
        if chunk.is_empty() {
            return Ok(0);
        }
        page.read(REQ + start, chunk);
        let taken = channel.input(chunk)?;
        if taken > 0 {
            // At most RING_SIZE, so the conversion is exact.
            self.req_cons = consumer.wrapping_add(taken as u32);
            page.store_u32(REQ_CONS, self.req_cons);
        }
        Ok(taken)
    }
}

/// Offset in the ring, and how many of `wanted` bytes lie within `available` and before its end.
fn span(index: u32, available: u32, wanted: usize) -> (usize, u32) {
    let start = index % RING_SIZE;
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    (start as usize, wanted.min(available).min(RING_SIZE - start))
}
