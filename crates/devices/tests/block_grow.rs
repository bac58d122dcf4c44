//! Images that become longer while the guest uses them.

mod common;

use common::*;
use devices::wire::{BlockConfig, BlockFormat, Nodes, Order, Report};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn resize(process: &Process, bytes: u64) -> Result<Nodes, String> {
    process.order(&Order::Resize { device: DEVICE, bytes }, &[]);
    match process.report() {
        Report::Resized { device: DEVICE, result } => result,
        other => panic!("{other:?}"),
    }
}

fn qcow2() -> BlockConfig {
    BlockConfig { format: BlockFormat::Qcow2, ..raw() }
}

/// An image file, and a folder that holds it.
struct Made {
    folder: tempfile::TempDir,
    tool: PathBuf,
}

impl Made {
    fn new(arguments: &[&str]) -> Option<Self> {
        let made = Self { folder: tempfile::tempdir().unwrap(), tool: qemu_img()? };
        std::fs::write(made.folder.path().join("base.img"), [7; 1 << 16]).unwrap();
        let create = ["create", "-q", "-f", "qcow2"];
        let status = Command::new(&made.tool)
            .current_dir(made.folder.path())
            .args(create.iter().chain(arguments))
            .status();
        assert!(status.unwrap().success());
        Some(made)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk.qcow2")
    }

    fn open(&self, name: &str) -> OwnedFd {
        let path = self.folder.path().join(name);
        std::fs::File::options().read(true).write(true).open(path).unwrap().into()
    }

    /// Whole, without so much as a leak.
    fn check(&self) {
        check(&self.tool, &self.path(), &[0]);
    }
}

fn check(tool: &Path, path: &Path, codes: &[i32]) {
    let output = Command::new(tool).args(["check", "-f", "qcow2"]).arg(path).output().unwrap();
    assert!(codes.contains(&output.status.code().unwrap()), "{output:?}");
}

/// Writes a page, and reads it back.
fn round_trip(front: &mut Front, sector: u64, seed: u64) {
    front.set(DATA, 0, &pattern(seed, 4096));
    assert_eq!(front.run(request(WRITE, 1, sector, &[Seg(DATA, 0, 7)])), 0);
    front.set(DATA, 0, &[0; 4096]);
    holds(front, sector, seed);
}

fn holds(front: &mut Front, sector: u64, seed: u64) {
    assert_eq!(front.run(request(READ, 2, sector, &[Seg(DATA, 0, 7)])), 0);
    assert!(front.get(DATA, 0, 4096) == pattern(seed, 4096), "sector {sector}");
}

#[test]
fn a_raw_image_grows() {
    for with_uring in [true, false] {
        let mut setup = Setup::new(Front::new(1, 0), raw(), image(8192), with_uring);
        round_trip(&mut setup.front, 8, 1);
        assert_eq!(resize(&setup.process, 1 << 20).unwrap()["sectors"], "2048");
        round_trip(&mut setup.front, 2040, 2);
        holds(&mut setup.front, 8, 1);
        assert_eq!(setup.front.run(request(READ, 3, 2048, &[Seg(DATA, 0, 7)])), -1);
        assert_eq!(resize(&setup.process, 1 << 20).unwrap()["sectors"], "2048", "no change");
        let why = resize(&setup.process, 8192).unwrap_err();
        assert!(why.contains("longer than that"), "{why}");
        assert!(resize(&setup.process, u64::MAX - 511).is_err());
        holds(&mut setup.front, 2040, 2);
    }
}

#[test]
fn what_others_have_too_does_not_grow() {
    for config in [
        BlockConfig { writable: false, ..raw() },
        BlockConfig { writable: false, cdrom: true, ..raw() },
        BlockConfig { shared: true, ..raw() },
    ] {
        let setup = Setup::new(Front::new(1, 0), config, image(8192), true);
        let why = resize(&setup.process, 1 << 20).unwrap_err();
        assert!(why.contains("alone"), "{why}");
        assert_eq!(rustix::fs::fstat(&setup.image).unwrap().st_size, 8192);
    }
    let front = Front::new(1, 0);
    assert!(resize(&Process::start(&front.guest, true), 512).unwrap_err().contains("no such disk"));
}

#[test]
fn a_qcow2_image_grows_and_keeps_what_it_has() {
    for (options, bytes) in [("cluster_size=65536", 40 << 30), ("cluster_size=512", 60 << 20)] {
        let Some(made) = Made::new(&["-o", options, "disk.qcow2", "1M"]) else { return };
        let mut setup = Setup::new(Front::new(1, 0), qcow2(), made.open("disk.qcow2"), true);
        round_trip(&mut setup.front, 0, 1);
        round_trip(&mut setup.front, 2040, 2);
        assert_eq!(setup.front.run(request(READ, 3, 2048, &[Seg(DATA, 0, 7)])), -1);
        let nodes = resize(&setup.process, bytes).unwrap();
        assert_eq!(nodes["sectors"], (bytes / 512).to_string());
        round_trip(&mut setup.front, bytes / 512 - 8, 3);
        round_trip(&mut setup.front, 2048, 4);
        let why = resize(&setup.process, 1 << 20).unwrap_err();
        assert!(why.contains("longer than that"), "{why}");
        assert!(resize(&setup.process, 1 << 62).unwrap_err().contains("at most"));
        for (sector, seed) in [(0, 1), (2040, 2), (bytes / 512 - 8, 3), (2048, 4)] {
            holds(&mut setup.front, sector, seed);
        }
        setup.restart(false);
        assert_eq!(setup.properties["sectors"], (bytes / 512).to_string());
        for (sector, seed) in [(0, 1), (2040, 2), (bytes / 512 - 8, 3), (2048, 4)] {
            holds(&mut setup.front, sector, seed);
        }
        setup.process.kill();
        made.check();
    }
}

#[test]
fn a_qcow2_image_grows_under_load() {
    let Some(made) = Made::new(&["-o", "cluster_size=512", "disk.qcow2", "1M"]) else { return };
    let mut setup = Setup::new(Front::new(1, 0), qcow2(), made.open("disk.qcow2"), true);
    let mut bytes = 1 << 20;
    for round in 0..40 {
        bytes += 1 << 20;
        setup.process.order(&Order::Resize { device: DEVICE, bytes }, &[]);
        for i in 0..4 {
            let front = &mut setup.front;
            front.set(DATA + i, 0, &pattern(round * 4 + u64::from(i) + 1, 4096));
            let sector = (round * 4 + u64::from(i)) * 8;
            let entry = request(WRITE, u64::from(i), sector, &[Seg(DATA + i, 0, 7)]);
            front.rings[0].put(&front.guest, &entry);
        }
        setup.front.rings[0].push(&setup.front.guest);
        for _ in 0..4 {
            assert_eq!(setup.front.wait(0).status, 0);
        }
        match setup.process.report() {
            Report::Resized { result, .. } => {
                assert_eq!(result.unwrap()["sectors"], (bytes / 512).to_string());
            }
            other => panic!("{other:?}"),
        }
    }
    for page in 0..160 {
        holds(&mut setup.front, page * 8, page + 1);
    }
    round_trip(&mut setup.front, bytes / 512 - 8, 9);
    setup.process.order(&Order::Detach { device: DEVICE }, &[]);
    assert_eq!(setup.process.report(), Report::Detached { device: DEVICE });
    made.check();
}

#[test]
fn a_backend_that_is_killed_leaves_an_image_that_is_whole() {
    let Some(made) = Made::new(&["-o", "cluster_size=512", "disk.qcow2", "1M"]) else { return };
    let mut setup = Setup::new(Front::new(1, 0), qcow2(), made.open("disk.qcow2"), true);
    round_trip(&mut setup.front, 16, 5);
    let mut bytes = 1 << 20;
    let (mut done, mut pause) = (0, 0);
    for round in 0..60 {
        let wanted = bytes + (4 << 20);
        setup.process.order(&Order::Resize { device: DEVICE, bytes: wanted }, &[]);
        // Some die at once, some in the middle, some afterwards.
        pause = (pause * 7 + 311) % 6000;
        std::thread::sleep(Duration::from_micros(pause));
        setup.process.kill();
        made.check();
        setup.restart(round % 2 == 0);
        let now = setup.properties["sectors"].parse::<u64>().unwrap() * 512;
        assert!([bytes, wanted].contains(&now), "{now}");
        done += u32::from(now == wanted);
        bytes = now;
        holds(&mut setup.front, 16, 5);
    }
    eprintln!("{done} of 60 had been done");
    assert!((1..60).contains(&done), "{done}");
    let bytes = bytes + (4 << 20);
    assert_eq!(resize(&setup.process, bytes).unwrap()["sectors"], (bytes / 512).to_string());
    round_trip(&mut setup.front, bytes / 512 - 8, 6);
}

#[test]
fn a_backing_file_does_not_show_through() {
    let short = ["-F", "raw", "-b", "base.img", "disk.qcow2", "32K"];
    let long = ["-F", "raw", "-b", "base.img", "disk.qcow2"];
    for (arguments, grows) in [(&short[..], false), (&long, true)] {
        let Some(made) = Made::new(arguments) else { return };
        let mut front = Front::new(1, 0);
        let process = Process::start(&front.guest, true);
        let config = BlockConfig { backing: vec![BlockFormat::Raw], ..qcow2() };
        let requests = devices::block::in_flight_file().unwrap();
        let files = [made.open("disk.qcow2"), made.open("base.img"), requests];
        let files: Vec<&OwnedFd> = files.iter().collect();
        assert!(matches!(process.attach(config, &files), Report::Attached { .. }));
        assert!(matches!(process.connect(front.nodes()), Report::Connected { .. }));
        let result = resize(&process, 1 << 20);
        if grows {
            assert_eq!(result.unwrap()["sectors"], "2048");
            assert_eq!(front.run(request(READ, 1, 128, &[Seg(DATA, 0, 7)])), 0);
            assert_eq!(front.get(DATA, 0, 4096), [0; 4096]);
            assert_eq!(front.run(request(READ, 1, 0, &[Seg(DATA, 0, 7)])), 0);
            assert_eq!(front.get(DATA, 0, 4096), [7; 4096]);
        } else {
            assert!(result.unwrap_err().contains("show through"));
        }
        drop(process);
        made.check();
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error() {
    let front = Front::new(1, 0);
    let process = Process::start_with(&front.guest, |command| {
        let limit = || {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            // SAFETY: the call reads the structure, and is async-signal-safe.
            unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
            Ok(())
        };
        // SAFETY: the function makes one system call.
        unsafe { command.pre_exec(limit) };
    });
    let mut setup = Setup::of(front, raw(), image(8192), process);
    let why = resize(&setup.process, 2 << 20).unwrap_err();
    assert!(why.contains("large"), "{why}");
    round_trip(&mut setup.front, 8, 1);
    assert_eq!(resize(&setup.process, 1 << 20).unwrap()["sectors"], "2048");
}
