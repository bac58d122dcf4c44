//! The ring page of a hostile guest, which changes it at any time: also between two looks at it.
#![no_main]

use std::cell::{Cell, RefCell};

use libfuzzer_sys::fuzz_target;
use store::ring::{PAGE_SIZE, Ring, SharedPage};
use store::{Connection, Store};

struct Page<'a> {
    bytes: RefCell<[u8; PAGE_SIZE]>,
    input: Cell<&'a [u8]>,
}

impl Page<'_> {
    /// The guest writes something, as the input says.
    fn scribble(&self) {
        let input = self.input.get();
        let Some((&[at, value], rest)) = input.split_first_chunk() else { return };
        self.input.set(rest);
        // Mostly the indexes, which lie at 2048.
        let offset =
            if at < 0xc0 { 2048 + usize::from(at) % 28 } else { usize::from(at) * 16 % 4096 };
        self.bytes.borrow_mut()[offset] = value;
    }
}

impl SharedPage for Page<'_> {
    fn load_u32(&self, offset: usize) -> u32 {
        self.scribble();
        let bytes = self.bytes.borrow();
        u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.bytes.borrow_mut()[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= 1024, "only the request ring is read");
        bytes.copy_from_slice(&self.bytes.borrow()[offset..offset + bytes.len()]);
        self.scribble();
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        assert!(offset >= 1024 && end <= 2048, "only the response ring is written");
        self.bytes.borrow_mut()[offset..end].copy_from_slice(bytes);
        self.scribble();
    }
}

fuzz_target!(|data: &[u8]| {
    let (requests, input) = data.split_at(data.len().min(1024));
    let mut page = [0; PAGE_SIZE];
    page[..requests.len()].copy_from_slice(requests);
    let page = Page { bytes: RefCell::new(page), input: Cell::new(input) };
    let mut store = Store::default();
    let mut connection = Connection::open(&mut store, 5);
    let mut ring = Ring::attach(&page);
    for _ in 0..input.len().min(200) {
        let _broken_or_not = ring.pump(&page, &mut connection.on(&mut store));
    }
    connection.close(&mut store);
    assert!(store.is_consistent());
});
