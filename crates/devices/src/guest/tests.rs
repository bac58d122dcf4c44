//! A guest without a monitor, for tests: its memory, grant table and channels.

use super::{Access, GrantError, Guest, GuestFds, Layout, event_counter};
use boundary::{Backend, DomainPage, PAGE};
use rustix::fs::MemfdFlags;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Frames of the test guest's own.
pub const FRAMES: u64 = 64;
/// Size of its arena, with the frames' flags behind the domain page.
const ARENA: u64 = boundary::DOMAIN_PAGE_SIZE + PAGE;

fn memfd(size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create(c"test", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    file
}

/// A guest whose memory tests write as its kernel would.
pub struct TestGuest {
    pub guest: Arc<Guest>,
}

impl TestGuest {
    pub fn new(backend: Backend) -> Self {
        let layout = Layout { max_pages: FRAMES, nr_frames: FRAMES + 32, grant_mfn: FRAMES };
        let (bell, kick) = (event_counter().unwrap(), event_counter().unwrap());
        let (ram, arena) = (memfd(layout.nr_frames * PAGE), memfd(ARENA));
        let at = boundary::DOMAIN_PAGE_SIZE.to_ne_bytes();
        rustix::io::pwrite(&arena, &at, offset_of!(DomainPage, frame_flags) as u64).unwrap();
        let guest = Guest::new(layout, backend, GuestFds { ram, arena, bell, kick }).unwrap();
        Self { guest }
    }

    /// Grants a frame to Domain-0.
    pub fn grant(&self, reference: u32, frame: u32, read_only: bool) {
        let (flags, number) = self.guest.entry_for_tests(reference);
        number.store(frame, Ordering::Relaxed);
        flags.store(if read_only { 5 } else { 1 }, Ordering::Release);
    }

    /// Takes the grant back if it is not in use.
    pub fn revoke(&self, reference: u32) -> bool {
        let (flags, _) = self.guest.entry_for_tests(reference);
        let now = flags.load(Ordering::Acquire);
        now & 0x18 == 0
            && flags.compare_exchange(now, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// A word of a frame.
    pub fn word(&self, frame: u64, offset: usize) -> &std::sync::atomic::AtomicU32 {
        self.guest.memory().guest_word(frame, offset).unwrap()
    }

    /// Ports that were notified, since the last call.
    pub fn raised(&self) -> Vec<u32> {
        let mut ports = Vec::new();
        for (word, raised) in (0u32..).zip(&self.guest.memory().channels().raised) {
            let bits = raised.swap(0, Ordering::AcqRel);
            ports.extend((0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| word * 64 + bit));
        }
        self.guest.memory().page_word(offset_of!(DomainPage, inbox)).store(0, Ordering::Release);
        ports
    }
}

#[test]
fn grants_are_checked_and_counted() {
    let test = TestGuest::new(Backend::Block);
    test.grant(8, 5, false);
    test.grant(9, 6, true);
    test.grant(10, FRAMES as u32, false);
    let map = |reference, access| test.guest.map(reference, access);
    let first = map(8, Access::Write).unwrap();
    let second = map(8, Access::Read).unwrap();
    assert!(!test.revoke(8));
    drop(first);
    assert!(!test.revoke(8), "the reader still uses it");
    drop(second);
    assert!(test.revoke(8));
    assert_eq!(map(8, Access::Read).unwrap_err(), GrantError::NotGranted(8));
    assert_eq!(map(9, Access::Write).unwrap_err(), GrantError::ReadOnly(9));
    assert!(map(9, Access::Read).unwrap().write(0, b"x").is_none());
    let frame = GrantError::Frame { reference: 10, frame: FRAMES };
    assert_eq!(map(10, Access::Read).unwrap_err(), frame);
    assert!(test.revoke(10), "a refused grant is not left in use");
    assert_eq!(map(16384, Access::Read).unwrap_err(), GrantError::Range(16384));
}

#[test]
fn ports_are_bound_and_raised() {
    let test = TestGuest::new(Backend::Net);
    assert!(test.guest.bind(0).is_none());
    assert!(test.guest.bind(4096).is_none());
    let port = test.guest.bind(77).unwrap();
    let bound =
        || test.guest.memory().channels().bound[Backend::Net as usize][1].load(Ordering::Relaxed);
    assert_eq!(bound(), 1 << 13);
    port.notify();
    port.notify();
    assert_eq!(test.raised(), [77]);
    drop(port);
    assert_eq!(bound(), 0);
}
