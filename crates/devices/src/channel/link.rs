//! Whether the guest's agent is there: asked when the frontend comes, then until it answers, and
//! again when it has been silent for long while somebody waits for it.

use guest_agent::message::{Kind, Link};
use guest_agent::{VERSION, frame};
use std::time::{Duration, Instant};

/// Between two questions to an agent that does not answer.
const PAUSE: Duration = Duration::from_millis(250);
/// Silence after which it is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(5);
/// How long it may take to answer then. A guest that was paused for that long has lost its sessions.
const PATIENCE: Duration = Duration::from_secs(15);

/// What has become of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    None,
    /// It is up.
    Up,
    /// All sessions are over.
    Down,
}

/// The link to the agent.
#[derive(Debug)]
pub struct Agent {
    state: Link,
    /// Drawn anew when sessions of before are to end.
    name: [u8; 8],
    asked: Option<Instant>,
    heard: Instant,
    /// Since when it owes an answer.
    unanswered: Option<Instant>,
    drawn: u64,
}

impl Agent {
    /// Nobody has been asked. `seed` tells this process from others before it.
    pub fn new(seed: u64, now: Instant) -> Self {
        let mut agent = Self {
            state: Link::NoDriver,
            name: [0; 8],
            asked: None,
            heard: now,
            unanswered: None,
            drawn: seed,
        };
        agent.draw();
        agent
    }

    fn draw(&mut self) {
        self.drawn = self.drawn.wrapping_add(1);
        self.name = self.drawn.to_le_bytes();
    }

    /// How far it is.
    pub fn state(&self) -> Link {
        self.state
    }

    /// A frontend came (or went).
    pub fn connected(&mut self, yes: bool) -> Change {
        let was = self.state;
        self.state = if yes { Link::Silent } else { Link::NoDriver };
        (self.asked, self.unanswered) = (None, None);
        self.draw();
        if was == Link::Up { Change::Down } else { Change::None }
    }

    /// Takes a frame of session 0.
    pub fn take(&mut self, kind: Kind, payload: &[u8]) -> Change {
        match (kind, payload.split_first()) {
            (Kind::Ready, Some((version, name))) if name == self.name => {
                let was = self.state;
                self.state = if *version == VERSION { Link::Up } else { Link::Version };
                if self.state == Link::Up && was != Link::Up { Change::Up } else { Change::None }
            }
            (Kind::Started, _) if self.state != Link::NoDriver => self.connected(true),
            _ => Change::None,
        }
    }

    /// The guest sent something that made sense.
    pub fn heard(&mut self, now: Instant) {
        (self.heard, self.unanswered) = (now, None);
    }

    /// Asks if it is time to, with a frame in `out`; `wanted` says that somebody waits.
    pub fn attend(&mut self, wanted: bool, now: Instant, out: &mut Vec<u8>) -> Change {
        let is_up = self.state == Link::Up;
        if !wanted || self.next(wanted).is_none_or(|next| next > now) {
            return Change::None;
        }
        let mut change = Change::None;
        let late = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
        if is_up && self.unanswered.is_some_and(late) {
            change = self.connected(true);
        }
        self.asked = Some(now);
        self.unanswered.get_or_insert(now);
        // What was sent before may have broken off anywhere.
        out.push(0);
        let payload: Vec<u8> = [VERSION].into_iter().chain(self.name).collect();
        frame::encode(0, Kind::Hello as u8, &payload, out);
        change
    }

    /// When to attend next.
    pub fn next(&self, wanted: bool) -> Option<Instant> {
        let since = |pause| self.asked.map_or(self.heard, |asked| asked + pause);
        match self.state {
            _ if !wanted => None,
            Link::NoDriver => None,
            Link::Silent | Link::Version => Some(since(PAUSE)),
            Link::Up => Some((self.heard + SILENCE).max(since(SILENCE))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(agent: &Agent, version: u8) -> Vec<u8> {
        [version].into_iter().chain(agent.name).collect()
    }

    #[test]
    fn an_agent_is_asked_until_it_answers() {
        let start = Instant::now();
        let mut agent = Agent::new(7, start);
        let mut out = Vec::new();
        assert_eq!(agent.attend(true, start, &mut out), Change::None);
        assert!(out.is_empty(), "nobody could hear it");
        agent.connected(true);
        assert!(agent.next(false).is_none());
        agent.attend(true, start, &mut out);
        let once = out.len();
        agent.attend(true, start, &mut out);
        assert!(once > 0 && out.len() == once);
        agent.attend(true, start + PAUSE, &mut out);
        assert_eq!(out.len(), 2 * once);
        assert_eq!(agent.take(Kind::Ready, &[VERSION; 9]), Change::None, "to another question");
        assert_eq!(agent.take(Kind::Ready, &answer(&agent, VERSION + 1)), Change::None);
        assert_eq!(agent.state(), Link::Version);
        assert_eq!(agent.take(Kind::Ready, &answer(&agent, VERSION)), Change::Up);
        assert_eq!(agent.take(Kind::Ready, &answer(&agent, VERSION)), Change::None);
        let stale = answer(&agent, VERSION);
        assert_eq!(agent.take(Kind::Started, &[]), Change::Down);
        assert_eq!(agent.take(Kind::Ready, &stale), Change::None, "sessions are over");
    }

    #[test]
    fn an_agent_that_falls_silent_is_asked_and_given_up() {
        let start = Instant::now();
        let mut agent = Agent::new(7, start);
        agent.connected(true);
        let mut out = Vec::new();
        agent.attend(true, start, &mut out);
        agent.take(Kind::Ready, &answer(&agent, VERSION));
        agent.heard(start);
        out.clear();
        assert_eq!(agent.attend(true, start + SILENCE / 2, &mut out), Change::None);
        assert!(out.is_empty());
        assert_eq!(agent.attend(true, start + SILENCE, &mut out), Change::None);
        assert!(!out.is_empty());
        assert_eq!(agent.attend(true, start + SILENCE + PATIENCE, &mut out), Change::Down);
        assert_eq!(agent.state(), Link::Silent);
    }

    #[test]
    fn an_agent_that_nobody_needed_for_long_is_not_late() {
        let start = Instant::now();
        let mut agent = Agent::new(7, start);
        agent.connected(true);
        let mut out = Vec::new();
        agent.attend(true, start, &mut out);
        agent.take(Kind::Ready, &answer(&agent, VERSION));
        agent.heard(start);
        let later = start + 100 * PATIENCE;
        assert_eq!(agent.attend(true, later, &mut out), Change::None);
        assert_eq!(agent.state(), Link::Up);
        assert_eq!(agent.attend(true, later + PATIENCE, &mut out), Change::Down);
    }
}
