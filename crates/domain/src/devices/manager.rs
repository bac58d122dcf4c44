//! The devices' thread: follows frontends, gives orders to backends, starts those anew that died.

mod backends;
mod frontends;
mod growth;
mod medium;
mod wishes;

use super::device::{Device, Phase, Waiter};
use super::events::Looks;
use super::nodes::{Place, State};
use super::opened::{Class, Key, Opened};
use super::revival::Slot;
use super::statistics::Questions;
use super::{News, Owner, Teller, Wish};
use boundary::Backend;
use control::xenstore::{StoreClient, StoreError, Transaction};
use control::{ErrorCode, Failure, Record, kill_point};
use devices::wire::{Nodes, Order};
use medium::Away;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How long a guest may take to let go of a device. Below the patience of tools.
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
        let waiters = self.devices.values().flat_map(|device| &device.waiters).chain(going);
        let revivals = self.backends.iter().filter_map(|slot| slot.revival);
        let relinks = self.devices.values().filter_map(|device| device.relinks.due);
        let next = waiters.map(|waiter| waiter.until).chain(revivals).chain(relinks);
        let next = next.chain(self.next_growth());
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

    fn set_phase(&mut self, key: Key, phase: Phase) {
        if let Some(device) = self.devices.get_mut(&key) {
            device.phase = phase;
        }
    }

    /// Shows the guest nodes and a state of the backend's.
    fn show(&mut self, key: Key, nodes: &Nodes, state: State) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        let state = device.state_for(state);
        device.state = state;
        let place = device.place.clone();
        if let Err(error) = self.change(|to| place.advance(to, nodes, state)) {
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

    /// A device cannot be used: the guest is told so.
    fn fail(&mut self, key: Key, why: &str) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        device.forget_frontend();
        self.complain(key, why);
        self.show(key, &Nodes::from([("error".into(), why.into())]), State::Closing);
    }

    fn answer(&mut self, key: Key, answer: &Result<(), Failure>) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        for waiter in std::mem::take(&mut device.waiters) {
            self.teller.tell(News::Answer(waiter.asker, answer.clone()));
        }
    }

    /// The guest has let go of a device, or is not asked.
    fn remove(&mut self, key: Key) {
        self.order(key, &Order::Detach { device: key.1 });
        kill_point("devices.detach.ordered");
        self.kill_backend(key.0, &["xenblock.detach.ordered", "xennet.detach.ordered"]);
        self.call_off_growth(key);
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
        let waiters = device.waiters.into_iter();
        self.going.extend(waiters.map(|waiter| (key, Waiter { until, ..waiter })));
        if self.process(key.0).is_none() {
            self.let_go(|other| other == key);
        }
    }
}
