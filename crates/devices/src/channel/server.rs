//! The loop of `xenchannel`: orders of the domain process, the ring, tools.

use super::ring::{Frontend, Ring};
use super::rules;
use super::sessions::Sessions;
use super::stream::Stream;
use crate::guest::Guest;
use crate::jail;
use crate::wire::{self, ChannelEnd, DeviceConfig, Nodes, Order, Report};
use config::LogLevel;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the ring is served before others have their turn: it is small.
const TURNS: usize = 64;

/// Most channels of a domain; more are no mistake of a configuration.
const MOST: usize = 16;

/// What is at the host's end of a channel.
#[derive(Debug)]
enum End {
    /// Tools, for the guest's agent.
    Sessions(Sessions),
    /// Whoever connects to a socket or opens a terminal.
    Stream(Stream),
}

/// A channel of the domain.
#[derive(Debug)]
struct Channel {
    ring: Option<Ring>,
    end: End,
}

/// All that the process serves.
#[derive(Debug)]
pub struct Server {
    orders: OwnedFd,
    guest: Arc<Guest>,
    seed: u64,
    channels: BTreeMap<u32, Channel>,
}

impl Server {
    /// Serves `guest` as told over `orders`, a socket of packets. To be made before the jail closes.
    pub fn new(orders: OwnedFd, guest: Arc<Guest>) -> Self {
        // The standard library seeds these at random.
        let seed = RandomState::new().hash_one(0);
        Self { orders, guest, seed, channels: BTreeMap::new() }
    }

    /// Gives up what serving does not need.
    ///
    /// # Errors
    /// When the host does not allow that.
    pub fn close_jail(&self) -> io::Result<()> {
        // It writes no files.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Fsize, none)?;
        setrlimit(Resource::Memlock, none)?;
        jail::forsake_files()?;
        jail::close(rules::calls())
    }

    /// Serves until the other side of the orders is gone.
    ///
    /// # Errors
    /// When it says something that is no order, or the host gives out.
    pub fn run(&mut self) -> io::Result<()> {
        let mut busy = false;
        loop {
            let ready = self.wait(busy)?;
            if ready.get(1).is_some_and(|flags| !flags.is_empty()) {
                self.guest.clear_bell();
            }
            let mut rest = ready.get(2..).unwrap_or_default();
            for channel in self.channels.values_mut() {
                let (own, others) = rest.split_at(channel.poll_fds().len().min(rest.len()));
                channel.attend(own);
                rest = others;
            }
            let has_orders = ready.first().is_some_and(|flags| !flags.is_empty());
            if has_orders && !self.obey()? {
                return Ok(());
            }
            busy = false;
            for (device, channel) in &mut self.channels {
                busy |= channel.pump();
                if let Some((level, what)) = channel.remark() {
                    let line = format!("channel {device}: {what}");
                    let report = Report::Log { level, line };
                    wire::send(&self.orders, &report, &[])?;
                }
            }
        }
    }

    fn wait(&self, busy: bool) -> io::Result<Vec<PollFlags>> {
        self.guest.pay(Duration::ZERO);
        let mut fds = vec![
            PollFd::new(&self.orders, PollFlags::IN),
            PollFd::from_borrowed_fd(self.guest.bell(), PollFlags::IN),
        ];
        fds.extend(self.channels.values().flat_map(Channel::poll_fds));
        let left = |next: Instant| next.saturating_duration_since(Instant::now());
        let next = self.channels.values().filter_map(Channel::next).min();
        let mut timeout = next.and_then(|next| Timespec::try_from(left(next)).ok());
        if busy {
            timeout = Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(fds.iter().map(PollFd::revents).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Does what one order says; false if the other side is gone.
    fn obey(&mut self) -> io::Result<bool> {
        let (order, fds) = match wire::receive(self.orders.as_fd()) {
            Ok(Some(order)) => order,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(report) = self.answer(order, fds) {
            wire::send(&self.orders, &report, &[])?;
        }
        Ok(true)
    }

    fn answer(&mut self, order: Order, fds: Vec<OwnedFd>) -> Option<Report> {
        match order {
            Order::Attach { device, config } => Some(match self.attach(device, &config, fds) {
                Ok(()) => Report::Attached { device, nodes: Nodes::new() },
                Err(why) => Report::Refused { device, why: why.to_owned() },
            }),
            Order::Connect { device, frontend } => Some(self.connect(device, &frontend)),
            Order::Disconnect { device } => {
                if let Some(channel) = self.channels.get_mut(&device) {
                    channel.connect(None);
                }
                Some(Report::Disconnected { device })
            }
            Order::Detach { device } => {
                self.channels.remove(&device);
                Some(Report::Detached { device })
            }
            Order::Client { device } => {
                if let Some(Channel { end: End::Sessions(sessions), .. }) =
                    self.channels.get_mut(&device)
                {
                    fds.into_iter().for_each(|socket| sessions.add(socket));
                }
                None
            }
            Order::Statistics => Some(Report::Statistics { devices: BTreeMap::new() }),
            Order::Guest(_)
            | Order::Refresh { .. }
            | Order::Resize { .. }
            | Order::Relink { .. }
            | Order::Retry => None,
        }
    }

    fn attach(
        &mut self,
        device: u32,
        config: &DeviceConfig,
        files: Vec<OwnedFd>,
    ) -> Result<(), &'static str> {
        let DeviceConfig::Channel(end) = config else {
            return Err("nothing but channels is served here");
        };
        if self.channels.len() >= MOST {
            return Err("a domain cannot have so many channels");
        }
        let mut files = files.into_iter();
        let mut file = || files.next().ok_or("the channel came without its descriptor");
        let end = match end {
            ChannelEnd::Agent => End::Sessions(Sessions::new(self.seed, Instant::now())),
            ChannelEnd::Socket => End::Stream(Stream::listening(file()?)),
            ChannelEnd::Terminal => End::Stream(Stream::terminal(file()?)),
        };
        self.channels.insert(device, Channel { ring: None, end });
        Ok(())
    }

    fn connect(&mut self, device: u32, frontend: &Nodes) -> Report {
        let refused = |why: String| Report::Refused { device, why };
        let Some(channel) = self.channels.get_mut(&device) else {
            return refused(format!("there is no channel {device}"));
        };
        channel.ring = None;
        let ring = Frontend::parse(frontend)
            .and_then(|frontend| Ring::connect(&self.guest, frontend))
            .map_err(|error| error.to_string());
        match ring {
            Ok(ring) => {
                channel.connect(Some(ring));
                Report::Connected { device, nodes: Nodes::new() }
            }
            Err(why) => refused(why),
        }
    }
}

impl Channel {
    /// The guest's frontend is there, or gone.
    fn connect(&mut self, ring: Option<Ring>) {
        if let End::Sessions(sessions) = &mut self.end {
            sessions.connected(ring.is_some());
        }
        self.ring = ring;
    }

    /// What the host's end is polled for, in the order of [`Self::attend`].
    fn poll_fds(&self) -> Vec<PollFd<'_>> {
        match &self.end {
            End::Sessions(sessions) => sessions.poll_fds().collect(),
            End::Stream(stream) => stream.poll_fds().collect(),
        }
    }

    fn attend(&mut self, ready: &[PollFlags]) {
        match &mut self.end {
            End::Sessions(sessions) => sessions.attend(ready, Instant::now()),
            End::Stream(stream) => stream.attend(ready),
        }
    }

    /// When to pump though nothing happened.
    fn next(&self) -> Option<Instant> {
        match &self.end {
            End::Sessions(sessions) => sessions.next(),
            End::Stream(_) => None,
        }
    }

    /// What the log is to say of what happened since the last time.
    fn remark(&mut self) -> Option<(LogLevel, &'static str)> {
        let (lost, repeated) = match &mut self.end {
            End::Sessions(sessions) => (sessions.has_lost(), sessions.has_repeated()),
            End::Stream(stream) => (stream.has_lost(), false),
        };
        match &self.end {
            End::Sessions(_) if lost => {
                Some((LogLevel::Warning, "a part of what the guest said was no frame, and is lost"))
            }
            End::Sessions(_) if repeated => Some((
                LogLevel::Info,
                "the guest lost a part of what it was sent, and has it again",
            )),
            End::Stream(_) if lost => {
                Some((LogLevel::Warning, "what the guest says is lost: nobody reads it"))
            }
            _ => None,
        }
    }

    /// Moves bytes; true if there is more to do at once.
    fn pump(&mut self) -> bool {
        (0..TURNS).all(|_| self.pump_once())
    }

    /// Moves bytes once; true if there were any for or from the guest.
    fn pump_once(&mut self) -> bool {
        let mut heard = Vec::new();
        let mut notify = self.ring.as_mut().is_some_and(|ring| ring.take(&mut heard));
        let now = Instant::now();
        match &mut self.end {
            End::Sessions(sessions) => {
                sessions.hear(&heard, now);
                sessions.pump(now);
            }
            End::Stream(stream) => {
                stream.hear(&heard);
                stream.pump();
            }
        }
        let Some(ring) = &mut self.ring else { return false };
        let sent = match &mut self.end {
            End::Sessions(sessions) => {
                let sent = ring.put(sessions.to_guest());
                sessions.sent(sent);
                sent
            }
            End::Stream(stream) => {
                let sent = ring.put(stream.to_guest());
                stream.sent(sent);
                sent
            }
        };
        notify |= sent > 0;
        if notify {
            ring.notify();
        }
        !heard.is_empty() || sent > 0
    }
}
