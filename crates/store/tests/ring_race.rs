//! A guest that sends its event only when it must, without a barrier, as Linux's does.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use store::ConnectionError;
use store::ring::{Channel, NextLook, PAGE_SIZE, RING_SIZE, Ring, SOON, SharedPage};

const REQ_CONS: usize = 2048;
const REQ_PROD: usize = 2052;
/// Messages of two parts that the guest sends.
const MESSAGES: u32 = 100_000;
/// No message may wait so long.
const FOR_EVER: Duration = Duration::from_secs(5);

struct Page {
    rings: [AtomicU8; 2048],
    words: [AtomicU32; (PAGE_SIZE - 2048) / 4],
}

impl SharedPage for Page {
    fn load_u32(&self, offset: usize) -> u32 {
        self.words[(offset - 2048) / 4].load(Ordering::Acquire)
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.words[(offset - 2048) / 4].store(value, Ordering::Release);
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = self.rings[offset + at].load(Ordering::Relaxed);
        }
    }

    fn write(&self, _: usize, _: &[u8]) {}
}

/// Takes everything.
struct Sink;

impl Channel for Sink {
    fn input(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        Ok(bytes.len())
    }

    fn output(&mut self) -> &[u8] {
        &[]
    }

    fn consume(&mut self, _: usize) {}

    fn reset(&mut self) {}
}

/// Pumps when it is asked, and when the ring wants to be looked at.
fn serve(page: &Page, events: &Receiver<()>) {
    let mut ring = Ring::attach(page);
    let mut next = NextLook::WhenAsked;
    loop {
        let patience = match next {
            NextLook::WhenAsked => Duration::from_secs(60),
            NextLook::Soon => SOON,
            NextLook::Now => Duration::ZERO,
        };
        if events.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        next = ring.pump(page, &mut Sink).unwrap().next;
    }
}

#[test]
fn a_guest_that_looks_before_its_write_is_seen_is_served() {
    let page = Page {
        rings: std::array::from_fn(|_| AtomicU8::new(0)),
        words: std::array::from_fn(|_| AtomicU32::new(0)),
    };
    let (event, events) = channel();
    let mut is_lost = false;
    std::thread::scope(|scope| {
        let page = &page;
        scope.spawn(move || serve(page, &events));
        let send = |length: u32| {
            let producer = page.load_u32(REQ_PROD);
            page.store_u32(REQ_PROD, producer.wrapping_add(length));
            if producer == page.load_u32(REQ_CONS) {
                event.send(()).unwrap();
            }
        };
        for message in 0..MESSAGES {
            send(16);
            // The second part meets the server at all times of its work on the first one.
            for _ in 0..message % 256 {
                std::hint::spin_loop();
            }
            send(RING_SIZE / 4);
            let start = Instant::now();
            while page.load_u32(REQ_CONS) != page.load_u32(REQ_PROD) && !is_lost {
                std::thread::yield_now();
                is_lost = start.elapsed() > FOR_EVER;
            }
            if is_lost {
                break;
            }
        }
        drop(event);
    });
    assert!(!is_lost, "both sides wait for each other");
}
