//! The domain page: what spaces tell us, and what we tell them.

use crate::sys::memory::SharedMemory;
use boundary::{ByteRing, DomainPage, RING};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, Ordering};

/// A view of the domain page. Everything read through it is hostile input.
#[derive(Clone, Copy, Debug)]
pub struct DomainPageView<'a>(&'a SharedMemory);

impl<'a> DomainPageView<'a> {
    /// A view of the domain page at the start of `arena`.
    pub fn new(arena: &'a SharedMemory) -> Self {
        Self(arena)
    }

    /// A word of the page. The offsets are constants of the page's layout.
    #[expect(
        clippy::expect_used,
        reason = "no input decides it: the arena is larger than the page"
    )]
    fn word(self, offset: usize) -> &'a AtomicU32 {
        self.0.word(offset as u64).expect("the domain page is mapped and its words are aligned")
    }

    /// Futex that counts rings of the bell.
    pub fn doorbell(self) -> &'a AtomicU32 {
        self.word(offset_of!(DomainPage, doorbell))
    }

    /// Takes the bells that were rung ([`boundary::bell`]).
    pub fn take_bells(self) -> u32 {
        self.word(offset_of!(DomainPage, bells)).swap(0, Ordering::SeqCst)
    }

    /// Adds `bits` ([`boundary::inbox`]) to the vCPU's inbox and wakes it if it is idle.
    pub fn post(self, bits: u32) {
        self.word(offset_of!(DomainPage, inbox)).fetch_or(bits, Ordering::SeqCst);
        let wake = self.word(offset_of!(DomainPage, wake));
        wake.fetch_add(1, Ordering::SeqCst);
        let _nobody_waits =
            rustix::thread::futex::wake(wake, rustix::thread::futex::Flags::empty(), u32::MAX >> 1);
    }

    /// State of the vCPU as claimed ([`boundary::vcpu_state`]).
    pub fn vcpu_state(self) -> u32 {
        self.word(offset_of!(DomainPage, vcpu_state)).load(Ordering::SeqCst)
    }

    /// Process that runs the vCPU, as claimed.
    pub fn active_pid(self) -> i32 {
        self.word(offset_of!(DomainPage, active_pid)).load(Ordering::SeqCst).cast_signed()
    }

    /// Process that makes runners, as claimed.
    pub fn nursery(self) -> i32 {
        self.word(offset_of!(DomainPage, nursery)).load(Ordering::SeqCst).cast_signed()
    }

    /// The runner that a bell is about, as claimed.
    pub fn runner(self) -> i32 {
        self.word(offset_of!(DomainPage, runner)).load(Ordering::SeqCst).cast_signed()
    }

    /// Says that a runner is dead.
    pub fn runner_is_gone(self, number: i32) {
        let word = self.word(offset_of!(DomainPage, runner_gone));
        word.store(number.cast_unsigned(), Ordering::SeqCst);
        let _nobody_waits =
            rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), u32::MAX >> 1);
    }

    /// `SHUTDOWN_*` reason as claimed (sched.h).
    pub fn shutdown_reason(self) -> u32 {
        self.word(offset_of!(DomainPage, shutdown_reason)).load(Ordering::SeqCst)
    }

    /// Frames that the guest does not have, as claimed.
    pub fn ballooned(self) -> u64 {
        let offset = offset_of!(DomainPage, ballooned) as u64;
        self.0.long(offset).map_or(0, |frames| frames.load(Ordering::Relaxed))
    }

    /// Limits the frames that the guest may have from now on.
    pub fn limit(self, frames: u64) {
        if let Some(most) = self.0.long(offset_of!(DomainPage, most_pages) as u64) {
            most.store(frames, Ordering::SeqCst);
        }
    }

    /// How often the registers were written on request, as claimed.
    pub fn snapshots(self) -> u32 {
        self.word(offset_of!(DomainPage, snapshots)).load(Ordering::SeqCst)
    }

    /// The crash record's bytes ([`boundary::CrashRecord`]).
    pub fn crash_record(self) -> Vec<u8> {
        let offset = offset_of!(DomainPage, crash) as u64;
        self.0.copy_out(offset, size_of::<boundary::CrashRecord>()).unwrap_or_default()
    }
}

/// Which byte ring of the domain page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Emergency console.
    Emergency,
    /// Log of the monitor.
    Log,
}

/// Our end of a byte ring. The position is our own: what the guest writes over
/// it has no effect here.
#[derive(Debug)]
pub struct RingReader {
    ring: Ring,
    read: u32,
}

impl RingReader {
    /// A reader that has read nothing yet.
    pub fn new(ring: Ring) -> Self {
        Self { ring, read: 0 }
    }

    /// Takes what was written since the last call. Bytes that were overwritten
    /// before they were read are skipped.
    pub fn take(&mut self, page: DomainPageView<'_>) -> Vec<u8> {
        let base = match self.ring {
            Ring::Emergency => offset_of!(DomainPage, emergency),
            Ring::Log => offset_of!(DomainPage, log),
        };
        let written = page.word(base + offset_of!(ByteRing, written)).load(Ordering::Acquire);
        let size = RING as u32;
        let count = written.wrapping_sub(self.read).min(size);
        let from = written.wrapping_sub(count);
        let data = (base + offset_of!(ByteRing, data)) as u64;
        let Some(bytes) = page.0.bytes(data, RING) else { return Vec::new() };
        let taken = (0..count)
            .filter_map(|i| bytes.get((from.wrapping_add(i) % size) as usize))
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect();
        self.read = written;
        page.word(base + offset_of!(ByteRing, read)).store(written, Ordering::Release);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::PrivateMemory;

    fn arena() -> SharedMemory {
        let size = boundary::DOMAIN_PAGE_SIZE;
        PrivateMemory::new(c"arena", size, size).unwrap().share()
    }

    /// Writes to the log ring as a space does, without looking at `read`.
    fn write(arena: &SharedMemory, text: &[u8]) {
        let base = offset_of!(DomainPage, log);
        let written = arena.word((base + offset_of!(ByteRing, written)) as u64).unwrap();
        let start = written.load(Ordering::Relaxed);
        for (i, byte) in text.iter().enumerate() {
            let at = start.wrapping_add(i as u32) % RING as u32;
            let offset = base + offset_of!(ByteRing, data) + at as usize;
            arena.copy_in(offset as u64, &[*byte]).unwrap();
        }
        written.store(start.wrapping_add(text.len() as u32), Ordering::Release);
    }

    #[test]
    fn rings_give_what_was_written() {
        let arena = arena();
        let page = DomainPageView::new(&arena);
        let mut log = RingReader::new(Ring::Log);
        assert!(log.take(page).is_empty());
        write(&arena, b"one\n");
        assert_eq!(log.take(page), b"one\n");
        let long: Vec<u8> = (0..RING).map(|i| i as u8).collect();
        write(&arena, &long);
        assert_eq!(log.take(page), long, "across the end of the ring");
        assert!(RingReader::new(Ring::Emergency).take(page).is_empty());
    }

    #[test]
    fn a_ring_that_ran_over_gives_its_last_bytes() {
        let arena = arena();
        let page = DomainPageView::new(&arena);
        let mut log = RingReader::new(Ring::Log);
        write(&arena, &vec![b'a'; RING]);
        write(&arena, b"bc");
        let taken = log.take(page);
        assert_eq!((taken.len(), taken.ends_with(b"aabc")), (RING, true));
    }

    #[test]
    fn a_hostile_position_costs_at_most_one_ring() {
        let arena = arena();
        let page = DomainPageView::new(&arena);
        let mut log = RingReader::new(Ring::Log);
        let base = offset_of!(DomainPage, log) as u64;
        for value in [u32::MAX, 1, 0x8000_0000, 0] {
            arena.word(base + 4).unwrap().store(value, Ordering::Relaxed);
            arena.word(base).unwrap().store(!value, Ordering::Relaxed);
            assert!(log.take(page).len() <= RING);
        }
    }

    #[test]
    fn posting_raises_the_wake_word() {
        let arena = arena();
        let page = DomainPageView::new(&arena);
        page.post(boundary::inbox::CONSOLE);
        page.post(boundary::inbox::STORE);
        let word = |offset| arena.word(offset as u64).unwrap().load(Ordering::Relaxed);
        assert_eq!(word(offset_of!(DomainPage, inbox)), 3);
        assert_eq!(word(offset_of!(DomainPage, wake)), 2);
    }
}
