//! An agent behind a terminal that loses some of its input, as Linux's console driver does.

use super::*;
use guest_agent::agent;
use guest_agent::message::Outcome;
use guest_agent::request::{Command, Request};
use rustix::fs::OFlags;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::path::PathBuf;
use std::time::Duration;

/// What is sent through `cat`: less than either side may send ahead.
const SIZE: usize = 200 << 10;
/// The ring's.
const PIECE: usize = 1024;

/// The host's end of a terminal with an agent behind it, which serves until this process ends.
fn terminal() -> OwnedFd {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    rustix::fs::fcntl_setfl(&ours, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    std::thread::spawn(move || agent::run(Some(&PathBuf::from(name))));
    ours
}

/// Loses up to 100 bytes of one piece in 25.
struct Loss(u32);

impl Loss {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) as usize
    }

    fn of(&mut self, piece: &[u8]) -> Vec<u8> {
        let from = self.next() % piece.len();
        let count = if self.next().is_multiple_of(25) { self.next() % 100 } else { 0 };
        let (head, tail) = piece.split_at(from);
        [head, tail.get(count..).unwrap_or_default()].concat()
    }
}

#[test]
fn input_comes_whole_through_a_terminal_that_loses() {
    let terminal = terminal();
    let mut sessions = Sessions::new(1, Instant::now());
    sessions.connected(true);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (tool, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    sessions.add(theirs);
    let command = Command { words: vec![b"cat".to_vec()], ..Command::default() };
    let packet = |kind: Kind, payload: &[u8]| [&[kind as u8], payload].concat();
    let data: Vec<u8> =
        (0..SIZE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut packets = vec![packet(Kind::Open, &Request::Run(command).encode().unwrap())];
    packets.extend(data.chunks(4096).map(|chunk| packet(Kind::Data, chunk)));
    packets.push(packet(Kind::End, &(SIZE as u64).to_le_bytes()));
    packets.reverse();
    let (mut loss, mut repeated, mut out) = (Loss(7), 0, Vec::new());
    let mut bytes = vec![0; 64 << 10];
    let mut to_write: Vec<u8> = Vec::new();
    let end = Instant::now() + Duration::from_secs(60);
    let outcome = 'run: loop {
        assert!(Instant::now() < end, "{} of {SIZE} bytes came, {repeated} repeats", out.len());
        while packets.last().is_some_and(|next| send(&tool, next, SendFlags::empty()).is_ok()) {
            packets.pop();
        }
        let now = Instant::now();
        if let Ok(count) = rustix::io::read(&terminal, &mut bytes[..]) {
            sessions.hear(&bytes[..count], now);
        }
        sessions.pump(now);
        repeated += u32::from(sessions.outbox.has_repeated());
        let piece = &sessions.to_guest()[..sessions.to_guest().len().min(PIECE)];
        if to_write.is_empty() && !piece.is_empty() {
            let count = piece.len();
            to_write = loss.of(piece);
            sessions.sent(count);
        }
        match rustix::io::write(&terminal, &to_write) {
            Ok(count) => drop(to_write.drain(..count)),
            Err(_) => std::thread::sleep(Duration::from_micros(100)),
        }
        while let Ok((count, _)) = recv(&tool, &mut bytes[..], RecvFlags::DONTWAIT) {
            match Kind::from_number(bytes[0]) {
                Some(Kind::Data) => out.extend_from_slice(&bytes[1..count]),
                Some(Kind::Done) => break 'run Outcome::decode(&bytes[1..count]).unwrap(),
                Some(Kind::Refused) => panic!("{}", String::from_utf8_lossy(&bytes[2..count])),
                _ => assert!(count > 0, "the session ended"),
            }
        }
    };
    assert_eq!(outcome, Outcome::Exited(0));
    assert!(out == data, "{} bytes came back, changed", out.len());
    assert!(repeated > 3, "{repeated} losses");
}
