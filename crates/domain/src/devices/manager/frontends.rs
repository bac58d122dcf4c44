//! What the guest does with its devices, as it shows in the store, and what it is shown.

use super::Manager;
use crate::devices::device::{Device, Phase, Step};
use crate::devices::events::{Concerned, concerned};
use crate::devices::nodes::State;
use crate::devices::opened::Key;
use control::kill_point;
use control::xenstore::StoreClient;
use devices::wire::{Nodes, Order};
use std::io;
use std::time::Instant;

impl<A> Manager<A> {
    /// Takes events from the store; connects to it (anew) if need be.
    pub(super) fn follow_store(&mut self) {
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

    pub(super) fn look_where_asked(&mut self) {
        while let Some(key) = self.looks.next(Instant::now()) {
            self.look(key);
        }
    }

    /// Looks at a frontend's state and does what follows.
    pub(super) fn look(&mut self, key: Key) {
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
                    &["xenblock.disconnect.ordered", "xennet.disconnect.ordered"],
                );
            }
            Step::Show(state) => {
                if let Some(device) = self.devices.get_mut(&key) {
                    device.phase = device.phase_showing(state);
                }
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
        self.kill_backend(key.0, &["xenblock.connect.ordered", "xennet.connect.ordered"]);
        if sent.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput) {
            self.fail(key, "the frontend wrote more nodes than a device has use for");
        }
    }

    /// Whether the guest has not seen the device yet.
    pub(super) fn is_new(&self, key: Key) -> bool {
        self.devices.get(&key).is_some_and(|device| !device.shown)
    }

    pub(super) fn attached(&mut self, key: Key, nodes: &Nodes) {
        self.order_growth(key);
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
            // Who waits for it to go waits on.
            let goes = self.devices.get(&key).is_some_and(Device::goes_for_good);
            if !self.has_come(key) && !goes {
                self.answer(key, &Ok(()));
            }
        }
        self.look(key);
    }

    pub(super) fn connected(&mut self, key: Key, nodes: &Nodes) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        device.phase = Phase::Connected;
        if !std::mem::replace(&mut device.connected, true) {
            self.show(key, nodes, State::Connected);
            kill_point("devices.connect.shown");
        }
        self.look(key);
    }
}
