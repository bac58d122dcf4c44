//! A netfront without a kernel: writes a guest's memory as one would, well or badly.
#![allow(dead_code, reason = "each test uses a part")]

use boundary::{DOMAIN_PAGE_SIZE, DomainPage, PAGE};
use devices::guest::{GuestFds, Layout, event_counter};
use devices::wire::{self, DeviceConfig, NetConfig, NetLink, Nodes, Order, Report};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub const FRAMES: u64 = 2048;
pub const LAYOUT: Layout = Layout { max_pages: FRAMES, nr_frames: FRAMES + 32, grant_mfn: FRAMES };
/// Entries of both rings.
pub const ENTRIES: u32 = 256;
const RX_FIRST: u32 = 512;
const TX_FIRST: u32 = 1024;

pub mod flag {
    pub const TX_BLANK: u16 = 1;
    pub const RX_VALIDATED: u16 = 1;
    pub const RX_BLANK: u16 = 2;
    pub const MORE: u16 = 4;
    pub const EXTRA: u16 = 8;
}

/// The memory of a guest and its counters.
pub struct Memory {
    ram: OwnedFd,
    arena: OwnedFd,
    bell: OwnedFd,
    kick: OwnedFd,
}

fn memfd(size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create(c"guest", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    file
}

impl Memory {
    pub fn new() -> Self {
        let arena = memfd(boundary::at::ARENA_SIZE);
        let flags = DOMAIN_PAGE_SIZE.to_ne_bytes();
        rustix::io::pwrite(&arena, &flags, offset_of!(DomainPage, frame_flags) as u64).unwrap();
        Self {
            ram: memfd(LAYOUT.nr_frames * PAGE),
            arena,
            bell: event_counter().unwrap(),
            kick: event_counter().unwrap(),
        }
    }

    pub fn fds(&self) -> GuestFds {
        let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
        GuestFds {
            ram: copy(&self.ram),
            arena: copy(&self.arena),
            bell: copy(&self.bell),
            kick: copy(&self.kick),
        }
    }

    pub fn write(&self, frame: u32, offset: u64, bytes: &[u8]) {
        let at = u64::from(frame) * PAGE + offset;
        assert_eq!(rustix::io::pwrite(&self.ram, bytes, at).unwrap(), bytes.len());
    }

    pub fn read<const N: usize>(&self, frame: u32, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let at = u64::from(frame) * PAGE + offset;
        assert_eq!(rustix::io::pread(&self.ram, &mut bytes, at).unwrap(), N);
        bytes
    }

    pub fn read_into(&self, frame: u32, bytes: &mut [u8]) {
        let at = u64::from(frame) * PAGE;
        assert_eq!(rustix::io::pread(&self.ram, &mut *bytes, at).unwrap(), bytes.len());
    }

    pub fn word(&self, frame: u32, offset: u64) -> u32 {
        u32::from_ne_bytes(self.read(frame, offset))
    }

    pub fn set_word(&self, frame: u32, offset: u64, value: u32) {
        self.write(frame, offset, &value.to_ne_bytes());
    }

    /// Grants frame `reference` under that number.
    pub fn grant(&self, reference: u32, read_only: bool) {
        let table = u32::try_from(LAYOUT.grant_mfn).unwrap() + reference / 512;
        let at = u64::from(reference % 512) * 8;
        self.set_word(table, at + 4, reference);
        self.set_word(table, at, if read_only { 5 } else { 1 });
    }

    pub fn grant_flags(&self, reference: u32) -> u32 {
        let table = u32::try_from(LAYOUT.grant_mfn).unwrap() + reference / 512;
        self.word(table, u64::from(reference % 512) * 8)
    }

    pub fn revoke(&self, reference: u32) {
        let table = u32::try_from(LAYOUT.grant_mfn).unwrap() + reference / 512;
        self.set_word(table, u64::from(reference % 512) * 8, 0);
    }

    /// Notifies the backend.
    pub fn ring_bell(&self) {
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).unwrap();
    }

    /// Takes the ports that were notified.
    pub fn raised(&self, port: u32) -> bool {
        let at = (offset_of!(DomainPage, channels.raised) + port as usize / 64 * 8) as u64;
        let mut word = [0; 8];
        rustix::io::pread(&self.arena, &mut word, at).unwrap();
        rustix::io::pwrite(&self.arena, &[0; 8], at).unwrap();
        let inbox = offset_of!(DomainPage, inbox) as u64;
        rustix::io::pwrite(&self.arena, &[0; 4], inbox).unwrap();
        u64::from_ne_bytes(word) >> (port % 64) & 1 != 0
    }
}

/// The domain process's side of the orders.
pub struct Orders(pub OwnedFd);

pub fn socket_pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

pub fn readable(fd: impl AsFd, patience: Duration) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let time = Timespec::try_from(patience).unwrap();
    rustix::event::poll(&mut fds, Some(&time)).unwrap() > 0
}

impl Orders {
    pub fn send(&self, order: &Order, fds: &[BorrowedFd<'_>]) {
        wire::send(&self.0, order, fds).unwrap();
    }

    pub fn report(&self) -> Report {
        assert!(readable(&self.0, Duration::from_secs(10)), "the backend says nothing");
        wire::receive(&self.0).unwrap().expect("the backend has ended").0
    }

    pub fn attach(&self, link: NetLink, rate: Option<(u64, u64)>, fd: impl AsFd) {
        let mac = [0, 0x16, 0x3e, 1, 2, 3];
        self.attach_as(NetConfig { mac, link, mtu: 1500, rate, antispoof: None }, fd);
    }

    pub fn attach_as(&self, config: NetConfig, fd: impl AsFd) {
        let order = Order::Attach { device: 0, config: DeviceConfig::Net(config) };
        self.send(&order, &[fd.as_fd()]);
        let Report::Attached { device: 0, nodes } = self.report() else { panic!("not attached") };
        assert_eq!(nodes["feature-rx-copy"], "1");
    }

    pub fn connect(&self, frontend: &Nodes) -> Report {
        self.send(&Order::Connect { device: 0, frontend: frontend.clone() }, &[]);
        self.report()
    }

    /// A counter of the interface.
    pub fn counter(&self, name: &str) -> u64 {
        self.send(&Order::Statistics, &[]);
        let Report::Statistics { devices } = self.report() else { panic!("no statistics") };
        devices[&0][name]
    }
}

/// A transmit slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub gref: u32,
    pub offset: u16,
    pub flags: u16,
    pub id: u16,
    pub size: u16,
}

impl Slot {
    pub fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.gref.to_ne_bytes());
        for (place, value) in [(4, self.offset), (6, self.flags), (8, self.id), (10, self.size)] {
            bytes[place..place + 2].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}

/// A packet that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Came {
    pub bytes: Vec<u8>,
    pub flags: u16,
    /// Kind and size of segments.
    pub gso: Option<(u8, u16)>,
    pub failed: bool,
}

/// One queue of a frontend, with frames of its own.
pub struct Queue<'a> {
    pub memory: &'a Memory,
    /// Which one: chooses frames, rings and ports.
    number: u32,
    pub tx_prod: u32,
    pub tx_seen: u32,
    rx_prod: u32,
    rx_seen: u32,
    /// Where the next packet's pages are.
    next_page: u32,
}

impl<'a> Queue<'a> {
    pub fn new(memory: &'a Memory, number: u32) -> Self {
        let queue =
            Self { memory, number, tx_prod: 0, tx_seen: 0, rx_prod: 0, rx_seen: 0, next_page: 0 };
        for ring in [queue.tx_ring(), queue.rx_ring()] {
            memory.grant(ring, false);
            memory.write(ring, 0, &[0; 64]);
            memory.set_word(ring, 4, 1);
            memory.set_word(ring, 12, 1);
        }
        for page in 0..ENTRIES {
            memory.grant(queue.rx_page(page), false);
            memory.grant(queue.tx_page(page), true);
        }
        queue
    }

    pub fn tx_ring(&self) -> u32 {
        16 + self.number * 2
    }

    pub fn rx_ring(&self) -> u32 {
        17 + self.number * 2
    }

    pub fn port(&self) -> u32 {
        40 + self.number
    }

    pub fn rx_page(&self, slot: u32) -> u32 {
        RX_FIRST * (self.number % 2) / 2 + RX_FIRST + slot % ENTRIES
    }

    pub fn tx_page(&self, slot: u32) -> u32 {
        RX_FIRST * (self.number % 2) / 2 + TX_FIRST + slot % ENTRIES
    }

    /// The nodes of a frontend with this queue only.
    pub fn nodes(&self) -> Nodes {
        let mut nodes: Nodes = [
            ("request-rx-copy", 1),
            ("feature-rx-notify", 1),
            ("feature-sg", 1),
            ("feature-gso-tcpv4", 1),
            ("feature-gso-tcpv6", 1),
            ("feature-ipv6-csum-offload", 1),
        ]
        .map(|(name, value): (&str, u32)| (name.to_owned(), value.to_string()))
        .into();
        self.add_nodes(&mut nodes, "");
        nodes
    }

    pub fn add_nodes(&self, nodes: &mut Nodes, prefix: &str) {
        let port = self.port();
        let own = [
            ("tx-ring-ref", self.tx_ring()),
            ("rx-ring-ref", self.rx_ring()),
            ("event-channel", port),
        ];
        nodes.extend(own.map(|(name, value)| (format!("{prefix}{name}"), value.to_string())));
    }

    /// Puts a slot in the ring; the backend sees it after [`Self::push`].
    pub fn put(&mut self, slot: [u8; 12]) {
        let at = 64 + u64::from(self.tx_prod % ENTRIES) * 12;
        self.memory.write(self.tx_ring(), at, &slot);
        self.tx_prod += 1;
    }

    pub fn push(&self) {
        self.memory.set_word(self.tx_ring(), 0, self.tx_prod);
        self.memory.ring_bell();
    }

    /// As [`Self::push`], but notifies only if the backend asked for that since slot `first`.
    pub fn push_quietly(&self, first: u32) {
        self.memory.set_word(self.tx_ring(), 0, self.tx_prod);
        let event = self.memory.word(self.tx_ring(), 4);
        if self.tx_prod.wrapping_sub(event) < self.tx_prod.wrapping_sub(first) {
            self.memory.ring_bell();
        }
    }

    /// The slots of a packet whose bytes are put in pages, `first` bytes in the first one.
    pub fn packet(
        &mut self,
        bytes: &[u8],
        first: usize,
        blank: bool,
        gso: Option<(u8, u16)>,
    ) -> Vec<[u8; 12]> {
        let (head, rest) = bytes.split_at(first.min(bytes.len()));
        let pieces: Vec<&[u8]> = std::iter::once(head).chain(rest.chunks(PAGE as usize)).collect();
        let mut slots = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let page = self.tx_page(self.next_page);
            // Not at the start of the page, where that is possible.
            let offset = (PAGE as usize - piece.len()).min(number * 8 + 2) as u16;
            self.memory.write(page, offset.into(), piece);
            let mut flags = if number + 1 < pieces.len() { flag::MORE } else { 0 };
            let mut size = piece.len();
            if number == 0 {
                size = bytes.len();
                flags |= if blank { flag::TX_BLANK } else { 0 };
                flags |= if gso.is_some() { flag::EXTRA } else { 0 };
            }
            let id = self.next_page as u16;
            self.next_page = (self.next_page + 1) % ENTRIES;
            slots.push(Slot { gref: page, offset, flags, id, size: size as u16 }.bytes());
            if let (0, Some((kind, size))) = (number, gso) {
                slots.push(extra(1, 0, size, kind));
            }
        }
        slots
    }

    pub fn send(&mut self, bytes: &[u8], first: usize, blank: bool, gso: Option<(u8, u16)>) {
        for slot in self.packet(bytes, first, blank, gso) {
            self.put(slot);
        }
        self.push();
    }

    /// Waits for the answers to all that was sent: identifiers and statuses.
    pub fn answers(&mut self) -> Vec<(u16, i16)> {
        let end = Instant::now() + Duration::from_secs(10);
        while self.memory.word(self.tx_ring(), 8) != self.tx_prod {
            assert!(Instant::now() < end, "not all that was sent is answered");
            std::thread::sleep(Duration::from_micros(50));
        }
        self.answers_so_far()
    }

    pub fn answers_so_far(&mut self) -> Vec<(u16, i16)> {
        let produced = self.memory.word(self.tx_ring(), 8);
        let mut answers = Vec::new();
        while self.tx_seen != produced {
            let at = 64 + u64::from(self.tx_seen % ENTRIES) * 12;
            let [a, b, c, d] = self.memory.read(self.tx_ring(), at);
            answers.push((u16::from_ne_bytes([a, b]), i16::from_ne_bytes([c, d])));
            self.tx_seen += 1;
        }
        self.memory.set_word(self.tx_ring(), 12, produced.wrapping_add(1));
        answers
    }

    /// Slots that are free, once answers have been taken.
    pub fn room(&self) -> u32 {
        ENTRIES - (self.tx_prod - self.tx_seen)
    }

    /// Offers pages to receive in, as many as there is room for but `most`.
    pub fn offer(&mut self, most: u32) {
        for _ in 0..most {
            if self.rx_prod - self.rx_seen == ENTRIES {
                break;
            }
            let slot = self.rx_prod % ENTRIES;
            let mut request = [0; 8];
            request[..2].copy_from_slice(&(slot as u16).to_ne_bytes());
            request[4..].copy_from_slice(&self.rx_page(slot).to_ne_bytes());
            self.memory.write(self.rx_ring(), 64 + u64::from(slot) * 8, &request);
            self.rx_prod += 1;
        }
        self.memory.set_word(self.rx_ring(), 0, self.rx_prod);
        self.memory.ring_bell();
    }

    /// A packet that came, if one is there; its pages are not offered again.
    pub fn take(&mut self) -> Option<Came> {
        let produced = self.memory.word(self.rx_ring(), 8);
        let mut came: Option<Came> = None;
        while self.rx_seen != produced {
            let slot = self.rx_seen;
            let [i, j, o, p, f, g, s, t] =
                self.memory.read(self.rx_ring(), 64 + u64::from(slot % ENTRIES) * 8);
            self.rx_seen += 1;
            assert_eq!(
                u32::from(u16::from_ne_bytes([i, j])),
                slot % ENTRIES,
                "answers keep their place"
            );
            assert_eq!((o, p), (0, 0));
            let flags = u16::from_ne_bytes([f, g]);
            let size = i16::from_ne_bytes([s, t]);
            let first = came.is_none();
            let packet = came.get_or_insert_with(Came::default);
            if first {
                packet.flags = flags & 3;
            }
            if size < 0 {
                packet.failed = true;
            } else {
                let start = packet.bytes.len();
                packet.bytes.resize(start + size as usize, 0);
                self.memory.read_into(self.rx_page(slot), &mut packet.bytes[start..]);
            }
            if flags & flag::EXTRA != 0 {
                let [kind, more, a, b, gso, _, _, _] =
                    self.memory.read(self.rx_ring(), 64 + u64::from(self.rx_seen % ENTRIES) * 8);
                self.rx_seen += 1;
                assert_eq!((kind, more), (1, 0));
                packet.gso = Some((gso, u16::from_ne_bytes([a, b])));
            }
            if flags & flag::MORE == 0 {
                break;
            }
        }
        self.memory.set_word(self.rx_ring(), 12, self.rx_seen.wrapping_add(1));
        came
    }

    /// Waits for a packet.
    pub fn wait(&mut self) -> Came {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(came) = self.take() {
                return came;
            }
            assert!(Instant::now() < end, "no packet came");
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// An extra of a type; for packets to be cut into segments.
pub fn extra(kind: u8, flags: u8, size: u16, gso: u8) -> [u8; 12] {
    let [a, b] = size.to_ne_bytes();
    [kind, flags, a, b, gso, 0, 0, 0, 0, 0, 0, 0]
}
