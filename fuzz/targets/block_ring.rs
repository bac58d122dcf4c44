//! Ring entries, indices, grants and nodes of a hostile frontend, against a raw disk.
#![no_main]

#[path = "../block.rs"]
mod block;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use block::{DEVICE, FRAMES, RING, Rig, image};
use devices::wire::{BlockConfig, BlockFormat, Nodes, Order, Report};
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = 64 << 10;

thread_local! {
    static RIG: RefCell<Option<(Rig, OwnedFd)>> = const { RefCell::new(None) };
}

fn rig() -> (Rig, OwnedFd) {
    let mut rig = Rig::new();
    let disk = image(&[], SIZE);
    let config = BlockConfig {
        format: BlockFormat::Raw,
        writable: true,
        shared: false,
        cdrom: false,
        discard: true,
        persistent: true,
        backing: Vec::new(),
    };
    assert!(rig.attach(config, vec![disk.try_clone().expect("a descriptor")]));
    (rig, disk)
}

/// Nodes as the first byte says: good ones, or some with values out of the input.
fn nodes(choice: u8, input: &mut &[u8]) -> Nodes {
    const NAMES: [&str; 8] = [
        "protocol",
        "ring-ref",
        "ring-ref0",
        "ring-page-order",
        "event-channel",
        "multi-queue-num-queues",
        "queue-0/ring-ref",
        "feature-persistent",
    ];
    let mut nodes = Rig::plain();
    if choice & 1 != 0 {
        nodes.insert("feature-persistent".into(), "1".into());
    }
    for _ in 0..choice >> 5 {
        let Some((name, rest)) = input.split_first() else { break };
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len().min(12));
        let value = String::from_utf8_lossy(&rest[..end]).into_owned();
        nodes.insert(NAMES[usize::from(*name) % NAMES.len()].into(), value);
        *input = rest.get(end + 1..).unwrap_or_default();
    }
    nodes
}

/// A request whose fields are mostly near what makes sense.
fn entry(bytes: &[u8]) -> [u8; 112] {
    let mut entry = [0; 112];
    entry[..bytes.len()].copy_from_slice(bytes);
    for at in (24..112).step_by(8) {
        // References of frames that exist, or nearly so.
        if entry[at + 7] < 0xf0 {
            let reference = RING - 2 + u32::from(entry[at]) % (FRAMES as u32 - RING + 4);
            entry[at..at + 4].copy_from_slice(&reference.to_ne_bytes());
        }
    }
    if entry[4] < 0xf0 {
        let sector = u64::from(entry[16]) % 140;
        entry[16..24].copy_from_slice(&sector.to_ne_bytes());
    }
    entry
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, mut input)) = data.split_first() else { return };
    RIG.with_borrow_mut(|place| {
        let (rig, disk) = place.get_or_insert_with(rig);
        rig.reset();
        if !rig.connect(nodes(*choice, &mut input)) {
            return;
        }
        let mut index = 0u32;
        for step in input.chunks(40).take(64) {
            match step[0] % 8 {
                0 => {
                    let frame = RING + u32::from(step.get(1).copied().unwrap_or(0)) % 48;
                    rig.guest.revoke_hard(frame);
                }
                1 => {
                    let word = usize::from(step.get(1).copied().unwrap_or(0)) % 4 * 4;
                    let value = u32::from(step.get(2).copied().unwrap_or(0));
                    rig.guest.word(RING.into(), word).store(value, Ordering::Release);
                }
                2 => {
                    let frame = RING + 1 + u32::from(step.get(1).copied().unwrap_or(0)) % 47;
                    let memory = rig.guest.guest.memory();
                    memory.write(frame.into(), 0, step).expect("it lies in the page");
                }
                _ => {
                    rig.put(index, &entry(&step[1..]));
                    index = index.wrapping_add(1);
                }
            }
            rig.server.turn();
            let _want_nothing = rig.server.rest();
        }
        let ended = Report::Disconnected { device: DEVICE };
        rig.finish(Order::Disconnect { device: DEVICE }, &ended);
        let size = rustix::fs::fstat(&*disk).expect("its size").st_size;
        assert_eq!(size as u64, SIZE, "the disk has another size");
    });
});
