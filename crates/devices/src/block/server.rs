//! All disks of a domain, and what the domain process wants of them.

use super::device::Device;
use super::engine::{Done, Engine, Means};
use super::queue::QueueError;
use crate::guest::Guest;
use crate::wire::{DeviceConfig, Order, Report};
use config::LogLevel;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Most disks of a domain.
const MOST_DEVICES: usize = 256;

/// The disks of a domain.
#[derive(Debug)]
pub struct Server {
    guest: Arc<Guest>,
    engine: Engine,
    devices: BTreeMap<u32, Device>,
    reports: Vec<Report>,
    done: Vec<Done>,
}

impl Server {
    /// None yet. Starts what does the work: before the process gives up its rights.
    ///
    /// # Errors
    /// When the host has no threads or memory left.
    pub fn new(guest: Arc<Guest>, means: Means) -> io::Result<Self> {
        Ok(Self {
            guest,
            engine: Engine::new(means)?,
            devices: BTreeMap::new(),
            reports: Vec::new(),
            done: Vec::new(),
        })
    }

    /// What its engine uses, for the log.
    pub fn means(&self) -> &'static str {
        self.engine.name()
    }

    /// Descriptors that can be read when there is something to do, besides the guest's bell.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.engine.fds()
    }

    /// What there is to tell.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Does what the domain process wants.
    pub fn order(&mut self, order: Order, files: Vec<OwnedFd>) {
        match order {
            Order::Guest(_) => self.log("a second guest was refused".into()),
            Order::Client { .. } => self.log("disks have no clients".into()),
            Order::Relink { .. } => self.log("disks have no links".into()),
            Order::Attach { device, config } => match self.attach(device, config, files) {
                Ok(report) => self.reports.push(report),
                Err(why) => self.reports.push(Report::Refused { device, why }),
            },
            Order::Connect { device, frontend } => {
                let answer = match self.devices.get_mut(&device) {
                    Some(found) => found.connect(&frontend, &mut self.engine),
                    None => Err("there is no such disk".into()),
                };
                self.reports.push(match answer {
                    Ok(nodes) => Report::Connected { device, nodes },
                    Err(why) => Report::Refused { device, why },
                });
            }
            Order::Disconnect { device } => {
                let report = Report::Disconnected { device };
                match self.devices.get_mut(&device) {
                    Some(found) => found.end(report),
                    None => self.reports.push(report),
                }
            }
            Order::Detach { device } => match self.devices.get_mut(&device) {
                Some(found) => {
                    found.end(Report::Detached { device });
                }
                None => self.reports.push(Report::Detached { device }),
            },
            Order::Refresh { device } => self.refresh(device),
            Order::Resize { device, bytes } => {
                let report = match self.devices.get_mut(&device) {
                    Some(found) => found.grow(bytes, &mut self.engine),
                    None => {
                        let result = Err("there is no such disk".into());
                        Some(Report::Resized { device, result })
                    }
                };
                self.reports.extend(report);
            }
            Order::Retry => {
                for device in self.devices.values_mut() {
                    device.retry(&mut self.engine);
                }
            }
            Order::Statistics => {
                let devices = self.devices.iter().map(|(number, d)| (*number, d.statistics()));
                let devices = devices.collect();
                self.reports.push(Report::Statistics { devices });
            }
        }
    }

    fn attach(
        &mut self,
        device: u32,
        config: DeviceConfig,
        files: Vec<OwnedFd>,
    ) -> Result<Report, String> {
        let DeviceConfig::Block(config) = config else {
            return Err("this is no disk".into());
        };
        if self.devices.contains_key(&device) {
            return Err("a disk with this number is there already".into());
        }
        if self.devices.len() >= MOST_DEVICES {
            return Err(format!("a domain can have {MOST_DEVICES} disks at most"));
        }
        let new = Device::attach(device, &self.guest, config, files)?;
        if new.is_condemned() {
            let why = "its image made the backend die again and again: it is not touched any more, \
                       and all requests fail ('qemu-img check' may tell what is wrong with it)";
            self.log(format!("disk {device}: {why}"));
        }
        let nodes = new.features();
        self.devices.insert(device, new);
        Ok(Report::Attached { device, nodes })
    }

    fn refresh(&mut self, device: u32) {
        match self.devices.get_mut(&device).map(Device::refresh) {
            Some(Ok(Some(nodes))) => self.reports.push(Report::Changed { device, nodes }),
            Some(Ok(None)) | None => {}
            Some(Err(error)) => {
                self.log(format!("disk {device}: the host does not tell its size: {error}"));
            }
        }
    }

    fn log(&mut self, line: String) {
        self.reports.push(Report::Log { level: LogLevel::Warning, line });
    }

    /// Does all that can be done now. Says whether there was anything.
    pub fn turn(&mut self) -> bool {
        let mut any = self.complete();
        any |= self.each(|device, engine| {
            device.begin_barrier(engine);
            device.take(engine)
        });
        self.engine.submit();
        // Much of it is done by now.
        any |= self.complete();
        for device in self.devices.values_mut() {
            device.publish();
        }
        self.end_devices();
        any
    }

    /// True if requests wait that can be taken, or jobs are done: asked while the guest is likely to
    /// have more.
    pub fn has_work(&mut self) -> bool {
        self.engine.take_done(&mut self.done);
        !self.done.is_empty() || self.each(|device, _| device.has_work())
    }

    /// Asks the guest to notify us of requests; true if one came meanwhile, or if the host has not taken
    /// all jobs: nothing would wake us for them.
    pub fn rest(&mut self) -> bool {
        self.each(|device, _| device.rest()) || self.engine.has_unsubmitted()
    }

    fn complete(&mut self) -> bool {
        self.engine.take_done(&mut self.done);
        let any = !self.done.is_empty();
        for done in self.done.drain(..) {
            let number = (done.key >> 32) as u32;
            if let Some(device) = self.devices.get_mut(&number) {
                self.reports.extend(device.complete(done, &mut self.engine));
            }
        }
        any
    }

    /// Does something with each disk, and ends those whose frontends broke a rule by it.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut Device, &mut Engine) -> Result<bool, QueueError>,
    ) -> bool {
        let mut any = false;
        for (number, device) in &mut self.devices {
            match act(device, &mut self.engine) {
                Ok(did) => any |= did,
                Err(error) => {
                    any = true;
                    device.end(Report::Broken { device: *number, why: error.to_string() });
                }
            }
        }
        any
    }

    fn end_devices(&mut self) {
        self.devices.retain(|_, device| {
            let ended = device.ended();
            let goes = ended.iter().any(|report| matches!(report, Report::Detached { .. }));
            self.reports.extend(ended);
            !goes
        });
    }
}
