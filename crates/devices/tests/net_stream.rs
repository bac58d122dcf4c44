//! The backend process with a frontend of our own, and a socket as its network.

#[path = "netfront/net.rs"]
mod net;
mod netfront;
#[path = "netfront/packets.rs"]
mod packets;
#[path = "netfront/process.rs"]
mod process;

use devices::wire::{Order, Report};
use net::{Net, connect};
use netfront::{ENTRIES, Memory, Queue, Slot, extra, flag, readable, socket_pair};
use packets::{GUEST, HOST, frame, ipv4, ipv6, is_right, plain, tcp, udp};
use rustix::net::SocketType;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const A: [u8; 4] = [10, 0, 0, 2];
const B: [u8; 4] = [10, 0, 0, 1];

#[test]
fn frames_of_all_sizes_go_both_ways() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let sizes = (14..200).chain([1514, 4095, 4096, 4097, 8192, 9014, 30000, 65534, 65535]);
    for size in sizes {
        let frame = plain(size);
        queue.send(&frame, 4000, false, None);
        assert_eq!(net.read_frame(), frame, "{size} bytes out");
        assert!(queue.answers().iter().all(|(_, status)| *status == 0));
        queue.offer(ENTRIES);
        net.write_frame(&frame);
        let came = queue.wait();
        assert_eq!((came.bytes, came.flags, came.gso), (frame, flag::RX_VALIDATED, None));
    }
    // Nothing stays in use.
    for slot in 0..ENTRIES {
        assert_eq!(memory.grant_flags(queue.tx_page(slot)), 5);
        assert_eq!(memory.grant_flags(queue.rx_page(slot)), 1);
    }
}

#[test]
fn blank_checksums_are_computed() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let (a, b) = ([0x11; 16], [0x22; 16]);
    for size in [0, 1, 2, 3, 17, 1400, 1401, 9000, 60000] {
        let payload: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
        let segment = tcp((1000, 80), (1, 2), 0x10, &payload);
        let datagram = udp((1000, 53), &payload);
        let frames = [
            frame(HOST, GUEST, 0x0800, &ipv4(A, B, 6, &segment)),
            frame(HOST, GUEST, 0x0800, &ipv4(A, B, 17, &datagram)),
            frame(HOST, GUEST, 0x86dd, &ipv6(a, b, 6, &segment)),
            frame(HOST, GUEST, 0x86dd, &ipv6(a, b, 17, &datagram)),
            // Padded as on a real wire.
            [frame(HOST, GUEST, 0x0800, &ipv4(A, B, 17, &datagram)), vec![0xee; 5]].concat(),
        ];
        for frame in frames {
            queue.send(&frame, 100, true, None);
            let sent = net.read_frame();
            assert_eq!(sent.len(), frame.len());
            assert!(is_right(&sent), "{size} bytes of payload");
        }
        // A packet to be cut needs no cutting here, but a checksum.
        if size > 1400 {
            let frame = frame(HOST, GUEST, 0x0800, &ipv4(A, B, 6, &segment));
            queue.send(&frame, 54, true, Some((1, 1448)));
            let sent = net.read_frame();
            assert!(sent.len() == frame.len() && is_right(&sent));
        }
    }
    assert_eq!(queue.answers().iter().filter(|(_, status)| *status < 0).count(), 0);
}

#[test]
fn what_cannot_be_sent_is_answered_with_an_error_and_the_rest_goes_on() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let good = plain(100);
    let tcp4 = frame(HOST, GUEST, 0x0800, &ipv4(A, B, 6, &tcp((1, 2), (3, 4), 0, &[9; 3000])));
    let udp4 = frame(HOST, GUEST, 0x0800, &ipv4(A, B, 17, &udp((1, 2), &[9; 3000])));
    // A checksum of nothing known; too short; IP's length beyond the frame; a header's beyond it.
    let mut cut_ip = tcp4.clone();
    cut_ip[16..18].copy_from_slice(&65000u16.to_be_bytes());
    let mut cut_tcp = tcp4[..60].to_vec();
    cut_tcp[16..18].copy_from_slice(&46u16.to_be_bytes());
    cut_tcp[46] = 0xf0;
    let mut fragment = tcp4.clone();
    fragment[20] = 0x20;
    // The bytes, a blank checksum, how it is to be cut.
    type Sent<'a> = (&'a [u8], bool, Option<(u8, u16)>);
    let bad: Vec<Sent<'_>> = vec![
        (&good, true, None),
        (&good[..13], false, None),
        (&cut_ip, true, None),
        (&cut_tcp, true, None),
        (&fragment, true, None),
        // To be cut, but UDP, the other IP, or no IP.
        (&udp4, true, Some((1, 1000))),
        (&tcp4, true, Some((2, 1000))),
        (&good, false, Some((1, 10))),
    ];
    for (bytes, blank, gso) in bad {
        let slots = queue.packet(bytes, 4000, blank, gso);
        slots.iter().for_each(|slot| queue.put(*slot));
        queue.send(&good, 4000, false, None);
        assert_eq!(net.read_frame(), good);
        let answers = queue.answers();
        assert_eq!(answers.len(), slots.len() + 1);
        assert_eq!(answers[0].1, -1, "{} bytes, {gso:?}", bytes.len());
        assert!(gso.is_none() || answers[1].1 == 1, "an extra has an answer of its own");
        assert_eq!(answers.last().unwrap().1, 0);
    }
    // Grants that are not there, or not ours; a frame beyond memory.
    let table = u32::try_from(netfront::LAYOUT.grant_mfn).unwrap();
    for (reference, flags, number) in
        [(300, 0, 0), (300, 1 | 7 << 16, 600), (300, 1, 0xffff_fff0), (1 << 30, 0, 0)]
    {
        memory.set_word(table, 300 * 8 + 4, number);
        memory.set_word(table, 300 * 8, flags);
        queue.put(Slot { gref: reference, offset: 0, flags: 0, id: 77, size: 60 }.bytes());
        queue.send(&good, 4000, false, None);
        assert_eq!(net.read_frame(), good);
        assert_eq!(queue.answers()[0], (77, -1));
    }
    assert_eq!(net.orders().counter("tx-refused"), 12);
}

/// Puts slots in the ring; the interface must be closed with a reason that has `why` in it.
fn breaks(slots: &[[u8; 12]], why: &str) {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    slots.iter().for_each(|slot| queue.put(*slot));
    queue.push();
    let report = net.orders().report();
    let Report::Broken { device: 0, why: said } = &report else { panic!("{report:?}") };
    assert!(said.contains(why), "{said}");
    // Its rings are free, and a frontend that is new can begin anew.
    assert_eq!(memory.grant_flags(queue.tx_ring()), 1);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    queue.send(&plain(60), 4000, false, None);
    assert_eq!(net.read_frame(), plain(60));
}

#[test]
fn a_frontend_that_breaks_a_rule_is_disconnected() {
    let slot = |flags, size| Slot { gref: 1024, offset: 0, flags, id: 1, size }.bytes();
    breaks(&[slot(flag::MORE, 200)], "announces another");
    breaks(&[slot(flag::EXTRA, 200)], "announces another");
    breaks(&[slot(flag::MORE, 200), slot(0, 201)], "hold 201 bytes");
    breaks(&vec![slot(flag::MORE, 4000); 250], "more than 20 slots");
    breaks(
        &[Slot { gref: 1024, offset: 4000, flags: 0, id: 1, size: 97 }.bytes()],
        "leaves its page",
    );
    breaks(&[slot(0, 65535)], "leaves its page");
    for kind in [0, 2, 3, 4, 5, 255] {
        breaks(&[slot(flag::EXTRA, 60), extra(kind, 0, 1448, 1)], "was not agreed upon");
    }
    breaks(&[slot(flag::EXTRA, 60), extra(1, 1, 1448, 1), extra(1, 1, 1448, 1)], "not agreed upon");
    breaks(&[slot(flag::EXTRA, 60), extra(1, 0, 0, 1)], "segments of 0 bytes");
    for gso in [0, 3, 255] {
        breaks(&[slot(flag::EXTRA, 60), extra(1, 0, 1448, gso)], "not possible");
    }
}

#[test]
fn indices_that_cannot_be_are_noticed() {
    for (ring, produced) in [(16, 257u32), (16, u32::MAX), (16, 1 << 31), (17, 257), (17, u32::MAX)]
    {
        let memory = Memory::new();
        let mut net = Net::new(&memory);
        let queue = Queue::new(&memory, 0);
        connect(&net, &queue);
        memory.set_word(ring, 0, produced);
        memory.ring_bell();
        net.write_frame(&plain(60));
        let report = net.orders().report();
        assert!(
            matches!(&report, Report::Broken { why, .. } if why.contains("room for 256")),
            "{report:?}"
        );
    }
}

#[test]
fn frontends_that_cannot_be_served_are_refused() {
    let memory = Memory::new();
    let net = Net::new(&memory);
    let queue = Queue::new(&memory, 0);
    for (node, value, why) in [
        ("request-rx-copy", "0", "copied"),
        ("tx-ring-ref", "9", "no access"),
        ("rx-ring-ref", "99999", "beyond the table"),
        ("event-channel", "0", "no event channel 0"),
        ("multi-queue-num-queues", "3", "no `queue-0/"),
    ] {
        let mut nodes = queue.nodes();
        nodes.insert(node.to_owned(), value.to_owned());
        let report = net.orders().connect(&nodes);
        assert!(
            matches!(&report, Report::Refused { why: said, .. } if said.contains(why)),
            "{report:?}"
        );
        assert_eq!(memory.grant_flags(queue.tx_ring()), 1, "the ring is not left in use");
    }
    connect(&net, &queue);
}

#[test]
fn without_pages_frames_wait() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    for size in [60, 10_000, 100] {
        net.write_frame(&plain(size));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(queue.take(), None);
    queue.offer(1);
    assert_eq!(queue.wait().bytes, plain(60));
    queue.offer(2);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(queue.take(), None, "a packet needs three pages");
    // It asks to be told of the third, not of the next.
    assert_eq!(memory.word(queue.rx_ring(), 4), 4);
    queue.offer(1);
    assert_eq!(queue.wait().bytes, plain(10_000));
    queue.offer(5);
    assert_eq!(queue.wait().bytes, plain(100));
    assert!(memory.raised(queue.port()));
}

#[test]
fn a_page_that_is_taken_back_costs_a_packet_only() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    memory.revoke(queue.rx_page(1));
    queue.offer(ENTRIES);
    net.write_frame(&plain(9000));
    let came = queue.wait();
    assert!(came.failed);
    net.write_frame(&plain(9000));
    assert_eq!(queue.wait().bytes, plain(9000));
    assert_eq!(net.orders().counter("rx-dropped"), 1);
}

#[test]
fn what_the_frontend_cannot_receive_is_not_given_to_it() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    let mut nodes = queue.nodes();
    nodes.remove("feature-sg");
    assert!(matches!(net.orders().connect(&nodes), Report::Connected { .. }));
    queue.offer(ENTRIES);
    net.write_frame(&plain(4097));
    net.write_frame(&plain(4096));
    assert_eq!(queue.wait().bytes, plain(4096));
}

#[test]
fn queues_share_an_interface() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queues = [Queue::new(&memory, 0), Queue::new(&memory, 1)];
    let mut nodes = queues[0].nodes();
    nodes.retain(|name, _| name.contains("feature") || name.contains("request"));
    nodes.insert("multi-queue-num-queues".into(), "2".into());
    for (number, queue) in queues.iter().enumerate() {
        queue.add_nodes(&mut nodes, &format!("queue-{number}/"));
    }
    let report = net.orders().connect(&nodes);
    assert!(matches!(report, Report::Connected { .. }), "{report:?}");
    queues.iter_mut().for_each(|queue| queue.offer(ENTRIES));
    let mut counts = [0; 2];
    for port in 0..64 {
        let datagram = frame(GUEST, HOST, 0x0800, &ipv4(B, A, 17, &udp((port, 9), b"x")));
        let mut used = None;
        // All packets of a flow come by one queue.
        for _ in 0..2 {
            net.write_frame(&datagram);
            let end = Instant::now() + Duration::from_secs(5);
            let at = loop {
                let came = queues.iter_mut().position(|queue| queue.take().is_some());
                if let Some(at) = came {
                    break at;
                }
                assert!(Instant::now() < end);
            };
            assert!(used.is_none_or(|used| used == at));
            used = Some(at);
        }
        counts[used.unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    for queue in &mut queues {
        queue.send(&plain(60), 4000, false, None);
        assert_eq!(net.read_frame(), plain(60));
    }
}

#[test]
fn a_limit_holds() {
    let memory = Memory::new();
    // 20 KB in 10 ms: 2 MB/s.
    let mut net = Net::limited(&memory, Some((20_000, 10_000)));
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let start = Instant::now();
    for _ in 0..100 {
        queue.send(&plain(10_000), 4000, false, None);
        net.read_frame();
        queue.answers();
    }
    let passed = start.elapsed();
    assert!(
        passed > Duration::from_millis(400) && passed < Duration::from_millis(900),
        "{passed:?}"
    );
}

#[test]
fn a_network_that_does_not_read_stops_the_guest_and_costs_nothing() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let frame = plain(60_000);
    for _ in 0..16 {
        queue.send(&frame, 4000, false, None);
    }
    std::thread::sleep(Duration::from_millis(100));
    let answered = queue.answers_so_far().len();
    assert!(answered > 0 && answered < 16 * 15, "{answered}");
    let used = net.backend.cpu_time();
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        net.backend.cpu_time() - used < Duration::from_millis(20),
        "it waits, it does not spin"
    );
    for _ in 0..16 {
        assert_eq!(net.read_frame(), frame);
    }
    queue.answers();
}

#[test]
fn a_network_that_ends_is_reported_and_replaced() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let (wire, far) = socket_pair(SocketType::STREAM);
    net.wire = UnixStream::from(wire);
    assert!(matches!(net.orders().report(), Report::Unlinked { device: 0, .. }));
    queue.send(&plain(60), 4000, false, None);
    assert_eq!(queue.answers()[0].1, -1, "lost, but answered");
    net.orders().send(&Order::Relink { device: 0 }, &[std::os::fd::AsFd::as_fd(&far)]);
    drop(far);
    // The order comes before the packet.
    net.orders().counter("tx-packets");
    queue.send(&plain(61), 4000, false, None);
    assert_eq!(net.read_frame(), plain(61));
    // A length that cannot be ends it too.
    net.wire.write_all(&[0xff; 4]).unwrap();
    let report = net.orders().report();
    assert!(
        matches!(&report, Report::Unlinked { why, .. } if why.contains("4294967295 bytes")),
        "{report:?}"
    );
}

#[test]
fn a_backend_that_is_killed_is_followed_by_one_that_goes_on() {
    let memory = Memory::new();
    let mut queue = Queue::new(&memory, 0);
    for round in 0..5 {
        let mut net = Net::new(&memory);
        connect(&net, &queue);
        assert!(memory.raised(queue.port()), "whatever was missed is looked at");
        // What was not answered before is sent now.
        if round > 0 {
            assert_eq!(net.read_frame(), plain(60_000));
        }
        queue.answers();
        for _ in 0..50 {
            queue.send(&plain(300), 100, false, None);
            assert_eq!(net.read_frame(), plain(300));
            queue.answers();
        }
        queue.offer(ENTRIES);
        net.write_frame(&plain(5000));
        assert_eq!(queue.wait().bytes, plain(5000));
        net.backend.kill();
        queue.send(&plain(60_000), 4000, false, None);
    }
}

#[test]
fn orders_end_the_backend_and_detach_ends_the_interface() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    net.orders().send(&Order::Disconnect { device: 0 }, &[]);
    assert!(matches!(net.orders().report(), Report::Disconnected { device: 0 }));
    assert_eq!(memory.grant_flags(queue.tx_ring()), 1);
    net.orders().send(&Order::Detach { device: 0 }, &[]);
    assert!(matches!(net.orders().report(), Report::Detached { device: 0 }));
    assert!(readable(&net.wire, Duration::from_secs(5)));
    assert_eq!(net.wire.read(&mut [0]).unwrap(), 0, "the socket is closed");
    let status = net.backend.end();
    assert!(status.success(), "{status}");
}

/// An idle backend sleeps.
#[test]
fn an_idle_backend_uses_no_processor() {
    let memory = Memory::new();
    let net = Net::new(&memory);
    let queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let before = net.backend.cpu_time();
    std::thread::sleep(Duration::from_millis(500));
    assert!(net.backend.cpu_time() - before <= Duration::from_millis(10));
}

#[test]
fn the_walls_are_closed() {
    let memory = Memory::new();
    let net = Net::new(&memory);
    let status = std::fs::read_to_string(format!("/proc/{}/status", net.backend.id())).unwrap();
    let says =
        |line: &str| status.lines().any(|other| other.split_whitespace().eq(line.split(' ')));
    assert!(says("Seccomp: 2") && says("NoNewPrivs: 1"), "{status}");
    assert_eq!(std::fs::read_dir(format!("/proc/{}/task", net.backend.id())).unwrap().count(), 1);
}

/// A guest that changes everything while it is looked at.
#[test]
fn a_guest_that_never_stands_still_harms_itself_only() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let end = Instant::now() + Duration::from_secs(2);
    let mut reader = net.wire.try_clone().unwrap();
    reader.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while Instant::now() < end {
                let _nothing_came = reader.read(&mut buffer);
            }
        });
        scope.spawn(|| {
            let table = u32::try_from(netfront::LAYOUT.grant_mfn).unwrap();
            let mut state = 3u64;
            while Instant::now() < end {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let value = (state >> 32) as u32;
                let frame = [16, 17, table, table + 1, table + 2, 1024 + value % 64]
                    [(state >> 20) as usize % 6];
                // Seldom an index, or each interface would live for a moment only.
                let at = u64::from(value >> 8) % 1024 * 4;
                if at >= 16 || state.is_multiple_of(64) {
                    memory.set_word(frame, at, value.rotate_left(9));
                }
            }
        });
        let mut rounds = 0;
        while Instant::now() < end {
            let mut queue = Queue::new(&memory, 0);
            net.orders().send(&Order::Disconnect { device: 0 }, &[]);
            while !matches!(net.orders().report(), Report::Disconnected { .. }) {}
            net.orders().send(&Order::Connect { device: 0, frontend: queue.nodes() }, &[]);
            for _ in 0..20 {
                queue.offer(ENTRIES);
                for size in [60, 5000, 60_000] {
                    for slot in queue.packet(
                        &plain(size),
                        4000,
                        size > 60,
                        (size > 5000).then_some((1, 1448)),
                    ) {
                        queue.put(slot);
                    }
                }
                queue.push();
                std::thread::yield_now();
            }
            rounds += 1;
        }
        assert!(rounds > 5, "{rounds}");
    });
    // It still serves one who behaves.
    net.orders().send(&Order::Disconnect { device: 0 }, &[]);
    while !matches!(net.orders().report(), Report::Disconnected { .. }) {}
    let (wire, far) = socket_pair(SocketType::STREAM);
    net.orders().send(&Order::Relink { device: 0 }, &[std::os::fd::AsFd::as_fd(&far)]);
    drop(far);
    net.wire = UnixStream::from(wire);
    for frame in [16, 17] {
        memory.write(frame, 0, &[0; 4096]);
    }
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    queue.send(&plain(300), 100, false, None);
    assert_eq!(net.read_frame(), plain(300));
}

/// A guest held to its addresses: what is another's is answered with an error, counted, and told once.
#[test]
fn frames_under_another_address_are_dropped() {
    let memory = Memory::new();
    let (wire, far) = socket_pair(SocketType::STREAM);
    let backend = process::Backend::start(&memory);
    let own = ["10.0.0.2", "2001:db8::/64"].map(|text| devices::net::Subnet::parse(text).unwrap());
    let config = devices::wire::NetConfig {
        mac: GUEST,
        link: devices::wire::NetLink::Stream,
        mtu: 1500,
        rate: None,
        antispoof: Some(own.to_vec()),
    };
    backend.orders.attach_as(config, far);
    let mut net = Net { backend, wire: UnixStream::from(wire) };
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let good = frame(HOST, GUEST, 0x0800, &ipv4(A, B, 17, &udp((1, 2), b"good")));
    let bad = [
        frame(HOST, HOST, 0x0800, &ipv4(A, B, 17, &udp((1, 2), b"bad"))),
        frame(HOST, GUEST, 0x0800, &ipv4(B, A, 17, &udp((1, 2), b"bad"))),
        frame(HOST, GUEST, 0x86dd, &ipv6([0x11; 16], [0x22; 16], 17, &udp((1, 2), b"bad"))),
        plain(60),
        frame(HOST, GUEST, 0x0800, &[0x45]),
    ];
    for bytes in &bad {
        // Cut anywhere: what counts is the whole start.
        for first in [14, 20, 30, 4000] {
            queue.send(bytes, first, false, None);
            queue.send(&good, first, false, None);
            assert_eq!(net.read_frame(), good);
            let statuses: Vec<i16> = queue.answers().iter().map(|answer| answer.1).collect();
            assert_eq!((statuses[0], statuses.last()), (-1, Some(&0)));
        }
    }
    let Report::Log { line, .. } = net.orders().report() else { panic!("no line for the log") };
    assert!(line.starts_with("vif 0: 1 frame was dropped"), "{line}");
    assert_eq!(net.orders().counter("tx-spoofed"), 20);
    assert_eq!(net.orders().counter("tx-packets"), 20);
}
