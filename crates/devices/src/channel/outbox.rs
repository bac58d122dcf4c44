//! What goes to the guest: frames of sessions are counted, and kept until the guest's agent says that
//! they came (why: `guest-agent`, `agent/inbox.rs`).

use guest_agent::message::Kind;
use guest_agent::{FIRST, frame};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes that wait for room in the guest's ring; beyond that tools wait.
pub const MOST_WAITING: usize = 8 << 10;
/// Bytes that are kept; beyond that too. More than the ring, a terminal and its reader hold.
const MOST_KEPT: usize = 64 << 10;
/// How long all may be sent and nothing of it told to have come.
const PATIENCE: Duration = Duration::from_secs(1);

/// A frame as it was sent.
#[derive(Debug)]
struct Kept {
    number: u16,
    bytes: Vec<u8>,
}

/// The way to the guest.
#[derive(Debug)]
pub struct Outbox {
    waiting: Vec<u8>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    next: u16,
    /// Since when frames are kept and nothing was heard of them.
    since: Option<Instant>,
    /// What was asked for again, until some of it came.
    asked: Option<u16>,
    /// The guest lost something, and that was not told.
    repeated: bool,
}

impl Outbox {
    /// Nothing was sent.
    pub fn new() -> Self {
        Self {
            waiting: Vec::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            next: FIRST,
            since: None,
            asked: None,
            repeated: false,
        }
    }

    /// Sends a session's frame.
    pub fn push(&mut self, session: u16, kind: Kind, payload: &[u8], now: Instant) {
        let (number, mut bytes) = (self.next, Vec::new());
        frame::encode(session, kind as u8, &frame::counted(number, payload), &mut bytes);
        self.next = number.wrapping_add(1);
        self.waiting.extend_from_slice(&bytes);
        self.kept_bytes += bytes.len();
        self.kept.push_back(Kept { number, bytes });
        self.since.get_or_insert(now);
    }

    /// For frames that are not counted.
    pub fn uncounted(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Whether tools may send.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < MOST_WAITING && self.kept_bytes < MOST_KEPT
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Whether so much is kept that the guest will say nothing of it any more: sessions end without asking
    /// for room.
    pub fn is_stuck(&self) -> bool {
        self.kept_bytes >= 2 * MOST_KEPT
    }

    /// What is to go to the guest.
    pub fn bytes(&self) -> &[u8] {
        &self.waiting
    }

    /// So much of it went.
    pub fn sent(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
    }

    /// All before `awaited` came.
    pub fn came(&mut self, awaited: u16, now: Instant) {
        // Half of all numbers are behind it.
        let is_behind = |kept: &Kept| kept.number.wrapping_sub(awaited) > u16::MAX / 2;
        while let Some(kept) = self.kept.pop_front_if(|kept| is_behind(kept)) {
            self.kept_bytes -= kept.bytes.len();
            self.asked = None;
            self.since = Some(now);
        }
        if self.kept.is_empty() {
            self.since = None;
        }
    }

    /// From `awaited` on it is to be sent again. Who asks twice for the same has it once, so that nobody can
    /// have work done without end.
    pub fn again(&mut self, awaited: u16, now: Instant) {
        self.came(awaited, now);
        let is_kept = self.kept.front().is_some_and(|kept| kept.number == awaited);
        if is_kept && self.asked != Some(awaited) {
            self.asked = Some(awaited);
            self.repeated = true;
            self.repeat(now);
        }
    }

    fn repeat(&mut self, now: Instant) {
        // It may break off anywhere.
        self.waiting.clear();
        self.waiting.push(0);
        self.kept.iter().for_each(|kept| self.waiting.extend_from_slice(&kept.bytes));
        self.since = self.kept.front().map(|_| now);
    }

    /// Sends again what the guest has said nothing of for long.
    pub fn attend(&mut self, now: Instant) {
        if self.next_time().is_some_and(|time| time <= now) {
            self.repeat(now);
        }
    }

    /// When to attend.
    pub fn next_time(&self) -> Option<Instant> {
        self.since.filter(|_| self.waiting.is_empty()).map(|since| since + PATIENCE)
    }

    /// Did the guest ask for anything again since the last time?
    pub fn has_repeated(&mut self) -> bool {
        std::mem::take(&mut self.repeated)
    }

    /// The agent is another one, or counts anew: what was kept is not for it.
    pub fn restart(&mut self) {
        *self = Self { waiting: std::mem::take(&mut self.waiting), ..Self::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_agent::frame::{Decoder, Frame};

    /// Takes all that waits.
    fn take(outbox: &mut Outbox) -> Vec<u16> {
        let mut decoder = Decoder::default();
        decoder.push(outbox.bytes());
        outbox.sent(usize::MAX);
        let frames = std::iter::from_fn(|| decoder.next_frame());
        frames.map(|frame: Frame| frame::number(&frame.payload).unwrap().0).collect()
    }

    #[test]
    fn what_did_not_come_is_sent_again() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        for _ in 0..5 {
            outbox.push(1, Kind::Data, b"data", start);
        }
        assert_eq!(take(&mut outbox), [1, 2, 3, 4, 5]);
        outbox.came(3, start);
        assert!(!outbox.has_repeated());
        outbox.again(4, start);
        assert_eq!(take(&mut outbox), [4, 5]);
        assert!(outbox.has_repeated());
        outbox.again(4, start);
        outbox.came(2, start);
        outbox.came(9000, start);
        assert!(take(&mut outbox).is_empty());
        assert!(outbox.next_time().is_none() && !outbox.has_repeated());
    }

    #[test]
    fn silence_is_answered_and_room_ends() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        while outbox.has_room() {
            outbox.push(1, Kind::Data, &[7; 4096], start);
            outbox.sent(usize::MAX);
        }
        assert!((MOST_KEPT..MOST_KEPT + 5000).contains(&outbox.kept_bytes));
        outbox.attend(start);
        assert!(take(&mut outbox).is_empty());
        outbox.attend(start + PATIENCE);
        let all = take(&mut outbox);
        assert_eq!(all.len(), outbox.kept.len());
        outbox.came(all.len() as u16, start);
        outbox.attend(start + PATIENCE);
        assert_eq!(take(&mut outbox), [all.len() as u16]);
        outbox.restart();
        outbox.push(1, Kind::Open, b"", start);
        assert_eq!((take(&mut outbox), outbox.kept_bytes < 20), (vec![FIRST], true));
    }

    #[test]
    fn numbers_begin_anew() {
        let start = Instant::now();
        let mut outbox = Outbox::new();
        for number in 0..70_000u32 {
            outbox.push(1, Kind::Data, b"", start);
            outbox.came((number as u16).wrapping_add(FIRST + 1), start);
            assert!(outbox.kept.is_empty());
        }
    }
}
