//! Backends on hosts without io_uring (`kernel.io_uring_disabled`, a container's filter, an old kernel)
//! or without Landlock: they serve as ever, behind the walls that are left.

mod common;
#[path = "netfront/net.rs"]
mod net;
mod netfront;
#[path = "netfront/packets.rs"]
mod packets;
#[path = "netfront/process.rs"]
mod process;
#[path = "common/refuse.rs"]
mod refuse;

use common::*;
use devices::wire::Report;
use refuse::{IO_URING, LANDLOCK, refuse};
use std::time::Duration;

/// Whether this host has io_uring, so that its absence can be told.
fn has_uring() -> bool {
    let front = Front::new(1, 0);
    means(&Process::start(&front.guest, true)) == "io_uring"
}

/// What a backend says of its means.
fn means(process: &Process) -> String {
    match process.any_report(Duration::from_secs(20)) {
        Some(Report::Log { line, .. }) => {
            line.strip_prefix("disks are served by ").expect("its means").to_owned()
        }
        other => panic!("{other:?}"),
    }
}

/// A disk on a host that refuses some calls is read, written, flushed and discarded.
fn disk_works(calls: &[i64], errno: i32, expected: &str) {
    let front = Front::new(1, 0);
    let process = Process::start_with(&front.guest, |command| refuse(command, calls, errno));
    assert_eq!(means(&process), expected, "{calls:?} fail with {errno}");
    let mut setup = Setup::of(front, raw(), image(1 << 20), process);
    let front = &mut setup.front;
    front.set(DATA, 0, &pattern(4, 4096));
    assert_eq!(front.run(request(WRITE, 1, 8, &[Seg(DATA, 0, 7)])), 0);
    assert_eq!(front.run(request(FLUSH, 2, 0, &[])), 0);
    assert_eq!(front.run(request(READ, 3, 8, &[Seg(DATA + 1, 0, 7)])), 0);
    assert_eq!(front.get(DATA + 1, 0, 4096), pattern(4, 4096));
    assert_eq!(front.run(discard(4, 8, 8, 0)), 0);
    assert_eq!(content(&setup.image, 4096, 4096), vec![0; 4096]);
    walls_stand(setup.process.pid());
    assert!(setup.process.is_alive());
}

/// Walls that need neither: no new privileges, the filter (behind that of the test), no core, no
/// looking in by another of the same user.
fn walls_stand(pid: u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().to_owned()
    };
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1".into(), "2".into()));
    assert_eq!(line("Seccomp_filters:"), "2");
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp_filters:\t2\n"), "a thread outside: {status}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

#[test]
fn without_io_uring_threads_do_the_work() {
    if !has_uring() {
        eprintln!("this host has no io_uring: nothing but threads can be told");
    }
    for errno in [libc::EPERM, libc::ENOSYS] {
        disk_works(&IO_URING, errno, "threads");
    }
    // A kernel before 5.10 has rings, but no restrictions for them.
    disk_works(&[libc::SYS_io_uring_register], libc::EINVAL, "threads");
}

#[test]
fn without_landlock_the_other_walls_stand() {
    let expected = if has_uring() { "io_uring" } else { "threads" };
    for errno in [libc::ENOSYS, libc::EOPNOTSUPP, libc::EPERM] {
        disk_works(&LANDLOCK, errno, expected);
        let memory = netfront::Memory::new();
        let prepare = |command: &mut _| refuse(command, &LANDLOCK, errno);
        let mut net = net::Net::of(process::Backend::start_with(&memory, prepare), None);
        let mut queue = netfront::Queue::new(&memory, 0);
        net::connect(&net, &queue);
        queue.send(&packets::plain(300), 4000, false, None);
        assert_eq!(net.read_frame(), packets::plain(300));
        walls_stand(net.backend.id());
    }
}

#[test]
fn without_either_too() {
    disk_works(&[IO_URING, LANDLOCK].concat(), libc::ENOSYS, "threads");
}
