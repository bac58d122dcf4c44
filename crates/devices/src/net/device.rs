//! A network interface: its link, and the frontend's queues while there is one.

use super::checksum::complete;
use super::frontend::{Features, Frontend};
use super::gather::Packet;
use super::headers::{Headers, LOOKED_AT, Version};
use super::link::{Link, Offload, Sent};
use super::queue::{Queue, Violation};
use super::rate::Limit;
use super::receive::{Received, receive};
use super::spoofs::Guard;
use super::transmit::Slots;
use crate::guest::Guest;
use crate::wire::NetConfig;
use rustix::event::PollFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Packets that are moved in one direction before others have their turn.
const TURN: usize = 64;

/// Why an interface stopped.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The frontend broke a rule.
    #[error("{0}")]
    Violation(#[from] Violation),
    /// The link is gone.
    #[error("{0}")]
    Link(#[from] io::Error),
}

impl From<crate::ring::RingError> for Stop {
    fn from(error: crate::ring::RingError) -> Self {
        Self::Violation(error.into())
    }
}

/// Counters.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    tx_packets: u64,
    tx_bytes: u64,
    tx_refused: u64,
    rx_packets: u64,
    rx_bytes: u64,
    rx_dropped: u64,
}

/// A frontend's side.
#[derive(Debug)]
struct Connection {
    queues: Vec<Queue>,
    features: Features,
    /// The queue for which a frame waits, and the pages it needs.
    waits: Option<(usize, u32)>,
    /// No credit until then.
    paused: Option<Instant>,
}

/// An interface.
#[derive(Debug)]
pub struct Device {
    /// `None` once it broke.
    link: Option<Link>,
    limit: Option<Limit>,
    guard: Guard,
    connection: Option<Connection>,
    counters: Counters,
    slots: Slots,
    packet: Packet,
}

impl Device {
    /// An interface without a frontend.
    ///
    /// # Errors
    /// When the link's descriptors are not what they should be.
    pub fn new(config: &NetConfig, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let limit = config.rate.and_then(|(bytes, us)| Limit::new(bytes, us, Instant::now()));
        Ok(Self {
            link: Some(Link::new(config.link, fds)?),
            limit,
            guard: Guard::new(config),
            connection: None,
            counters: Counters::default(),
            slots: Slots::default(),
            packet: Packet::default(),
        })
    }

    /// Puts a new link in the place of one that is gone.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn relink(&mut self, config: &NetConfig, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut link = Link::new(config.link, fds)?;
        if let Some(connection) = &mut self.connection {
            link.open(&connection.features)?;
            connection.waits = None;
        }
        self.link = Some(link);
        Ok(())
    }

    /// Serves a frontend from now on.
    ///
    /// # Errors
    /// When its rings cannot be used.
    pub fn connect(&mut self, guest: &Arc<Guest>, frontend: &Frontend) -> Result<(), Stop> {
        self.connection = None;
        let queues = frontend
            .queues
            .iter()
            .map(|nodes| Queue::connect(guest, nodes))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(link) = &mut self.link {
            link.open(&frontend.features)?;
        }
        queues.iter().for_each(Queue::notify);
        let features = frontend.features;
        self.connection = Some(Connection { queues, features, waits: None, paused: None });
        Ok(())
    }

    /// Forgets the frontend.
    pub fn disconnect(&mut self) {
        self.packet.clear();
        self.connection = None;
    }

    /// Forgets the link.
    pub fn unlink(&mut self) {
        self.link = None;
    }

    /// Moves packets both ways. True if there is more to do at once.
    ///
    /// # Errors
    /// When the frontend broke a rule or the link is gone.
    pub fn pump(&mut self, guest: &Arc<Guest>) -> Result<bool, Stop> {
        let Some(queues) = self.connection.as_ref().map(|connection| connection.queues.len())
        else {
            return Ok(false);
        };
        let moved = self.move_packets(guest, queues);
        // What was done counts, whatever happened then.
        if let Some(connection) = &mut self.connection {
            connection.queues.iter_mut().for_each(Queue::publish);
        }
        moved
    }

    fn move_packets(&mut self, guest: &Arc<Guest>, queues: usize) -> Result<bool, Stop> {
        let mut busy = false;
        for number in 0..queues {
            busy |= self.transmit(guest, number)?;
        }
        if let Some(link) = &mut self.link {
            link.flush()?;
            self.counters.rx_dropped += link.take_dropped();
        }
        busy |= self.receive(guest)?;
        Ok(busy)
    }

    /// What the domain's log should say.
    pub fn news(&mut self) -> Option<String> {
        self.guard.line()
    }

    /// Sends packets of a queue; true if it stopped because its turn was over.
    fn transmit(&mut self, guest: &Arc<Guest>, number: usize) -> Result<bool, Stop> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let Some(queue) = connection.queues.get_mut(number) else { return Ok(false) };
        for _ in 0..TURN {
            let room = self.link.as_ref().is_none_or(Link::has_room);
            if !room || !self.slots.read(&queue.tx)? {
                return Ok(false);
            }
            if let Some(limit) = &mut self.limit {
                connection.paused = limit.take(self.slots.size(), Instant::now()).err();
                if connection.paused.is_some() {
                    return Ok(false);
                }
            }
            self.slots.take(&mut queue.tx);
            let sent = match (self.slots.map(guest, &mut self.packet), &mut self.link) {
                (Some((headers, offload)), Some(link)) if self.guard.passes(self.packet.head()) => {
                    link.send(&mut self.packet, headers.as_ref(), &offload)
                }
                _ => Ok(Sent::Refused),
            };
            self.packet.clear();
            let yes = matches!(sent, Ok(Sent::Yes));
            self.slots.respond(&mut queue.tx, yes);
            if yes {
                self.counters.tx_packets += 1;
                self.counters.tx_bytes += self.slots.size() as u64;
            } else {
                self.counters.tx_refused += 1;
            }
            sent?;
        }
        Ok(true)
    }

    /// Gives frames to the guest; true if it stopped because its turn was over.
    fn receive(&mut self, guest: &Arc<Guest>) -> Result<bool, Stop> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let Some(link) = &mut self.link else { return Ok(false) };
        connection.waits = None;
        for _ in 0..TURN {
            let Some((frame, mut offload)) = link.receive()? else { return Ok(false) };
            let headers = Headers::parse(frame.get(..LOOKED_AT).unwrap_or(frame));
            let flow = headers.map_or(0, |headers| headers.flow(frame)) as usize;
            let number = flow % connection.queues.len().max(1);
            let Some(queue) = connection.queues.get_mut(number) else { return Ok(false) };
            let usable = finish(frame, headers.as_ref(), &mut offload, &connection.features);
            let received = if usable {
                receive(guest, &mut queue.rx, frame, &offload, &connection.features)?
            } else {
                Received::Dropped
            };
            match received {
                Received::Yes => {
                    self.counters.rx_packets += 1;
                    self.counters.rx_bytes += frame.len() as u64;
                }
                Received::Dropped => self.counters.rx_dropped += 1,
                Received::NoRoom(slots) => {
                    connection.waits = Some((number, slots));
                    return Ok(false);
                }
            }
            link.done();
        }
        Ok(true)
    }

    /// Asks the guest to notify us of what we wait for; true if that is there already.
    ///
    /// # Errors
    /// When the frontend broke a rule.
    pub fn rest(&mut self) -> Result<bool, Violation> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let room = self.link.as_ref().is_none_or(Link::has_room);
        let sends = room && connection.paused.is_none();
        let mut ready = false;
        for queue in &mut connection.queues {
            ready |= sends && queue.tx.rest()?;
        }
        if let Some((number, slots)) = connection.waits
            && let Some(queue) = connection.queues.get_mut(number)
        {
            ready |= queue.rx.rest_until(slots)?;
        }
        Ok(ready)
    }

    /// What to wait for: the link, and a time.
    pub fn waits_for(&self) -> (Option<(BorrowedFd<'_>, PollFlags)>, Option<Instant>) {
        let Some(connection) = &self.connection else { return (None, None) };
        let receives = connection.waits.is_none();
        let due = self.link.as_ref().and_then(Link::due);
        let link = self.link.as_ref().map(|link| link.waits_for(receives));
        let time = connection.paused.into_iter().chain(due).min();
        (link.filter(|(_, flags)| !flags.is_empty()), time)
    }

    /// Counters by name.
    pub fn statistics(&self) -> BTreeMap<String, u64> {
        let Counters { tx_packets, tx_bytes, tx_refused, rx_packets, rx_bytes, rx_dropped } =
            self.counters;
        let all = [
            ("tx-packets", tx_packets),
            ("tx-bytes", tx_bytes),
            ("tx-refused", tx_refused),
            ("rx-packets", rx_packets),
            ("rx-bytes", rx_bytes),
            ("rx-dropped", rx_dropped),
            ("tx-spoofed", self.guard.refused()),
        ];
        all.map(|(name, count)| (name.to_owned(), count)).into()
    }
}

/// Computes the checksum of a frame for a guest that cannot; false if that is not possible.
fn finish(
    frame: &mut [u8],
    headers: Option<&Headers>,
    offload: &mut Offload,
    features: &Features,
) -> bool {
    let Some(headers) = headers.filter(|_| offload.blank) else { return !offload.blank };
    let able = match headers.version {
        Version::V4 => features.blank4,
        Version::V6 => features.blank6,
    };
    if able {
        return true;
    }
    offload.blank = false;
    offload.gso.is_none() && complete(frame, headers)
}
