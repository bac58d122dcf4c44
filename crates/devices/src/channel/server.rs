//! The loop of `xenchannel`: orders of the domain process, the ring, tools.

use super::ring::{Frontend, Ring};
use super::rules;
use super::sessions::Sessions;
use crate::guest::Guest;
use crate::jail;
use crate::wire::{self, DeviceConfig, Nodes, Order, Report};
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

/// The channel of a domain, once there is one.
#[derive(Debug)]
struct Channel {
    number: u32,
    ring: Option<Ring>,
    sessions: Sessions,
}

/// All that the process serves.
#[derive(Debug)]
pub struct Server {
    orders: OwnedFd,
    guest: Arc<Guest>,
    seed: u64,
    channel: Option<Channel>,
}

impl Server {
    /// Serves `guest` as told over `orders`, a socket of packets. To be made before the jail closes.
    pub fn new(orders: OwnedFd, guest: Arc<Guest>) -> Self {
        // The standard library seeds these at random.
        let seed = RandomState::new().hash_one(0);
        Self { orders, guest, seed, channel: None }
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
            if let Some(channel) = &mut self.channel {
                channel.sessions.attend(ready.get(2..).unwrap_or_default());
            }
            let has_orders = ready.first().is_some_and(|flags| !flags.is_empty());
            if has_orders && !self.obey()? {
                return Ok(());
            }
            busy = self.channel.as_mut().is_some_and(Channel::pump);
        }
    }

    fn wait(&self, busy: bool) -> io::Result<Vec<PollFlags>> {
        self.guest.pay(Duration::ZERO);
        let mut fds = vec![
            PollFd::new(&self.orders, PollFlags::IN),
            PollFd::from_borrowed_fd(self.guest.bell(), PollFlags::IN),
        ];
        let mut timeout = None;
        if let Some(channel) = &self.channel {
            fds.extend(channel.sessions.poll_fds());
            let left = |next: Instant| next.saturating_duration_since(Instant::now());
            timeout = channel.sessions.next().and_then(|next| Timespec::try_from(left(next)).ok());
        }
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
            Order::Attach { device, config: DeviceConfig::Channel } if self.channel.is_none() => {
                let sessions = Sessions::new(self.seed, Instant::now());
                self.channel = Some(Channel { number: device, ring: None, sessions });
                Some(Report::Attached { device, nodes: Nodes::new() })
            }
            Order::Attach { device, .. } => {
                let why = "a domain has one channel, and nothing else is served here".to_owned();
                Some(Report::Refused { device, why })
            }
            Order::Connect { device, frontend } => Some(self.connect(device, &frontend)),
            Order::Disconnect { device } => {
                if let Some(channel) = self.channel.as_mut().filter(|c| c.number == device) {
                    channel.ring = None;
                    channel.sessions.connected(false);
                }
                Some(Report::Disconnected { device })
            }
            Order::Detach { device } => {
                self.channel.take_if(|channel| channel.number == device);
                Some(Report::Detached { device })
            }
            Order::Client { device } => {
                let channel = self.channel.as_mut().filter(|channel| channel.number == device)?;
                fds.into_iter().for_each(|socket| channel.sessions.add(socket));
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

    fn connect(&mut self, device: u32, frontend: &Nodes) -> Report {
        let refused = |why: String| Report::Refused { device, why };
        let Some(channel) = self.channel.as_mut().filter(|channel| channel.number == device) else {
            return refused(format!("there is no channel {device}"));
        };
        channel.ring = None;
        let ring = Frontend::parse(frontend)
            .and_then(|frontend| Ring::connect(&self.guest, frontend))
            .map_err(|error| error.to_string());
        match ring {
            Ok(ring) => {
                channel.ring = Some(ring);
                channel.sessions.connected(true);
                Report::Connected { device, nodes: Nodes::new() }
            }
            Err(why) => refused(why),
        }
    }
}

impl Channel {
    /// Moves bytes; true if there is more to do at once.
    fn pump(&mut self) -> bool {
        for _ in 0..TURNS {
            let now = Instant::now();
            let Some(ring) = &mut self.ring else {
                self.sessions.pump(now);
                return false;
            };
            let mut heard = Vec::new();
            let mut notify = ring.take(&mut heard);
            self.sessions.hear(&heard, now);
            self.sessions.pump(now);
            let sent = ring.put(self.sessions.to_guest());
            self.sessions.sent(sent);
            notify |= sent > 0;
            if notify {
                ring.notify();
            }
            if heard.is_empty() && sent == 0 {
                return false;
            }
        }
        true
    }
}
