//! Frames between a domain's process and the store's: messages of the wire protocol and what both
//! must know to go on after the store was started anew.

use crate::permissions::Domid;
use crate::wire::{HEADER_SIZE, MAX_PAYLOAD};

/// Version of these frames; both sides must have the same.
pub(crate) const VERSION: u32 = 1;
/// Size of a frame's head: kind, length of the payload, number.
const HEAD: usize = 16;
/// Longest payload: a whole message.
pub(crate) const MOST: usize = HEADER_SIZE + MAX_PAYLOAD;

/// What a frame is for. Those up to `Resumed` come from the domain's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// Who connects. The number is the last change of which all events arrived.
    Hello = 1,
    /// A watch that the guest has; its payload as in the protocol. No event follows.
    Watch = 2,
    /// A transaction that the guest has; the number is its id.
    Begin = 3,
    /// A change that the guest made in such a transaction: the whole message.
    Redo = 4,
    /// That was all: events that were missed are to be sent.
    Resume = 5,
    /// A request of the guest, numbered.
    Request = 6,
    /// The guest wants to begin anew.
    Reset = 7,
    /// The guest shut down or crashed.
    ShutDown = 8,
    /// The answer to `Hello`. The number is the last request that changed something.
    Welcome = 9,
    /// The other answer to `Hello`: why not.
    Refused = 10,
    /// The reply to a request. Numbers of this and the following are those of a change: all events
    /// of it and of those before it have been sent by now.
    Reply = 11,
    /// An event.
    Event = 12,
    /// Nothing but the number.
    Sync = 13,
    /// The answer to `Reset`.
    ResetDone = 14,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Hello,
        Self::Watch,
        Self::Begin,
        Self::Redo,
        Self::Resume,
        Self::Request,
        Self::Reset,
        Self::ShutDown,
        Self::Welcome,
        Self::Refused,
        Self::Reply,
        Self::Event,
        Self::Sync,
        Self::ResetDone,
    ];
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) payload: Vec<u8>,
}

/// The frame as bytes.
pub(crate) fn encode(kind: Kind, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(&(kind as u32).to_ne_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(&number.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

/// Puts frames together from pieces.
pub(crate) struct FrameReader(Vec<u8>);

impl FrameReader {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes bytes up to the end of one frame. Gives the frame, if it is complete, and the bytes
    /// that were not taken.
    pub(crate) fn take<'a>(
        &mut self,
        bytes: &'a [u8],
    ) -> Result<(Option<Frame>, &'a [u8]), BadFrame> {
        let rest = self.fill(HEAD, bytes);
        let Some((kind, length, number)) = self.head() else { return Ok((None, rest)) };
        let kind = Kind::ALL.into_iter().find(|known| *known as u32 == kind).ok_or(BadFrame)?;
        let length = usize::try_from(length).ok().filter(|n| *n <= MOST).ok_or(BadFrame)?;
        let rest = self.fill(HEAD + length, rest);
        if self.0.len() < HEAD + length {
            return Ok((None, rest));
        }
        let payload = self.0.split_off(HEAD);
        self.0.clear();
        Ok((Some(Frame { kind, number, payload }), rest))
    }

    fn fill<'a>(&mut self, goal: usize, bytes: &'a [u8]) -> &'a [u8] {
        let wanted = goal.saturating_sub(self.0.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(wanted);
        self.0.extend_from_slice(taken);
        rest
    }

    fn head(&self) -> Option<(u32, u32, u64)> {
        let (kind, rest) = self.0.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let number = rest.first_chunk()?;
        Some((u32::from_ne_bytes(*kind), u32::from_ne_bytes(*length), u64::from_ne_bytes(*number)))
    }
}

/// Who connects: the domain, and which life of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The domain.
    pub domid: Domid,
    /// Drawn at random when the domain's process starts.
    pub incarnation: u64,
    /// Guest frame number of the ring.
    pub gfn: i64,
    /// Event channel port of the ring.
    pub port: u32,
}

impl Peer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&u32::from(self.domid).to_ne_bytes());
        bytes.extend_from_slice(&self.incarnation.to_ne_bytes());
        bytes.extend_from_slice(&self.gfn.to_ne_bytes());
        bytes.extend_from_slice(&self.port.to_ne_bytes());
        bytes
    }

    /// `None` if it has another form, or another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (domid, rest) = rest.split_first_chunk()?;
        let (incarnation, rest) = rest.split_first_chunk()?;
        let (gfn, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        if u32::from_ne_bytes(*version) != VERSION || !rest.is_empty() {
            return None;
        }
        Some(Self {
            domid: Domid::try_from(u32::from_ne_bytes(*domid)).ok()?,
            incarnation: u64::from_ne_bytes(*incarnation),
            gfn: i64::from_ne_bytes(*gfn),
            port: u32::from_ne_bytes(*port),
        })
    }
}
