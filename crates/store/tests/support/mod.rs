//! A client that talks to a store over the wire format.

#![allow(dead_code, reason = "each test program uses a part of this module")]

use std::collections::VecDeque;

use store::wire::{HEADER_SIZE, Header, MessageType};
use store::{Connection, Store};

/// A message as taken from the output.
pub type Message = (Header, Vec<u8>);

pub struct Client {
    pub connection: Connection,
    pub events: VecDeque<(String, String)>,
    next_request: u32,
}

pub fn encode(kind: u32, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    Header { kind, request, transaction, length: 0 }.encode(payload)
}

/// Splits a byte stream into whole messages; leaves an incomplete one.
pub fn split_messages(stream: &mut Vec<u8>) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = stream.split_first_chunk::<HEADER_SIZE>() {
        let header = Header::decode(head);
        let length = header.length as usize;
        assert!(length <= 4096, "reply of {length} bytes");
        if rest.len() < length {
            break;
        }
        messages.push((header, rest[..length].to_vec()));
        stream.drain(..HEADER_SIZE + length);
    }
    messages
}

pub fn event_of(payload: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(payload);
    let mut parts = text.split_terminator('\0').map(str::to_owned);
    let event = (parts.next().unwrap(), parts.next().unwrap_or_default());
    assert_eq!(parts.next(), None);
    event
}

impl Client {
    pub fn open(store: &mut Store, domid: u16) -> Self {
        Self {
            connection: Connection::open(store, domid),
            events: VecDeque::new(),
            next_request: 100,
        }
    }

    pub fn take_output(&mut self, store: &mut Store) -> Vec<u8> {
        let mut stream = Vec::new();
        loop {
            let bytes = self.connection.output(store).to_vec();
            if bytes.is_empty() {
                return stream;
            }
            self.connection.consume(bytes.len());
            stream.extend(bytes);
        }
    }

    /// Sends one request and gives the payload of its reply, or the name of the error.
    pub fn call_number(
        &mut self,
        store: &mut Store,
        kind: u32,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.next_request += 1;
        let request = encode(kind, self.next_request, transaction, payload);
        assert_eq!(self.connection.input(store, &request).unwrap(), request.len());
        let mut stream = self.take_output(store);
        let mut reply = None;
        for (header, payload) in split_messages(&mut stream) {
            if header.kind == MessageType::WatchEvent as u32 {
                assert_eq!((header.request, header.transaction), (0, 0));
                self.events.push_back(event_of(&payload));
                continue;
            }
            assert_eq!((header.request, header.transaction), (self.next_request, transaction));
            assert!(reply.is_none(), "two replies");
            reply = Some(if header.kind == MessageType::Error as u32 {
                assert_eq!(payload.last(), Some(&0));
                Err(String::from_utf8(payload[..payload.len() - 1].to_vec()).unwrap())
            } else {
                assert_eq!(header.kind, kind);
                Ok(payload)
            });
        }
        assert!(stream.is_empty());
        reply.expect("a reply")
    }

    pub fn call_in(
        &mut self,
        store: &mut Store,
        kind: MessageType,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.call_number(store, kind as u32, transaction, payload)
    }

    pub fn call(
        &mut self,
        store: &mut Store,
        kind: MessageType,
        payload: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.call_in(store, kind, 0, payload)
    }

    /// Like `call`, with the reply as text.
    pub fn ask(
        &mut self,
        store: &mut Store,
        kind: MessageType,
        payload: &str,
    ) -> Result<String, String> {
        self.call(store, kind, payload.as_bytes()).map(|reply| String::from_utf8(reply).unwrap())
    }

    pub fn start(&mut self, store: &mut Store) -> u32 {
        let reply = self.ask(store, MessageType::TransactionStart, "\0").unwrap();
        reply.strip_suffix('\0').unwrap().parse().unwrap()
    }

    pub fn end(&mut self, store: &mut Store, transaction: u32, how: &str) -> Result<(), String> {
        let payload = format!("{how}\0");
        let kind = MessageType::TransactionEnd;
        let reply = self.call_in(store, kind, transaction, payload.as_bytes())?;
        assert_eq!(reply, b"OK\0");
        Ok(())
    }

    /// Events received so far, those still in the store included.
    pub fn take_events(&mut self, store: &mut Store) -> Vec<(String, String)> {
        let mut stream = self.take_output(store);
        for (header, payload) in split_messages(&mut stream) {
            assert_eq!(header.kind, MessageType::WatchEvent as u32);
            self.events.push_back(event_of(&payload));
        }
        self.events.drain(..).collect()
    }

    pub fn event_paths(&mut self, store: &mut Store) -> Vec<String> {
        self.take_events(store).into_iter().map(|(path, _)| path).collect()
    }
}

/// A small reproducible generator for tests that need no shrinking.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}
