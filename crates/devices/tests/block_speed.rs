//! How fast disks are: a cached file through `xenblock`, against the same file read directly; both by
//! the processor time that they take, which other work on the host disturbs least.
//!
//!     cargo test --release -p devices --test block_speed -- --ignored --nocapture

mod common;

use common::*;
use devices::wire::BlockConfig;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const SIZE: u64 = 256 << 20;
const SPAN: Duration = Duration::from_secs(1);

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442695040888963407);
    *state >> 20
}

/// Seconds of processor time that the backend has used, all threads.
fn used(setup: &Setup) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", setup.process.pid())).unwrap();
    let nanoseconds: u64 = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1e9
}

/// Processor time of this thread.
fn mine() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Reads or writes of a page at random places, per second.
fn direct(file: &OwnedFd, operation: u8) -> f64 {
    let (mut state, mut count) = (1, 0u64);
    let mut page = [0; 4096];
    let (end, start) = (Instant::now() + SPAN, mine());
    while Instant::now() < end {
        for _ in 0..64 {
            let at = random(&mut state) % (SIZE / 4096) * 4096;
            match operation {
                READ => rustix::io::pread(file, &mut page, at).unwrap(),
                _ => rustix::io::pwrite(file, &page, at).unwrap(),
            };
        }
        count += 64;
    }
    count as f64 / (mine() - start)
}

/// How much was done in a second.
#[derive(Clone, Copy)]
struct Speed {
    processor: f64,
    clock: f64,
}

/// The same through a ring, with so many under way.
fn through(setup: &mut Setup, operation: u8, depth: u64) -> Speed {
    let (mut state, mut count) = (1, 0u64);
    let before = used(setup);
    let front = &mut setup.front;
    let start = Instant::now();
    let mut begin = |front: &mut Front, id: u64| {
        let sector = random(&mut state) % (SIZE / 4096) * 8;
        let entry = request(operation, id, sector, &[Seg(DATA + id as u32, 0, 7)]);
        front.rings[0].put(&front.guest, &entry);
    };
    (0..depth).for_each(|id| begin(front, id));
    front.rings[0].push(&front.guest);
    let mut is_over = false;
    while front.rings[0].open() > 0 {
        let mut any = false;
        while let Some(response) = front.rings[0].poll(&front.guest) {
            assert_eq!(response.status, 0);
            count += 1;
            if !is_over {
                begin(front, response.id);
                any = true;
            }
        }
        if any {
            front.rings[0].push(&front.guest);
            is_over = start.elapsed() > SPAN;
        } else {
            std::hint::spin_loop();
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let count = count as f64;
    Speed { processor: count / (used(setup) - before), clock: count / elapsed }
}

/// Pieces of a megabyte in order, by 8 indirect requests of 32 segments each (as blkfront does it);
/// in MB/s.
fn in_order(setup: &mut Setup, operation: u8) -> Speed {
    let before = used(setup);
    let front = &mut setup.front;
    for slot in 0..8u32 {
        let segments: Vec<_> = (0..32).map(|i| Seg(DATA + 16 + slot * 32 + i, 0, 7)).collect();
        front.list(DATA + slot, &segments);
    }
    let (mut sector, mut bytes) = (0, 0u64);
    let start = Instant::now();
    let mut is_over = false;
    let mut begin = |front: &mut Front, slot: u64| {
        let entry = indirect(operation, slot, sector, 32, DATA + slot as u32);
        front.rings[0].put(&front.guest, &entry);
        sector = (sector + 256) % (SIZE / 512);
    };
    (0..8).for_each(|slot| begin(front, slot));
    front.rings[0].push(&front.guest);
    while front.rings[0].open() > 0 {
        while let Some(response) = front.rings[0].poll(&front.guest) {
            assert_eq!(response.status, 0);
            bytes += 32 * 4096;
            if !is_over {
                begin(front, response.id);
                front.rings[0].push(&front.guest);
                is_over = start.elapsed() > SPAN;
            }
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let megabytes = bytes as f64 / 1e6;
    Speed { processor: megabytes / (used(setup) - before), clock: megabytes / elapsed }
}

fn direct_in_order(file: &OwnedFd) -> f64 {
    let mut piece = vec![0; 1 << 20];
    let (mut at, mut bytes) = (0, 0u64);
    let (end, start) = (Instant::now() + SPAN, mine());
    while Instant::now() < end {
        bytes += rustix::io::pread(file, &mut piece, at).unwrap() as u64;
        at = (at + (1 << 20)) % SIZE;
    }
    bytes as f64 / (mine() - start) / 1e6
}

#[test]
#[ignore = "measures, and takes a while"]
fn speed() {
    println!("A second of: backend's processor time (ratio to pread or pwrite) | clock");
    for persistent in [false, true] {
        for with_uring in [true, false] {
            measure(persistent, with_uring);
        }
    }
}

fn measure(persistent: bool, with_uring: bool) {
    let file = image(SIZE);
    let piece = pattern(1, 1 << 20);
    (0..SIZE >> 20).for_each(|i| fill(&file, i << 20, &piece));
    let (reads, writes) = (direct(&file, READ), direct(&file, WRITE));
    let reads_in_order = direct_in_order(&file);
    let mut front = Front::new(1, 0);
    front.persistent = persistent;
    let config = BlockConfig { persistent, ..raw() };
    let mut setup = Setup::new(front, config, file, with_uring);
    let means = if with_uring { "io_uring" } else { "threads" };
    println!("{means}, persistent grants {persistent}:");
    let line = |what: &str, got: Speed, host: f64| {
        let Speed { processor, clock } = got;
        println!("  {what}: {processor:.0} ({:.2}) | {clock:.0}", processor / host);
    };
    for depth in [1, 4, 32] {
        let what = format!("4k random reads, depth {depth}");
        line(&what, through(&mut setup, READ, depth), reads);
    }
    line("4k random writes, depth 32", through(&mut setup, WRITE, 32), writes);
    line("MB read in order", in_order(&mut setup, READ), reads_in_order);
    line("MB written in order", in_order(&mut setup, WRITE), reads_in_order);
}
