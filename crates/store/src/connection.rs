//! One client of the store that speaks the wire protocol over any byte stream.

use std::collections::VecDeque;

use thiserror::Error;

use crate::client::ClientId;
use crate::error::StoreError;
use crate::permissions::Domid;
use crate::requests;
use crate::ring::Channel;
use crate::store::Store;
use crate::watch::WatchEvent;
use crate::wire::{HEADER_SIZE, Header, MAX_PAYLOAD, MessageType};

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ConnectionError {
    /// The client announced a payload that the protocol forbids. The end of the message cannot be
    /// trusted any more, so nothing after it is read.
    #[error(
        "The client announced a payload of {length} bytes; at most 4096 are allowed. Close the connection"
    )]
    PayloadTooLong {
        /// Length in bytes as announced.
        length: u32,
    },
}

/// Events moved to the output while it holds fewer messages than this. The others stay in the
/// queue of the store, where equal ones are joined.
const EAGER_EVENTS: usize = 4;

/// The protocol state of one client: a partial request and the replies not yet taken.
///
/// A reply precedes the events that its request caused. [`Connection::close`] must be called at
/// the end, or the store keeps the watches and transactions of the client.
pub struct Connection {
    client: ClientId,
    domid: Domid,
    /// The request received so far: header, then payload.
    input: Vec<u8>,
    output: VecDeque<Vec<u8>>,
    /// Bytes of the first message in `output` that have been taken.
    taken: usize,
    broken: Option<ConnectionError>,
}

impl Connection {
    /// A new connection for a client of the domain. Domain 0 is privileged.
    pub fn open(store: &mut Store, domid: Domid) -> Self {
        Self {
            client: store.open_client(domid),
            domid,
            input: Vec::new(),
            output: VecDeque::new(),
            taken: 0,
            broken: None,
        }
    }

    /// The domain of the client.
    pub const fn domid(&self) -> Domid {
        self.domid
    }

    /// Ends the connection: its watches and transactions go.
    pub fn close(self, store: &mut Store) {
        store.close_client(self.client);
    }

    /// Returns to the state after [`Connection::open`], as a client that reconnects expects.
    pub fn reset(&mut self, store: &mut Store) {
        store.reset_client(self.client);
        self.input.clear();
        self.output.clear();
        self.taken = 0;
        self.broken = None;
    }

    /// Whether no request is partly received and no reply or event waits.
    pub fn is_idle(&self, store: &Store) -> bool {
        let has_events = store.clients.get(&self.client).is_some_and(|c| c.events.len() > 0);
        self.input.is_empty() && self.output.is_empty() && !has_events
    }

    /// Takes bytes from the client and carries complete requests out. Gives the number of bytes
    /// taken: fewer than offered when too many replies wait. Offer the rest after taking output.
    ///
    /// # Errors
    /// After an error, and with the same error from then on, the connection is to be closed.
    pub fn input(&mut self, store: &mut Store, bytes: &[u8]) -> Result<usize, ConnectionError> {
        self.input_some(store, bytes, usize::MAX)
    }

    /// As [`Connection::input`], but stops after `most` parts (headers or whole messages), so that
    /// others get their turn.
    ///
    /// # Errors
    /// As [`Connection::input`].
    pub fn input_some(
        &mut self,
        store: &mut Store,
        bytes: &[u8],
        most: usize,
    ) -> Result<usize, ConnectionError> {
        let limit = store.quota(self.domid).outstanding.max(1);
        let mut rest = bytes;
        for _ in 0..most {
            if self.broken.is_some() || rest.is_empty() || self.output.len() >= limit {
                break;
            }
            rest = self.take(store, rest);
        }
        match self.broken {
            Some(error) => Err(error),
            None => Ok(bytes.len() - rest.len()),
        }
    }

    /// The connection together with its store, for a ring.
    pub const fn on<'a>(&'a mut self, store: &'a mut Store) -> OnStore<'a> {
        OnStore { connection: self, store }
    }

    /// Takes bytes up to the end of the header or of the message, and gives the others.
    fn take<'a>(&mut self, store: &mut Store, bytes: &'a [u8]) -> &'a [u8] {
        let header = self.input.first_chunk().map(Header::decode);
        let goal = header.map_or(HEADER_SIZE, |header| HEADER_SIZE + header.length as usize);
        let wanted = goal.saturating_sub(self.input.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(wanted);
        self.input.extend_from_slice(taken);

        let Some((head, payload)) = self.input.split_first_chunk() else { return rest };
        let header = Header::decode(head);
        if header.length as usize > MAX_PAYLOAD {
            self.broken = Some(ConnectionError::PayloadTooLong { length: header.length });
        } else if payload.len() == header.length as usize {
            let reply = reply(&header, requests::handle(store, self.client, &header, payload));
            self.output.push_back(reply);
            self.input.clear();
        }
        rest
    }

    /// Bytes for the client, or none. Not all that wait: call again after [`Connection::consume`].
    pub fn output(&mut self, store: &mut Store) -> &[u8] {
        while self.output.len() < EAGER_EVENTS {
            let Some(event) = store.pop_event(self.client) else { break };
            self.output.push_back(event_message(&event));
        }
        self.output.front().and_then(|message| message.get(self.taken..)).unwrap_or_default()
    }

    /// Notes that the first `count` bytes of the last [`Connection::output`] have been sent.
    pub fn consume(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count);
        if self.output.front().is_some_and(|message| self.taken >= message.len()) {
            self.output.pop_front();
            self.taken = 0;
        }
    }
}

/// A connection together with its store.
pub struct OnStore<'a> {
    connection: &'a mut Connection,
    store: &'a mut Store,
}

impl Channel for OnStore<'_> {
    fn input(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        self.connection.input(self.store, bytes)
    }

    fn output(&mut self) -> &[u8] {
        self.connection.output(self.store)
    }

    fn consume(&mut self, count: usize) {
        self.connection.consume(count);
    }

    fn reset(&mut self) {
        self.connection.reset(self.store);
    }
}

/// The reply to a request.
pub(crate) fn reply(header: &Header, result: Result<Vec<u8>, StoreError>) -> Vec<u8> {
    match result {
        Ok(payload) => header.encode(&payload),
        Err(error) => {
            let name = format!("{}\0", error.errno().name());
            Header { kind: MessageType::Error as u32, ..*header }.encode(name.as_bytes())
        }
    }
}

/// The message that carries an event.
pub(crate) fn event_message(event: &WatchEvent) -> Vec<u8> {
    let payload = [event.path.as_bytes(), b"\0", &event.token, b"\0"].concat();
    Header { kind: MessageType::WatchEvent as u32, request: 0, transaction: 0, length: 0 }
        .encode(&payload)
}
