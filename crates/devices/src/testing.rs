//! A guest without a monitor, for tests: its memory, grant table and channels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::guest::{Guest, GuestFds, Layout, event_counter};
use boundary::{Backend, DomainPage, PAGE};
use rustix::fs::MemfdFlags;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Frames of a test guest's own, unless it is made larger.
pub const FRAMES: u64 = 64;
/// Frames of the grant table.
const TABLE: u64 = 32;

fn memfd(size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create(c"test", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    file
}

/// A guest whose memory tests write as its kernel would.
#[derive(Debug)]
pub struct TestGuest {
    /// What a backend in this process sees.
    pub guest: Arc<Guest>,
    layout: Layout,
    fds: GuestFds,
}

impl TestGuest {
    /// A guest of [`FRAMES`] frames.
    pub fn new(backend: Backend) -> Self {
        Self::with_frames(backend, FRAMES)
    }

    /// A guest of that many frames.
    pub fn with_frames(backend: Backend, frames: u64) -> Self {
        let layout = Layout { max_pages: frames, nr_frames: frames + TABLE, grant_mfn: frames };
        let fds = GuestFds {
            ram: memfd(layout.nr_frames * PAGE),
            arena: memfd(boundary::at::ARENA_SIZE),
            bell: event_counter().unwrap(),
            kick: event_counter().unwrap(),
        };
        let at = boundary::DOMAIN_PAGE_SIZE.to_ne_bytes();
        rustix::io::pwrite(&fds.arena, &at, offset_of!(DomainPage, frame_flags) as u64).unwrap();
        let guest = Guest::new(layout, backend, copies(&fds)).unwrap();
        Self { guest, layout, fds }
    }

    /// What the domain process says of it.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Descriptors for a backend process.
    pub fn fds(&self) -> GuestFds {
        copies(&self.fds)
    }

    /// Grants a frame to Domain-0.
    pub fn grant(&self, reference: u32, frame: u32, read_only: bool) {
        let (flags, number) = self.guest.entry(reference).unwrap();
        number.store(frame, Ordering::Relaxed);
        flags.store(if read_only { 5 } else { 1 }, Ordering::Release);
    }

    /// Takes the grant back if it is not in use.
    pub fn revoke(&self, reference: u32) -> bool {
        let (flags, _) = self.guest.entry(reference).unwrap();
        let now = flags.load(Ordering::Acquire);
        now & 0x18 == 0
            && flags.compare_exchange(now, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Says whether a backend uses the grant.
    pub fn is_in_use(&self, reference: u32) -> bool {
        let (flags, _) = self.guest.entry(reference).unwrap();
        flags.load(Ordering::Acquire) & 0x18 != 0
    }

    /// Takes the grant back though it may be in use, as no guest should.
    pub fn revoke_hard(&self, reference: u32) {
        self.guest.entry(reference).unwrap().0.store(0, Ordering::Release);
    }

    /// A word of a frame.
    pub fn word(&self, frame: u64, offset: usize) -> &AtomicU32 {
        self.guest.memory().guest_word(frame, offset).unwrap()
    }

    /// Rings the backend's bell, as the monitor does for a notification.
    pub fn ring_bell(&self) {
        rustix::io::write(&self.fds.bell, &1u64.to_ne_bytes()).unwrap();
    }

    /// Has the vCPU be in this state (`boundary::vcpu_state`).
    pub fn be(&self, state: u32) {
        let word = self.guest.memory().page_word(offset_of!(DomainPage, vcpu_state));
        word.store(state, Ordering::SeqCst);
    }

    /// Whether the guest was to be interrupted, since the last call.
    pub fn is_kicked(&self) -> bool {
        rustix::io::read(&self.fds.kick, &mut [0; 8]).is_ok()
    }

    /// Ports that were notified, since the last call.
    pub fn raised(&self) -> Vec<u32> {
        let mut ports = Vec::new();
        self.guest.memory().page_word(offset_of!(DomainPage, inbox)).store(0, Ordering::SeqCst);
        for (word, raised) in (0u32..).zip(&self.guest.memory().channels().raised) {
            let bits = raised.swap(0, Ordering::AcqRel);
            ports.extend((0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| word * 64 + bit));
        }
        ports
    }
}

fn copies(fds: &GuestFds) -> GuestFds {
    let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
    GuestFds {
        ram: copy(&fds.ram),
        arena: copy(&fds.arena),
        bell: copy(&fds.bell),
        kick: copy(&fds.kick),
    }
}
