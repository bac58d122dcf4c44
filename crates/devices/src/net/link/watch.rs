//! Whether the user-mode network is alive: `passt` (2023) can spin for ever, or lose its place in the
//! stream and take all that the guest sends without a word.
//!
//! Who hears nothing after the guest has sent something asks a question. Looks for the answer are
//! counted, not time, so that a host that was paused, or this process with the other, is no reason for
//! an alarm. An idle guest costs nothing: what has been answered is not asked about again.

use crate::net::question::is_answer;
use std::time::{Duration, Instant};

/// Silence after a frame of the guest's before the question.
const SILENCE: Duration = Duration::from_secs(2);
/// Looks for the answer, and the time between two.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);
/// What is known of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It owes nothing.
    Quiet,
    /// The guest has sent something since it was heard.
    Sent(Instant),
    /// It was asked.
    Asked { looks: u32, next: Instant },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// Send a question.
    Ask,
    /// The other side is to be given up.
    GiveUp,
}

/// The watch over a network.
#[derive(Debug)]
pub(super) struct Watch {
    state: State,
    /// A question whose answer has not been seen.
    open: bool,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { state: State::Quiet, open: false }
    }

    /// The guest sent something.
    pub(super) fn sent(&mut self) {
        if self.state == State::Quiet {
            self.state = State::Sent(Instant::now());
        }
    }

    /// Something came.
    pub(super) fn heard(&mut self) {
        self.state = State::Quiet;
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Quiet => None,
            State::Sent(since) => Some(since + SILENCE),
            State::Asked { next, .. } => Some(next),
        }
    }

    /// What is to be done now; what came is to be read before.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if self.due().is_none_or(|due| due > now) {
            return Step::Wait;
        }
        let (looks, step) = match self.state {
            State::Asked { looks, .. } if looks + 1 == LOOKS => return Step::GiveUp,
            State::Asked { looks, .. } => (looks + 1, Step::Wait),
            State::Quiet | State::Sent(_) => (0, Step::Ask),
        };
        self.state = State::Asked { looks, next: now + PAUSE };
        self.open |= step == Step::Ask;
        step
    }

    /// Whether the frame is the answer to a question of ours, which is not for the guest.
    pub(super) fn takes(&mut self, frame: &[u8]) -> bool {
        let answer = self.open && is_answer(frame);
        self.open &= !answer;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::question::question;

    fn asked() -> (Watch, Instant) {
        let mut watch = Watch::new();
        watch.sent();
        let due = watch.due().unwrap();
        assert_eq!(watch.step(due - PAUSE), Step::Wait);
        assert_eq!(watch.step(due), Step::Ask);
        (watch, due)
    }

    #[test]
    fn silence_is_asked_about_and_then_given_up() {
        let (mut watch, start) = asked();
        for look in 1..LOOKS {
            assert_eq!(watch.step(start + PAUSE * look), Step::Wait);
        }
        assert_eq!(watch.step(start + PAUSE * LOOKS), Step::GiveUp);
    }

    #[test]
    fn an_answer_or_anything_else_ends_it() {
        let (mut watch, start) = asked();
        watch.heard();
        assert_eq!((watch.due(), watch.step(start + PAUSE * 100)), (None, Step::Wait));
    }

    /// Stopped for an hour, both sides then need a moment: each look gives it.
    #[test]
    fn a_pause_of_the_host_counts_as_one_look() {
        let (mut watch, start) = asked();
        let later = start + Duration::from_secs(3600);
        assert_eq!(watch.step(later), Step::Wait);
        assert_eq!(watch.step(later), Step::Wait);
        assert_eq!(watch.due(), Some(later + PAUSE));
    }

    #[test]
    fn only_the_answer_to_a_question_is_taken() {
        let mut answer = question([2; 6]);
        answer[21] = 2;
        answer.copy_within(38..42, 28);
        assert!(!Watch::new().takes(&answer), "nobody asked");
        let (mut watch, _) = asked();
        assert!(!watch.takes(&question([2; 6])) && !watch.takes(&answer[..31]));
        assert!(watch.takes(&answer) && !watch.takes(&answer));
    }
}
