//! The ring page: streaming in random pieces, hostile indexes, reconnection.

mod support;

use std::cell::RefCell;

use store::ring::{NextLook, PAGE_SIZE, Pumped, Ring, RingError, SOON, SharedPage};
use store::wire::MessageType;
use store::{Connection, Store};
use support::{Message, Random, encode, split_messages};

const REQ_CONS: usize = 2048;
const REQ_PROD: usize = 2052;
const RSP_CONS: usize = 2056;
const RSP_PROD: usize = 2060;
const FEATURES: usize = 2064;
const CONNECTION: usize = 2068;
const ERROR: usize = 2072;

struct Page(RefCell<[u8; PAGE_SIZE]>);

impl SharedPage for Page {
    fn load_u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.0.borrow()[offset..offset + 4].try_into().unwrap())
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.0.borrow_mut()[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= 1024, "only the request ring is read");
        bytes.copy_from_slice(&self.0.borrow()[offset..offset + bytes.len()]);
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(
            offset >= 1024 && offset + bytes.len() <= 2048,
            "only the response ring is written"
        );
        self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

struct Setup {
    store: Store,
    page: Page,
    ring: Ring,
    connection: Connection,
    received: Vec<u8>,
}

impl Setup {
    /// A ring whose indexes all start at `index`.
    fn at(index: u32) -> Self {
        let mut store = Store::default();
        store.write("/local/domain/5/x", "v").unwrap();
        store.set_permissions("/local/domain/5", "b5".parse().unwrap()).unwrap();
        store.set_permissions("/local/domain/5/x", "b5".parse().unwrap()).unwrap();
        let page = Page(RefCell::new([0; PAGE_SIZE]));
        for offset in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD] {
            page.store_u32(offset, index);
        }
        let ring = Ring::attach(&page);
        let connection = Connection::open(&mut store, 5);
        Self { store, page, ring, connection, received: Vec::new() }
    }

    fn pump(&mut self) -> Result<Pumped, RingError> {
        self.ring.pump(&self.page, &mut self.connection.on(&mut self.store))
    }

    /// The guest writes up to `limit` bytes; gives how many fitted.
    fn guest_send(&mut self, bytes: &[u8], limit: usize) -> usize {
        let producer = self.page.load_u32(REQ_PROD);
        let used = producer.wrapping_sub(self.page.load_u32(REQ_CONS)) as usize;
        let count = bytes.len().min(1024 - used).min(limit);
        for (i, byte) in bytes[..count].iter().enumerate() {
            let offset = producer.wrapping_add(i as u32) as usize % 1024;
            self.page.0.borrow_mut()[offset] = *byte;
        }
        self.page.store_u32(REQ_PROD, producer.wrapping_add(count as u32));
        count
    }

    /// The guest takes up to `limit` bytes of replies.
    fn guest_receive(&mut self, limit: usize) -> usize {
        let consumer = self.page.load_u32(RSP_CONS);
        let available = self.page.load_u32(RSP_PROD).wrapping_sub(consumer) as usize;
        let count = available.min(limit);
        for i in 0..count {
            let offset = consumer.wrapping_add(i as u32) as usize % 1024;
            self.received.push(self.page.0.borrow()[1024 + offset]);
        }
        self.page.store_u32(RSP_CONS, consumer.wrapping_add(count as u32));
        count
    }

    fn ask(&mut self, request: &[u8]) -> Message {
        let mut sent = 0;
        for _ in 0..100 {
            sent += self.guest_send(&request[sent..], usize::MAX);
            self.pump().unwrap();
            self.guest_receive(usize::MAX);
            if let Some(message) = split_messages(&mut self.received).pop() {
                return message;
            }
        }
        panic!("no reply");
    }
}

fn read_x() -> Vec<u8> {
    encode(MessageType::Read as u32, 7, 0, b"x\0")
}

#[test]
fn one_request_notifies_and_an_idle_ring_does_not() {
    let mut s = Setup::at(0);
    assert_eq!(s.page.load_u32(FEATURES), 7);
    assert_eq!(s.pump(), Ok(Pumped::default()));
    s.guest_send(&read_x(), usize::MAX);
    assert_eq!(s.pump(), Ok(Pumped { notify: true, next: NextLook::Soon }));
    s.guest_receive(usize::MAX);
    assert_eq!(split_messages(&mut s.received)[0].1, b"v");
    // What the guest wrote just now may not be seen yet, whoever asked for this look.
    assert_eq!(s.pump(), Ok(Pumped { notify: false, next: NextLook::Soon }));
    std::thread::sleep(SOON);
    assert_eq!(s.pump(), Ok(Pumped::default()));
}

#[test]
fn events_reach_an_idle_guest() {
    let mut s = Setup::at(0);
    s.ask(&encode(MessageType::Watch as u32, 1, 0, b"x\0t\0"));
    s.pump().unwrap();
    s.guest_receive(usize::MAX);
    s.received.clear();
    s.store.write("/local/domain/5/x", "new").unwrap();
    assert!(s.pump().unwrap().notify);
    s.guest_receive(usize::MAX);
    assert_eq!(split_messages(&mut s.received)[0].1, b"x\0t\0");
}

/// Requests and replies larger than the ring, in random pieces, over the wrap of the indexes.
#[test]
fn streams_in_random_pieces() {
    for seed in 1..60_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut s = Setup::at(u32::MAX - 3000);
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for request in 0..40_u32 {
            let size = random.below(2048) as usize;
            let value: Vec<_> = (0..size).map(|_| random.below(256) as u8).collect();
            let write = [b"x\0".as_slice(), &value].concat();
            stream.extend(encode(MessageType::Write as u32, request * 2, 0, &write));
            stream.extend(encode(MessageType::Read as u32, request * 2 + 1, 0, b"x\0"));
            expected.push(b"OK\0".to_vec());
            expected.push(value);
        }
        let (mut sent, mut idle) = (0, 0);
        while idle < 200 {
            let piece = random.below(700) as usize;
            let mut progress = s.guest_send(&stream[sent..], piece);
            sent += progress;
            if random.below(3) > 0 {
                s.pump().unwrap();
            }
            progress += s.guest_receive(random.below(700) as usize);
            idle = if progress > 0 { 0 } else { idle + 1 };
        }
        assert_eq!(sent, stream.len());
        let replies = split_messages(&mut s.received);
        assert_eq!(
            replies.iter().map(|r| r.0.request).collect::<Vec<_>>(),
            (0..80).collect::<Vec<_>>()
        );
        assert_eq!(replies.into_iter().map(|r| r.1).collect::<Vec<_>>(), expected);
        assert!(s.received.is_empty() && s.connection.is_idle(&s.store));
    }
}

#[test]
fn impossible_indexes_break_the_ring_until_the_guest_reconnects() {
    let mut s = Setup::at(0);
    s.ask(&encode(MessageType::Watch as u32, 1, 0, b"x\0t\0"));
    let consumer = s.page.load_u32(REQ_CONS);
    let producer = consumer.wrapping_add(1025);
    s.page.store_u32(REQ_PROD, producer);
    let error = RingError::RequestIndex { producer, consumer };
    assert_eq!(s.pump(), Err(error));
    assert_eq!((s.page.load_u32(ERROR), s.ring.error()), (2, Some(error)));
    s.page.store_u32(REQ_PROD, consumer);
    assert_eq!(s.pump(), Err(error), "it stays broken");

    s.page.store_u32(CONNECTION, 1);
    assert!(s.pump().unwrap().notify);
    for offset in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, CONNECTION, ERROR] {
        assert_eq!(s.page.load_u32(offset), 0);
    }
    s.received.clear();
    s.store.write("/local/domain/5/x", "after").unwrap();
    assert_eq!(s.ask(&read_x()).1, b"after", "and the watch is gone");

    let producer = s.page.load_u32(RSP_PROD);
    let consumer = producer.wrapping_add(1);
    s.page.store_u32(RSP_CONS, consumer);
    assert_eq!(s.pump(), Err(RingError::ResponseIndex { producer, consumer }));
}

#[test]
fn a_long_payload_is_a_protocol_error() {
    let mut s = Setup::at(0);
    let mut request = encode(MessageType::Read as u32, 1, 0, b"");
    request[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
    s.guest_send(&request, usize::MAX);
    assert!(matches!(s.pump(), Err(RingError::Protocol(_))));
    assert_eq!(s.page.load_u32(ERROR), 3);
}

/// The store keeps its own indexes: what the guest writes over them does not move them.
#[test]
fn the_stores_indexes_cannot_be_moved_by_the_guest() {
    let mut s = Setup::at(0);
    s.ask(&read_x());
    s.page.store_u32(REQ_CONS, 999);
    s.page.store_u32(RSP_PROD, 999);
    let producer = s.page.load_u32(REQ_PROD);
    for (i, byte) in read_x().iter().enumerate() {
        s.page.0.borrow_mut()[(producer as usize + i) % 1024] = *byte;
    }
    s.page.store_u32(REQ_PROD, producer + read_x().len() as u32);
    assert!(s.pump().unwrap().notify);
    assert_eq!(s.page.load_u32(REQ_CONS), producer + read_x().len() as u32);
    s.guest_receive(usize::MAX);
    assert_eq!(split_messages(&mut s.received)[0].1, b"v");
}

/// Random words over the whole control part and random ring contents: an error or not, no panic,
/// no access outside the rings, no endless loop, and a working ring after reconnection.
#[test]
fn survives_a_hostile_guest() {
    let mut random = Random(7);
    let mut s = Setup::at(0);
    for _ in 0..20_000 {
        for _ in 0..random.below(4) {
            let offset = REQ_CONS + 4 * random.below(7) as usize;
            let near = s.page.load_u32(offset).wrapping_add(random.below(1100) as u32);
            let value = if random.below(3) == 0 { random.below(1 << 32) as u32 } else { near };
            s.page.store_u32(offset, value);
        }
        let offset = random.below(1000) as usize;
        let noise = encode(random.below(24) as u32, 1, 0, b"x\0y\0");
        let end = (offset + noise.len()).min(1024);
        s.page.0.borrow_mut()[offset..end].copy_from_slice(&noise[..end - offset]);
        s.pump().ok();
        if random.below(10) == 0 {
            s.page.store_u32(CONNECTION, 1);
            s.pump().unwrap();
            s.received.clear();
            s.store.write("/local/domain/5/x", "v").unwrap();
            s.store.set_permissions("/local/domain/5/x", "b5".parse().unwrap()).unwrap();
            assert_eq!(s.ask(&read_x()).1, b"v");
        }
    }
    assert!(s.store.is_consistent());
}
