//! qcow2 images of whoever made them: opened and read.
//!
//! Not written: with wrong refcounts, imago 0.2.6 looks for free clusters in ever deeper recursion until
//! its stack is full. What comes of that is `block::strikes`' task.
#![no_main]

#[path = "../block.rs"]
mod block;

use std::cell::RefCell;

use block::{DEVICE, RING, Rig, image};
use devices::wire::{BlockConfig, BlockFormat, Order, Report};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
}

fn request(operation: u8, sector: u64) -> [u8; 112] {
    let mut entry = [0; 112];
    (entry[0], entry[1]) = (operation, u8::from(operation < 2));
    entry[16..24].copy_from_slice(&sector.to_ne_bytes());
    // A discard's length, or the first segment: the second frame, all of it.
    if operation == 5 {
        entry[24..32].copy_from_slice(&8u64.to_ne_bytes());
    } else {
        entry[24..28].copy_from_slice(&(RING + 1).to_ne_bytes());
        entry[29] = 7;
    }
    entry
}

fuzz_target!(|data: &[u8]| {
    let Some((settings, data)) = data.split_first() else { return };
    RIG.with_borrow_mut(|place| {
        let rig = place.get_or_insert_with(Rig::new);
        rig.reset();
        let config = BlockConfig {
            format: BlockFormat::Qcow2,
            // Writes and discards are refused, then.
            writable: false,
            shared: false,
            cdrom: false,
            discard: true,
            persistent: false,
            backing: if settings & 2 != 0 { vec![BlockFormat::Raw] } else { Vec::new() },
        };
        let mut files = vec![image(data, data.len().next_multiple_of(512) as u64)];
        if settings & 2 != 0 {
            files.push(image(&[], 1 << 16));
        }
        if !rig.attach(config, files) {
            return;
        }
        assert!(rig.connect(Rig::plain()));
        let sectors = [0, 8, u64::from(*settings) * 8];
        for (index, (operation, sector)) in
            [0, 1, 0, 5, 0, 1, 3].into_iter().zip(sectors.into_iter().cycle()).enumerate()
        {
            rig.put(index as u32, &request(operation, sector));
            rig.server.turn();
        }
        let detached = Report::Detached { device: DEVICE };
        rig.finish(Order::Detach { device: DEVICE }, &detached);
    });
});
