//! A host that has no room left: writes wait, reads go on, and nothing is lost.

mod common;

use common::*;
use devices::wire::{BlockConfig, BlockFormat, Order, Report};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A file system of a megabyte, in a mount namespace of its own: that takes no privilege where the
/// host allows user namespaces.
struct Small(Child);

impl Drop for Small {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Small {
    fn new() -> Option<Self> {
        let script = "mount -t tmpfs -o size=1m tmpfs /tmp && echo ready && read x";
        let child = Command::new("unshare")
            .args(["-Urm", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut small = Self(child.ok()?);
        let mut line = String::new();
        BufReader::new(small.0.stdout.take()?).read_line(&mut line).ok()?;
        (line == "ready\n").then_some(small)
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/{}/root/tmp/{name}", self.0.id()).into()
    }

    fn file(&self, name: &str, size: u64) -> File {
        let path = self.path(name);
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(size).unwrap();
        file
    }
}

fn fill_up(small: &Small) {
    let file = std::os::fd::OwnedFd::from(small.file("filler", 0));
    let mut at = 0;
    while let Ok(written) = rustix::io::pwrite(&file, &[1; 4096], at) {
        at += written as u64;
    }
}

fn run(small: &Small, config: BlockConfig, image: File, with_uring: bool) {
    let mut setup = Setup::new(Front::new(1, 0), config, image.into(), with_uring);
    let front = &mut setup.front;
    front.set(DATA, 0, &pattern(1, 4096));
    assert_eq!(front.run(request(WRITE, 1, 0, &[Seg(DATA, 0, 7)])), 0);
    fill_up(small);
    for i in 0..3 {
        let (id, frame) = (10 + u64::from(i), DATA + 1 + i);
        front.set(frame, 0, &pattern(id, 4096));
        let entry = request(WRITE, id, 1024 * u64::from(i + 1), &[Seg(frame, 0, 7)]);
        front.rings[0].put(&front.guest, &entry);
    }
    front.rings[0].push(&front.guest);
    match setup.process.report() {
        Report::Full { device: DEVICE, why } => eprintln!("{why}"),
        other => panic!("{other:?}"),
    }
    // It is told once; what needs no room goes on.
    let front = &mut setup.front;
    assert_eq!(front.run(request(READ, 2, 0, &[Seg(DATA + 9, 0, 7)])), 0);
    assert_eq!(front.get(DATA + 9, 0, 4096), pattern(1, 4096));
    let quick = std::time::Duration::from_millis(100);
    assert_eq!(setup.process.any_report(quick), None);
    assert_eq!(setup.process.statistics()["open"], 3);
    // In vain: it is told again.
    setup.process.order(&Order::Retry, &[]);
    assert!(matches!(setup.process.report(), Report::Full { .. }));
    // A backend that takes over finds them, too.
    setup.restart(with_uring);
    assert!(matches!(setup.process.report(), Report::Full { .. }));
    // All have failed by the time at which somebody makes room.
    std::thread::sleep(quick);
    std::fs::remove_file(small.path("filler")).unwrap();
    setup.process.order(&Order::Retry, &[]);
    let mut ids: Vec<u64> = (0..3)
        .map(|_| {
            let response = setup.front.wait(0);
            assert_eq!(response.status, 0);
            response.id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [10, 11, 12]);
    for i in 0..3 {
        let front = &mut setup.front;
        assert_eq!(front.run(request(READ, 3, 1024 * (i + 1), &[Seg(DATA + 9, 0, 7)])), 0);
        assert_eq!(front.get(DATA + 9, 0, 4096), pattern(10 + i, 4096));
    }
    assert_eq!(setup.process.statistics()["errors"], 0);
}

#[test]
fn a_raw_image_on_a_full_host() {
    for with_uring in [true, false] {
        let Some(small) = Small::new() else {
            eprintln!("skipped: the host allows no mount in a user namespace");
            return;
        };
        let image = small.file("disk.img", 8 << 20);
        run(&small, raw(), image, with_uring);
    }
}

#[test]
fn a_qcow2_image_on_a_full_host() {
    let (Some(small), Some(tool)) = (Small::new(), qemu_img()) else {
        eprintln!("skipped: there is no qemu-img, or no mount in a user namespace");
        return;
    };
    let path = small.path("disk.qcow2");
    let made =
        Command::new(&tool).args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("8M").status();
    assert!(made.unwrap().success());
    let image = File::options().read(true).write(true).open(&path).unwrap();
    run(&small, BlockConfig { format: BlockFormat::Qcow2, ..raw() }, image, true);
    let checked = Command::new(&tool).args(["check", "-f", "qcow2"]).arg(&path).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(matches!(checked.status.code(), Some(0 | 3)), "{text}");
    eprintln!("{text}");
}

#[test]
fn an_image_that_finds_no_room_to_grow_is_as_it_was() {
    let (Some(small), Some(tool)) = (Small::new(), qemu_img()) else {
        eprintln!("skipped: there is no qemu-img, or no mount in a user namespace");
        return;
    };
    let path = small.path("disk.qcow2");
    let made = Command::new(&tool)
        .args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=512"])
        .arg(&path)
        .arg("4M")
        .status();
    assert!(made.unwrap().success());
    let before = std::fs::read(&path).unwrap();
    let image = File::options().read(true).write(true).open(&path).unwrap();
    let config = BlockConfig { format: BlockFormat::Qcow2, ..raw() };
    let mut setup = Setup::new(Front::new(1, 0), config, image.into(), true);
    // Its first table would have 2 MiB.
    setup.process.order(&Order::Resize { device: DEVICE, bytes: 8 << 30 }, &[]);
    match setup.process.report() {
        Report::Resized { device: DEVICE, result: Err(why) } => {
            assert!(why.contains("No space left"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(std::fs::read(&path).unwrap() == before);
    let front = &mut setup.front;
    front.set(DATA, 0, &pattern(1, 4096));
    assert_eq!(front.run(request(WRITE, 1, 8184, &[Seg(DATA, 0, 7)])), 0);
    setup.process.order(&Order::Resize { device: DEVICE, bytes: 8 << 20 }, &[]);
    assert!(matches!(setup.process.report(), Report::Resized { result: Ok(_), .. }));
    drop(setup);
    let checked = Command::new(&tool).args(["check", "-f", "qcow2"]).arg(&path).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}
