//! The PV console ring (io/console.h): one page of guest memory with two rings.

use crate::sys::memory::SharedMemory;
use abi::console::Interface;
use boundary::PAGE;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Bytes that the guest can send ahead.
const OUT: u32 = 2048;
/// Bytes that we can send ahead.
const IN: u32 = 1024;
/// A guest with at least this much unread output may be waiting for room.
const NOTIFY_FROM: u32 = OUT / 2;

/// Our end of a console ring. Our own indices are kept here: those in the page
/// are only ever written, so that the guest cannot move them.
#[derive(Debug)]
pub struct ConsoleRing {
    base: u64,
    out_cons: u32,
    in_prod: u32,
}

/// What was taken from the ring.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Bytes of the guest.
    pub bytes: Vec<u8>,
    /// Whether the guest is to be told that there is room again.
    pub notify: bool,
}

impl ConsoleRing {
    /// The ring in frame `mfn`, which is zero.
    pub fn new(mfn: u64) -> Self {
        Self { base: mfn.saturating_mul(PAGE), out_cons: 0, in_prod: 0 }
    }

    fn index<'a>(&self, ram: &'a SharedMemory, offset: usize) -> Option<&'a AtomicU32> {
        ram.word(self.base.checked_add(offset as u64)?)
    }

    /// Takes the guest's output.
    pub fn take_output(&mut self, ram: &SharedMemory) -> Output {
        self.try_take(ram).unwrap_or_default()
    }

    fn try_take(&mut self, ram: &SharedMemory) -> Option<Output> {
        let prod = self.index(ram, offset_of!(Interface, out_prod))?.load(Ordering::Acquire);
        let count = prod.wrapping_sub(self.out_cons);
        let start = self.base.checked_add(offset_of!(Interface, output) as u64)?;
        let ring = ram.bytes(start, OUT as usize)?;
        // More than the ring holds is nonsense: nothing of it can be trusted.
        let taken = if count > OUT { 0 } else { count };
        let bytes = (0..taken)
            .filter_map(|i| ring.get((self.out_cons.wrapping_add(i) % OUT) as usize))
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect();
        self.out_cons = prod;
        self.index(ram, offset_of!(Interface, out_cons))?.store(prod, Ordering::Release);
        // The guest looks at out_cons after it has written out_prod.
        fence(Ordering::SeqCst);
        Some(Output { bytes, notify: count >= NOTIFY_FROM })
    }

    /// Puts as much of `input` into the ring as there is room for; returns how
    /// many bytes went in. The guest is to be notified if there are any.
    pub fn put_input(&mut self, ram: &SharedMemory, input: &[u8]) -> usize {
        self.try_put(ram, input).unwrap_or(0)
    }

    fn try_put(&mut self, ram: &SharedMemory, input: &[u8]) -> Option<usize> {
        let cons = self.index(ram, offset_of!(Interface, in_cons))?.load(Ordering::Acquire);
        // A consumer ahead of the producer, or too far behind it, leaves no room.
        let room = IN.saturating_sub(self.in_prod.wrapping_sub(cons));
        let start = self.base.checked_add(offset_of!(Interface, input) as u64)?;
        let ring = ram.bytes(start, IN as usize)?;
        let mut count = 0u32;
        for byte in input.iter().take(room as usize) {
            ring.get((self.in_prod.wrapping_add(count) % IN) as usize)?
                .store(*byte, Ordering::Relaxed);
            count += 1;
        }
        self.in_prod = self.in_prod.wrapping_add(count);
        let prod = self.index(ram, offset_of!(Interface, in_prod))?;
        prod.store(self.in_prod, Ordering::Release);
        Some(count as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::PrivateMemory;

    fn ram() -> SharedMemory {
        PrivateMemory::new(c"ram", 3 * PAGE, 3 * PAGE).unwrap().share()
    }

    fn word(ram: &SharedMemory, offset: usize) -> &AtomicU32 {
        ram.word(PAGE + offset as u64).unwrap()
    }

    /// Prints as a guest does.
    fn print(ram: &SharedMemory, text: &[u8]) {
        let prod = word(ram, offset_of!(Interface, out_prod));
        for byte in text {
            let at = prod.load(Ordering::Relaxed);
            let offset = offset_of!(Interface, output) as u64 + u64::from(at % OUT);
            ram.copy_in(PAGE + offset, &[*byte]).unwrap();
            prod.store(at.wrapping_add(1), Ordering::Release);
        }
    }

    #[test]
    fn output_comes_out_in_order_across_the_end() {
        let ram = ram();
        let mut ring = ConsoleRing::new(1);
        for round in 0..100u32 {
            let text: Vec<u8> = (0..333u32).map(|i| (i * round) as u8).collect();
            print(&ram, &text);
            assert_eq!(ring.take_output(&ram), Output { bytes: text, notify: false });
        }
        print(&ram, &[b'x'; 2048]);
        let output = ring.take_output(&ram);
        assert_eq!((output.bytes.len(), output.notify), (2048, true));
        let cons = word(&ram, offset_of!(Interface, out_cons)).load(Ordering::Relaxed);
        assert_eq!(cons, 333 * 100 + 2048);
    }

    #[test]
    fn input_goes_in_until_the_ring_is_full() {
        let ram = ram();
        let mut ring = ConsoleRing::new(1);
        assert_eq!(ring.put_input(&ram, &[b'y'; 1500]), 1024);
        assert_eq!(ring.put_input(&ram, b"z"), 0);
        word(&ram, offset_of!(Interface, in_cons)).store(1000, Ordering::Relaxed);
        assert_eq!(ring.put_input(&ram, b"hello"), 5);
        assert_eq!(ram.copy_out(PAGE, 5).unwrap(), b"hello");
        assert_eq!(word(&ram, offset_of!(Interface, in_prod)).load(Ordering::Relaxed), 1029);
    }

    #[test]
    fn hostile_indices_give_nothing_and_do_no_harm() {
        let ram = ram();
        let mut ring = ConsoleRing::new(1);
        for bad in [2049, u32::MAX, 0x8000_0000, 7] {
            let next = ring.out_cons.wrapping_add(bad).wrapping_add(OUT);
            word(&ram, offset_of!(Interface, out_prod)).store(next, Ordering::Relaxed);
            word(&ram, offset_of!(Interface, out_cons)).store(bad, Ordering::Relaxed);
            assert!(ring.take_output(&ram).bytes.len() <= OUT as usize);
            word(&ram, offset_of!(Interface, in_cons)).store(bad, Ordering::Relaxed);
            word(&ram, offset_of!(Interface, in_prod)).store(bad, Ordering::Relaxed);
            assert!(ring.put_input(&ram, &[1; 4096]) <= IN as usize);
        }
        word(&ram, offset_of!(Interface, in_cons))
            .store(ring.in_prod.wrapping_add(1), Ordering::Relaxed);
        assert_eq!(ring.put_input(&ram, b"x"), 0, "a consumer ahead of the producer");
    }

    #[test]
    fn a_frame_outside_ram_is_harmless() {
        let ram = ram();
        for mfn in [3, u64::MAX, u64::MAX / PAGE] {
            let mut ring = ConsoleRing::new(mfn);
            assert_eq!(ring.take_output(&ram), Output::default());
            assert_eq!(ring.put_input(&ram, b"x"), 0);
        }
    }
}
