//! The backend is killed at random moments under load; its successor goes on, and neither a request
//! nor a byte is lost.

mod common;

use common::*;
use devices::wire::{BlockConfig, BlockFormat};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Pages of the disk.
const PAGES: u64 = 128;

struct Load {
    setup: Setup,
    /// Seed of each page's content.
    content: Vec<u64>,
    /// Requests under way: queue, page, and seed if it is a write. Their number is the frame too.
    open: HashMap<u64, (usize, u64, Option<u64>)>,
    random: u64,
    done: u64,
}

impl Load {
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random >> 33
    }

    fn begin(&mut self) {
        let queue = (self.next() % 2) as usize;
        let page = self.next() % PAGES;
        let id = self.next() % 60;
        let is_used = self.open.iter().any(|(other, (_, p, _))| *other == id || *p == page);
        if is_used || self.setup.front.rings[queue].open() >= 32 {
            return;
        }
        let frame = DATA + id as u32;
        let is_write = self.next().is_multiple_of(2);
        let seed = is_write.then(|| self.next() + 1);
        let front = &mut self.setup.front;
        if let Some(seed) = seed {
            front.set(frame, 0, &pattern(seed, PAGE));
        } else {
            front.set(frame, 0, &[0xa5; PAGE]);
        }
        let operation = if is_write { WRITE } else { READ };
        let entry = request(operation, id, page * 8, &[Seg(frame, 0, 7)]);
        front.rings[queue].put(&front.guest, &entry);
        front.rings[queue].push(&front.guest);
        self.open.insert(id, (queue, page, seed));
    }

    fn end(&mut self) {
        for queue in 0..2 {
            while let Some(response) = self.setup.front.rings[queue].poll(&self.setup.front.guest) {
                let (at, page, seed) =
                    self.open.remove(&response.id).expect("each request is answered once");
                assert_eq!((at, response.status), (queue, 0));
                match seed {
                    Some(seed) => self.content[page as usize] = seed,
                    None => self.check(page, DATA + response.id as u32),
                }
                self.done += 1;
            }
        }
    }

    fn check(&self, page: u64, frame: u32) {
        let expected = match self.content[page as usize] {
            0 => vec![0; PAGE],
            seed => pattern(seed, PAGE),
        };
        assert!(self.setup.front.get(frame, 0, PAGE) == expected, "page {page}");
    }

    fn drain(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.open.is_empty() {
            let is_late = Instant::now() > end;
            self.end();
            if is_late && !self.open.is_empty() {
                let report = self.setup.process.any_report(Duration::ZERO);
                panic!("lost: {:?}; the backend says {report:?}", self.open);
            }
        }
    }

    fn run(&mut self, kills: u32, with_uring: bool) {
        for round in 0..kills {
            let pause = Duration::from_micros(self.next() % 4000);
            let end = Instant::now() + pause;
            while Instant::now() < end {
                self.begin();
                self.end();
            }
            // Killed with requests under way, and more come before the next one is there.
            self.setup.process.kill();
            (0..self.next() % 20).for_each(|_| self.begin());
            self.setup.restart(with_uring);
            if round % 8 == 0 {
                self.drain();
            }
        }
        self.drain();
        for page in 0..PAGES {
            let status = self.setup.front.run(request(READ, 99, page * 8, &[Seg(DATA + 99, 0, 7)]));
            assert_eq!(status, 0);
            self.check(page, DATA + 99);
        }
        assert!(self.done > u64::from(kills) * 4, "{} requests", self.done);
    }
}

fn load(config: BlockConfig, image: std::os::fd::OwnedFd, with_uring: bool) -> Load {
    let mut front = Front::new(2, 0);
    front.persistent = true;
    let setup = Setup::new(front, config, image, with_uring);
    Load { setup, content: vec![0; PAGES as usize], open: HashMap::new(), random: 7, done: 0 }
}

#[test]
fn a_raw_disk_survives_its_backends() {
    for with_uring in [true, false] {
        load(raw(), image(PAGES * 4096), with_uring).run(60, with_uring);
    }
}

#[test]
fn a_qcow2_disk_survives_its_backends() {
    let Some(tool) = qemu_img() else {
        eprintln!("skipped: there is no qemu-img");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let status = std::process::Command::new(&tool)
        .args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096"])
        .arg(&path)
        .arg((PAGES * 4096).to_string())
        .status()
        .unwrap();
    assert!(status.success());
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let config = BlockConfig { format: BlockFormat::Qcow2, ..raw() };
    let mut load = load(config, file.into(), true);
    load.run(40, true);
    load.setup.process.kill();
    let output = std::process::Command::new(&tool)
        .args(["check", "-f", "qcow2"])
        .arg(&path)
        .output()
        .unwrap();
    // 3 is "leaked clusters": space that a killed process had taken and not used yet.
    let code = output.status.code();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(code == Some(0) || code == Some(3), "{code:?}: {text}");
    eprintln!("{text}");
}
