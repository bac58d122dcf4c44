//! A guest whose store dies again and again, at any point, does not notice: every change is made
//! once, and no event is lost.

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;

use store::ring::{Channel, PAGE_SIZE, Ring, SharedPage};
use store::wire::{Header, MessageType};
use store::{Link, Peer, Relay, Store};
use support::{Random, encode, event_of, split_messages};

/// A store that may die, what it wrote down, and a link to each guest.
struct World {
    disk: Vec<u8>,
    store: Store,
    guests: Vec<Guest>,
    random: Random,
    kills: u32,
}

struct Guest {
    relay: Relay,
    link: Link,
    /// Bytes on their way to the store.
    pipe: Vec<u8>,
    received: Vec<u8>,
    replies: Vec<(Header, Vec<u8>)>,
    events: Vec<(String, String)>,
    next_request: u32,
}

impl Guest {
    fn new(domid: u16) -> Self {
        let peer = Peer { domid, incarnation: 77, gfn: 5, port: 1 };
        let mut relay = Relay::new(peer);
        relay.connected();
        Self {
            relay,
            link: Link::new(),
            pipe: Vec::new(),
            received: Vec::new(),
            replies: Vec::new(),
            events: Vec::new(),
            next_request: 0,
        }
    }
}

impl World {
    fn new(seed: u64, guests: u16) -> Self {
        let mut store = Store::default();
        store.keep_journal();
        store.write("/shared/counter", "0").unwrap();
        for path in ["/shared", "/shared/counter"] {
            store.set_permissions(path, "b0".parse().unwrap()).unwrap();
        }
        let disk = store.picture();
        let guests = (1..=guests).map(Guest::new).collect();
        Self { disk, store, guests, random: Random(seed), kills: 0 }
    }

    /// The store dies. What it wrote last may be cut off, if nobody was told of it.
    fn kill(&mut self) {
        self.kills += 1;
        let last = self.store.take_journal();
        let cut = self.random.below(last.len() as u64 + 1) as usize;
        self.disk.extend_from_slice(&last[..cut]);
        let mut restored = Store::restore(&self.disk).expect("a whole picture");
        assert!(restored.store.is_consistent());
        if self.random.below(2) == 0 {
            self.disk = restored.store.picture();
        } else {
            self.disk.truncate(self.disk.len() - restored.lost);
            let again = Store::restore(&self.disk).unwrap();
            assert_eq!(again.lost, 0);
            assert_eq!(again.store.dump("/").unwrap(), restored.store.dump("/").unwrap());
        }
        self.store = restored.store;
        for guest in &mut self.guests {
            guest.link = Link::new();
            guest.pipe.clear();
            guest.relay.disconnected();
            guest.relay.connected();
        }
    }

    /// One small step of anybody.
    fn step(&mut self) {
        let who = self.random.below(self.guests.len() as u64) as usize;
        let guest = &mut self.guests[who];
        match self.random.below(4) {
            0 => {
                let bytes = guest.relay.store_output().to_vec();
                let count = self.random.below(bytes.len() as u64 + 1) as usize;
                guest.pipe.extend_from_slice(&bytes[..count]);
                guest.relay.store_consume(count);
            }
            1 => {
                let taken = guest.link.input(&mut self.store, &guest.pipe).unwrap();
                guest.pipe.drain(..taken);
                if guest.link.waits_for_welcome() {
                    guest.link.welcome(&mut self.store).unwrap();
                }
            }
            2 => {
                // Before anything leaves, everything is written down.
                self.disk.extend(self.store.take_journal());
                let bytes = guest.link.output(&mut self.store).to_vec();
                let count = self.random.below(bytes.len() as u64 + 1) as usize;
                guest.link.consume(count);
                guest.relay.store_input(&bytes[..count]).unwrap();
            }
            _ => {
                let bytes = guest.relay.output().to_vec();
                guest.relay.consume(bytes.len());
                guest.received.extend(bytes);
                for (header, payload) in split_messages(&mut guest.received) {
                    if header.kind == MessageType::WatchEvent as u32 {
                        guest.events.push(event_of(&payload));
                    } else {
                        guest.replies.push((header, payload));
                    }
                }
            }
        }
    }

    /// Sends a request of a guest and waits for its reply, while the store may die.
    fn ask(
        &mut self,
        who: usize,
        kind: MessageType,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, String> {
        let guest = &mut self.guests[who];
        guest.next_request += 1;
        let number = guest.next_request;
        let request = encode(kind as u32, number, transaction, payload);
        let mut sent = 0;
        for _ in 0..100_000 {
            let guest = &mut self.guests[who];
            sent += guest.relay.input(&request[sent..]).unwrap();
            if self.random.below(300) == 0 {
                self.kill();
            }
            self.step();
            let guest = &mut self.guests[who];
            if let Some((header, payload)) = guest.replies.pop() {
                assert!(guest.replies.is_empty(), "two replies");
                assert_eq!((header.request, header.transaction), (number, transaction));
                if header.kind == MessageType::Error as u32 {
                    return Err(String::from_utf8(payload).unwrap().replace('\0', ""));
                }
                assert_eq!(header.kind, kind as u32);
                return Ok(payload);
            }
        }
        panic!("no reply to {kind:?}");
    }

    fn settle(&mut self) {
        for _ in 0..5000 {
            self.step();
        }
    }

    /// Adds one to the counter in a transaction; whether it was committed.
    fn count(&mut self, who: usize) -> bool {
        let id = self.ask(who, MessageType::TransactionStart, 0, b"\0").unwrap();
        let id = String::from_utf8(id).unwrap().trim_end_matches('\0').parse().unwrap();
        let value = self.ask(who, MessageType::Read, id, b"/shared/counter\0").unwrap();
        let value: u64 = String::from_utf8(value).unwrap().parse().unwrap();
        let write = format!("/shared/counter\0{}", value + 1);
        self.ask(who, MessageType::Write, id, write.as_bytes()).unwrap();
        let own = self.ask(who, MessageType::Read, id, b"/shared/counter\0").unwrap();
        assert_eq!(own, (value + 1).to_string().as_bytes(), "a transaction sees its own changes");
        match self.ask(who, MessageType::TransactionEnd, id, b"T\0") {
            Ok(_) => true,
            Err(error) if error == "EAGAIN" => false,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_change_is_made_once() {
    let mut kills = 0;
    for seed in 1..=40_u64 {
        let mut world = World::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 2);
        let mut commits = 0_u64;
        for round in 0..60 {
            let who = round % 2;
            commits += u64::from(world.count(who));
            let value = format!("{seed}-{round}");
            let write = format!("/shared/of{who}\0{value}");
            world.ask(who, MessageType::Write, 0, write.as_bytes()).unwrap();
            let path = format!("/shared/of{who}\0");
            let read = world.ask(who, MessageType::Read, 0, path.as_bytes()).unwrap();
            assert_eq!(read, value.as_bytes());
        }
        let counter = String::from_utf8(world.store.read("/shared/counter").unwrap().to_vec());
        assert_eq!(counter.unwrap(), commits.to_string(), "seed {seed}");
        assert!(commits > 10, "only {commits} commits");
        kills += world.kills;
    }
    assert!(kills > 1000, "only {kills} kills");
}

#[test]
fn no_event_is_lost() {
    for seed in 1..=30_u64 {
        let mut world = World::new(seed.wrapping_mul(0xd134_2543_de82_ef95), 2);
        world.ask(1, MessageType::Watch, 0, b"/shared\0token\0").unwrap();
        world.ask(1, MessageType::Watch, 0, b"@introduceDomain\0no\0").unwrap();
        world.ask(1, MessageType::Unwatch, 0, b"@introduceDomain\0no\0").unwrap();
        let mut missing = BTreeSet::new();
        for round in 0..60_u64 {
            let name = format!("/shared/n{}", world.random.below(12));
            let (kind, payload) = if round % 3 == 2 {
                (MessageType::Rm, format!("{name}\0"))
            } else {
                (MessageType::Write, format!("{name}\0{round}"))
            };
            let is_change = kind == MessageType::Write || world.store.exists(&name);
            if is_change {
                world.guests[1].events.retain(|(path, _)| *path != name);
            }
            world.ask(0, kind, 0, payload.as_bytes()).unwrap();
            if is_change {
                missing.insert(name);
            }
            // Sooner or later it hears of every change.
            if round % 10 == 9 {
                world.settle();
                for name in std::mem::take(&mut missing) {
                    let heard = world.guests[1].events.iter().any(|(path, _)| *path == name);
                    assert!(heard, "seed {seed}, round {round}: no event for {name}");
                }
            }
        }
        let strange =
            world.guests[1].events.iter().find(|(_, token)| token != "token" && token != "no");
        assert_eq!(strange, None);
        assert!(world.kills > 5);
    }
}

#[test]
fn a_guest_that_begins_anew_hears_nothing_of_before() {
    for seed in 1..=60_u64 {
        let mut world = World::new(seed.wrapping_mul(0xa076_1d64_78bd_642f), 1);
        world.ask(0, MessageType::Watch, 0, b"/shared\0old\0").unwrap();
        world.ask(0, MessageType::TransactionStart, 0, b"\0").unwrap();
        world.store.write("/shared/x", "").unwrap();
        let request = encode(MessageType::Read as u32, 99, 0, b"/shared/counter\0");
        world.guests[0].relay.input(&request).unwrap();
        for _ in 0..world.random.below(20) {
            world.step();
        }
        world.guests[0].relay.reset();
        let guest = &mut world.guests[0];
        guest.events.clear();
        guest.replies.clear();
        guest.received.clear();
        world.store.write("/shared/y", "").unwrap();
        world.ask(0, MessageType::Watch, 0, b"/shared\0new\0").unwrap();
        world.store.write("/shared/z", "").unwrap();
        world.settle();
        let tokens: Vec<_> = world.guests[0].events.iter().map(|(_, token)| token).collect();
        assert!(!tokens.is_empty() && tokens.iter().all(|token| *token == "new"), "{tokens:?}");
    }
}

#[test]
fn a_link_refuses_what_is_not_in_order() {
    let mut random = Random(3);
    let mut store = Store::default();
    for _ in 0..20_000 {
        let mut link = Link::new();
        for _ in 0..6 {
            let kind = random.below(16) as u32;
            let length = random.below(60) as u32;
            let mut bytes = kind.to_ne_bytes().to_vec();
            bytes.extend(length.to_ne_bytes());
            bytes.extend(random.below(4).to_ne_bytes());
            bytes.extend((0..length).map(|_| random.below(4) as u8));
            if link.input(&mut store, &bytes).is_err() {
                break;
            }
            if link.waits_for_welcome() && link.welcome(&mut store).is_err() {
                break;
            }
            let count = link.output(&mut store).len();
            link.consume(count);
        }
        link.close(&mut store);
    }
    assert!(store.is_consistent());
}

/// A page whose words are whatever the guest writes between two looks at them.
struct Hostile {
    bytes: RefCell<[u8; PAGE_SIZE]>,
    random: RefCell<Random>,
}

impl SharedPage for Hostile {
    fn load_u32(&self, offset: usize) -> u32 {
        let mut random = self.random.borrow_mut();
        let bytes = self.bytes.borrow();
        let value = u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap());
        match random.below(40) {
            0 => random.below(1 << 32) as u32,
            1..10 => value.wrapping_add(random.below(300) as u32),
            _ => value,
        }
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.bytes.borrow_mut()[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= 1024, "only the request ring is read");
        let mut random = self.random.borrow_mut();
        let noise = encode(random.below(24) as u32, 1, 0, b"data/x\0y\0");
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = noise[(offset + i) % noise.len()];
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(
            offset >= 1024 && offset + bytes.len() <= 2048,
            "only the response ring is written"
        );
    }
}

/// A guest that writes nonsense into its ring at any time breaks its own connection, and nothing of
/// another domain's.
#[test]
fn a_hostile_ring_harms_nobody_else() {
    let mut world = World::new(11, 2);
    world.store.write("/local/domain/1/data", "").unwrap();
    world.store.set_permissions("/local/domain/1/data", "n1".parse().unwrap()).unwrap();
    world.ask(1, MessageType::Watch, 0, b"/shared/counter\0token\0").unwrap();
    world.settle();
    world.guests[1].events.clear();
    let page = Hostile { bytes: RefCell::new([0; PAGE_SIZE]), random: RefCell::new(Random(5)) };
    let mut ring = Ring::attach(&page);
    let (mut breaks, mut moved) = (0, 0);
    for round in 0..30_000 {
        match ring.pump(&page, &mut world.guests[0].relay) {
            Ok(pumped) => moved += u32::from(pumped.notify),
            Err(_) => {
                breaks += 1;
                page.store_u32(2068, 1);
            }
        }
        for _ in 0..4 {
            world.step();
        }
        if round % 3000 == 0 {
            world.kill();
            let value = world.ask(1, MessageType::Read, 0, b"/shared/counter\0").unwrap();
            assert_eq!(value, b"0");
        }
    }
    assert!(breaks > 100 && moved > 100, "{breaks} breaks, {moved} moves");
    assert!(world.store.is_consistent());
    assert!(world.store.nodes_owned_by(1) <= 1000);
    let own = world.guests[1].events.iter().all(|(path, _)| path == "/shared/counter");
    assert!(own, "{:?}", world.guests[1].events);
}
