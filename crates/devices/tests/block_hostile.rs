//! A frontend that breaks the rules of blkif: each request that makes no sense gets an error, a ring
//! that makes none is forgotten, and the backend lives on. Nothing but what was asked for changes.

mod common;

use common::*;
use devices::wire::{BlockConfig, Order, Report};
use std::sync::atomic::Ordering;

fn setup(config: BlockConfig) -> Setup {
    Setup::new(Front::new(1, 0), config, file_of(&pattern(7, 1 << 16)), true)
}

#[test]
fn requests_that_make_no_sense_are_errors() {
    let mut setup = setup(raw());
    setup.front.guest.grant(300, 300, true);
    setup.front.guest.revoke_hard(301);
    // Not the guest's: the grant table, the monitor's frames, beyond all.
    setup.front.guest.grant(302, FRAMES as u32, false);
    setup.front.guest.grant(303, FRAMES as u32 + 31, false);
    setup.front.guest.grant(304, u32::MAX, false);
    let whole = |reference| [Seg(reference, 0, 7)];
    let mut too_many = request(READ, 0, 0, &[Seg(DATA, 0, 0); 11]);
    too_many[1] = 12;
    let mut most = too_many;
    most[1] = 255;
    let cases: Vec<(&str, [u8; 112], i16)> = vec![
        ("no segments to read", request(READ, 0, 0, &[]), -1),
        ("no segments to write", request(WRITE, 0, 0, &[]), -1),
        ("twelve segments", too_many, -1),
        ("255 segments", most, -1),
        ("first behind last", request(READ, 0, 0, &[Seg(DATA, 5, 4)]), -1),
        ("last outside the page", request(READ, 0, 0, &[Seg(DATA, 0, 8)]), -1),
        ("all outside the page", request(WRITE, 0, 0, &[Seg(DATA, 255, 255)]), -1),
        ("past the end by one", request(READ, 0, 121, &whole(DATA)), -1),
        ("past the end", request(WRITE, 0, 128, &whole(DATA)), -1),
        ("sector overflow", request(WRITE, 0, u64::MAX, &whole(DATA)), -1),
        ("byte overflow", request(WRITE, 0, u64::MAX / 512, &whole(DATA)), -1),
        ("byte wrap", request(WRITE, 0, 1 << 55, &whole(DATA)), -1),
        ("a grant for reading", request(READ, 0, 0, &whole(300)), -1),
        ("no grant", request(READ, 0, 0, &whole(301)), -1),
        ("the grant table", request(READ, 0, 0, &whole(302)), -1),
        ("the monitor's frame", request(WRITE, 0, 0, &whole(303)), -1),
        ("no frame at all", request(WRITE, 0, 0, &whole(304)), -1),
        ("a reference beyond the table", request(READ, 0, 0, &whole(16384)), -1),
        ("the greatest reference", request(READ, 0, 0, &whole(u32::MAX)), -1),
        ("one bad among good", request(WRITE, 0, 0, &[Seg(DATA, 0, 7), Seg(301, 0, 7)]), -1),
        ("operation 4", request(4, 0, 0, &whole(DATA)), -2),
        ("operation 7", request(7, 0, 0, &whole(DATA)), -2),
        ("operation 255", request(255, 0, 0, &whole(DATA)), -2),
        ("discard past the end", discard(0, 120, 9, 0), -1),
        ("discard overflow", discard(0, u64::MAX, u64::MAX, 0), -1),
        ("an indirect page without grant", indirect(WRITE, 0, 0, 1, 301), -1),
    ];
    for (id, (what, mut entry, status)) in (1u64..).zip(cases) {
        entry[8..16].copy_from_slice(&id.to_ne_bytes());
        assert_eq!(setup.front.run(entry), status, "{what}");
    }
    assert_eq!(content(&setup.image, 0, 1 << 16), pattern(7, 1 << 16), "nothing was written");
    // The page that may only be read can be written from.
    assert_eq!(setup.front.run(request(WRITE, 1, 0, &whole(300))), 0);
    for reference in [DATA, 300] {
        assert!(setup.front.guest.revoke(reference), "{reference} is not in use any more");
    }
    assert_eq!(setup.process.statistics()["open"], 0);
}

#[test]
fn rings_that_make_no_sense_are_forgotten() {
    for produced in [33, 1000, u32::MAX, 1 << 31] {
        let mut setup = setup(raw());
        let front = &mut setup.front;
        assert_eq!(front.run(request(READ, 1, 0, &[Seg(DATA, 0, 7)])), 0);
        front.rings[0].index(&front.guest, 0).store(1u32.wrapping_add(produced), Ordering::SeqCst);
        front.guest.ring_bell();
        match setup.process.report() {
            Report::Broken { device: DEVICE, why } => assert!(why.contains("room for 32"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(setup.front.guest.revoke(RINGS), "the ring is given up");
        assert!(setup.process.is_alive());
        // It can be tried anew.
        let guest = &setup.front.guest;
        guest.grant(RINGS, RINGS, false);
        for index in [0, 8] {
            guest.word(RINGS.into(), index).store(0, Ordering::SeqCst);
        }
        let report = setup.process.connect(setup.front.nodes());
        assert!(matches!(report, Report::Connected { .. }), "{report:?}");
        (setup.front.rings[0].produced, setup.front.rings[0].consumed) = (0, 0);
        assert_eq!(setup.front.run(request(READ, 2, 0, &[Seg(DATA, 0, 7)])), 0);
    }
}

#[test]
fn nodes_that_make_no_sense_are_refused() {
    let front = Front::new(1, 0);
    let mut process = Process::start(&front.guest, true);
    let (disk, requests) = (image(4096), devices::block::in_flight_file().unwrap());
    let report = process.attach(raw(), &[&disk, &requests]);
    assert!(matches!(report, Report::Attached { .. }));
    front.guest.revoke_hard(RINGS + 1);
    for (name, value, part) in [
        ("ring-ref", "17", "no access"),
        ("ring-ref", "99999", "beyond the table"),
        ("event-channel", "0", "event channel 0"),
        ("event-channel", "4096", "event channel 4096"),
        ("multi-queue-num-queues", "5", "1 to 4"),
        ("ring-page-order", "4000000000", "at most 4"),
    ] {
        let mut nodes = front.nodes();
        nodes.insert(name.into(), value.into());
        match process.connect(nodes) {
            Report::Refused { why, .. } => assert!(why.contains(part), "{name}={value}: {why}"),
            other => panic!("{name}={value}: {other:?}"),
        }
        assert!(front.guest.revoke(RINGS), "{name}={value}: nothing half-connected remains");
        front.guest.grant(RINGS, RINGS, false);
    }
    assert!(process.is_alive());
}

#[test]
fn a_guest_that_changes_everything_meanwhile_harms_itself_alone() {
    let mut setup = setup(raw());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(1);
    let mut seed = 1u64;
    let mut answered = 0;
    while std::time::Instant::now() < end {
        seed += 1;
        let random = pattern(seed, 112);
        let front = &mut setup.front;
        let mut entry: [u8; 112] = random.clone().try_into().unwrap();
        entry[0] %= 8;
        entry[1] %= 14;
        entry[16..24].copy_from_slice(&(seed % 140).to_ne_bytes());
        for at in (24..112).step_by(8) {
            let reference = DATA + u32::from(random[at]) % 8;
            entry[at..at + 4].copy_from_slice(&reference.to_ne_bytes());
            (entry[at + 4], entry[at + 5]) = (random[at + 4] % 9, random[at + 5] % 9);
        }
        while front.rings[0].poll(&front.guest).is_some() {
            answered += 1;
        }
        if front.rings[0].open() < 32 {
            front.rings[0].put(&front.guest, &entry);
            front.rings[0].push(&front.guest);
        }
        // Entries and grants change after they were shown, and back.
        front.set(RINGS, 64 + usize::from(random[0]) * 8, &random[..8]);
        let reference = DATA + u32::from(random[1]) % 8;
        front.guest.revoke_hard(reference);
        front.guest.grant(reference, DATA + u32::from(random[2]) % 8, random[3] < 64);
    }
    assert!(answered > 100, "{answered}");
    assert!(setup.process.is_alive());
    // Everything that was taken is answered, and the next frontend finds a backend as new.
    setup.process.order(&Order::Detach { device: DEVICE }, &[]);
    assert_eq!(setup.process.report(), Report::Detached { device: DEVICE });
    assert!(!(DATA..DATA + 8).any(|frame| setup.front.guest.is_in_use(frame)));
}
