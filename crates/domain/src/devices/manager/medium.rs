//! Another medium in a drive.
//!
//! Linux' blkfront knows no media: a disk is what it was when it came. So the drive goes, as by a
//! detach, and comes again under its number with the other medium. The guest hears of both by the same
//! nodes, and reads them when it gets round to it: one that looks only after the drive has come again
//! finds nothing gone, and does not take it. Then it goes once more, for longer.

use super::{LITTLE_PATIENCE, Manager, PATIENCE, STORE_PAUSE, failure, no_such_device};
use crate::devices::News;
use crate::devices::device::{Device, Phase, Presented, Successor, Waiter};
use crate::devices::nodes::State;
use crate::devices::opened::{Key, Opened};
use control::xenstore::StoreClient;
use control::{ErrorCode, Failure, Record};
use devices::wire::{DeviceConfig, Nodes};
use std::time::{Duration, Instant};

/// How long a drive is away at first; each time twice as long.
const AWAY: Duration = Duration::from_millis(50);
/// How long a guest may take to notice that it came.
const NOTICE: Duration = Duration::from_millis(700);
/// How often it comes: what a guest has not taken by then it has no driver for.
const MOST_TURNS: u32 = 6;

/// A drive that is away.
pub(super) struct Away<A> {
    key: Key,
    /// What it comes with.
    coming: Opened,
    /// What else belongs to its coming.
    presented: Presented,
    waiters: Vec<Waiter<A>>,
    /// When it comes.
    pub(super) due: Instant,
    /// Its backend holds nothing of it any more.
    is_free: bool,
}

fn is_cd_drive(opened: &Opened) -> bool {
    matches!(&opened.config, DeviceConfig::Block(config) if config.cdrom)
}

fn is_writable(opened: &Opened) -> bool {
    !matches!(&opened.config, DeviceConfig::Block(config) if !config.writable)
}

/// Media are for drives: what the guest may write is a part of it, and would be pulled out.
fn may_change(old: &Opened, new: &Opened) -> Result<(), Failure> {
    let why = if is_writable(old) {
        "the guest may write to it"
    } else if is_writable(new) {
        "a medium is for reading only (mode r)"
    } else if is_cd_drive(new) && !is_cd_drive(old) {
        "it is no CD drive"
    } else {
        return Ok(());
    };
    let message = format!("Refusing to reconfigure device {}: {why}", old.name);
    Err(failure(ErrorCode::NotSupported, message).with_hint(
        "Media can be changed in CD drives (xvdb:cdrom,r) and, with 'xm block-configure', in \
         disks with mode r; 'xm block-detach' and 'xm block-attach' change others.",
    ))
}

/// The drive stays what it was; only the medium is another.
fn as_in_drive(mut new: Opened, old: &Opened) -> Opened {
    if let (DeviceConfig::Block(new), DeviceConfig::Block(old)) = (&mut new.config, &old.config) {
        new.cdrom = old.cdrom;
    }
    for (nodes, from) in [(&mut new.frontend, &old.frontend), (&mut new.backend, &old.backend)] {
        for key in ["device-type", "removable"] {
            nodes.extend(from.get(key).map(|value| (key.to_owned(), value.clone())));
        }
    }
    new
}

impl<A> Manager<A> {
    /// Has a drive change its medium.
    pub(super) fn wish_change(&mut self, new: Opened, disk: Box<config::Disk>, asker: A) {
        let key = (new.class, new.number);
        let refused = match self.devices.get(&key) {
            None if self.is_away(key) => Some(self.busy(key)),
            None => Some(no_such_device(key)),
            Some(device) if !device.waiters.is_empty() || device.leaving => Some(self.busy(key)),
            Some(device) => may_change(&device.opened, &new).err(),
        };
        let device = match (refused, self.devices.get_mut(&key)) {
            (None, Some(device)) => device,
            (refused, _) => {
                let failure = refused.unwrap_or_else(|| no_such_device(key));
                return self.teller.tell(News::Answer(asker, Err(failure)));
            }
        };
        device.successor =
            Some(Successor::Medium(Box::new(as_in_drive(new, &device.opened)), disk));
        device.leaving = true;
        device.waiters.push(Waiter { asker, until: Instant::now() + PATIENCE });
        self.show(key, &Nodes::from([("online".into(), "0".into())]), State::Closing);
        self.look(key);
    }

    pub(super) fn is_away(&self, key: Key) -> bool {
        self.away.iter().any(|away| away.key == key)
    }

    pub(super) fn busy(&self, key: Key) -> Failure {
        let name = self.devices.get(&key).map_or("the drive", |device| &device.opened.name);
        let message = format!("{name} is just being changed or detached");
        failure(ErrorCode::Busy, message).with_hint("Try again in some seconds.")
    }

    /// The guest keeps a drive whose medium was to be changed: it stays as it is. If the guest lets go
    /// of it later, it comes again as it was.
    pub(super) fn call_off(&mut self, key: Key) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        device.successor = Some(Successor::Itself);
        device.leaving = false;
        // A guest that has it cannot be told that it need not close it any more.
        let state = if device.phase == Phase::Waiting { State::InitWait } else { State::Closing };
        let name = device.opened.name.clone();
        self.show(key, &Nodes::from([("online".into(), "1".into())]), state);
        let message = format!("The guest does not let go of {name}, which keeps its medium");
        let hint = "Unmount it in the guest (it may be paused, too), then try again.";
        self.answer(key, &Err(failure(ErrorCode::Busy, message).with_hint(hint)));
    }

    /// A device has left that comes again; its nodes are gone.
    pub(super) fn goes_away(&mut self, key: Key, device: Device<A>) {
        let Device { opened: old, successor, presented, waiters, .. } = device;
        let (coming, presented) = match (successor, presented) {
            (Some(Successor::Medium(new, disk)), _) => {
                (*new, Presented { old: Some(old), disk: Some(disk), ..Presented::default() })
            }
            // The new medium was of no use: the old one again.
            (_, Some(Presented { old: Some(old), .. })) => (old, Presented::default()),
            (_, presented) => {
                let presented = presented.unwrap_or_default();
                (old, Presented { look: None, turns: presented.turns + 1, ..presented })
            }
        };
        let due = Instant::now() + AWAY * (1 << presented.turns.min(MOST_TURNS));
        let is_free = self.process(key.0).is_none();
        self.away.push(Away { key, coming, presented, waiters, due, is_free });
    }

    /// A backend holds nothing of these devices any more.
    pub(super) fn away_are_free(&mut self, is_free: impl Fn(Key) -> bool) {
        for away in self.away.iter_mut().filter(|away| is_free(away.key)) {
            away.is_free = true;
        }
    }

    /// Brings in the drives whose time has come.
    pub(super) fn bring_back(&mut self) {
        let now = Instant::now();
        let is_due = |away: &mut Away<A>| {
            away.due <= now && (away.is_free || away.due + LITTLE_PATIENCE <= now)
        };
        let due: Vec<Away<A>> = self.away.extract_if(.., is_due).collect();
        for mut away in due {
            let key = away.key;
            let place = crate::devices::nodes::Place::new(self.owner.domid, key.0, key.1);
            let domid = self.owner.domid;
            if let Err(error) = self.change(|to| place.create(to, domid, &away.coming)) {
                let name = &away.coming.name;
                let record = Record::warning("it cannot come again yet").with("error", error);
                self.teller.log(record.with("device", name));
                away.due = now + STORE_PAUSE;
                self.away.push(away);
                continue;
            }
            let waiters = away.waiters.into_iter();
            let waiters =
                waiters.map(|waiter| Waiter { until: now + PATIENCE, ..waiter }).collect();
            let device = Device {
                presented: Some(away.presented),
                waiters,
                ..Device::new(away.coming, place)
            };
            self.devices.insert(key, device);
            if self.process(key.0).is_some() { self.attach(key) } else { self.revive(key.0) }
        }
    }

    /// The backend has the drive, and the guest was told; whether its coming is a matter of this file.
    pub(super) fn has_come(&mut self, key: Key) -> bool {
        let Some(device) = self.devices.get_mut(&key) else { return false };
        let Some(presented) = &mut device.presented else { return false };
        presented.look = Some(Instant::now() + NOTICE);
        presented.old = None;
        if let Some(disk) = presented.disk.take() {
            let medium = disk.target.clone().unwrap_or_else(|| "no medium".into());
            let record = Record::info("it has another medium").with("medium", medium);
            self.teller.log(record.with("device", &device.opened.name));
            self.teller.tell(News::Medium(disk));
        }
        true
    }

    /// The guest has taken the drive, or is not expected to any more.
    pub(super) fn is_taken(&mut self, key: Key) {
        let Some(device) = self.devices.get_mut(&key) else { return };
        if device.presented.take().is_some() {
            self.answer(key, &Ok(()));
        }
    }

    /// Looks whether guests have noticed drives that came.
    pub(super) fn look_whether_noticed(&mut self) {
        let now = Instant::now();
        let is_due = |device: &Device<A>| {
            device
                .presented
                .as_ref()
                .and_then(|presented| presented.look)
                .is_some_and(|at| at <= now)
        };
        let due = self.devices.iter().filter(|(_, device)| is_due(device));
        let keys: Vec<Key> = due.map(|(key, _)| *key).collect();
        for key in keys {
            let Some(device) = self.devices.get_mut(&key) else { continue };
            let Some(presented) = &mut device.presented else { continue };
            presented.look = Some(now + NOTICE);
            let is_last = presented.turns + 1 >= MOST_TURNS;
            let place = device.place.clone();
            let dirs = self.owner.dirs.clone();
            let state =
                StoreClient::order(&dirs, |client| place.frontend_state(&mut client.direct()));
            match state {
                Ok(State::Initialising) if !is_last => {
                    if let Some(device) = self.devices.get_mut(&key) {
                        device.successor = Some(Successor::Itself);
                    }
                    self.remove(key);
                }
                // It has begun to.
                Ok(State::Initialised) if !is_last => {
                    if let Some(device) = self.devices.get_mut(&key)
                        && let Some(presented) = &mut device.presented
                    {
                        presented.turns += 1;
                    }
                }
                Ok(_) => self.is_taken(key),
                // The store is just dead: later.
                Err(_) => {}
            }
        }
    }

    /// When this has to be looked at next.
    pub(super) fn next_medium(&self) -> Option<Instant> {
        let away = self
            .away
            .iter()
            .map(|away| if away.is_free { away.due } else { away.due + LITTLE_PATIENCE });
        let presented = self.devices.values().filter_map(|device| device.presented.as_ref());
        away.chain(presented.filter_map(|presented| presented.look)).min()
    }
}
