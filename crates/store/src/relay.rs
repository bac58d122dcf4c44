//! The guest's end of a connection to a store in another process.
//!
//! A [`Relay`] stands between a guest's ring and a byte stream to the store's [`Link`](crate::Link).
//! It does no input or output of its own. When the stream breaks and a new one comes, it tells the
//! new store what the guest has (watches, open transactions) and goes on: the guest notices
//! nothing but, at the end of a transaction that was open, a conflict.
//!
//! One request is under way at a time. The store writes the number of the last one that changed
//! something down together with the change, so after a break it is known whether the one under way
//! was carried out: then it was `OK`, since nothing that fails changes anything; else it is sent
//! again.

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

use crate::connection::ConnectionError;
use crate::frame::{Frame, FrameReader, Kind, Peer, encode};
use crate::ring::Channel;
use crate::wire::{HEADER_SIZE, Header, MAX_PAYLOAD, MessageType, decimal};

/// Requests that wait for the one under way.
const MOST_WAITING: usize = 4;
/// Messages for the guest that wait before the store's bytes are left where they are.
const MOST_FOR_GUEST: usize = 64;

/// Why a relay gives up a stream.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RelayError {
    /// The store does not want this domain.
    #[error("The store refuses the domain: {why}")]
    Refused {
        /// What it says.
        why: String,
    },
    /// The store sent nonsense, or is of another version.
    #[error("The store sent what is no proper answer; use programs of one version")]
    Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offline,
    /// The greeting is on its way.
    Greeting,
    Online,
}

/// A request that was sent and not answered.
struct UnderWay {
    number: u64,
    message: Vec<u8>,
    /// The guest that asked has begun anew: the reply is for nobody.
    is_forgotten: bool,
}

/// See the module's text.
pub struct Relay {
    peer: Peer,
    state: State,
    /// The request received so far from the guest.
    partial: Vec<u8>,
    waiting: VecDeque<Vec<u8>>,
    under_way: Option<UnderWay>,
    /// Number of the last request sent.
    number: u64,
    /// The last change of which all events arrived.
    acknowledged: u64,
    /// Payloads of the guest's watches.
    watches: Vec<Vec<u8>>,
    /// The guest's transactions, and the messages that changed something in them.
    transactions: BTreeMap<u32, Vec<Vec<u8>>>,
    frames: FrameReader,
    /// Bytes for the store.
    for_store: Vec<u8>,
    for_guest: VecDeque<Vec<u8>>,
    /// Bytes of the first message in `for_guest` that have been taken.
    taken: usize,
    /// The guest began anew and the store has not said yet that it knows.
    is_resetting: bool,
    has_shut_down: bool,
    broken: Option<ConnectionError>,
}

impl Relay {
    /// A relay for a domain, not connected yet.
    pub const fn new(peer: Peer) -> Self {
        Self {
            peer,
            state: State::Offline,
            partial: Vec::new(),
            waiting: VecDeque::new(),
            under_way: None,
            number: 0,
            acknowledged: 0,
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            frames: FrameReader::new(),
            for_store: Vec::new(),
            for_guest: VecDeque::new(),
            taken: 0,
            is_resetting: false,
            has_shut_down: false,
            broken: None,
        }
    }

    /// A new stream to a store is there.
    pub fn connected(&mut self) {
        self.disconnected();
        self.state = State::Greeting;
        self.send(Kind::Hello, self.acknowledged, &self.peer.encode());
    }

    /// The stream is gone.
    pub fn disconnected(&mut self) {
        self.state = State::Offline;
        self.frames = FrameReader::new();
        self.for_store.clear();
        if self.is_resetting {
            // The next store never heard of what the guest had.
            self.is_resetting = false;
            self.under_way = None;
        }
    }

    /// Whether the store has let the domain in.
    pub fn is_online(&self) -> bool {
        self.state == State::Online
    }

    /// The guest shut down or crashed; watchers of `@releaseDomain` are to hear of it.
    pub fn shut_down(&mut self) {
        if !std::mem::replace(&mut self.has_shut_down, true) && self.is_online() {
            self.send(Kind::ShutDown, 0, &[]);
        }
    }

    /// Bytes for the store, or none.
    pub fn store_output(&self) -> &[u8] {
        &self.for_store
    }

    /// Notes that the first `count` bytes of [`Relay::store_output`] have been sent.
    pub fn store_consume(&mut self, count: usize) {
        self.for_store.drain(..count.min(self.for_store.len()));
    }

    /// Whether bytes of the store can be taken: not while too much waits for the guest.
    pub fn takes_store_input(&self) -> bool {
        self.for_guest.len() < MOST_FOR_GUEST
    }

    /// Takes bytes of the store, all of them.
    ///
    /// # Errors
    /// When the stream is of no use; call [`Relay::disconnected`] then.
    pub fn store_input(&mut self, bytes: &[u8]) -> Result<(), RelayError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (frame, tail) = self.frames.take(rest).map_err(|_| RelayError::Protocol)?;
            rest = tail;
            if let Some(frame) = frame {
                self.receive(frame)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, frame: Frame) -> Result<(), RelayError> {
        match (self.state, frame.kind) {
            (State::Greeting, Kind::Welcome) => self.resume(frame.number)?,
            (State::Greeting, Kind::Refused) => {
                let why = String::from_utf8_lossy(&frame.payload).into_owned();
                return Err(RelayError::Refused { why });
            }
            (State::Online, Kind::Reply) => {
                self.acknowledge(frame.number);
                self.finish(frame.payload)?;
            }
            (State::Online, Kind::Event) => {
                self.acknowledge(frame.number);
                if !self.is_resetting {
                    self.for_guest.push_back(frame.payload);
                }
            }
            (State::Online, Kind::Sync) => self.acknowledge(frame.number),
            (State::Online, Kind::ResetDone) => {
                self.acknowledge(frame.number);
                self.is_resetting = false;
            }
            _ => return Err(RelayError::Protocol),
        }
        self.send_next();
        Ok(())
    }

    fn acknowledge(&mut self, change: u64) {
        self.acknowledged = self.acknowledged.max(change);
    }

    /// Tells a store what the guest has. `done` is the last request that changed something.
    fn resume(&mut self, done: u64) -> Result<(), RelayError> {
        if let Some(request) = self.under_way.take_if(|request| request.number == done) {
            let header = header_of(&request.message).ok_or(RelayError::Protocol)?;
            self.under_way = Some(request);
            self.finish(header.encode(b"OK\0"))?;
        }
        for watch in std::mem::take(&mut self.watches) {
            self.send(Kind::Watch, 0, &watch);
            self.watches.push(watch);
        }
        for (id, changes) in std::mem::take(&mut self.transactions) {
            self.send(Kind::Begin, u64::from(id), &[]);
            changes.iter().for_each(|message| self.send(Kind::Redo, 0, message));
            self.transactions.insert(id, changes);
        }
        self.send(Kind::Resume, 0, &[]);
        self.state = State::Online;
        if self.has_shut_down {
            self.send(Kind::ShutDown, 0, &[]);
        }
        if let Some(request) = self.under_way.take() {
            self.send(Kind::Request, request.number, &request.message);
            self.under_way = Some(request);
        }
        Ok(())
    }

    /// Takes the reply to the request under way.
    fn finish(&mut self, reply: Vec<u8>) -> Result<(), RelayError> {
        let request = self.under_way.take().ok_or(RelayError::Protocol)?;
        let (asked, answer) = header_of(&request.message)
            .zip(header_of(&reply))
            .filter(|(asked, answer)| asked.request == answer.request)
            .ok_or(RelayError::Protocol)?;
        if request.is_forgotten {
            return Ok(());
        }
        let is_error = answer.kind == MessageType::Error as u32;
        self.note(&asked, &request.message, (!is_error).then_some(&reply));
        self.for_guest.push_back(reply);
        Ok(())
    }

    /// Notes what the guest has after a request that went well, or did not (`None`).
    fn note(&mut self, asked: &Header, message: &[u8], reply: Option<&[u8]>) {
        let payload = |message: &[u8]| message.get(HEADER_SIZE..).unwrap_or_default().to_vec();
        let kind = MessageType::from_number(asked.kind);
        match (kind, reply) {
            (Some(MessageType::TransactionEnd), _) => {
                self.transactions.remove(&asked.transaction);
            }
            (_, None) => {}
            (Some(MessageType::Watch), _) => self.watches.push(payload(message)),
            (Some(MessageType::Unwatch), _) => {
                let gone = path_and_token(&payload(message)).map(<[u8]>::to_vec);
                self.watches.retain(|watch| path_and_token(watch) != gone.as_deref());
            }
            (Some(MessageType::ResetWatches), _) => {
                self.watches.clear();
                self.transactions.clear();
            }
            (Some(MessageType::TransactionStart), Some(reply)) => {
                let id = payload(reply).strip_suffix(b"\0").and_then(decimal);
                self.transactions.extend(id.map(|id| (id, Vec::new())));
            }
            (
                Some(
                    MessageType::Write
                    | MessageType::Mkdir
                    | MessageType::Rm
                    | MessageType::SetPerms,
                ),
                _,
            ) => {
                if let Some(changes) = self.transactions.get_mut(&asked.transaction) {
                    changes.push(message.to_vec());
                }
            }
            _ => {}
        }
    }

    fn send(&mut self, kind: Kind, number: u64, payload: &[u8]) {
        self.for_store.extend(encode(kind, number, payload));
    }

    fn send_next(&mut self) {
        if !self.is_online() || self.under_way.is_some() || self.is_resetting {
            return;
        }
        let Some(message) = self.waiting.pop_front() else { return };
        self.number += 1;
        self.send(Kind::Request, self.number, &message);
        self.under_way = Some(UnderWay { number: self.number, message, is_forgotten: false });
    }

    /// Takes bytes up to the end of the header or of the message, and gives the others.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let header = header_of(&self.partial);
        let goal = header.map_or(HEADER_SIZE, |header| HEADER_SIZE + header.length as usize);
        let wanted = goal.saturating_sub(self.partial.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(wanted);
        self.partial.extend_from_slice(taken);
        let Some(header) = header_of(&self.partial) else { return rest };
        let length = header.length as usize;
        if length > MAX_PAYLOAD {
            self.broken = Some(ConnectionError::PayloadTooLong { length: header.length });
        } else if self.partial.len() == HEADER_SIZE + length {
            self.waiting.push_back(std::mem::take(&mut self.partial));
            self.send_next();
        }
        rest
    }
}

impl Channel for Relay {
    fn input(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        let mut rest = bytes;
        while !rest.is_empty() && self.broken.is_none() && self.waiting.len() < MOST_WAITING {
            rest = self.take(rest);
        }
        match self.broken {
            Some(error) => Err(error),
            None => Ok(bytes.len() - rest.len()),
        }
    }

    fn output(&mut self) -> &[u8] {
        let message = self.for_guest.front();
        message.and_then(|message| message.get(self.taken..)).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count);
        if self.for_guest.front().is_some_and(|message| self.taken >= message.len()) {
            self.for_guest.pop_front();
            self.taken = 0;
        }
    }

    fn reset(&mut self) {
        self.partial.clear();
        self.waiting.clear();
        self.for_guest.clear();
        self.taken = 0;
        self.watches.clear();
        self.transactions.clear();
        self.broken = None;
        if self.is_online() {
            if let Some(request) = &mut self.under_way {
                request.is_forgotten = true;
            }
            self.is_resetting = true;
            self.send(Kind::Reset, 0, &[]);
        } else {
            self.under_way = None;
        }
    }
}

fn header_of(message: &[u8]) -> Option<Header> {
    message.first_chunk().map(Header::decode)
}

/// The first two strings of a payload, with their ends.
fn path_and_token(payload: &[u8]) -> Option<&[u8]> {
    let mut ends = payload.iter().enumerate().filter(|(_, byte)| **byte == 0);
    let (end, _) = ends.nth(1)?;
    payload.get(..=end)
}
