use super::*;
use crate::channel::outbox::MOST_WAITING;
use guest_agent::frame;
use guest_agent::{VERSION, WINDOW};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

struct Rig {
    sessions: Sessions,
    guest: Decoder,
    now: Instant,
}

fn rig() -> Rig {
    let now = Instant::now();
    let mut sessions = Sessions::new(1, now);
    sessions.connected(true);
    Rig { sessions, guest: Decoder::default(), now }
}

impl Rig {
    fn tool(&mut self) -> OwnedFd {
        let kind = SocketType::SEQPACKET;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        self.sessions.add(theirs);
        ours
    }

    /// What the guest gets.
    fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            self.sessions.pump(self.now);
            let bytes = self.sessions.to_guest().to_vec();
            if bytes.is_empty() {
                return frames;
            }
            self.guest.push(&bytes);
            self.sessions.sent(bytes.len());
            frames.extend(std::iter::from_fn(|| self.guest.next_frame()));
        }
    }

    fn say(&mut self, session: u16, kind: Kind, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::encode(session, kind as u8, payload, &mut bytes);
        self.sessions.hear(&bytes, self.now);
        self.sessions.pump(self.now);
    }

    /// The agent answers the question that waits.
    fn up(&mut self) {
        let hello = self.frames().pop().unwrap();
        assert_eq!((hello.session, hello.kind), (0, Kind::Hello as u8));
        self.say(0, Kind::Ready, &hello.payload);
    }
}

/// What a counted frame is about.
fn about(frame: &Frame) -> Vec<u8> {
    frame::number(&frame.payload).unwrap().1.to_vec()
}

fn packets(tool: &OwnedFd) -> Vec<(Kind, Vec<u8>)> {
    let mut packet = vec![0; 64 << 10];
    let mut packets = Vec::new();
    while let Ok((count, _)) = recv(tool, &mut packet[..], RecvFlags::DONTWAIT) {
        if count == 0 {
            break;
        }
        packets.push((Kind::from_number(packet[0]).unwrap(), packet[1..count].to_vec()));
    }
    packets
}

fn write(tool: &OwnedFd, kind: Kind, payload: &[u8]) {
    let packet: Vec<u8> = [kind as u8].iter().chain(payload).copied().collect();
    send(tool, &packet, SendFlags::empty()).unwrap();
}

#[test]
fn tools_wait_for_the_agent_and_have_sessions_of_their_own() {
    let mut rig = rig();
    let (one, two) = (rig.tool(), rig.tool());
    write(&one, Kind::Open, b"1");
    write(&two, Kind::Open, b"2");
    rig.up();
    let opened: Vec<(u16, Vec<u8>)> =
        rig.frames().into_iter().map(|frame| (frame.session, about(&frame))).collect();
    assert_eq!(opened, [(1, b"1".to_vec()), (2, b"2".to_vec())]);
    rig.say(2, Kind::Data, b"for two");
    rig.say(7, Kind::Data, b"for nobody");
    rig.say(1, Kind::Open, b"no guest may say this");
    assert_eq!(packets(&one).last().unwrap(), &(Kind::Link, vec![Link::Up as u8]));
    assert_eq!(packets(&two).last().unwrap(), &(Kind::Data, b"for two".to_vec()));
    drop(one);
    rig.sessions.attend(&[PollFlags::HUP, PollFlags::empty()], rig.now);
    let closed = rig.frames();
    assert_eq!((closed[0].session, closed[0].kind), (1, Kind::Close as u8));
}

#[test]
fn a_new_agent_ends_sessions() {
    let mut rig = rig();
    let tool = rig.tool();
    rig.up();
    rig.say(0, Kind::Started, &[]);
    let last = packets(&tool).pop().unwrap();
    assert_eq!((last.0, last.1[0]), (Kind::Refused, exit::FAULT));
    let next = rig.tool();
    rig.up();
    assert_eq!(packets(&next).pop().unwrap(), (Kind::Link, vec![Link::Up as u8]));
    assert_eq!(VERSION, 2);
}

#[test]
fn a_tool_that_does_not_read_is_no_burden_to_others() {
    let mut rig = rig();
    let (deaf, other) = (rig.tool(), rig.tool());
    rig.up();
    for _ in 0..4 * WINDOW / 4096 {
        rig.say(1, Kind::Data, &[0; 4096]);
    }
    let frames = rig.frames();
    assert!(frames.iter().any(|f| f.session == 1 && f.kind == Kind::Close as u8), "{frames:?}");
    rig.say(2, Kind::Data, b"still here");
    assert_eq!(packets(&other).pop().unwrap().1, b"still here");
    drop(deaf);
}

#[test]
fn tools_take_turns_and_wait_for_room() {
    let mut rig = rig();
    let (one, two) = (rig.tool(), rig.tool());
    rig.up();
    for _ in 0..8 {
        write(&one, Kind::Data, &[1; 4096]);
        write(&two, Kind::Data, &[2; 4096]);
    }
    rig.sessions.pump(rig.now);
    assert!(rig.sessions.to_guest().len() < MOST_WAITING + 5000);
    let order: Vec<u16> = rig.frames().iter().map(|frame| frame.session).collect();
    assert_eq!(order, [1, 2].repeat(8));
}

#[test]
fn what_no_tool_may_say_ends_it() {
    let mut rig = rig();
    let tool = rig.tool();
    rig.up();
    write(&tool, Kind::Hello, b"x");
    let frames = rig.frames();
    assert_eq!(frames.last().map(|frame| frame.kind), Some(Kind::Close as u8));
    let most: Vec<OwnedFd> = (0..MOST).map(|_| rig.tool()).collect();
    let last = rig.tool();
    assert_eq!(packets(&last).pop().unwrap().0, Kind::Refused);
    drop(most);
}

#[test]
fn a_guest_that_never_says_what_came_is_asked_anew() {
    let mut rig = rig();
    let first = rig.tool();
    rig.up();
    let mut most = 0;
    for _ in 0..20_000 {
        drop(rig.tool());
        let waits = rig.sessions.poll_fds().count();
        rig.sessions.attend(&vec![PollFlags::HUP; waits], rig.now);
        rig.frames();
        most = most.max(rig.sessions.outbox.kept_bytes());
        if rig.sessions.agent.state() != Link::Up {
            break;
        }
    }
    assert!(most > 64 << 10 && most <= 128 << 10, "{most}");
    assert_eq!(rig.sessions.agent.state(), Link::Silent);
    assert_eq!(rig.sessions.outbox.kept_bytes(), 0);
    drop(first);
}

#[test]
fn a_log_is_told_once_of_what_a_guest_loses() {
    let mut rig = rig();
    let tool = rig.tool();
    rig.up();
    let mut told = 0;
    for number in 0..10 {
        write(&tool, Kind::Data, b"data");
        rig.frames();
        rig.say(0, Kind::Again, &(guest_agent::FIRST + number).to_le_bytes());
        rig.sessions.hear(b"\x09torn\0", rig.now);
        told += u32::from(rig.sessions.has_repeated()) + u32::from(rig.sessions.has_lost());
    }
    assert_eq!(told, 2);
}
