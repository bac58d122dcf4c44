//! Our end of a console's ring (console.h), which lies in a frame that the guest granted.

use crate::guest::{Access, Grant, GrantError, Guest, Port};
use crate::wire::Nodes;
use abi::console::Interface;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Bytes that the guest can send ahead.
const OUT: u32 = 2048;
/// Bytes that we can send ahead.
const IN: u32 = 1024;
/// A guest with at least this much unread output may be waiting for room.
const NOTIFY_FROM: u32 = OUT / 2;

/// Why a frontend cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// A node is missing or holds no number.
    #[error("the frontend's `{0}` is not there, or no number")]
    Node(&'static str),
    /// There is no such event channel.
    #[error("the frontend's `port` is {0}, which no event channel has")]
    Port(u32),
    /// The ring is not granted.
    #[error("the ring's {0}")]
    Grant(#[from] GrantError),
}

/// A frontend's nodes, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    reference: u32,
    port: u32,
}

impl Frontend {
    /// Reads a frontend's directory.
    ///
    /// # Errors
    /// As [`FrontendError`] says.
    pub fn parse(nodes: &Nodes) -> Result<Self, FrontendError> {
        let number = |name| {
            let value = nodes.get(name).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            value.and_then(|text| text.parse().ok()).ok_or(FrontendError::Node(name))
        };
        Ok(Self { reference: number("ring-ref")?, port: number("port")? })
    }
}

/// Our end. Our own indices are kept here: those in the page are only ever written.
#[derive(Debug)]
pub struct Ring {
    page: Grant,
    port: Port,
    out_cons: u32,
    in_prod: u32,
}

impl Ring {
    /// Serves a frontend. It goes on where another backend has stopped.
    ///
    /// # Errors
    /// When the page is not granted, or there is no such event channel.
    pub fn connect(guest: &Arc<Guest>, frontend: Frontend) -> Result<Self, FrontendError> {
        let page = guest.map(frontend.reference, Access::Write)?;
        let port = guest.bind(frontend.port).ok_or(FrontendError::Port(frontend.port))?;
        let index = |at| page.word(at).map_or(0, |index: &AtomicU32| index.load(Ordering::Acquire));
        let out_cons = index(offset_of!(Interface, out_cons));
        let in_prod = index(offset_of!(Interface, in_prod));
        Ok(Self { page, port, out_cons, in_prod })
    }

    /// Tells the guest that something happened.
    pub fn notify(&self) {
        self.port.notify();
    }

    /// Takes the guest's output; says whether it is to be told of the room.
    pub fn take(&mut self, into: &mut Vec<u8>) -> bool {
        let Some(prod) = self.page.word(offset_of!(Interface, out_prod)) else { return false };
        let prod = prod.load(Ordering::Acquire);
        let count = prod.wrapping_sub(self.out_cons);
        if count == 0 {
            return false;
        }
        // More than the ring holds is nonsense: nothing of it can be trusted.
        if count <= OUT {
            let start = self.out_cons % OUT;
            let first = count.min(OUT - start);
            for (from, length) in [(start, first), (0, count - first)] {
                let mut bytes = vec![0; length as usize];
                let at = offset_of!(Interface, output) + from as usize;
                let _lies_in_the_page = self.page.read(at, &mut bytes);
                into.append(&mut bytes);
            }
        }
        self.out_cons = prod;
        if let Some(cons) = self.page.word(offset_of!(Interface, out_cons)) {
            cons.store(prod, Ordering::Release);
        }
        // The guest looks at out_cons after it has written out_prod.
        fence(Ordering::SeqCst);
        count >= NOTIFY_FROM
    }

    /// Gives the guest as much of `input` as there is room for; returns how many bytes.
    pub fn put(&mut self, input: &[u8]) -> usize {
        let Some(cons) = self.page.word(offset_of!(Interface, in_cons)) else { return 0 };
        let cons = cons.load(Ordering::Acquire);
        // A consumer ahead of the producer, or too far behind it, leaves no room.
        let room = IN.saturating_sub(self.in_prod.wrapping_sub(cons)) as usize;
        let input = input.get(..room).unwrap_or(input);
        if input.is_empty() {
            return 0;
        }
        let start = self.in_prod % IN;
        let first = input.len().min((IN - start) as usize);
        let (head, tail) = input.split_at(first);
        for (from, bytes) in [(start as usize, head), (0, tail)] {
            if !bytes.is_empty() {
                let at = offset_of!(Interface, input) + from;
                let _lies_in_the_page = self.page.write(at, bytes);
            }
        }
        self.in_prod = self.in_prod.wrapping_add(u32::try_from(input.len()).unwrap_or(0));
        if let Some(prod) = self.page.word(offset_of!(Interface, in_prod)) {
            prod.store(self.in_prod, Ordering::Release);
        }
        self.page.wrote();
        input.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestGuest;
    use boundary::Backend;

    const FRAME: u64 = 5;

    fn rig() -> (TestGuest, Ring) {
        let test = TestGuest::new(Backend::Channel);
        test.grant(8, FRAME as u32, false);
        let nodes = Nodes::from([("ring-ref".into(), "8".into()), ("port".into(), "77".into())]);
        let ring = Ring::connect(&test.guest, Frontend::parse(&nodes).unwrap()).unwrap();
        (test, ring)
    }

    fn index(test: &TestGuest, offset: usize) -> &AtomicU32 {
        test.word(FRAME, offset)
    }

    /// Prints as a guest does.
    fn print(test: &TestGuest, text: &[u8]) {
        let prod = index(test, offset_of!(Interface, out_prod));
        for byte in text {
            let at = prod.load(Ordering::Relaxed);
            let offset = offset_of!(Interface, output) + (at % OUT) as usize;
            test.guest.memory().write(FRAME, offset, &[*byte]).unwrap();
            prod.store(at.wrapping_add(1), Ordering::Release);
        }
    }

    #[test]
    fn output_comes_out_in_order_across_the_end() {
        let (test, mut ring) = rig();
        let mut all = Vec::new();
        for round in 0..100u32 {
            let text: Vec<u8> = (0..333u32).map(|i| (i * round) as u8).collect();
            print(&test, &text);
            let before = all.len();
            assert!(!ring.take(&mut all));
            assert_eq!(all[before..], text);
        }
        print(&test, &[b'x'; 2048]);
        assert!(ring.take(&mut all), "the guest may wait for room");
        assert_eq!(all.len(), 33300 + 2048);
    }

    #[test]
    fn input_goes_in_until_the_ring_is_full_and_another_backend_goes_on() {
        let (test, mut ring) = rig();
        assert_eq!(ring.put(&[b'y'; 1500]), 1024);
        assert_eq!(ring.put(b"z"), 0);
        index(&test, offset_of!(Interface, in_cons)).store(1000, Ordering::Relaxed);
        assert_eq!(ring.put(b"hello"), 5);
        let frontend = Frontend { reference: 8, port: 77 };
        let mut next = Ring::connect(&test.guest, frontend).unwrap();
        drop(ring);
        assert_eq!(next.put(b" world"), 6);
        let mut bytes = [0; 11];
        test.guest.memory().read(FRAME, 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello world");
    }

    #[test]
    fn hostile_indices_give_nothing_and_do_no_harm() {
        let (test, mut ring) = rig();
        for bad in [2049, u32::MAX, 0x8000_0000, 7] {
            let next = ring.out_cons.wrapping_add(bad).wrapping_add(OUT);
            index(&test, offset_of!(Interface, out_prod)).store(next, Ordering::Relaxed);
            index(&test, offset_of!(Interface, out_cons)).store(bad, Ordering::Relaxed);
            let mut taken = Vec::new();
            ring.take(&mut taken);
            assert!(taken.len() <= OUT as usize);
            index(&test, offset_of!(Interface, in_cons)).store(bad, Ordering::Relaxed);
            assert!(ring.put(&[1; 4096]) <= IN as usize);
        }
    }

    #[test]
    fn frontends_are_checked() {
        let test = TestGuest::new(Backend::Channel);
        let nodes = |reference: &str, port: &str| {
            let nodes = [("ring-ref".into(), reference.into()), ("port".into(), port.into())];
            Frontend::parse(&Nodes::from(nodes))
        };
        assert_eq!(Frontend::parse(&Nodes::new()), Err(FrontendError::Node("ring-ref")));
        assert_eq!(nodes("-1", "5"), Err(FrontendError::Node("ring-ref")));
        assert_eq!(nodes("1", "99999999999"), Err(FrontendError::Node("port")));
        let connect = |reference, port| {
            let frontend = Frontend { reference, port };
            Ring::connect(&test.guest, frontend).map(drop).unwrap_err()
        };
        assert_eq!(connect(8, 5), GrantError::NotGranted(8).into());
        test.grant(8, 5, false);
        assert_eq!(connect(8, 5000), FrontendError::Port(5000));
        assert!(!test.is_in_use(8));
        test.grant(9, 6, true);
        assert_eq!(connect(9, 5), GrantError::ReadOnly(9).into());
    }
}
