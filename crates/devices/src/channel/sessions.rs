//! Sessions: many tools on one stream of bytes to the guest. Knows nothing of rings.

use super::client::{Client, Packet};
use super::link::{Agent, Change};
use super::outbox::Outbox;
use guest_agent::exit;
use guest_agent::frame::{Decoder, Frame};
use guest_agent::message::{Kind, Link, awaited};
use rustix::event::{PollFd, PollFlags};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Tools at a time.
const MOST: usize = 32;

/// All sessions of a channel.
#[derive(Debug)]
pub struct Sessions {
    agent: Agent,
    decoder: Decoder,
    clients: BTreeMap<u16, Client>,
    last: u16,
    /// Whose turn it was to send.
    turn: u16,
    outbox: Outbox,
    /// Pieces of the stream that were no frames and are not complained of.
    nonsense: u64,
    told: Told,
}

/// What the log says of a frontend already.
#[derive(Debug, Default)]
struct Told {
    lost: bool,
    repeated: bool,
}

impl Sessions {
    /// None. `seed` tells this process from others before it.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            agent: Agent::new(seed, now),
            decoder: Decoder::default(),
            clients: BTreeMap::new(),
            last: 0,
            turn: 0,
            outbox: Outbox::new(),
            nonsense: 0,
            told: Told::default(),
        }
    }

    /// A tool came.
    pub fn add(&mut self, socket: OwnedFd) {
        let mut client = Client::new(socket);
        if self.clients.len() >= MOST {
            let text = b"\x7dToo many commands and copies are under way in this domain";
            let _gone_or_told = client.push(Kind::Refused, text) && client.flush();
            return;
        }
        let mut id = self.last;
        loop {
            id = id.wrapping_add(1);
            if id != 0 && !self.clients.contains_key(&id) {
                break;
            }
        }
        self.last = id;
        if client.push(Kind::Link, &[self.agent.state() as u8]) {
            self.clients.insert(id, client);
        }
    }

    /// Whether the guest's frontend is there.
    pub fn connected(&mut self, yes: bool) {
        self.decoder = Decoder::default();
        self.nonsense = 0;
        self.told = Told::default();
        self.outbox = Outbox::new();
        let change = self.agent.connected(yes);
        self.changed(change);
        self.tell();
    }

    /// Takes what the guest sent.
    pub fn hear(&mut self, bytes: &[u8], now: Instant) {
        self.decoder.push(bytes);
        while let Some(frame) = self.decoder.next_frame() {
            self.agent.heard(now);
            self.take(&frame, now);
        }
    }

    /// Did the guest lose anything that it has again? True once for each frontend: it can lose what it likes.
    pub fn has_repeated(&mut self) -> bool {
        self.outbox.has_repeated() && !std::mem::replace(&mut self.told.repeated, true)
    }

    /// Was anything lost on a link that was up? (Before, a terminal may have echoed.) True once, too.
    pub fn has_lost(&mut self) -> bool {
        let nonsense = self.decoder.nonsense();
        let more = nonsense > std::mem::replace(&mut self.nonsense, nonsense);
        more && self.agent.state() == Link::Up && !std::mem::replace(&mut self.told.lost, true)
    }

    fn take(&mut self, frame: &Frame, now: Instant) {
        use Kind::{Credit, Data, Done, ErrorData, Refused, Sent};
        let Some(kind) = Kind::from_number(frame.kind) else { return };
        if frame.session == 0 {
            self.take_count(kind, &frame.payload, now);
            let before = self.agent.state();
            let change = self.agent.take(kind, &frame.payload);
            self.changed(change);
            if self.agent.state() != before {
                self.tell();
            }
            return;
        }
        let is_for_tools = matches!(kind, Data | ErrorData | Credit | Done | Refused | Sent);
        let Some(client) = self.clients.get_mut(&frame.session).filter(|_| is_for_tools) else {
            return;
        };
        if self.agent.state() == Link::Up && !client.push(kind, &frame.payload) {
            // The guest sent more than it was allowed to.
            self.close(frame.session, now);
        }
    }

    /// What the agent says of the frames that came.
    fn take_count(&mut self, kind: Kind, payload: &[u8], now: Instant) {
        match (kind, awaited(payload)) {
            (Kind::Came, Some(awaited)) => self.outbox.came(awaited, now),
            (Kind::Again, Some(awaited)) => self.outbox.again(awaited, now),
            _ => {}
        }
    }

    /// All sessions are over when the link goes down.
    fn changed(&mut self, change: Change) {
        if change == Change::Down {
            self.outbox.restart();
            let mut told = std::mem::take(&mut self.clients);
            for client in told.values_mut() {
                let text = b"The guest's agent ended or fell silent before this was done";
                let payload: Vec<u8> = [exit::FAULT].iter().chain(text).copied().collect();
                let _gone_or_told = client.push(Kind::Refused, &payload) && client.flush();
            }
        }
    }

    /// Tells all tools how far the link is.
    fn tell(&mut self) {
        let state = [self.agent.state() as u8];
        self.clients.retain(|_, client| client.push(Kind::Link, &state));
    }

    fn close(&mut self, session: u16, now: Instant) {
        self.clients.remove(&session);
        // Before, the agent knows of no sessions.
        if self.agent.state() == Link::Up {
            self.outbox.push(session, Kind::Close, &[], now);
        }
        if self.outbox.is_stuck() {
            // The agent counts anew when it is asked again, if it is there.
            let change = self.agent.connected(true);
            self.changed(change);
        }
    }

    /// Whether tools may send.
    fn has_room(&self) -> bool {
        self.agent.state() == Link::Up && self.outbox.has_room()
    }

    /// What tools are polled for, in the order of [`Self::attend`].
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let reads = self.has_room();
        self.clients.values().map(move |client| PollFd::new(client, client.interest(reads)))
    }

    /// Finds tools that are gone, by what [`Self::poll_fds`] brought.
    pub fn attend(&mut self, ready: &[PollFlags], now: Instant) {
        let gone = |flags: &PollFlags| {
            flags.intersects(PollFlags::HUP | PollFlags::ERR) && !flags.contains(PollFlags::IN)
        };
        let sessions: Vec<u16> = self.clients.keys().copied().collect();
        for (session, _) in sessions.into_iter().zip(ready).filter(|(_, flags)| gone(flags)) {
            self.close(session, now);
        }
    }

    /// Moves packets both ways, as far as they go; true if there may be more at once.
    pub fn pump(&mut self, now: Instant) -> bool {
        let wanted = !self.clients.is_empty();
        let change = self.agent.attend(wanted, now, self.outbox.uncounted());
        self.changed(change);
        self.outbox.attend(now);
        let silent: Vec<u16> = self
            .clients
            .iter_mut()
            .filter_map(|(session, client)| (!client.flush()).then_some(*session))
            .collect();
        silent.into_iter().for_each(|session| self.close(session, now));
        let mut more = false;
        while self.has_room() && self.take_one_round(now) {
            more = true;
        }
        more
    }

    /// Takes a packet of each tool in turn while there is room; true if there was any.
    fn take_one_round(&mut self, now: Instant) -> bool {
        let behind = self.clients.range(self.turn.saturating_add(1)..);
        let before = self.clients.range(..=self.turn);
        let order: Vec<u16> = behind.chain(before).map(|(session, _)| *session).collect();
        let mut any = false;
        for session in order {
            if !self.has_room() {
                break;
            }
            let Some(client) = self.clients.get_mut(&session) else { continue };
            match client.take() {
                Packet::Some(kind, payload) => {
                    self.outbox.push(session, kind, &payload, now);
                    (self.turn, any) = (session, true);
                }
                Packet::None => {}
                Packet::Gone => self.close(session, now),
            }
        }
        any
    }

    /// What is to go to the guest.
    pub fn to_guest(&self) -> &[u8] {
        self.outbox.bytes()
    }

    /// So much of it went.
    pub fn sent(&mut self, count: usize) {
        self.outbox.sent(count);
    }

    /// When to pump though nothing happened.
    pub fn next(&self) -> Option<Instant> {
        let agent = self.agent.next(!self.clients.is_empty());
        agent.into_iter().chain(self.outbox.next_time()).min()
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "loss_tests.rs"]
mod loss_tests;
