//! One connection: a client, or a domain's process.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use store::{Connection, Domid, Link, Store};

use crate::budget::Budget;

/// Bytes that wait to be looked at; no more are read meanwhile.
const MOST_INPUT: usize = 8192;
/// Parts of requests, or frames, that one client is served in its turn.
const MOST_PARTS: usize = 32;
/// Messages that one client is sent in its turn.
const MOST_MESSAGES: usize = 256;
/// Added to what a turn of a domain took: waking up, and looking at its socket.
const OVERHEAD: Duration = Duration::from_micros(4);

enum Kind {
    /// Domain 0, by the wire protocol.
    Host(Connection),
    /// A domain's process.
    Domain(Link, Budget),
}

/// One connection.
pub(crate) struct Client {
    stream: UnixStream,
    kind: Kind,
    input: Vec<u8>,
    /// The other side does not take more now.
    is_full: bool,
    /// Bytes of the journal that it caused and that are not written.
    written: usize,
    end: Option<End>,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side closed it.
    Closed,
    /// It broke the protocol.
    Broken(String),
}

impl Client {
    pub(crate) fn host(stream: UnixStream, store: &mut Store) -> io::Result<Self> {
        Self::new(stream, |_| Kind::Host(Connection::open(store, 0)))
    }

    pub(crate) fn domain(stream: UnixStream) -> io::Result<Self> {
        Self::new(stream, |now| Kind::Domain(Link::new(), Budget::new(now)))
    }

    fn new(stream: UnixStream, kind: impl FnOnce(Instant) -> Kind) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            kind: kind(Instant::now()),
            input: Vec::new(),
            is_full: false,
            written: 0,
            end: None,
        })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The domain that is let in here.
    pub(crate) fn domid(&self) -> Option<Domid> {
        match &self.kind {
            Kind::Domain(link, _) => link.peer().map(|peer| peer.domid),
            Kind::Host(_) => None,
        }
    }

    /// The link, if its other side waits to be let in.
    pub(crate) fn applicant(&mut self) -> Option<&mut Link> {
        match &mut self.kind {
            Kind::Domain(link, _) if link.waits_for_welcome() => Some(link),
            _ => None,
        }
    }

    /// Ends the connection once what waits has been sent, as far as that is possible at once.
    pub(crate) fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    pub(crate) fn close(self, store: &mut Store) {
        match self.kind {
            Kind::Host(connection) => connection.close(store),
            Kind::Domain(link, _) => link.close(store),
        }
    }

    /// How long it has to wait before it may ask again.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        match &mut self.kind {
            Kind::Host(_) => Duration::ZERO,
            Kind::Domain(_, budget) => budget.wait(now),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether something that it sent can be looked at now.
    pub(crate) fn has_more(&self, store: &Store) -> bool {
        let is_held = match &self.kind {
            Kind::Domain(link, _) => link.is_held(store),
            Kind::Host(_) => false,
        };
        !self.input.is_empty() && !is_held && !self.is_full && self.end.is_none()
    }

    /// Whether there is room for what it sends.
    pub(crate) fn reads(&self) -> bool {
        self.input.len() < MOST_INPUT && !self.is_full && self.end.is_none()
    }

    /// Takes what it sent and does some of it.
    pub(crate) fn serve(&mut self, store: &mut Store, is_ready: bool) {
        let start = self.is_domain().then(cpu_time);
        if is_ready && self.reads() {
            self.receive();
        }
        let before = store.journal_length();
        if let Err(why) = self.carry_out(store) {
            self.finish(End::Broken(why));
        }
        self.written += store.journal_length().saturating_sub(before);
        self.charge(start);
    }

    fn receive(&mut self) {
        let mut buffer = [0; MOST_INPUT];
        let room = MOST_INPUT - self.input.len().min(MOST_INPUT);
        let Some(buffer) = buffer.get_mut(..room) else { return };
        match self.stream.read(buffer) {
            Ok(0) => self.finish(End::Closed),
            Ok(count) => self.input.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.finish(End::Closed),
        }
    }

    fn carry_out(&mut self, store: &mut Store) -> Result<(), String> {
        let taken = match &mut self.kind {
            Kind::Host(connection) => connection
                .input_some(store, &self.input, MOST_PARTS)
                .map_err(|error| error.to_string())?,
            Kind::Domain(link, _) => {
                let mut taken = 0;
                for _ in 0..MOST_PARTS {
                    let rest = self.input.get(taken..).unwrap_or_default();
                    match link.input(store, rest).map_err(|error| error.to_string())? {
                        0 => break,
                        count => taken += count,
                    }
                }
                taken
            }
        };
        self.input.drain(..taken.min(self.input.len()));
        Ok(())
    }

    /// Sends what waits, as far as the other side takes it.
    pub(crate) fn flush(&mut self, store: &mut Store) {
        let start = self.is_domain().then(cpu_time);
        let mut is_idle = true;
        self.is_full = false;
        for _ in 0..MOST_MESSAGES {
            let bytes = match &mut self.kind {
                Kind::Host(connection) => connection.output(store),
                Kind::Domain(link, _) => link.output(store),
            };
            if bytes.is_empty() {
                break;
            }
            is_idle = false;
            let sent = match self.stream.write(bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_full = true;
                    break;
                }
                Err(_) => {
                    self.finish(End::Closed);
                    break;
                }
            };
            match &mut self.kind {
                Kind::Host(connection) => connection.consume(sent),
                Kind::Domain(link, _) => link.consume(sent),
            }
        }
        if !is_idle {
            self.charge(start);
        }
    }

    /// Bears its part of what it took to write `bytes` of the journal.
    pub(crate) fn pay_for_writing(&mut self, time: Duration, bytes: usize) {
        let own = std::mem::take(&mut self.written).min(bytes);
        if own > 0 {
            self.spend(time.mul_f64(own as f64 / bytes.max(1) as f64));
        }
    }

    /// Adds to what a domain used.
    fn spend(&mut self, time: Duration) {
        if let Kind::Domain(_, budget) = &mut self.kind {
            budget.spend(time);
        }
    }

    /// Whether it is a domain's process.
    pub(crate) fn is_domain(&self) -> bool {
        matches!(self.kind, Kind::Domain(..))
    }

    fn charge(&mut self, start: Option<Duration>) {
        if let Some(start) = start {
            self.spend(cpu_time().saturating_sub(start) + OVERHEAD);
        }
    }
}

/// CPU time that this thread has used.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
