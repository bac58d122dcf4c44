//! The agent on a socket in place of a terminal.

use super::*;
use crate::frame;
use crate::message::{Link, Outcome};
use crate::request::{Command, Request, Size};
use crate::{CHUNK, FIRST, WINDOW};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Ends at a hang-up, also where whoever runs the tests ignores that (`nohup`).
const SLEEPER: &str = "echo $$; exec env --default-signal=HUP sleep 1000";

struct Host {
    stream: UnixStream,
    decoder: Decoder,
    number: u16,
}

fn host() -> Host {
    let (stream, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || serve(File::from(OwnedFd::from(theirs))));
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut host = Host { stream, decoder: Decoder::default(), number: FIRST };
    assert_eq!(host.hear().kind, Kind::Started as u8);
    host.say(0, Kind::Hello, b"\x02me");
    let ready = host.hear();
    assert_eq!((ready.kind, ready.payload), (Kind::Ready as u8, b"\x02me".to_vec()));
    host
}

impl Host {
    fn say(&mut self, session: u16, kind: Kind, payload: &[u8]) {
        let mut bytes = Vec::new();
        if session == 0 {
            frame::encode(0, kind as u8, payload, &mut bytes);
        } else {
            let payload = frame::counted(self.number, payload);
            frame::encode(session, kind as u8, &payload, &mut bytes);
            self.number += 1;
        }
        self.stream.write_all(&bytes).unwrap();
    }

    fn hear(&mut self) -> Frame {
        loop {
            let frame = self.hear_all();
            if frame.kind != Kind::Came as u8 {
                return frame;
            }
        }
    }

    /// Also what the agent says of what came.
    fn hear_all(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next_frame() {
                return frame;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the agent is gone");
            self.decoder.push(&bytes[..count]);
        }
    }

    fn open(&mut self, session: u16, words: &[&str], terminal: Option<Size>) {
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let command = Command { words, terminal, ..Command::default() };
        self.say(session, Kind::Open, &Request::Run(command).encode().unwrap());
    }

    /// Output, error output and end of a session.
    fn finish(&mut self, session: u16) -> (Vec<u8>, Vec<u8>, Outcome) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            let frame = self.hear();
            if frame.session != session {
                continue;
            }
            match Kind::from_number(frame.kind).unwrap() {
                Kind::Data => out.extend(frame.payload),
                Kind::ErrorData => err.extend(frame.payload),
                Kind::Done => return (out, err, Outcome::decode(&frame.payload).unwrap()),
                Kind::Credit | Kind::Sent => {}
                other => panic!("{other:?} {:?}", String::from_utf8_lossy(&frame.payload)),
            }
        }
    }
}

#[test]
fn commands_have_two_outputs_and_an_end() {
    let mut host = host();
    host.open(1, &["sh", "-c", "echo out; echo err >&2; cat; exit 7"], None);
    host.say(1, Kind::Data, b"input");
    host.say(1, Kind::End, &[]);
    let (out, err, end) = host.finish(1);
    assert_eq!((out.as_slice(), err.as_slice()), (&b"out\ninput"[..], &b"err\n"[..]));
    assert_eq!(end, Outcome::Exited(7));
    host.open(2, &["sh", "-c", "kill -9 $$"], None);
    assert_eq!(host.finish(2).2, Outcome::Killed(9));
    host.open(3, &["no-such-command"], None);
    let refused = host.hear();
    assert_eq!((refused.kind, refused.payload[0]), (Kind::Refused as u8, exit::NOT_FOUND));
}

#[test]
fn output_stops_at_the_allowance_and_others_go_on() {
    let mut host = host();
    host.open(1, &["sh", "-c", "yes | head -c 2000000"], None);
    let mut got = 0;
    while got < WINDOW as usize - CHUNK {
        got += host.hear().payload.len();
    }
    host.open(2, &["echo", "two"], None);
    let (out, _, _) = host.finish(2);
    assert_eq!(out, b"two\n");
    host.say(1, Kind::Close, &[]);
    host.open(1, &["echo", "again"], None);
    let end = Instant::now() + Duration::from_secs(10);
    while host.hear().payload != b"again\n" {
        assert!(Instant::now() < end);
    }
}

#[test]
fn who_sends_too_much_is_cut_off() {
    let mut host = host();
    host.open(1, &["sh", "-c", SLEEPER], None);
    let pid = String::from_utf8(host.hear().payload).unwrap();
    for _ in 0..WINDOW as usize / CHUNK + 40 {
        host.say(1, Kind::Data, &[0; CHUNK]);
    }
    let process = format!("/proc/{}", pid.trim());
    let end = Instant::now() + Duration::from_secs(10);
    while Path::new(&process).exists() {
        assert!(Instant::now() < end, "the command outlives its session");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn another_host_ends_sessions() {
    let mut host = host();
    host.open(1, &["sh", "-c", SLEEPER], None);
    let pid = String::from_utf8(host.hear().payload).unwrap();
    host.say(0, Kind::Hello, b"\x02other");
    assert_eq!(host.hear().kind, Kind::Ready as u8);
    let process = format!("/proc/{}", pid.trim());
    let end = Instant::now() + Duration::from_secs(10);
    while Path::new(&process).exists() {
        assert!(Instant::now() < end, "the command outlives its host");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(Link::from_number(2), Some(Link::Up));
}

#[test]
fn what_does_not_come_is_asked_for_once() {
    let mut host = host();
    host.open(1, &["cat"], None);
    let came = host.hear_all();
    assert_eq!((came.kind, came.payload), (Kind::Came as u8, (FIRST + 1).to_le_bytes().to_vec()));
    // The second frame is lost; a third and a fourth follow.
    host.number = FIRST + 2;
    host.say(1, Kind::Data, b"third");
    host.say(1, Kind::Data, b"fourth");
    let again = loop {
        match host.hear_all() {
            frame if frame.kind == Kind::Came as u8 => {}
            frame => break frame,
        }
    };
    assert_eq!(
        (again.kind, again.payload),
        (Kind::Again as u8, (FIRST + 1).to_le_bytes().to_vec())
    );
    host.number = FIRST + 1;
    for text in ["second ", "third ", "fourth "] {
        host.say(1, Kind::Data, text.as_bytes());
    }
    // What comes twice is no input.
    host.number = FIRST + 2;
    host.say(1, Kind::Data, b"third again");
    host.number = FIRST + 4;
    host.say(1, Kind::End, &20u64.to_le_bytes());
    let (out, _, end) = host.finish(1);
    assert_eq!((out.as_slice(), end), (&b"second third fourth "[..], Outcome::Exited(0)));
}

#[test]
fn torn_frames_are_asked_for() {
    let mut host = host();
    host.stream.write_all(b"\x05torn\0").unwrap();
    let again = host.hear_all();
    assert_eq!((again.kind, again.payload), (Kind::Again as u8, FIRST.to_le_bytes().to_vec()));
}

#[test]
fn input_that_is_not_whole_is_told() {
    let mut host = host();
    host.open(1, &["cat"], None);
    host.say(1, Kind::Data, b"five");
    host.say(1, Kind::End, &5u64.to_le_bytes());
    let refused = loop {
        match host.hear() {
            frame if frame.kind == Kind::Refused as u8 => break frame,
            _ => {}
        }
    };
    assert!(String::from_utf8_lossy(&refused.payload).contains("of 5 bytes that were sent 4"));
}
