//! A session with a guest's agent: packets on a socket to the process that serves the channel.

use super::GuestError;
use crate::daemon::connect;
use crate::error::Error;
use guest_agent::frame::MOST_PAYLOAD;
use guest_agent::message::{Kind, Link, Outcome, credit, totals};
use guest_agent::request::Request;
use guest_agent::{CHUNK, WINDOW};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Which of a command's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What came from the agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Output.
    Data(Source, Vec<u8>),
    /// The end.
    Done(Outcome),
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    name: String,
    socket: OwnedFd,
    waiting: VecDeque<Vec<u8>>,
    link: Link,
    since: Instant,
    patience: Duration,
    answered: bool,
    /// Data that may be sent.
    allowance: u32,
    /// Data that was taken and not yet told of.
    taken: u32,
    /// All data that was sent.
    sent: u64,
    /// All output and standard error that came.
    received: [u64; 2],
}

impl Session {
    /// Begins one with the domain that `word` names.
    pub(super) fn open(
        word: &str,
        verb: &'static str,
        request: &Request,
        patience: Duration,
    ) -> Result<Self, Error> {
        let (who, client) = connect(word, verb)?;
        let request = request.encode().ok_or(GuestError::TooLong)?;
        let socket = client.channel()?;
        let mut session = Self {
            name: who.name,
            socket,
            waiting: VecDeque::new(),
            link: Link::NoDriver,
            since: Instant::now(),
            patience,
            answered: false,
            allowance: WINDOW,
            taken: 0,
            sent: 0,
            received: [0; 2],
        };
        session.say(Kind::Open, &request);
        Ok(session)
    }

    /// Queues a packet.
    pub(super) fn say(&mut self, kind: Kind, payload: &[u8]) {
        let packet = [kind as u8].iter().chain(payload).copied().collect();
        self.waiting.push_back(packet);
    }

    /// Whether all that was queued is sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How much data may be queued now.
    pub(super) fn room(&self) -> usize {
        let allowed = usize::try_from(self.allowance).unwrap_or(usize::MAX);
        if self.waiting.is_empty() { allowed.min(CHUNK) } else { 0 }
    }

    /// Queues data, at most [`Self::room`].
    pub(super) fn say_data(&mut self, bytes: &[u8]) {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.allowance = self.allowance.saturating_sub(count);
        self.sent = self.sent.saturating_add(count.into());
        self.say(Kind::Data, bytes);
    }

    /// Queues the end of the data.
    pub(super) fn say_end(&mut self) {
        self.say(Kind::End, &self.sent.to_le_bytes());
    }

    /// Data was taken: the agent may send more.
    pub(super) fn took(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if self.taken >= WINDOW / 4 {
            let taken = std::mem::take(&mut self.taken);
            self.say(Kind::Credit, &taken.to_le_bytes());
        }
    }

    /// What to poll the socket for.
    pub(super) fn interest(&self) -> PollFlags {
        let sends = if self.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        PollFlags::IN | sends
    }

    /// How long to wait for the agent's first answer; `None`: it came.
    pub(super) fn patience_left(&self) -> Option<Duration> {
        (!self.answered).then(|| self.patience.saturating_sub(self.since.elapsed()))
    }

    /// Fails when the agent was waited for in vain.
    pub(super) fn check_patience(&self) -> Result<(), GuestError> {
        match self.patience_left() {
            Some(Duration::ZERO) => Err(GuestError::Silent {
                name: self.name.clone(),
                link: self.link,
                waited: self.patience,
            }),
            _ => Ok(()),
        }
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), GuestError> {
        while let Some(packet) = self.waiting.front() {
            match send(&self.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => drop(self.waiting.pop_front()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // Its last words are read first.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.waiting.clear();
                    return Ok(());
                }
                Err(errno) => return Err(GuestError::Host(errno.into())),
            }
        }
        Ok(())
    }

    /// What the agent said next, if there is anything.
    pub(super) fn hear(&mut self) -> Result<Option<Event>, GuestError> {
        loop {
            let mut packet = vec![0; MOST_PAYLOAD + 1];
            let count = match recv(&self.socket, &mut packet, RecvFlags::DONTWAIT) {
                Ok((count, _)) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::CONNRESET) => 0,
                Err(errno) => return Err(GuestError::Host(errno.into())),
            };
            packet.truncate(count);
            let Some((number, payload)) = packet.split_first() else {
                return Err(GuestError::Broken { name: self.name.clone() });
            };
            if let Some(event) = self.take(*number, payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn data(&mut self, source: Source, payload: &[u8]) -> Event {
        let [out, err] = &mut self.received;
        let received = if source == Source::Out { out } else { err };
        *received = received.saturating_add(payload.len() as u64);
        Event::Data(source, payload.to_vec())
    }

    fn take(&mut self, number: u8, payload: &[u8]) -> Result<Option<Event>, GuestError> {
        let nonsense = || GuestError::Nonsense { name: self.name.clone() };
        match Kind::from_number(number).ok_or_else(nonsense)? {
            Kind::Link => {
                let link = payload.first().and_then(|number| Link::from_number(*number));
                self.link = link.ok_or_else(nonsense)?;
                self.answered |= self.link == Link::Up;
                Ok(None)
            }
            Kind::Data => Ok(Some(self.data(Source::Out, payload))),
            Kind::ErrorData => Ok(Some(self.data(Source::Err, payload))),
            Kind::Sent => {
                let sent = totals(payload).ok_or_else(nonsense)?;
                if sent == self.received {
                    return Ok(None);
                }
                let total = |of: [u64; 2]| of.into_iter().fold(0, u64::saturating_add);
                let (sent, received) = (total(sent), total(self.received));
                Err(GuestError::Lost { name: self.name.clone(), sent, received })
            }
            Kind::Credit => {
                let more = credit(payload).ok_or_else(nonsense)?;
                self.allowance = self.allowance.saturating_add(more).min(WINDOW);
                Ok(None)
            }
            Kind::Done => Outcome::decode(payload).ok_or_else(nonsense).map(Event::Done).map(Some),
            Kind::Refused => {
                let (code, text) = payload.split_first().ok_or_else(nonsense)?;
                let text = String::from_utf8_lossy(text).into_owned();
                Err(GuestError::Refused { code: *code, text })
            }
            _ => Err(nonsense()),
        }
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
