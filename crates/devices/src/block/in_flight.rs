//! Requests under way, in a memfd that outlives the process: its successor does again what was taken
//! from a ring and not yet answered.
//!
//! A ring does not say that itself. Responses overwrite requests, in another order than that of the
//! requests; and how far a backend has read is known to it alone. So each request is copied into a
//! record before it is taken, and the record is freed after its response has become visible. A
//! process can be killed between any two instructions:
//!
//! * before the record is marked as taken: the request is still in the ring;
//! * until its response is visible: it is done again, which for reads, writes, flushes and discards
//!   is as good as doing it once;
//! * between the moment at which the response becomes visible and that at which the record is freed:
//!   the record says which response that is, and the ring's `rsp_prod` whether it is visible.
//!
//! As many requests were taken as there are responses visible and records left, which tells the
//! successor where to read on.

use super::nodes::{MOST_QUEUES, RingNodes};
use super::protocol::ENTRY;
use crate::guest::Mapping;
use crate::ring::MOST_PAGES;
use rustix::fs::{MemfdFlags, SealFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Records of a queue: the most requests that the largest ring has.
const RECORDS: u32 = 512;
/// Bytes of a record: its state, its response's index, and at [`REQUEST`] the request.
const RECORD: u64 = 128;
const RESPONSE: u64 = 4;
const REQUEST: u64 = 16;
/// Bytes before the records of a queue.
const HEADER: u64 = 128;
/// Bytes of a queue.
const QUEUE: u64 = HEADER + RECORDS as u64 * RECORD;
/// Bytes of the file.
const SIZE: u64 = QUEUE * MOST_QUEUES as u64;

/// Offsets in a queue's header.
mod header {
    /// [`super::SERVED`], or 0.
    pub const MARK: u64 = 0;
    pub const PORT: u64 = 4;
    pub const PAGES: u64 = 8;
    pub const REFERENCES: u64 = 12;
}

/// Words of the whole disk, in the first queue's header behind the references.
pub(super) mod device {
    /// Jobs on an image that may be the end of the process ([`super::super::strikes`]).
    pub const AT_WORK: u64 = 120;
    /// Processes that ended at such a job.
    pub const STRIKES: u64 = 124;
}
const _: () = assert!(header::REFERENCES + 4 * MOST_PAGES as u64 <= device::AT_WORK);

/// Marks a queue that is served.
const SERVED: u32 = 0x626b_3031;

/// States of a record.
mod state {
    pub const FREE: u32 = 0;
    pub const TAKEN: u32 = 1;
    /// Its response was written, at the index that the record tells.
    pub const ANSWERED: u32 = 2;
}

/// A file for the requests of a disk, to be given to each backend that serves it.
///
/// # Errors
/// When the host has no memory or descriptor left.
pub fn in_flight_file() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"xenolith-requests", flags)?;
    rustix::fs::ftruncate(&file, SIZE)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// The file.
#[derive(Debug)]
pub struct InFlight {
    memory: Mapping,
}

impl InFlight {
    /// Maps a file made by [`in_flight_file`].
    ///
    /// # Errors
    /// When it is none, or cannot be mapped.
    pub fn open(file: impl AsFd) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { memory: Mapping::new(file, 0, SIZE, true)? }))
    }

    fn word(&self, at: u64) -> Option<&AtomicU32> {
        let at = at.is_multiple_of(4).then(|| self.memory.at(at, 4))??;
        // SAFETY: inside the mapping and aligned; the file is only accessed by atomics and copies.
        Some(unsafe { at.cast::<AtomicU32>().as_ref() })
    }

    fn load(&self, at: u64) -> u32 {
        self.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, at: u64, value: u32) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Release);
        }
    }

    /// Does something to a word of the disk's.
    pub(super) fn device_word<T>(&self, at: u64, what: impl FnOnce(&AtomicU32) -> T) -> Option<T> {
        self.word(at).map(what)
    }

    fn copy_in(&self, at: u64, request: &[u8; ENTRY]) {
        if let Some(to) = self.memory.at(at, ENTRY) {
            // SAFETY: inside the mapping, which no reference of ours points into.
            unsafe { std::ptr::copy_nonoverlapping(request.as_ptr(), to.as_ptr(), ENTRY) };
        }
    }

    fn copy_out(&self, at: u64) -> [u8; ENTRY] {
        let mut request = [0; ENTRY];
        if let Some(from) = self.memory.at(at, ENTRY) {
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), request.as_mut_ptr(), ENTRY) };
        }
        request
    }

    /// Says that no queue is served: what was under way is not done again.
    pub fn forget(&self) {
        for queue in 0..MOST_QUEUES as u64 {
            self.store(queue * QUEUE + header::MARK, 0);
        }
    }
}

/// A record of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u32);

/// Records of a queue.
#[derive(Debug)]
pub struct Records {
    file: Arc<InFlight>,
    base: u64,
    free: Vec<Slot>,
    /// Answered, not yet visible.
    answered: Vec<Slot>,
}

/// A request of a process before this one.
pub type Left = (Slot, [u8; ENTRY]);

impl Records {
    /// The records of queue number `queue`, with what a process before this one left of the same
    /// ring, of which `visible` responses can be seen.
    pub fn open(
        file: &Arc<InFlight>,
        queue: usize,
        ring: &RingNodes,
        visible: u32,
    ) -> (Self, Vec<Left>) {
        let base = queue as u64 * QUEUE;
        let mut records = Self { file: file.clone(), base, free: Vec::new(), answered: Vec::new() };
        let mut left = Vec::new();
        let is_same = records.serves(ring);
        for slot in (0..RECORDS).rev().map(Slot) {
            if is_same && records.is_open(slot, visible) {
                records.set(slot, state::TAKEN);
                left.push((slot, file.copy_out(records.at(slot) + REQUEST)));
            } else {
                records.set(slot, state::FREE);
                records.free.push(slot);
            }
        }
        if !is_same {
            records.begin(ring);
        }
        (records, left)
    }

    fn at(&self, slot: Slot) -> u64 {
        self.base + HEADER + u64::from(slot.0) * RECORD
    }

    fn set(&self, slot: Slot, state: u32) {
        self.file.store(self.at(slot), state);
    }

    fn is_open(&self, slot: Slot, visible: u32) -> bool {
        let at = self.at(slot);
        match self.file.load(at) {
            state::TAKEN => true,
            state::ANSWERED => {
                let ahead = self.file.load(at + RESPONSE).wrapping_sub(visible);
                ahead.cast_signed() >= 0
            }
            _ => false,
        }
    }

    fn serves(&self, ring: &RingNodes) -> bool {
        let load = |at| self.file.load(self.base + at);
        let mut references = (header::REFERENCES..).step_by(4).zip(&ring.references);
        load(header::MARK) == SERVED
            && load(header::PORT) == ring.port
            && load(header::PAGES) as usize == ring.references.len()
            && references.all(|(at, reference)| load(at) == *reference)
    }

    /// All records are free by now.
    fn begin(&self, ring: &RingNodes) {
        let store = |at, value| self.file.store(self.base + at, value);
        store(header::MARK, 0);
        store(header::PORT, ring.port);
        store(header::PAGES, ring.references.len() as u32);
        for (at, reference) in (header::REFERENCES..).step_by(4).zip(&ring.references) {
            store(at, *reference);
        }
        store(header::MARK, SERVED);
    }

    /// Keeps a request, before it is taken from the ring; `None` if there are too many.
    pub fn keep(&mut self, request: &[u8; ENTRY]) -> Option<Slot> {
        let slot = self.free.pop()?;
        self.file.copy_in(self.at(slot) + REQUEST, request);
        self.set(slot, state::TAKEN);
        Some(slot)
    }

    /// Notes which response answers a request, before it becomes visible.
    pub fn answer(&mut self, slot: Slot, response: u32) {
        self.file.store(self.at(slot) + RESPONSE, response);
        self.set(slot, state::ANSWERED);
        self.answered.push(slot);
    }

    /// All responses so far have become visible.
    pub fn published(&mut self) {
        while let Some(slot) = self.answered.pop() {
            self.set(slot, state::FREE);
            self.free.push(slot);
        }
    }
}

const _: () = assert!(REQUEST + ENTRY as u64 <= RECORD);
const _: () = assert!(header::REFERENCES + 4 * MOST_PAGES as u64 <= HEADER);

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> RingNodes {
        RingNodes { references: vec![8, 9], port: 5 }
    }

    fn request(number: u8) -> [u8; ENTRY] {
        [number; ENTRY]
    }

    /// What a successor would find, without changing it.
    fn left(file: &OwnedFd, ring: &RingNodes, visible: u32) -> Vec<u8> {
        let copy = in_flight_file().unwrap();
        let mut bytes = vec![0; SIZE as usize];
        rustix::io::pread(file, &mut bytes[..], 0).unwrap();
        rustix::io::pwrite(&copy, &bytes, 0).unwrap();
        let (_, left) = Records::open(&InFlight::open(&copy).unwrap(), 1, ring, visible);
        let mut numbers: Vec<u8> = left.iter().map(|(_, request)| request[0]).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_successor_finds_what_is_open_at_every_step() {
        let file = in_flight_file().unwrap();
        let mapped = InFlight::open(&file).unwrap();
        let start = u32::MAX;
        let (mut records, none) = Records::open(&mapped, 1, &ring(), start);
        assert!(none.is_empty());
        let one = records.keep(&request(1)).unwrap();
        let two = records.keep(&request(2)).unwrap();
        let _three = records.keep(&request(3)).unwrap();
        assert_eq!(left(&file, &ring(), start), [1, 2, 3]);
        // Answered out of order; the index wraps.
        records.answer(two, start);
        records.answer(one, start.wrapping_add(1));
        assert_eq!(left(&file, &ring(), start), [1, 2, 3], "no response is visible");
        let visible = start.wrapping_add(2);
        assert_eq!(left(&file, &ring(), visible), [3], "visible, records not yet free");
        records.published();
        assert_eq!(left(&file, &ring(), visible), [3]);
        let other = RingNodes { port: 6, ..ring() };
        assert!(left(&file, &other, visible).is_empty(), "another ring starts afresh");
        mapped.forget();
        assert!(left(&file, &ring(), visible).is_empty());
    }

    #[test]
    fn records_are_bounded_and_used_again() {
        let file = in_flight_file().unwrap();
        let (mut records, _) = Records::open(&InFlight::open(&file).unwrap(), 0, &ring(), 0);
        let slots: Vec<_> = (0..RECORDS).map(|_| records.keep(&request(1)).unwrap()).collect();
        assert!(records.keep(&request(1)).is_none());
        records.answer(slots[7], 0);
        assert!(records.keep(&request(1)).is_none());
        records.published();
        assert_eq!(records.keep(&request(1)), Some(slots[7]));
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        let file = rustix::fs::memfd_create(c"test", MemfdFlags::CLOEXEC).unwrap();
        assert!(InFlight::open(&file).is_err());
    }
}
