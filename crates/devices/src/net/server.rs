//! The loop of the backend: orders, the guest's notifications, links, time.

use super::device::{Device, Stop};
use super::frontend::{Frontend, advertised};
use super::rules;
use crate::guest::Guest;
use crate::jail;
use crate::wire::{self, DeviceConfig, NetConfig, Nodes, Order, Report};
use config::LogLevel;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All interfaces of a domain.
#[derive(Debug)]
pub struct Server {
    orders: OwnedFd,
    guest: Arc<Guest>,
    devices: BTreeMap<u32, (NetConfig, Device)>,
    /// The guest has another processor to work on meanwhile.
    can_stay_awake: bool,
}

/// How long the answer of a guest is waited for awake that was idle when a packet came. Being woken
/// costs as much; a guest that is at work needs the processor itself.
const AWAKE: Duration = Duration::from_micros(60);

/// A guest that is still idle so long after it was woken waits for our processor, or for one that takes so
/// long to wake that its answer would come later than [`AWAKE`] (docs/performance.md, ping).
const STARTS: Duration = Duration::from_micros(15);

/// How long a guest at work may take to see by itself that there are packets, while there are more.
const PATIENCE: Duration = Duration::from_micros(20);

/// How the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// There is more to do at once.
    GoOn,
    /// There is nothing to do.
    Wait,
    /// The other side of the orders is gone.
    End,
}

/// What woke the loop.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    orders: bool,
    bell: bool,
    link: bool,
}

impl Server {
    /// Serves `guest` as told over `orders`, a socket of packets. To be made before the jail closes.
    pub fn new(orders: OwnedFd, guest: Arc<Guest>) -> Self {
        let can_stay_awake = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        Self { orders, guest, devices: BTreeMap::new(), can_stay_awake }
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
        let mut woke_guest = None;
        let mut next = Next::Wait;
        loop {
            let awake = woke_guest.is_some_and(|since| self.expects_answer(since));
            let woken = self.wait(next == Next::GoOn || awake)?;
            let wakes_guest = woken.link && self.guest.is_idle();
            next = self.serve(woken)?;
            if wakes_guest {
                woke_guest = Some(Instant::now());
            }
            if next == Next::End {
                return Ok(());
            }
        }
    }

    /// Will a guest that was woken then answer soon, while we stay awake?
    fn expects_answer(&self, since: Instant) -> bool {
        let limit = if self.guest.is_idle() { STARTS } else { AWAKE };
        self.can_stay_awake && since.elapsed() < limit
    }

    /// One turn of the loop, without waiting.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn turn(&mut self) -> io::Result<()> {
        let woken = self.wait(true)?;
        self.serve(woken).map(drop)
    }

    fn serve(&mut self, woken: Woken) -> io::Result<Next> {
        if woken.bell {
            self.guest.clear_bell();
        }
        if woken.orders && !self.obey()? {
            return Ok(Next::End);
        }
        Ok(if self.pump_all()? { Next::GoOn } else { Next::Wait })
    }

    /// Waits for something to do, or just looks, if `busy`.
    fn wait(&self, busy: bool) -> io::Result<Woken> {
        self.guest.pay(if busy { PATIENCE } else { Duration::ZERO });
        let mut fds = vec![
            PollFd::new(&self.orders, PollFlags::IN),
            PollFd::from_borrowed_fd(self.guest.bell(), PollFlags::IN),
        ];
        let mut deadline = None;
        for (_, device) in self.devices.values() {
            let (link, time) = device.waits_for();
            fds.extend(link.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
            deadline = deadline.into_iter().chain(time).min();
        }
        let timeout = match (busy, deadline) {
            (true, _) => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
            (false, Some(time)) => {
                let left = time.saturating_duration_since(Instant::now());
                Timespec::try_from(left).ok()
            }
            (false, None) => None,
        };
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |number: usize| fds.get(number).is_some_and(|fd| !fd.revents().is_empty());
        let link = (2..fds.len()).any(ready);
        Ok(Woken { orders: ready(0), bell: ready(1), link })
    }

    /// Moves packets of all interfaces; true if there is more to do at once.
    fn pump_all(&mut self) -> io::Result<bool> {
        let mut busy = false;
        let mut reports = Vec::new();
        for (&device, (_, interface)) in &mut self.devices {
            let more = interface.pump(&self.guest);
            if let Some(news) = interface.news() {
                reports.push(Report::Log {
                    level: LogLevel::Warning,
                    line: format!("vif {device}: {news}"),
                });
            }
            let more = match more {
                Ok(false) => interface.rest().map_err(Stop::from),
                other => other,
            };
            match more {
                Ok(more) => busy |= more,
                Err(Stop::Violation(violation)) => {
                    interface.disconnect();
                    reports.push(Report::Broken { device, why: violation.to_string() });
                }
                Err(Stop::Link(error)) => {
                    interface.unlink();
                    // What the guest has sent meanwhile is answered without a link.
                    busy = true;
                    reports.push(Report::Unlinked { device, why: error.to_string() });
                }
            }
        }
        for report in &reports {
            self.report(report)?;
        }
        Ok(busy)
    }

    fn report(&self, report: &Report) -> io::Result<()> {
        wire::send(&self.orders, report, &[])
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
            self.report(&report)?;
        }
        Ok(true)
    }

    fn answer(&mut self, order: Order, fds: Vec<OwnedFd>) -> Option<Report> {
        match order {
            Order::Attach { device, config: DeviceConfig::Net(config) } => {
                Some(self.attach(device, config, fds))
            }
            Order::Attach { device, .. } => {
                Some(Report::Refused { device, why: "it is no network interface".to_owned() })
            }
            Order::Connect { device, frontend } => Some(self.connect(device, &frontend)),
            Order::Disconnect { device } => {
                if let Some((_, interface)) = self.devices.get_mut(&device) {
                    interface.disconnect();
                }
                Some(Report::Disconnected { device })
            }
            Order::Detach { device } => {
                self.devices.remove(&device);
                Some(Report::Detached { device })
            }
            Order::Relink { device } => self.relink(device, fds),
            Order::Statistics => {
                let devices = self.devices.iter();
                let devices = devices.map(|(number, (_, device))| (*number, device.statistics()));
                Some(Report::Statistics { devices: devices.collect() })
            }
            Order::Guest(_)
            | Order::Refresh { .. }
            | Order::Resize { .. }
            | Order::Client { .. }
            | Order::Retry => None,
        }
    }

    fn attach(&mut self, device: u32, config: NetConfig, fds: Vec<OwnedFd>) -> Report {
        match Device::new(&config, fds) {
            Ok(interface) => {
                self.devices.insert(device, (config, interface));
                Report::Attached { device, nodes: advertised() }
            }
            Err(error) => Report::Refused { device, why: error.to_string() },
        }
    }

    fn connect(&mut self, device: u32, frontend: &Nodes) -> Report {
        let refused = |why: String| Report::Refused { device, why };
        let Some((_, interface)) = self.devices.get_mut(&device) else {
            return refused(format!("there is no network interface {device}"));
        };
        let connected =
            Frontend::parse(frontend).map_err(|error| error.to_string()).and_then(|frontend| {
                interface.connect(&self.guest, &frontend).map_err(|error| error.to_string())
            });
        match connected {
            Ok(()) => Report::Connected { device, nodes: Nodes::new() },
            Err(why) => refused(why),
        }
    }

    fn relink(&mut self, device: u32, fds: Vec<OwnedFd>) -> Option<Report> {
        let (config, interface) = self.devices.get_mut(&device)?;
        let error = interface.relink(config, fds).err()?;
        Some(Report::Unlinked { device, why: error.to_string() })
    }
}
