//! The backend process over a user-mode network that falls silent, is slow, or is read as `passt` does.

#[path = "netfront/net.rs"]
mod net;
mod netfront;
#[path = "netfront/packets.rs"]
mod packets;
#[path = "netfront/process.rs"]
mod process;

use devices::wire::{Order, Report};
use net::{Net, connect};
use netfront::{ENTRIES, Memory, Queue, readable, socket_pair};
use packets::{answer, is_question, plain};
use rustix::net::{RecvFlags, SendFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longer than the backend waits for any answer.
const LONG: Duration = Duration::from_secs(12);

fn given_up(report: &Report) -> bool {
    matches!(report, Report::Unlinked { device: 0, why } if why.contains("does not answer"))
}

/// It takes all and says nothing, as one that has lost its place in the stream.
#[test]
fn a_network_that_takes_all_and_says_nothing_is_given_up() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    queue.send(&plain(60), 4000, false, None);
    let start = Instant::now();
    assert_eq!(net.read_any(), plain(60));
    let question = net.read_any();
    assert!(is_question(&question) && question[6..12] == plain(60)[6..12]);
    assert!(readable(&net.orders().0, LONG));
    assert!(given_up(&net.orders().report()));
    assert!(start.elapsed() > Duration::from_secs(7), "{:?}", start.elapsed());
    // Another one serves as if nothing had happened.
    let (wire, far) = socket_pair(SocketType::STREAM);
    net.orders().send(&Order::Relink { device: 0 }, &[far.as_fd()]);
    drop(far);
    net.wire = UnixStream::from(wire);
    net.orders().counter("tx-packets");
    queue.send(&plain(61), 4000, false, None);
    assert_eq!(net.read_frame(), plain(61));
}

/// It takes nothing, as one that spins. The guest's frames fill the socket and wait.
#[test]
fn a_network_that_takes_nothing_is_given_up() {
    let memory = Memory::new();
    let net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    for _ in 0..16 {
        queue.send(&plain(60_000), 4000, false, None);
    }
    assert!(readable(&net.orders().0, LONG));
    assert!(given_up(&net.orders().report()));
    // What waited is lost, and answered.
    assert_eq!(queue.answers().len(), 16 * 15);
}

/// A guest that sends without ever being answered, as to a host that logs: the network says that it
/// lives. The guest does not see what it is asked.
#[test]
fn a_network_that_answers_the_question_is_kept() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    queue.offer(ENTRIES);
    let (start, mut questions) = (Instant::now(), 0);
    let mut next = start;
    while start.elapsed() < LONG {
        if Instant::now() >= next {
            queue.send(&plain(60), 4000, false, None);
            queue.answers();
            next += Duration::from_millis(300);
        }
        if readable(&net.wire, Duration::from_millis(50)) {
            let frame = net.read_any();
            if is_question(&frame) {
                questions += 1;
                net.write_frame(&answer(&frame));
            }
        }
    }
    assert!((3..8).contains(&questions), "{questions}");
    assert!(!readable(&net.orders().0, Duration::ZERO));
    assert_eq!(queue.take(), None);
    // An answer that nobody asked for is the guest's.
    let mut unasked = answer(&plain(42));
    unasked[28..32].copy_from_slice(&[192, 0, 2, 1]);
    net.write_frame(&unasked);
    assert_eq!(queue.wait().bytes, unasked);
}

#[test]
fn an_idle_guest_asks_nothing() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    queue.offer(ENTRIES);
    queue.send(&plain(60), 4000, false, None);
    assert_eq!(net.read_any(), plain(60));
    net.write_frame(&plain(61));
    assert_eq!(queue.wait().bytes, plain(61));
    let used = net.backend.cpu_time();
    assert!(!readable(&net.wire, LONG));
    assert!(!readable(&net.orders().0, Duration::ZERO));
    assert!(net.backend.cpu_time() - used <= Duration::from_millis(10));
}

/// The host sleeps while a question is on its way; the network then needs a moment.
#[test]
fn a_pause_of_the_host_is_no_alarm() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    queue.send(&plain(60), 4000, false, None);
    assert_eq!(net.read_any(), plain(60));
    let question = net.read_any();
    let pid = Pid::from_raw(net.backend.id() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::sleep(LONG);
    kill_process(pid, Signal::CONT).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    net.write_frame(&answer(&question));
    assert!(!readable(&net.orders().0, LONG));
}

/// `passt` of 2023 reads what is there. If a frame is cut at the end, it reads once more for the rest,
/// and has lost its place if that does not bring all of it.
#[test]
fn frames_are_whole_for_a_reader_that_asks_twice() {
    let memory = Memory::new();
    let net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    let wire = net.wire.try_clone().unwrap();
    let sizes = [60, 1514, 30_000, 40_000, 60_000, 65_535];
    const ROUNDS: usize = 40_000;
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 8 << 20];
        let (mut frames, mut cut) = (0, 0);
        while frames < ROUNDS {
            let (_, mut end) =
                rustix::net::recv(&wire, &mut buffer[..], RecvFlags::empty()).unwrap();
            assert!(end > 0);
            let mut at = 0;
            while at < end {
                // A prefix is never cut either.
                let prefix = buffer[at..end].first_chunk().expect("a prefix is cut");
                let length = u32::from_be_bytes(*prefix) as usize;
                assert!(length == 42 || sizes.contains(&length), "{length}");
                at += 4 + length;
                if at > end {
                    cut += 1;
                    let rest = &mut buffer[end..at];
                    let (_, count) = rustix::net::recv(&wire, rest, RecvFlags::empty()).unwrap();
                    end += count;
                    assert_eq!(end, at, "the rest of {length} bytes did not come at once");
                }
                frames += usize::from(length != 42);
                let frame = &buffer[at - length..at];
                if is_question(frame) {
                    let answer = answer(frame);
                    let prefix = (answer.len() as u32).to_be_bytes();
                    let bytes = [&prefix[..], &answer].concat();
                    rustix::net::send(&wire, &bytes, SendFlags::empty()).unwrap();
                }
            }
            // Now and then the socket fills up.
            if frames % 512 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        cut
    });
    for round in 0..ROUNDS {
        while queue.room() < 20 {
            queue.push();
            queue.answers_so_far();
            std::thread::yield_now();
        }
        let frame = plain(sizes[round * 7 % 13 % 6]);
        queue.packet(&frame, 4000, false, None).into_iter().for_each(|slot| queue.put(slot));
    }
    queue.push();
    assert!(reader.join().unwrap() > 0, "no frame was ever cut");
}

/// A guest that takes nothing: the network's frames never find its socket full, and most of what is
/// lost is lost here.
#[test]
fn a_guest_that_takes_nothing_stops_no_network() {
    let memory = Memory::new();
    let mut net = Net::new(&memory);
    let mut queue = Queue::new(&memory, 0);
    connect(&net, &queue);
    for _ in 0..500 {
        net.write_frame(&plain(60_000));
    }
    let (start, mut came) = (Instant::now(), 0);
    queue.offer(ENTRIES);
    while net.orders().counter("rx-dropped") + came < 500 {
        assert!(start.elapsed() < LONG, "{came} frames came");
        while let Some(frame) = queue.take() {
            assert_eq!(frame.bytes, plain(60_000));
            came += 1;
        }
        queue.offer(16);
    }
    assert!((10..=100).contains(&came), "{came} frames came");
    net.write_frame(&plain(70));
    assert_eq!(queue.wait().bytes, plain(70));
}
