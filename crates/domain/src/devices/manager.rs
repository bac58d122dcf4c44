//! The devices' thread: follows frontends, gives orders to backends, starts those anew that died.

mod medium;

use super::backend::{self, Process};
use super::channel;
use super::device::{Device, Phase, Step, Waiter};
use super::events::{Concerned, Looks, concerned};
use super::nodes::{Place, State};
use super::opened::{Class, Key, Opened};
use super::revival::Slot;
use super::statistics::Questions;
use super::{News, Owner, Teller, Wish};
use boundary::Backend;
use control::xenstore::{StoreClient, StoreError, Transaction};
use control::{ErrorCode, Failure, Record, kill_point};
use devices::wire::{BlockFormat, DeviceConfig, Nodes, Order, Report};
use medium::Away;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How long a guest may take to let go of a device.
/// Below the patience of tools.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same for a device that goes in any case. A guest that sees it close ends its requests; one from
/// which it is just taken waits for answers for ever.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before the store is reached for again.
const STORE_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait without a look.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub(super) struct Manager<A> {
    owner: Owner,
    wishes: Receiver<Wish<A>>,
    wake: Arc<OwnedFd>,
    teller: Teller<A>,
    /// The connection that brings events of frontends' nodes.
    store: Option<StoreClient>,
    devices: BTreeMap<Key, Device<A>>,
    looks: Looks,
    /// Devices that went, but of which the backend may still hold something.
    going: Vec<(Key, Waiter<A>)>,
    /// Drives that are away for another medium.
    away: Vec<Away<A>>,
    questions: Questions<A>,
    backends: [Slot; Backend::COUNT],
    ended: bool,
}

fn failure(code: ErrorCode, message: String) -> Failure {
    Failure::new(code, message)
}

fn no_such_device((class, number): Key) -> Failure {
    let list = match class {
        Class::Vbd => "block-list",
        Class::Vif => "network-list",
        Class::Channel => "channel-list",
    };
    let message = format!("The domain has no {} {number}", class.word());
    failure(ErrorCode::NotFound, message).with_hint(format!("'xm {list}' shows those it has."))
}

/// A qcow2 image's size is in its header, which nobody else may write while the domain has its lock.
fn has_a_size_to_look_at(disk: &Opened) -> Result<(), Failure> {
    match &disk.config {
        DeviceConfig::Block(config) if config.format == BlockFormat::Qcow2 => {
            let message = format!("{}: a qcow2 image cannot grow while it is in use", disk.name);
            let hint = "Detach the disk (xm block-detach) or shut the domain down, resize the \
                        image ('qemu-img resize'), and attach it again.";
            Err(failure(ErrorCode::NotSupported, message).with_hint(hint))
        }
        _ => Ok(()),
    }
}

impl<A> Manager<A> {
    pub(super) fn new(
        owner: Owner,
        wishes: Receiver<Wish<A>>,
        wake: Arc<OwnedFd>,
        teller: Teller<A>,
    ) -> Self {
        Self {
            owner,
            wishes,
            wake,
            teller,
            store: None,
            devices: BTreeMap::new(),
            looks: Looks::new(Instant::now()),
            going: Vec::new(),
            away: Vec::new(),
            questions: Questions::new(),
            backends: std::array::from_fn(|_| Slot::default()),
            ended: false,
        }
    }

    /// Writes the nodes of the first devices.
    pub(super) fn introduce(&mut self, opened: Vec<Opened>) -> Result<(), Failure> {
        for opened in opened {
            self.bring_in(opened)?;
        }
        Ok(())
    }

    fn bring_in(&mut self, opened: Opened) -> Result<Key, Failure> {
        let key = (opened.class, opened.number);
        let name = &opened.name;
        if self.devices.contains_key(&key) || self.is_away(key) {
            let message = format!("The domain has a device {name} already");
            return Err(failure(ErrorCode::Busy, message));
        }
        let place = Place::new(self.owner.domid, key.0, key.1);
        let domid = self.owner.domid;
        self.change(|to| place.create(to, domid, &opened)).map_err(|error| {
            let message = format!("Cannot write the nodes of {name}: {error}");
            failure(ErrorCode::Host, message)
        })?;
        kill_point("devices.nodes-written");
        for warning in &opened.warnings {
            self.teller.log(Record::warning(warning).with("device", &opened.name));
        }
        self.devices.insert(key, Device::new(opened, place));
        Ok(key)
    }

    /// A transaction on the store, given again if the store dies meanwhile.
    fn change(
        &self,
        change: impl FnMut(&mut Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        StoreClient::at_once(&self.owner.dirs, change)
    }

    /// Serves until the end.
    pub(super) fn run(mut self) {
        for class in Class::ALL {
            if self.devices.keys().any(|key| key.0 == class) {
                self.revive(class);
            }
        }
        while !self.ended {
            self.follow_store();
            self.look_where_asked();
            self.wait();
            self.take_reports();
            self.revive_the_dead();
            self.relink_all();
            self.take_wishes();
            self.look_at_clock();
            self.bring_back();
            self.look_whether_noticed();
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let going = self.going.iter().map(|(_, waiter)| waiter);
        let waiters =
            self.devices.values().filter_map(|device| device.waiter.as_ref()).chain(going);
        let revivals = self.backends.iter().filter_map(|slot| slot.revival);
        let relinks = self.devices.values().filter_map(|device| device.relinks.due);
        let next = waiters.map(|waiter| waiter.until).chain(revivals).chain(relinks);
        let next = next.chain(self.questions.next()).chain(self.next_medium()).min();
        let mut longest =
            next.map_or(LONGEST_WAIT, |next| next.saturating_duration_since(now)).min(LONGEST_WAIT);
        longest = longest.min(self.looks.wait().unwrap_or(LONGEST_WAIT));
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        match &self.store {
            Some(store) => fds.push(PollFd::new(store, PollFlags::IN)),
            None if self.devices.is_empty() => {}
            None => longest = longest.min(STORE_PAUSE),
        }
        let processes = self.backends.iter().filter_map(|slot| slot.process.as_ref());
        fds.extend(processes.map(|process| PollFd::new(process, PollFlags::IN)));
        let timeout = Timespec::try_from(longest + Duration::from_millis(1)).ok();
        let _looked_at_in_any_case = poll(&mut fds, timeout.as_ref());
    }

    /// Takes events from the store; connects to it (anew) if need be.
    fn follow_store(&mut self) {
        if self.devices.is_empty() {
            self.store = None;
            return;
        }
        if self.store.is_none() {
            let home = format!("/local/domain/{}/device", self.owner.domid);
            let connected = StoreClient::connect(&self.owner.dirs);
            let watched = connected.and_then(|mut store| {
                store.watch(&home, "device")?;
                Ok(store)
            });
            match watched {
                Ok(store) => self.store = Some(store),
                Err(_) => return,
            }
        }
        let Some(store) = &mut self.store else { return };
        let events = match store.take_events() {
            Ok(events) => events,
            Err(_) => {
                self.store = None;
                return;
            }
        };
        for event in events {
            match concerned(&event.path) {
                Concerned::All => self.devices.keys().for_each(|key| self.looks.ask(*key)),
                Concerned::One(key) if self.devices.contains_key(&key) => self.looks.ask(key),
                Concerned::One(_) | Concerned::None => {}
            }
        }
    }

    fn look_where_asked(&mut self) {
        while let Some(key) = self.looks.next(Instant::now()) {
            self.look(key);
        }
    }

    /// Looks at a frontend's state and does what follows.
    fn look(&mut self, key: Key) {
        let Some(device) = self.devices.get(&key) else { return };
        let place = device.place.clone();
        let dirs = self.owner.dirs.clone();
        let state = StoreClient::order(&dirs, |client| place.frontend_state(&mut client.direct()));
        let state = match state {
            Ok(state) => state,
            Err(error) => return self.complain(key, &format!("its state cannot be read: {error}")),
        };
        match device.step(state) {
            Step::Stay if state == State::Connected && device.phase == Phase::Connected => {
                self.is_taken(key);
            }
            Step::Stay => {}
            Step::Connect => self.connect(key),
            Step::Disconnect => {
                self.set_phase(key, Phase::Disconnecting(state));
                self.order(key, &Order::Disconnect { device: key.1 });
                kill_point("devices.disconnect.ordered");
                self.kill_backend(
                    key.0,
                    ["xenblock.disconnect.ordered", "xennet.disconnect.ordered"],
                );
            }
            Step::Show(state) => {
                let waits = state == State::InitWait;
                self.set_phase(key, if waits { Phase::Waiting } else { Phase::Closed });
                self.show(key, &Nodes::new(), state);
                kill_point("devices.state-shown");
            }
            Step::Remove => self.remove(key),
        }
    }

    fn connect(&mut self, key: Key) {
        let Some(device) = self.devices.get(&key) else { return };
        let place = device.place.clone();
        let dirs = self.owner.dirs.clone();
        let read = StoreClient::order(&dirs, |client| place.frontend_nodes(&mut client.direct()));
        match read {
            Ok(nodes) => self.hand_over(key, nodes),
            Err(error) => self.complain(key, &format!("its nodes cannot be read: {error}")),
        }
    }

    /// Gives a frontend's nodes to its backend. The guest chose their size: what is too long for an
    /// order is refused here, as the backend will never answer it.
    fn hand_over(&mut self, key: Key, nodes: Nodes) {
        if let Some(device) = self.devices.get_mut(&key) {
            device.frontend.clone_from(&nodes);
            device.phase = Phase::Connecting;
        }
        let order = Order::Connect { device: key.1, frontend: nodes };
        let sent = self.process(key.0).map_or(Ok(()), |process| process.order(&order, &[]));
        kill_point("devices.connect.ordered");
        self.kill_backend(key.0, ["xenblock.connect.ordered", "xennet.connect.ordered"]);
        if sent.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput) {
            self.fail(key, "the frontend wrote more nodes than a device has use for");
        }
    }

    fn set_phase(&mut self, key: Key, phase: Phase) {
        if let Some(device) = self.devices.get_mut(&key) {
            device.phase = phase;
        }
    }

    /// Shows the guest a state of the backend's.
    fn show(&self, key: Key, nodes: &Nodes, state: State) {
        let Some(device) = self.devices.get(&key) else { return };
        if let Err(error) = self.change(|to| device.place.advance(to, nodes, state)) {
            self.complain(key, &format!("its state cannot be written: {error}"));
        }
    }

    fn complain(&self, key: Key, what: &str) {
        self.teller.log(Record::warning(what).with("device", self.name_of(key)));
    }

    /// For who looks for a fault.
    fn trace(&self, key: Key, what: &str) {
        self.teller.log(Record::debug(what).with("device", self.name_of(key)));
    }

    fn name_of(&self, key: Key) -> &str {
        self.devices.get(&key).map_or("a device", |device| &device.opened.name)
    }

    /// Gives an order to a device's backend. If that is dead, this is found when its reports are
    /// looked at.
    fn order(&self, key: Key, order: &Order) {
        if let Some(process) = self.process(key.0) {
            let _found_with_its_reports = process.order(order, &[]);
        }
    }

    fn process(&self, class: Class) -> Option<&Process> {
        self.backends.get(class.backend() as usize).and_then(|slot| slot.process.as_ref())
    }

    /// Marks a point of a backend's: its names for disks and for interfaces; channels have none.
    fn kill_backend(&self, class: Class, points: [&'static str; 2]) {
        if let Some(process) = self.process(class) {
            process.kill_backend(points, class.backend());
        }
    }

    fn slot(&mut self, class: Class) -> Option<&mut Slot> {
        self.backends.get_mut(class.backend() as usize)
    }

    /// Tells the backend of a device, which it opens.
    fn attach(&mut self, key: Key) {
        let Some(device) = self.devices.get(&key) else { return };
        let Some(process) = self.process(key.0) else { return };
        let config = device.opened.config.clone();
        let fds: Vec<_> = device.opened.files.iter().map(AsFd::as_fd).collect();
        if let Err(error) = process.order(&Order::Attach { device: key.1, config }, &fds) {
            self.complain(key, &format!("its backend takes no orders: {error}"));
        }
        kill_point("devices.attach.ordered");
        self.kill_backend(key.0, ["xenblock.attach.ordered", "xennet.attach.ordered"]);
    }

    /// Starts the backend of a class, and tells it of all its devices.
    fn revive(&mut self, class: Class) {
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
            self.answer(key, Err(failure(ErrorCode::Host, format!("No backend: {why}"))));
            self.fail(key, why);
        }
    }

    /// A device cannot be used: the guest is told so.
    fn fail(&mut self, key: Key, why: &str) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        device.forget_frontend();
        self.complain(key, why);
        self.show(key, &Nodes::from([("error".into(), why.into())]), State::Closing);
    }

    fn answer(&mut self, key: Key, answer: Result<(), Failure>) {
        let waiter = self.devices.get_mut(&key).and_then(|device| device.waiter.take());
        if let Some(waiter) = waiter {
            self.teller.tell(News::Answer(waiter.asker, answer));
        }
    }

    /// The guest has let go of a device, or is not asked.
    fn remove(&mut self, key: Key) {
        self.order(key, &Order::Detach { device: key.1 });
        kill_point("devices.detach.ordered");
        self.kill_backend(key.0, ["xenblock.detach.ordered", "xennet.detach.ordered"]);
        let Some(device) = self.devices.remove(&key) else { return };
        if let Err(error) = self.change(|to| device.place.remove(to)) {
            let record = Record::warning("its nodes are left over").with("error", error);
            self.teller.log(record.with("device", &device.opened.name));
        }
        kill_point("devices.detach.nodes-removed");
        if device.comes_again() {
            return self.goes_away(key, device);
        }
        self.teller.log(Record::info("detached").with("device", &device.opened.name));
        // Who asked may want the image or the address at once, which the backend still has.
        let until = Instant::now() + LITTLE_PATIENCE;
        self.going.extend(device.waiter.map(|waiter| (key, Waiter { until, ..waiter })));
        if self.process(key.0).is_none() {
            self.let_go(|other| other == key);
        }
    }

    /// Nothing of devices that went is held any more.
    fn let_go(&mut self, is_free: impl Fn(Key) -> bool) {
        self.away_are_free(&is_free);
        for (_, waiter) in self.going.extract_if(.., |(key, _)| is_free(*key)) {
            self.teller.tell(News::Answer(waiter.asker, Ok(())));
        }
    }

    /// Starts backends whose time has come.
    fn revive_the_dead(&mut self) {
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

    fn take_reports(&mut self) {
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
                self.kill_backend(class, ["xenblock.attach.told", "xennet.attach.told"]);
                self.attached((class, device), &nodes);
            }
            Report::Connected { device, nodes } => {
                self.trace((class, device), "connected");
                kill_point("devices.connect.told");
                self.kill_backend(class, ["xenblock.connect.told", "xennet.connect.told"]);
                self.connected((class, device), &nodes);
            }
            Report::Refused { device, why } => {
                let key = (class, device);
                let was = self.devices.get(&key).map(|device| device.phase);
                kill_point("devices.refused");
                self.answer(key, Err(failure(ErrorCode::Host, why.clone())));
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
                self.kill_backend(class, ["xenblock.disconnect.told", "xennet.disconnect.told"]);
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
                self.kill_backend(class, ["xenblock.detach.told", "xennet.detach.told"]);
                self.let_go(|key| key == (class, device));
            }
            Report::Statistics { devices } => self.questions.answer(class, &devices),
        }
    }

    /// Gives network interfaces another way out whose time has come.
    fn relink_all(&mut self) {
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

    /// Whether the guest has not seen the device yet.
    fn is_new(&self, key: Key) -> bool {
        self.devices.get(&key).is_some_and(|device| !device.shown)
    }

    fn attached(&mut self, key: Key, nodes: &Nodes) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        if !device.frontend.is_empty() {
            // Another process served it before: the guest is not to notice.
            device.phase = Phase::Connecting;
            let frontend = device.frontend.clone();
            return self.order(key, &Order::Connect { device: key.1, frontend });
        }
        let state = if device.shown { State::Closed } else { State::InitWait };
        device.phase = if device.shown { Phase::Closed } else { Phase::Waiting };
        device.shown = true;
        if state == State::InitWait {
            self.show(key, nodes, state);
            kill_point("devices.attach.shown");
            if !self.has_come(key) {
                self.answer(key, Ok(()));
            }
        }
        self.look(key);
    }

    fn connected(&mut self, key: Key, nodes: &Nodes) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        device.phase = Phase::Connected;
        if !std::mem::replace(&mut device.connected, true) {
            self.show(key, nodes, State::Connected);
            kill_point("devices.connect.shown");
        }
        self.look(key);
    }

    fn take_wishes(&mut self) {
        let mut count = [0; 8];
        let _was_clear = rustix::io::read(&*self.wake, &mut count);
        while let Ok(wish) = self.wishes.try_recv() {
            match wish {
                Wish::Attach(opened, asker) => self.wish_attach(*opened, asker),
                Wish::Detach { class, number, force, asker } => {
                    self.wish_detach((class, number), force, asker);
                }
                Wish::Change { opened, disk, asker } => self.wish_change(*opened, disk, asker),
                Wish::Refresh { number, asker } => {
                    let key = (Class::Vbd, number);
                    let answer = match self.devices.get(&key) {
                        Some(device) => has_a_size_to_look_at(&device.opened),
                        None => Err(no_such_device(key)),
                    };
                    if answer.is_ok() {
                        self.order(key, &Order::Refresh { device: number });
                        kill_point("devices.refresh.ordered");
                    }
                    self.teller.tell(News::Answer(asker, answer));
                }
                Wish::Retry => {
                    if let Some(process) = self.process(Class::Vbd) {
                        let _found_with_its_reports = process.order(&Order::Retry, &[]);
                    }
                }
                Wish::Talk(asker) => {
                    let news = match self.wish_talk() {
                        Ok(socket) => News::Channel(asker, socket),
                        Err(failure) => News::Answer(asker, Err(failure)),
                    };
                    self.teller.tell(news);
                }
                Wish::Count(asker) => self.wish_count(asker),
                Wish::End => self.ended = true,
            }
        }
    }

    fn wish_count(&mut self, asker: A) {
        let asked = |class: &Class| {
            let process = self.process(*class);
            process.is_some_and(|process| process.order(&Order::Statistics, &[]).is_ok())
        };
        let missing = [Class::Vbd, Class::Vif].into_iter().filter(asked).collect();
        kill_point("devices.count.ordered");
        self.questions.ask(asker, self.devices.keys().copied(), missing);
    }

    /// A socket to the guest's agent.
    fn wish_talk(&mut self) -> Result<OwnedFd, Failure> {
        let host = |why: String| failure(ErrorCode::Host, format!("No channel: {why}"));
        let class = channel::KEY.0;
        backend::find(class.backend()).map_err(|error| host(error.to_string()))?;
        if !self.devices.contains_key(&channel::KEY) {
            self.bring_in(channel::device())?;
        }
        if self.process(class).is_none() {
            self.revive(class);
        }
        let process = self.process(class).ok_or_else(|| {
            host("its process does not start; the domain's log says why".to_owned())
        })?;
        let (ours, theirs) = channel::sockets().map_err(|error| host(error.to_string()))?;
        let order = Order::Client { device: channel::KEY.1 };
        process.order(&order, &[theirs.as_fd()]).map_err(|error| host(error.to_string()))?;
        Ok(ours)
    }

    fn wish_attach(&mut self, opened: Opened, asker: A) {
        let class = opened.class;
        let key = match self.bring_in(opened) {
            Ok(key) => key,
            Err(failure) => return self.teller.tell(News::Answer(asker, Err(failure))),
        };
        if let Some(device) = self.devices.get_mut(&key) {
            device.waiter = Some(Waiter { asker, until: Instant::now() + PATIENCE });
        }
        if self.process(class).is_some() { self.attach(key) } else { self.revive(class) }
    }

    fn wish_detach(&mut self, key: Key, force: bool, asker: A) {
        let is_busy = self.is_away(key).then(|| self.busy(key));
        let Some(device) = self.devices.get_mut(&key) else {
            let failure = is_busy.unwrap_or_else(|| no_such_device(key));
            return self.teller.tell(News::Answer(asker, Err(failure)));
        };
        (device.leaving, device.forced) = (true, force);
        (device.successor, device.presented) = (None, None);
        let patience = if force { LITTLE_PATIENCE } else { PATIENCE };
        device.waiter = Some(Waiter { asker, until: Instant::now() + patience });
        self.show(key, &Nodes::from([("online".into(), "0".into())]), State::Closing);
        kill_point("devices.detach.shown");
        self.look(key);
    }

    /// Tells those who waited for too long.
    fn look_at_clock(&mut self) {
        let now = Instant::now();
        for (_, waiter) in self.going.extract_if(.., |(_, waiter)| waiter.until <= now) {
            self.teller.tell(News::Answer(waiter.asker, Ok(())));
        }
        for (asker, counters) in self.questions.done(now) {
            self.teller.tell(News::Counters(asker, counters));
        }
        let late = |device: &Device<A>| device.waiter.as_ref().is_some_and(|w| w.until <= now);
        let keys: Vec<Key> =
            self.devices.iter().filter(|(_, device)| late(device)).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(device) = self.devices.get(&key) else { continue };
            if device.forced {
                kill_point("devices.detach.forced");
                self.remove(key);
                continue;
            }
            if device.leaving && device.comes_again() {
                self.call_off(key);
                continue;
            }
            let name = &device.opened.name;
            let answer = if device.leaving {
                let message = format!("The guest does not let go of {name}");
                let hint = "Unmount or shut it down in the guest, or use --force.";
                failure(ErrorCode::Busy, message).with_hint(hint)
            } else {
                failure(ErrorCode::Host, format!("The backend of {name} does not answer"))
            };
            self.answer(key, Err(answer));
        }
    }
}
