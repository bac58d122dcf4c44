//! The processes that serve devices: their orders and reports, and others in the place of those that died.

use super::{Manager, failure};
use crate::devices::News;
use crate::devices::backend::{self, Process};
use crate::devices::device::Phase;
use crate::devices::nodes::State;
use crate::devices::opened::{Class, Key};
use crate::devices::revival::Slot;
use control::{ErrorCode, Record, kill_point};
use devices::wire::{Order, Report};
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

impl<A> Manager<A> {
    /// Gives an order to a device's backend. If that is dead, this is found when its reports are
    /// looked at.
    pub(super) fn order(&self, key: Key, order: &Order) {
        if let Some(process) = self.process(key.0) {
            let _found_with_its_reports = process.order(order, &[]);
        }
    }

    pub(super) fn process(&self, class: Class) -> Option<&Process> {
        self.backends.get(class.backend() as usize).and_then(|slot| slot.process.as_ref())
    }

    /// Marks a point of a backend's: its names for disks, for interfaces, as far as they have it.
    pub(super) fn kill_backend(&self, class: Class, points: &[&'static str]) {
        if let Some(process) = self.process(class) {
            process.kill_backend(points, class.backend());
        }
    }

    fn slot(&mut self, class: Class) -> Option<&mut Slot> {
        self.backends.get_mut(class.backend() as usize)
    }

    /// Tells the backend of a device, which it opens.
    pub(super) fn attach(&mut self, key: Key) {
        let Some(device) = self.devices.get(&key) else { return };
        let Some(process) = self.process(key.0) else { return };
        let config = device.opened.config.clone();
        let fds: Vec<_> = device.opened.files.iter().map(AsFd::as_fd).collect();
        if let Err(error) = process.order(&Order::Attach { device: key.1, config }, &fds) {
            self.complain(key, &format!("its backend takes no orders: {error}"));
        }
        kill_point("devices.attach.ordered");
        self.kill_backend(key.0, &["xenblock.attach.ordered", "xennet.attach.ordered"]);
    }

    /// Starts the backend of a class, and tells it of all its devices.
    pub(super) fn revive(&mut self, class: Class) {
        let started = Process::start(class.backend(), &self.owner);
        let process = match started {
            Ok(process) => process,
            Err(error) => return self.give_up(class, &error.to_string()),
        };
        if let Some(slot) = self.slot(class) {
            slot.process = Some(process);
        }
        let keys: Vec<Key> = self.devices.keys().filter(|key| key.0 == class).copied().collect();
        for key in keys {
            self.set_phase(key, Phase::Attaching);
            self.attach(key);
        }
    }

    fn give_up(&mut self, class: Class, why: &str) {
        let message = format!("the domain's {} cannot be served", class.word());
        self.teller.log(Record::error(message).with("error", why));
        let keys: Vec<Key> = self.devices.keys().filter(|key| key.0 == class).copied().collect();
        for key in keys {
            let failure = failure(ErrorCode::Host, format!("No backend: {why}"));
            self.end_growth(key, Err(failure.clone()));
            self.answer(key, &Err(failure));
            self.fail(key, why);
        }
    }

    /// Nothing of devices that went is held any more.
    pub(super) fn let_go(&mut self, is_free: impl Fn(Key) -> bool) {
        self.away_are_free(&is_free);
        for (_, waiter) in self.going.extract_if(.., |(key, _)| is_free(*key)) {
            self.teller.tell(News::Answer(waiter.asker, Ok(())));
        }
    }

    /// Starts backends whose time has come.
    pub(super) fn revive_the_dead(&mut self) {
        let now = Instant::now();
        for class in Class::ALL {
            let Some(slot) = self.slot(class) else { continue };
            if slot.revival.is_some_and(|when| when <= now) {
                slot.revival = None;
                kill_point("devices.revival.due");
                self.revive(class);
                kill_point("devices.revival.done");
            }
        }
    }

    pub(super) fn take_reports(&mut self) {
        for class in Class::ALL {
            while let Some(process) = self.process(class) {
                match process.report() {
                    Ok(Some(report)) => self.report(class, report),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(None) => self.died(class, ""),
                    Err(error) => self.died(class, &format!(" after it said nonsense ({error})")),
                }
            }
        }
    }

    /// Logs what a backend said on standard error.
    fn repeat(&self, class: Class, said: Vec<String>) {
        let (program, _) = backend::program(class.backend());
        for line in said {
            self.teller.log(Record::warning(line).by(program));
        }
    }

    /// A backend is gone: another one takes its place, unless it dies all the time.
    fn died(&mut self, class: Class, how: &str) {
        let now = Instant::now();
        let Some(slot) = self.slot(class) else { return };
        let Some(process) = slot.process.take() else { return };
        let status = process.end();
        let pause = slot.died(now);
        self.repeat(class, process.said());
        self.teller.tell(News::Ended);
        let word = class.word();
        let message = format!("the backend of the domain's {word} ended{how}");
        let record = Record::warning(message).with("status", status);
        self.teller.log(if pause.is_zero() {
            record
        } else {
            record.with("pause", format!("{pause:?}"))
        });
        self.let_go(|key| key.0 == class);
        kill_point("devices.backend.mourned");
        self.mourn_growth(class);
        for device in self.devices.values_mut().filter(|device| device.opened.class == class) {
            match device.opened.support.renew() {
                Ok(Some(files)) => device.opened.files = files,
                Ok(None) => {}
                Err(error) => {
                    device.relinks.failed(now);
                    let name = &device.opened.name;
                    self.teller.log(Record::error(error.to_string()).with("device", name));
                }
            }
        }
    }

    fn report(&mut self, class: Class, report: Report) {
        match report {
            Report::Attached { device, nodes } => {
                // What it could not do while it started.
                let said = self.process(class).map(Process::said).unwrap_or_default();
                self.repeat(class, said);
                self.trace((class, device), "the backend has it");
                kill_point("devices.attach.told");
                self.kill_backend(class, &["xenblock.attach.told", "xennet.attach.told"]);
                self.attached((class, device), &nodes);
            }
            Report::Connected { device, nodes } => {
                self.trace((class, device), "connected");
                kill_point("devices.connect.told");
                self.kill_backend(class, &["xenblock.connect.told", "xennet.connect.told"]);
                self.connected((class, device), &nodes);
            }
            Report::Refused { device, why } => {
                let key = (class, device);
                let was = self.devices.get(&key).map(|device| device.phase);
                kill_point("devices.refused");
                self.end_growth(key, Err(failure(ErrorCode::Host, why.clone())));
                self.answer(key, &Err(failure(ErrorCode::Host, why.clone())));
                self.fail(key, &why);
                if was == Some(Phase::Attaching) && self.is_new(key) {
                    self.remove(key);
                }
            }
            Report::Broken { device, why } => {
                self.fail((class, device), &format!("the guest broke a rule: {why}"));
            }
            Report::Disconnected { device } => {
                let key = (class, device);
                self.trace(key, "disconnected");
                kill_point("devices.disconnect.told");
                self.kill_backend(class, &["xenblock.disconnect.told", "xennet.disconnect.told"]);
                if let Some(device) = self.devices.get_mut(&key) {
                    device.forget_frontend();
                }
                self.look(key);
            }
            Report::Changed { device, nodes } => {
                let key = (class, device);
                kill_point("devices.changed");
                if self.devices.get(&key).is_some_and(|d| d.phase == Phase::Connected) {
                    self.show(key, &nodes, State::Connected);
                }
            }
            Report::Resized { device, result } => self.resized((class, device), result),
            Report::Full { device, why } => {
                self.complain((class, device), &why);
                self.teller.tell(News::Full(why));
            }
            Report::Log { level, line } => {
                self.teller.log(Record::new(level, line).by(backend::program(class.backend()).0));
            }
            Report::Unlinked { device, why } => {
                let key = (class, device);
                self.complain(key, &why);
                if let Some(device) = self.devices.get_mut(&key) {
                    device.relinks.ask(Instant::now());
                }
            }
            Report::Detached { device } => {
                kill_point("devices.detach.told");
                self.kill_backend(class, &["xenblock.detach.told", "xennet.detach.told"]);
                self.let_go(|key| key == (class, device));
            }
            Report::Statistics { devices } => self.questions.answer(class, &devices),
        }
    }

    /// Gives network interfaces another way out whose time has come.
    pub(super) fn relink_all(&mut self) {
        let now = Instant::now();
        let due =
            self.devices.iter_mut().filter_map(|(key, d)| d.relinks.take(now).then_some(*key));
        for key in due.collect::<Vec<Key>>() {
            self.relink(key);
        }
    }

    fn relink(&mut self, key: Key) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        match device.opened.support.renew() {
            Ok(Some(files)) => {
                device.opened.files = files;
                device.relinks.succeeded();
                kill_point("devices.relinked");
            }
            Ok(None) => return,
            Err(error) => {
                device.relinks.failed(Instant::now());
                return self.complain(key, &format!("it has no way out now: {error}"));
            }
        }
        let (Some(device), Some(process)) = (self.devices.get(&key), self.process(key.0)) else {
            return;
        };
        let fds: Vec<_> = device.opened.files.iter().map(AsFd::as_fd).collect();
        let _found_with_its_reports = process.order(&Order::Relink { device: key.1 }, &fds);
    }
}
