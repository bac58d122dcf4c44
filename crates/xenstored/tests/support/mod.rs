//! A run-time directory of its own, domains in it, and guests without a ring.

#![allow(dead_code, reason = "each test program uses a part of this module")]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use control::xenstore::{StoreLink, StorePlace};
use control::{Dirs, Registration, Registry, Uuid};
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use store::Peer;
use store::ring::Channel;
use store::wire::{HEADER_SIZE, Header, MessageType};

/// Runs the test `name` in a process that finds `xenstored`; whether this is that process.
pub fn finds_xenstored(name: &str) -> bool {
    let program = env!("CARGO_BIN_EXE_xenstored");
    if std::env::var_os("XENOLITH_XENSTORED").is_some_and(|set| set == program) {
        return true;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env("XENOLITH_XENSTORED", program)
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in a process of its own");
    false
}

/// A run-time directory; its store is killed at the end.
pub struct Place {
    base: tempfile::TempDir,
    pub dirs: Dirs,
    pub registry: Registry,
}

impl Place {
    pub fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        let registry = Registry::with_dirs(dirs.clone()).unwrap();
        Self { base, dirs, registry }
    }

    pub fn register(&self, name: &str) -> Registration {
        self.registry.register(name, Uuid::random().unwrap()).unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        StorePlace::new(&self.dirs).socket()
    }

    /// Process number of the store that serves now.
    pub fn server(&self) -> Option<Pid> {
        let stream = control::connect(&self.socket()).ok()?;
        Some(rustix::net::sockopt::socket_peercred(&stream).ok()?.pid)
    }

    pub fn kill_server(&self) -> bool {
        self.server().is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dirs.state.join("xenstored.log")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill_server();
    }
}

/// A guest that speaks to its relay as if there were a ring.
pub struct Guest {
    pub link: StoreLink,
    pub domid: u16,
    pub events: Vec<(String, String)>,
    received: Vec<u8>,
    next_request: u32,
}

pub fn peer(domid: u16, incarnation: u64) -> Peer {
    Peer { domid, incarnation, gfn: 5, port: 1 }
}

impl Guest {
    pub fn new(place: &Place, registration: &Registration) -> Self {
        let domid = u16::try_from(registration.entry().domid).unwrap();
        let link = StoreLink::connect(&place.dirs, peer(domid, 7)).unwrap();
        Self { link, domid, events: Vec::new(), received: Vec::new(), next_request: 0 }
    }

    pub fn ask(
        &mut self,
        kind: MessageType,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, String> {
        self.next_request += 1;
        let header =
            Header { kind: kind as u32, request: self.next_request, transaction, length: 0 };
        let request = header.encode(payload);
        let mut sent = 0;
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            sent += self.link.relay().input(&request[sent..]).unwrap();
            if let Some((header, payload)) = self.step(end) {
                assert_eq!((header.request, header.transaction), (self.next_request, transaction));
                if header.kind == MessageType::Error as u32 {
                    return Err(String::from_utf8(payload).unwrap().replace('\0', ""));
                }
                assert_eq!(header.kind, kind as u32);
                return Ok(payload);
            }
        }
    }

    /// Waits for something, once; gives a reply if one came.
    pub fn step(&mut self, end: Instant) -> Option<(Header, Vec<u8>)> {
        assert!(Instant::now() < end, "the store does not answer");
        self.link.flush_now();
        let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        poll(&mut [self.link.poll_fd()], Some(&wait)).unwrap();
        self.link.turn();
        let mut reply = None;
        loop {
            let bytes = self.link.relay().output().to_vec();
            if bytes.is_empty() {
                break;
            }
            self.link.relay().consume(bytes.len());
            self.received.extend(bytes);
        }
        while let Some((head, rest)) = self.received.split_first_chunk::<HEADER_SIZE>() {
            let header = Header::decode(head);
            let length = header.length as usize;
            if rest.len() < length {
                break;
            }
            let payload = rest[..length].to_vec();
            self.received.drain(..HEADER_SIZE + length);
            if header.kind == MessageType::WatchEvent as u32 {
                let text = String::from_utf8(payload).unwrap();
                let mut parts = text.split('\0').map(str::to_owned);
                self.events.push((parts.next().unwrap(), parts.next().unwrap()));
            } else {
                assert!(reply.is_none(), "two replies");
                reply = Some((header, payload));
            }
        }
        reply
    }

    /// Waits until the condition holds.
    pub fn until(&mut self, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !condition(self) {
            assert!(self.step(end).is_none(), "a reply to nothing");
        }
    }

    pub fn text(&mut self, kind: MessageType, payload: &str) -> Result<String, String> {
        self.ask(kind, 0, payload.as_bytes()).map(|reply| String::from_utf8(reply).unwrap())
    }
}
