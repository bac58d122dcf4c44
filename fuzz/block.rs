//! A guest and its disk in one process, for the targets that attack the block back end.

use devices::block::{Means, Server, in_flight_file};
use devices::testing::TestGuest;
use devices::wire::{BlockConfig, DeviceConfig, Nodes, Order, Report};
use rustix::fs::MemfdFlags;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The disk's number.
pub const DEVICE: u32 = 51712;
/// Frames of the guest; frame `n` is granted by reference `n`.
pub const FRAMES: u64 = 64;
/// Where its ring lies.
pub const RING: u32 = 16;

/// A disk's file with this content.
pub fn image(bytes: &[u8], size: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create(c"image", MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&file, size).expect("room");
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::pwrite(&file, &bytes[done..], done as u64).expect("room");
    }
    file
}

/// Processor time of this process.
fn used() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The guest, and the server of its disks.
pub struct Rig {
    pub guest: TestGuest,
    pub server: Server,
}

impl Rig {
    pub fn new() -> Self {
        let guest = TestGuest::with_frames(boundary::Backend::Block, FRAMES);
        let server = Server::new(guest.guest.clone(), Means::Best).expect("threads");
        Self { guest, server }
    }

    /// Grants all frames, and empties the ring.
    pub fn reset(&self) {
        for frame in RING..FRAMES as u32 {
            self.guest.grant(frame, frame, false);
        }
        for (offset, value) in [(0, 0), (4, 1), (8, 0), (12, 1)] {
            let word = self.guest.word(RING.into(), offset);
            word.store(value, std::sync::atomic::Ordering::Release);
        }
    }

    /// Attaches a disk; false if it is refused.
    pub fn attach(&mut self, config: BlockConfig, files: Vec<OwnedFd>) -> bool {
        let mut files = files;
        files.push(in_flight_file().expect("a memfd"));
        let config = DeviceConfig::Block(config);
        self.server.order(Order::Attach { device: DEVICE, config }, files);
        match self.server.take_reports().pop() {
            Some(Report::Attached { .. }) => true,
            Some(Report::Refused { .. }) => false,
            other => panic!("{other:?}"),
        }
    }

    /// Connects a frontend; false if it is refused.
    pub fn connect(&mut self, frontend: Nodes) -> bool {
        self.server.order(Order::Connect { device: DEVICE, frontend }, Vec::new());
        match self.server.take_reports().pop() {
            Some(Report::Connected { .. }) => true,
            Some(Report::Refused { .. }) => false,
            other => panic!("{other:?}"),
        }
    }

    /// One ring of one page, as most frontends have it.
    pub fn plain() -> Nodes {
        Nodes::from([
            ("ring-ref".to_owned(), RING.to_string()),
            ("event-channel".to_owned(), "9".to_owned()),
        ])
    }

    /// Puts a request into the ring.
    pub fn put(&self, index: u32, entry: &[u8]) {
        let at = 64 + index as usize % 32 * 112;
        let entry = &entry[..entry.len().min(112)];
        self.guest.guest.memory().write(RING.into(), at, entry).expect("it lies in the page");
        let word = self.guest.word(RING.into(), 0);
        word.store(index.wrapping_add(1), std::sync::atomic::Ordering::Release);
    }

    /// Lets the server work until the order is obeyed.
    pub fn finish(&mut self, order: Order, wanted: &Report) {
        self.server.order(order, Vec::new());
        // By the process's own time: it may be stopped meanwhile.
        let end = used() + Duration::from_secs(5);
        loop {
            self.server.turn();
            if self.server.take_reports().contains(wanted) {
                break;
            }
            assert!(used() < end, "it does not come to an end");
        }
        // Nothing of the guest's is still in use.
        for frame in RING..FRAMES as u32 {
            assert!(!self.guest.is_in_use(frame), "frame {frame} is in use");
        }
    }
}
