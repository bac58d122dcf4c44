//! An image that makes its backend die, again and again, ends as I/O errors.

mod common;

use common::*;
use devices::wire::{BlockConfig, BlockFormat, Report};
use std::os::fd::OwnedFd;

/// Where the file of requests tells of jobs at work (`block::in_flight`).
const AT_WORK: u64 = 120;

fn qcow2() -> BlockConfig {
    BlockConfig { format: BlockFormat::Qcow2, ..raw() }
}

/// An empty image of 1 MiB, version 3 (QEMU's docs/interop/qcow2.txt): header, table of reference
/// counts, reference counts, first table of addresses.
fn empty_image() -> OwnedFd {
    const CLUSTER: usize = 1 << 16;
    let mut bytes = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 20).to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1u16.to_be_bytes());
    }
    file_of(&bytes)
}

/// A backend that dies while the image is at work, with a write under way.
fn die_at_work(setup: &mut Setup) {
    setup.process.kill();
    fill(&setup.requests, AT_WORK, &1u32.to_ne_bytes());
}

#[test]
fn an_image_that_kills_its_backend_is_not_touched_for_ever() {
    let mut setup = Setup::new(Front::new(1, 0), qcow2(), empty_image(), true);
    setup.front.set(DATA, 0, &pattern(1, 4096));
    let write = |id| request(WRITE, id, 8, &[Seg(DATA, 0, 7)]);
    assert_eq!(setup.front.run(write(1)), 0);
    // Deaths that are followed by work that is done are bad luck.
    for id in 2..12 {
        die_at_work(&mut setup);
        setup.restart(true);
        assert_eq!(setup.front.run(write(id)), 0);
    }
    // A request that never gets done: each process dies as it begins again.
    for _ in 0..5 {
        die_at_work(&mut setup);
        let process = Process::start(&setup.front.guest, true);
        // It takes over the image and nothing else.
        let report = process.attach(setup.config.clone(), &[&setup.image, &setup.requests]);
        assert!(matches!(report, Report::Attached { .. }), "{report:?}");
        setup.process = process;
    }
    setup.restart(true);
    assert_eq!(setup.properties["sectors"], "2048", "the disk keeps its size");
    for operation in [READ, WRITE] {
        assert_eq!(setup.front.run(request(operation, 30, 8, &[Seg(DATA, 0, 7)])), -1);
    }
    assert_eq!(setup.front.run(request(FLUSH, 31, 0, &[])), -1);
    assert!(setup.process.is_alive());
    // For good: a new process does not try again.
    setup.restart(true);
    assert_eq!(setup.front.run(request(READ, 32, 8, &[Seg(DATA, 0, 7)])), -1);
}

#[test]
fn a_raw_image_is_never_to_blame() {
    let mut setup = Setup::new(Front::new(1, 0), raw(), image(1 << 20), true);
    for id in 1..12 {
        die_at_work(&mut setup);
        setup.restart(true);
        assert_eq!(setup.front.run(request(READ, id, 8, &[Seg(DATA, 0, 7)])), 0);
    }
}
