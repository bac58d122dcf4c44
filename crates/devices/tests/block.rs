//! A frontend against the real `xenblock`, jail and all.

mod common;

use common::*;
use devices::wire::{BlockConfig, Order, Report};
use std::sync::atomic::Ordering;

fn both(test: impl Fn(bool)) {
    for with_uring in [true, false] {
        test(with_uring);
    }
}

#[test]
fn reads_writes_and_flushes() {
    both(|with_uring| {
        let file = image(1 << 20);
        fill(&file, 8192, &pattern(1, 4096));
        let mut setup = Setup::new(Front::new(1, 0), raw(), file, with_uring);
        assert_eq!(setup.properties["sectors"], "2048");
        assert_eq!(setup.properties["info"], "0");
        assert_eq!(setup.properties["sector-size"], "512");
        assert_eq!(setup.features["feature-flush-cache"], "1");
        let front = &mut setup.front;
        // A part of a page, from its third sector on.
        assert_eq!(front.run(request(READ, 1, 17, &[Seg(DATA, 2, 4)])), 0);
        assert_eq!(front.get(DATA, 1024, 1536), pattern(1, 4096)[512..2048]);
        assert_eq!(front.get(DATA, 0, 1024), [0; 1024]);
        assert_eq!(front.get(DATA, 2560, 1536), [0; 1536]);
        // Two pages in reverse order.
        front.set(DATA + 1, 0, &pattern(2, 4096));
        front.set(DATA, 0, &pattern(3, 4096));
        let segments = [Seg(DATA + 1, 0, 7), Seg(DATA, 0, 7)];
        assert_eq!(front.run(request(WRITE, 2, 80, &segments)), 0);
        assert_eq!(front.run(request(FLUSH, 3, 0, &[])), 0);
        assert_eq!(content(&setup.image, 40960, 4096), pattern(2, 4096));
        assert_eq!(content(&setup.image, 45056, 4096), pattern(3, 4096));
        let front = &mut setup.front;
        front.set(DATA, 0, &pattern(4, 512));
        assert_eq!(front.run(request(BARRIER, 4, 2047, &[Seg(DATA, 0, 0)])), 0);
        assert_eq!(front.run(request(FLUSH, 5, 2046, &[Seg(DATA, 0, 0)])), 0);
        assert_eq!(content(&setup.image, 1047552, 512), pattern(4, 512));
        assert_eq!(content(&setup.image, 1048064, 512), pattern(4, 512));
        let counted = setup.process.statistics();
        assert_eq!((counted["reads"], counted["writes"]), (1, 3));
        assert_eq!((counted["sectors-read"], counted["sectors-written"]), (3, 18));
        // A flush, that of the flush with data, and those before and after the barrier.
        assert_eq!((counted["flushes"], counted["errors"]), (4, 0));
    });
}

#[test]
fn discards_free_the_file() {
    both(|with_uring| {
        let file = image(1 << 20);
        fill(&file, 0, &pattern(1, 1 << 20));
        let mut setup = Setup::new(Front::new(1, 0), raw(), file, with_uring);
        assert_eq!(setup.features["feature-discard"], "1");
        assert_eq!(setup.front.run(discard(1, 0, 1024, 0)), 0);
        assert_eq!(content(&setup.image, 0, 1 << 19), vec![0; 1 << 19]);
        assert_eq!(content(&setup.image, 1 << 19, 512), pattern(1, 1 << 20)[1 << 19..][..512]);
        assert_eq!(setup.front.run(discard(2, 0, 8, 1)), -2, "secure discard is not offered");
        assert_eq!(setup.front.run(discard(3, 0, 0, 0)), 0);
        assert_eq!(setup.front.run(discard(4, 1, u64::MAX, 0)), -1);
        assert_eq!(setup.front.run(discard(5, 2047, 2, 0)), -1);
        let config = BlockConfig { discard: false, ..raw() };
        let mut setup = Setup::new(Front::new(1, 0), config, image(4096), with_uring);
        assert_eq!(setup.features["feature-discard"], "0");
        assert_eq!(setup.front.run(discard(1, 0, 8, 0)), -2);
    });
}

#[test]
fn indirect_requests_of_many_segments() {
    both(|with_uring| {
        let mut setup = Setup::new(Front::new(1, 0), raw(), image(2 << 20), with_uring);
        let front = &mut setup.front;
        let segments: Vec<_> = (0..256).map(|i| Seg(DATA + 1 + i, 0, 7)).collect();
        front.list(DATA, &segments);
        for i in 0..256 {
            front.set(DATA + 1 + i, 0, &pattern(u64::from(i), 4096));
        }
        assert_eq!(front.run(indirect(WRITE, 1, 8, 256, DATA)), 0);
        for i in 0..256 {
            assert_eq!(content(&setup.image, (i + 1) * 4096, 4096), pattern(i, 4096));
        }
        for i in 0..256 {
            front.set(DATA + 1 + i, 0, &[0; 4096]);
        }
        assert_eq!(front.run(indirect(READ, 2, 8, 256, DATA)), 0);
        for i in 0..256 {
            assert_eq!(front.get(DATA + 1 + i, 0, 4096), pattern(i.into(), 4096));
        }
        for (count, operation, expected) in
            [(257, READ, -1), (0, READ, -1), (u16::MAX, WRITE, -1), (1, INDIRECT, -1), (1, 7, -1)]
        {
            assert_eq!(front.run(indirect(operation, 3, 8, count, DATA)), expected);
        }
        assert_eq!(front.run(indirect(READ, 4, 8, 1, 99999)), -1);
    });
}

/// The guest goes on with what is done while the rest of a long queue is copied.
#[test]
fn answers_of_a_long_queue_come_as_they_are_ready() {
    both(|with_uring| {
        let mut setup = Setup::new(Front::new(1, 0), raw(), image(32 << 20), with_uring);
        let front = &mut setup.front;
        let segments: Vec<_> = (0..256).map(|i| Seg(DATA + 1 + i, 0, 7)).collect();
        front.list(DATA, &segments);
        let mut batches = || {
            for id in 0..32 {
                front.rings[0].put(&front.guest, &indirect(READ, id, id * 2048, 256, DATA));
            }
            front.rings[0].push(&front.guest);
            let mut batches = 0;
            while front.rings[0].open() > 0 {
                let shown = front.rings[0].index(&front.guest, 8).load(Ordering::Acquire);
                let shown = shown.wrapping_sub(front.rings[0].consumed);
                (0..shown).for_each(|_| assert_eq!(front.wait(0).status, 0));
                batches += u32::from(shown > 0);
            }
            batches
        };
        // We may be too late to see it, but not each time.
        assert!((0..20).any(|_| batches() > 2), "all are shown at the end");
    });
}

#[test]
fn several_queues_of_several_pages() {
    both(|with_uring| {
        let mut setup = Setup::new(Front::new(4, 2), raw(), image(4 << 20), with_uring);
        let front = &mut setup.front;
        assert_eq!(front.rings[0].count(), 128);
        for queue in 0..4 {
            for i in 0..128u32 {
                let number = queue * 128 + i;
                front.set(DATA + number, 0, &pattern(number.into(), 4096));
                let entry = request(
                    WRITE,
                    number.into(),
                    u64::from(number) * 8,
                    &[Seg(DATA + number, 0, 7)],
                );
                front.rings[queue as usize].put(&front.guest, &entry);
            }
        }
        for queue in 0..4 {
            front.rings[queue].push(&front.guest);
        }
        for queue in 0..4 {
            let mut ids: Vec<u64> = (0..128).map(|_| front.wait(queue).id).collect();
            ids.sort_unstable();
            let first = queue as u64 * 128;
            assert_eq!(ids, (first..first + 128).collect::<Vec<_>>());
        }
        let mut raised = front.guest.raised();
        raised.sort_unstable();
        assert_eq!(raised, [20, 21, 22, 23]);
        for number in 0..512 {
            assert_eq!(content(&setup.image, number * 4096, 4096), pattern(number, 4096));
        }
    });
}

#[test]
fn persistent_grants_are_kept_and_given_up() {
    let mut front = Front::new(1, 0);
    front.persistent = true;
    let mut setup = Setup::new(front, raw(), image(1 << 20), true);
    let front = &mut setup.front;
    assert_eq!(front.run(request(READ, 1, 0, &[Seg(DATA, 0, 7)])), 0);
    assert!(!front.guest.revoke(DATA), "it is kept");
    // Far more than are kept at a time.
    for frame in DATA..FRAMES as u32 {
        assert_eq!(front.run(request(READ, 1, 0, &[Seg(frame, 0, 7)])), 0);
    }
    let free = (DATA..FRAMES as u32).filter(|frame| front.guest.revoke(*frame)).count();
    assert!(free >= 700, "{free} grants are free");
    setup.process.order(&Order::Disconnect { device: DEVICE }, &[]);
    assert_eq!(setup.process.report(), Report::Disconnected { device: DEVICE });
    let front = &setup.front;
    assert!(!(DATA..FRAMES as u32).any(|frame| front.guest.is_in_use(frame)));
    assert!(front.guest.revoke(RINGS), "the ring is given up");

    let mut setup = Setup::new(Front::new(1, 0), raw(), image(1 << 20), true);
    assert_eq!(setup.front.run(request(READ, 1, 0, &[Seg(DATA, 0, 7)])), 0);
    assert!(setup.front.guest.revoke(DATA), "given up with the response");
}

#[test]
fn a_disk_can_be_resized_and_swapped() {
    both(|with_uring| {
        let mut setup = Setup::new(Front::new(1, 0), raw(), image(4096), with_uring);
        assert_eq!(setup.front.run(request(READ, 1, 8, &[Seg(DATA, 0, 7)])), -1);
        rustix::fs::ftruncate(&setup.image, 12288 + 100).unwrap();
        setup.process.order(&Order::Refresh { device: DEVICE }, &[]);
        match setup.process.report() {
            Report::Changed { device: DEVICE, nodes } => assert_eq!(nodes["sectors"], "24"),
            other => panic!("{other:?}"),
        }
        assert_eq!(setup.front.run(request(READ, 2, 8, &[Seg(DATA, 0, 7)])), 0);
        // Shrunk behind our back: an error, not zeros.
        rustix::fs::ftruncate(&setup.image, 4096).unwrap();
        assert_eq!(setup.front.run(request(READ, 3, 16, &[Seg(DATA, 0, 7)])), -1);
        setup.process.order(&Order::Detach { device: DEVICE }, &[]);
        assert_eq!(setup.process.report(), Report::Detached { device: DEVICE });
        let other = file_of(&pattern(9, 4096));
        let report = setup.process.attach(raw(), &[&other, &setup.requests]);
        assert!(matches!(report, Report::Attached { .. }), "{report:?}");
        setup.front = Front { guest: setup.front.guest, ..Front::new(1, 0) };
        setup.front.guest.word(RINGS.into(), 0).store(0, Ordering::Relaxed);
        setup.front.guest.word(RINGS.into(), 8).store(0, Ordering::Relaxed);
        let report = setup.process.connect(setup.front.nodes());
        assert!(matches!(report, Report::Connected { .. }), "{report:?}");
        assert_eq!(setup.front.run(request(READ, 1, 0, &[Seg(DATA, 0, 7)])), 0);
        assert_eq!(setup.front.get(DATA, 0, 4096), pattern(9, 4096));
    });
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let config = BlockConfig { writable: false, cdrom: true, ..raw() };
    let mut setup = Setup::new(Front::new(1, 0), config, file_of(&pattern(1, 4096)), true);
    assert_eq!(setup.properties["info"], "5");
    assert_eq!(setup.features["feature-discard"], "0");
    for operation in [WRITE, BARRIER, FLUSH] {
        assert_eq!(setup.front.run(request(operation, 1, 0, &[Seg(DATA, 0, 7)])), -1);
    }
    assert_eq!(setup.front.run(discard(2, 0, 8, 0)), -1);
    assert_eq!(setup.front.run(request(FLUSH, 3, 0, &[])), 0);
    assert_eq!(setup.front.run(request(READ, 4, 0, &[Seg(DATA, 0, 7)])), 0);
    assert_eq!(content(&setup.image, 0, 4096), pattern(1, 4096));
}

#[test]
fn what_cannot_be_attached_is_refused_with_a_sentence() {
    let front = Front::new(1, 0);
    let mut process = Process::start(&front.guest, true);
    let requests = devices::block::in_flight_file().unwrap();
    let refused = |report: Report| match report {
        Report::Refused { device: DEVICE, why } => why,
        other => panic!("{other:?}"),
    };
    let disk = image(4096);
    assert!(refused(process.attach(raw(), &[])).contains("no files"));
    assert!(refused(process.attach(raw(), &[&disk])).contains("file of requests"));
    assert!(refused(process.attach(raw(), &[&disk, &disk])).contains("file of requests"));
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert!(refused(process.attach(raw(), &[&pipe, &requests])).contains("neither a file"));
    let qcow2 = BlockConfig { format: devices::wire::BlockFormat::Qcow2, ..raw() };
    let why = refused(process.attach(qcow2, &[&disk, &requests]));
    assert!(why.contains("Not a qcow2 file"), "{why}");
    assert!(refused(process.connect(front.nodes())).contains("no such disk"));
    let report = process.attach(raw(), &[&disk, &requests]);
    assert!(matches!(report, Report::Attached { .. }));
    assert!(refused(process.attach(raw(), &[&disk, &requests])).contains("already"));
    let nodes = devices::wire::Nodes::from([("ring-ref".into(), "x".into())]);
    assert!(refused(process.connect(nodes)).contains("event-channel"));
    assert!(process.is_alive());
}

#[test]
fn an_idle_backend_uses_no_processor() {
    both(|with_uring| {
        let mut setup = Setup::new(Front::new(4, 0), raw(), image(1 << 20), with_uring);
        assert_eq!(setup.front.run(request(READ, 1, 0, &[Seg(DATA, 0, 7)])), 0);
        let used = || {
            let path = format!("/proc/{}/stat", setup.process.pid());
            let text = std::fs::read_to_string(path).unwrap();
            // utime and stime (proc_pid_stat(5)), in ticks of 10 ms.
            let fields = text.rsplit(')').next().unwrap().split_whitespace();
            fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
        };
        std::thread::sleep(std::time::Duration::from_millis(50));
        let before = used();
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert!(used() - before <= 1, "{} ticks", used() - before);
    });
}

/// A loop device with sectors of that size over a file; `None` where we may not have one.
struct Loop(String);

impl Loop {
    fn new(file: &std::path::Path, sector_size: u32) -> Option<Self> {
        let made = std::process::Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &sector_size.to_string()])
            .arg(file)
            .output()
            .ok()?;
        made.status.success().then(|| Self(String::from_utf8_lossy(&made.stdout).trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _status = std::process::Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_block_device_of_large_sectors() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let Some(device) = Loop::new(file.path(), 4096) else {
        eprintln!("skipped: the host gives us no loop device");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let open = |mode: &str| {
        let disk = config::Disk::parse(&format!("phy:{},xvda,{mode}", device.0)).unwrap();
        devices::block::open("disk[0]", &disk, "large", folder.path())
    };
    let mut opened = open("w").unwrap();
    assert_eq!((opened.kind, opened.physical_device.is_some()), ("phy", true));
    assert!(open("w").unwrap_err().to_string().contains("in use"));
    let image = opened.files.remove(0);
    let mut setup = Setup::new(Front::new(1, 0), opened.config.clone(), image, true);
    assert_eq!(setup.properties["sector-size"], "4096");
    assert_eq!(setup.properties["sectors"], "2048");
    let front = &mut setup.front;
    front.set(DATA, 0, &pattern(3, 4096));
    assert_eq!(front.run(request(WRITE, 1, 8, &[Seg(DATA, 0, 7)])), 0);
    assert_eq!(front.run(request(WRITE, 2, 8, &[Seg(DATA, 0, 0)])), -1);
    assert_eq!(front.run(request(WRITE, 3, 9, &[Seg(DATA, 0, 7)])), -1);
    // The memory need not be aligned as the disk is.
    assert_eq!(front.run(request(WRITE, 4, 8, &[Seg(DATA, 0, 3), Seg(DATA, 4, 7)])), 0);
    assert_eq!(front.run(request(FLUSH, 5, 0, &[])), 0);
    assert_eq!(front.run(discard(6, 16, 8, 0)), 0);
    assert_eq!(front.run(request(READ, 7, 8, &[Seg(DATA + 1, 0, 7)])), 0);
    assert_eq!(front.get(DATA + 1, 0, 4096), pattern(3, 4096));
}
