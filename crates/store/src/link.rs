//! The store's end of a connection to a domain's process; the other end is
//! [`Relay`](crate::Relay).

use std::collections::VecDeque;

use thiserror::Error;

use crate::client::ClientId;
use crate::connection::{event_message, reply};
use crate::error::StoreError;
use crate::frame::{Frame, FrameReader, Kind, Peer, encode};
use crate::record::Mark;
use crate::requests;
use crate::store::Store;
use crate::wire::{Header, MAX_PAYLOAD};

/// Events that wait in the output; the others stay in the queue, where equal ones are joined.
const EAGER_EVENTS: usize = 4;
/// Frames that may wait for the other side before no more of its own are taken.
const MOST_OUTPUT: usize = 64;
/// Changes that happen before the other side, if it has no other news, is told their number.
const SYNC_AFTER: u64 = 256;

/// Why a link cannot go on. It is to be closed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// The other side sent nonsense, or is of another version.
    #[error("The domain's process sent what is no proper {expected}; use programs of one version")]
    Protocol {
        /// What was expected.
        expected: &'static str,
    },
    /// The store refused what the domain's process needs to go on.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody knows who it is.
    Fresh,
    /// It said who it is.
    Greeted,
    /// It is welcome and tells what its guest has.
    Resuming,
    /// It sends requests.
    Open,
}

/// One link. [`Link::close`] must be called at the end.
pub struct Link {
    client: Option<ClientId>,
    state: State,
    peer: Option<Peer>,
    /// The last change of which the other side has all events.
    acknowledged: u64,
    /// The same, as the other side was told last.
    told: u64,
    frames: FrameReader,
    output: VecDeque<Vec<u8>>,
    taken: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A link of which nothing is known.
    pub const fn new() -> Self {
        Self {
            client: None,
            state: State::Fresh,
            peer: None,
            acknowledged: 0,
            told: 0,
            frames: FrameReader::new(),
            output: VecDeque::new(),
            taken: 0,
        }
    }

    /// Who is at the other end, once it said so.
    pub const fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// Whether it said who it is and waits for [`Link::welcome`] or [`Link::refuse`].
    pub fn waits_for_welcome(&self) -> bool {
        self.state == State::Greeted
    }

    /// Lets the domain in, and introduces it if it is new.
    ///
    /// # Errors
    /// When the domain cannot be introduced.
    pub fn welcome(&mut self, store: &mut Store) -> Result<(), LinkError> {
        let protocol = LinkError::Protocol { expected: "greeting" };
        let peer = self.peer.filter(|_| self.state == State::Greeted).ok_or(protocol)?;
        let known = store.domain(peer.domid);
        if known.is_none_or(|domain| (domain.gfn, domain.port) != (peer.gfn, peer.port)) {
            store.introduce(peer.domid, peer.gfn, peer.port)?;
        }
        let mark = store.journal.mark_of(peer.domid);
        let done = mark.filter(|mark| mark.incarnation == peer.incarnation);
        self.client = Some(store.open_client(peer.domid));
        self.state = State::Resuming;
        self.put(Kind::Welcome, done.map_or(0, |mark| mark.number), &[]);
        Ok(())
    }

    /// Says why the domain is not let in; then the link is to be closed.
    pub fn refuse(&mut self, why: &str) {
        let end = why.len().min(MAX_PAYLOAD);
        self.put(Kind::Refused, 0, why.as_bytes().get(..end).unwrap_or_default());
    }

    /// Ends the link: watches and transactions of the client go. The domain stays introduced.
    pub fn close(self, store: &mut Store) {
        if let Some(client) = self.client {
            store.close_client(client);
        }
    }

    /// Whether nothing is taken because the domain was released, until it is introduced again.
    pub fn is_held(&self, store: &Store) -> bool {
        let is_known = |peer: Peer| store.domain(peer.domid).is_some();
        self.state == State::Open && !self.peer.is_some_and(is_known)
    }

    /// Takes bytes of the other side, up to the end of one frame, and does what it says. Gives the
    /// number of bytes taken: none while too much waits to be sent, while the link waits for its
    /// welcome, or while the domain is released.
    ///
    /// # Errors
    /// When the link cannot go on.
    pub fn input(&mut self, store: &mut Store, bytes: &[u8]) -> Result<usize, LinkError> {
        if self.output.len() >= MOST_OUTPUT || self.state == State::Greeted || self.is_held(store) {
            return Ok(0);
        }
        let taken = self.frames.take(bytes);
        let (frame, rest) = taken.map_err(|_| LinkError::Protocol { expected: "frame" })?;
        if let Some(frame) = frame {
            self.carry_out(store, &frame)?;
        }
        Ok(bytes.len() - rest.len())
    }

    fn carry_out(&mut self, store: &mut Store, frame: &Frame) -> Result<(), LinkError> {
        match (self.state, frame.kind, self.client) {
            (State::Fresh, Kind::Hello, _) => {
                let peer = Peer::decode(&frame.payload);
                self.peer = Some(peer.ok_or(LinkError::Protocol { expected: "greeting" })?);
                self.acknowledged = frame.number;
                self.state = State::Greeted;
                Ok(())
            }
            (State::Resuming, _, Some(client)) => self.resume(store, client, frame),
            (State::Open, _, Some(client)) => self.serve(store, client, frame),
            _ => Err(LinkError::Protocol { expected: "greeting" }),
        }
    }

    /// Takes up what the guest had in a store that is gone.
    fn resume(
        &mut self,
        store: &mut Store,
        client: ClientId,
        frame: &Frame,
    ) -> Result<(), LinkError> {
        match frame.kind {
            Kind::Watch => requests::register_watch(store, client, &frame.payload)?,
            Kind::Begin => {
                let bad = || LinkError::Protocol { expected: "transaction" };
                store.adopt_transaction(client, u32::try_from(frame.number).map_err(|_| bad())?)?;
            }
            // It went well once. If it does not now, the transaction, which will end in a conflict
            // anyhow, sees less of itself.
            Kind::Redo => drop(answer(store, client, &frame.payload)?),
            Kind::Resume => {
                // A guest that has no watches yet has missed nothing.
                store.catch_up(client, self.acknowledged);
                self.state = State::Open;
            }
            _ => return Err(LinkError::Protocol { expected: "resumption" }),
        }
        Ok(())
    }

    fn serve(
        &mut self,
        store: &mut Store,
        client: ClientId,
        frame: &Frame,
    ) -> Result<(), LinkError> {
        let Some(peer) = self.peer else {
            return Err(LinkError::Protocol { expected: "greeting" });
        };
        match frame.kind {
            Kind::Request => {
                let Peer { domid, incarnation, .. } = peer;
                store.journal.set_mark(Some(Mark { domid, incarnation, number: frame.number }));
                let reply = answer(store, client, &frame.payload);
                store.journal.set_mark(None);
                let sent = sent(store, client);
                self.put(Kind::Reply, sent, &reply?);
            }
            Kind::Reset => {
                store.reset_client(client);
                let sent = sent(store, client);
                self.put(Kind::ResetDone, sent, &[]);
            }
            Kind::ShutDown => store.shut_down(peer.domid)?,
            _ => return Err(LinkError::Protocol { expected: "request" }),
        }
        Ok(())
    }

    fn put(&mut self, kind: Kind, number: u64, payload: &[u8]) {
        self.told = self.told.max(number);
        self.output.push_back(encode(kind, number, payload));
    }

    /// Bytes for the other side, or none. Call again after [`Link::consume`].
    pub fn output(&mut self, store: &mut Store) -> &[u8] {
        if let Some(client) = self.client.filter(|_| self.state == State::Open) {
            while self.output.len() < EAGER_EVENTS {
                let Some(event) = store.pop_event(client) else { break };
                let sent = sent(store, client);
                self.put(Kind::Event, sent, &event_message(&event));
            }
            let sent = sent(store, client);
            if self.output.is_empty() && sent > self.told.saturating_add(SYNC_AFTER) {
                self.put(Kind::Sync, sent, &[]);
            }
        }
        self.output.front().and_then(|frame| frame.get(self.taken..)).unwrap_or_default()
    }

    /// Notes that the first `count` bytes of the last [`Link::output`] have been sent.
    pub fn consume(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count);
        if self.output.front().is_some_and(|frame| self.taken >= frame.len()) {
            self.output.pop_front();
            self.taken = 0;
        }
    }
}

/// The last change of which no event waits.
fn sent(store: &Store, client: ClientId) -> u64 {
    let oldest = store.clients.get(&client).and_then(|client| client.events.oldest());
    oldest.map_or_else(|| store.journal.change(), |change| change.saturating_sub(1))
}

/// Carries out a whole message and gives the reply.
fn answer(store: &mut Store, client: ClientId, message: &[u8]) -> Result<Vec<u8>, LinkError> {
    let bad = LinkError::Protocol { expected: "message" };
    let Some((head, payload)) = message.split_first_chunk() else { return Err(bad) };
    let header = Header::decode(head);
    if payload.len() != header.length as usize || payload.len() > MAX_PAYLOAD {
        return Err(bad);
    }
    Ok(reply(&header, requests::handle(store, client, &header, payload)))
}
