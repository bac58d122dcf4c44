//! A disk's image becomes longer while the guest uses it.
//!
//! The backend does it, which has the image, so that no request of the guest's comes between. If it
//! dies meanwhile the next one is told again: the size is the whole one, and an image that has it
//! already is left as it is.

use super::{Manager, failure, no_such_device};
use crate::devices::News;
use crate::devices::device::{Growth, Phase, Waiter};
use crate::devices::nodes::State;
use crate::devices::opened::{Class, Key, Opened};
use control::{DiskSize, ErrorCode, Failure, Record, kill_point};
use devices::block;
use devices::wire::{BlockConfig, BlockFormat, DeviceConfig, Nodes, Order};
use rustix::fs::{FileType, fstat};
use std::time::{Duration, Instant};

/// How long a tool waits at most: the host's disk may be busy. Below its own patience.
const PATIENCE: Duration = Duration::from_secs(20);
/// Backends that may die over one growth.
const MOST_DEATHS: u32 = 2;
/// Sizes are whole sectors.
const SECTOR: u64 = 512;

/// A qcow2 image's size is in its header, which nobody else may write while the domain has its lock.
pub(super) fn has_a_size_to_look_at(disk: &Opened) -> Result<(), Failure> {
    match &disk.config {
        DeviceConfig::Block(config) if config.format == BlockFormat::Qcow2 => {
            let message =
                format!("{}: a qcow2 image that is in use grows by its domain alone", disk.name);
            let hint = format!("'xm block-resize DOMAIN {} +1G' makes it longer.", disk.name);
            Err(failure(ErrorCode::NotSupported, message).with_hint(hint))
        }
        _ => Ok(()),
    }
}

/// Why a disk's image cannot become longer, and what to do instead.
fn obstacle(disk: &Opened, config: &BlockConfig) -> Option<(String, String)> {
    let name = &disk.name;
    let path = disk.backend.get("params").map_or("", String::as_str);
    let image = disk.files.first();
    let is_device = image
        .and_then(|image| fstat(image).ok())
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice);
    if config.cdrom {
        let hint = "'xl cd-insert' puts another medium in.";
        Some((format!("{name} is a CD drive: its medium is only read"), hint.into()))
    } else if !config.writable {
        let hint = "Only disks of mode w can: others may read the same image.";
        Some((format!("{name} is only read (mode r)"), hint.into()))
    } else if config.shared {
        let hint = "Only disks of mode w can, which their domain has for itself.";
        Some((format!("others may use the image of {name} too (mode w!)"), hint.into()))
    } else if is_device && config.format == BlockFormat::Raw {
        let hint = format!(
            "Make the volume longer ('lvextend -L +1G VOLUME'), then 'xm block-refresh DOMAIN {name}': \
             the guest sees it at once."
        );
        Some((format!("{name} is the block device {path}, whose size is the host's affair"), hint))
    } else {
        None
    }
}

/// The size that a disk is to have.
fn wanted(disk: &Opened, size: DiskSize) -> Result<u64, Failure> {
    let name = &disk.name;
    let refused = |message: String, hint: &str| {
        Err(failure(ErrorCode::NotSupported, message).with_hint(hint))
    };
    let (DeviceConfig::Block(config), Some(image)) = (&disk.config, disk.files.first()) else {
        return refused(format!("{name} is no disk"), "'xm block-list' shows the disks.");
    };
    if let Some((why, hint)) = obstacle(disk, config) {
        return refused(format!("Refusing to resize: {why}"), &hint);
    }
    let now = block::open::size(config.format, image).map_err(|error| {
        failure(ErrorCode::Host, format!("The host does not tell the size of {name}: {error}"))
    })?;
    let bytes = match size {
        DiskSize::All(bytes) => Some(bytes),
        DiskSize::More(bytes) => now.checked_add(bytes),
    };
    let most = i64::MAX.unsigned_abs();
    let bytes = bytes.and_then(|bytes| bytes.checked_next_multiple_of(SECTOR));
    match bytes.filter(|bytes| *bytes <= most) {
        Some(bytes) if bytes < now => refused(
            format!("Refusing to make {name} smaller: it has {now} bytes, and {bytes} are fewer"),
            "What the guest has at its end would be lost. Copy it to a new, smaller disk.",
        ),
        Some(bytes) => Ok(bytes),
        None => refused(
            format!("Refusing to resize {name}: no file has so many bytes"),
            "Give the size with a suffix, as in 20G, or what is added, as in +2G.",
        ),
    }
}

impl<A> Manager<A> {
    /// Has a disk's image become longer.
    pub(super) fn wish_resize(&mut self, number: u32, size: DiskSize, asker: A) {
        let key = (Class::Vbd, number);
        let bytes = match self.devices.get(&key) {
            None if self.is_away(key) => Err(self.busy(key)),
            None => Err(no_such_device(key)),
            Some(device) if device.leaving || device.successor.is_some() => Err(self.busy(key)),
            Some(device) if device.growth.is_some() => {
                let message = format!("{} is just being resized", device.opened.name);
                Err(failure(ErrorCode::Busy, message).with_hint("Try again in some seconds."))
            }
            Some(device) => wanted(&device.opened, size),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(failure) => return self.teller.tell(News::Answer(asker, Err(failure))),
        };
        if let Some(device) = self.devices.get_mut(&key) {
            let waiter = Some(Waiter { asker, until: Instant::now() + PATIENCE });
            device.growth = Some(Growth { bytes, deaths: 0, waiter });
            // Else as soon as the backend has it.
            if device.phase != Phase::Attaching {
                self.order_growth(key);
            }
        }
    }

    /// Tells the backend, if there is something to tell.
    pub(super) fn order_growth(&mut self, key: Key) {
        let growth = self.devices.get(&key).and_then(|device| device.growth.as_ref());
        let Some(bytes) = growth.map(|growth| growth.bytes) else { return };
        self.order(key, &Order::Resize { device: key.1, bytes });
        kill_point("devices.resize.ordered");
        self.kill_backend(key.0, &["xenblock.resize.ordered"]);
    }

    /// The backend has done it, or not.
    pub(super) fn resized(&mut self, key: Key, result: Result<Nodes, String>) {
        kill_point("devices.resize.told");
        self.kill_backend(key.0, &["xenblock.resize.told"]);
        let Some(device) = self.devices.get(&key) else { return };
        let name = &device.opened.name;
        let nodes = match result {
            Ok(nodes) => nodes,
            Err(why) => {
                let message = format!("{name} keeps its size: {why}");
                self.teller.log(Record::warning(message.clone()));
                return self.end_growth(key, Err(failure(ErrorCode::Host, message)));
            }
        };
        if let Some(growth) = &device.growth {
            let record = Record::info("it has grown").with("bytes", growth.bytes);
            self.teller.log(record.with("device", name));
        }
        // Who connects later asks for the size then.
        let is_leaving = device.leaving || matches!(device.phase, Phase::Disconnecting(_));
        if device.connected && !is_leaving {
            self.show(key, &nodes, State::Connected);
            kill_point("devices.resize.shown");
        }
        self.end_growth(key, Ok(()));
    }

    /// Answers who waits for a disk to become longer.
    pub(super) fn end_growth(&mut self, key: Key, answer: Result<(), Failure>) {
        let growth = self.devices.get_mut(&key).and_then(|device| device.growth.take());
        if let Some(waiter) = growth.and_then(|growth| growth.waiter) {
            self.teller.tell(News::Answer(waiter.asker, answer));
        }
    }

    /// The disk goes.
    pub(super) fn call_off_growth(&mut self, key: Key) {
        let name = self.devices.get(&key).map_or("The disk", |device| &device.opened.name);
        let message = format!("{name} was detached meanwhile; its image may be longer now");
        self.end_growth(key, Err(failure(ErrorCode::WrongState, message)));
    }

    /// A backend died: the next one is told again, unless that is the cause.
    pub(super) fn mourn_growth(&mut self, class: Class) {
        let mut over = Vec::new();
        for (key, device) in self.devices.iter_mut().filter(|(key, _)| key.0 == class) {
            let Some(growth) = &mut device.growth else { continue };
            growth.deaths += 1;
            if growth.deaths >= MOST_DEATHS {
                let name = &device.opened.name;
                over.push((*key, format!("The backend of {name} died while it resized the disk")));
            }
        }
        for (key, message) in over {
            let hint =
                "The image is whole, with its old or its new size; the domain's log tells more.";
            self.end_growth(key, Err(failure(ErrorCode::Host, message).with_hint(hint)));
        }
    }

    fn growths(&self) -> impl Iterator<Item = (Key, &Waiter<A>)> {
        self.devices
            .iter()
            .filter_map(|(key, device)| Some((*key, device.growth.as_ref()?.waiter.as_ref()?)))
    }

    /// When this has to be looked at next.
    pub(super) fn next_growth(&self) -> Option<Instant> {
        self.growths().map(|(_, waiter)| waiter.until).min()
    }

    /// Tells those who waited for too long.
    pub(super) fn look_at_growth(&mut self, now: Instant) {
        let late = self.growths().filter(|(_, waiter)| waiter.until <= now);
        let late: Vec<Key> = late.map(|(key, _)| key).collect();
        for key in late {
            let Some(device) = self.devices.get_mut(&key) else { continue };
            let waiter = device.growth.as_mut().and_then(|growth| growth.waiter.take());
            let message = format!("{} is still being resized", device.opened.name);
            let hint = "The host's disk is slow; the domain's log tells when it is done.";
            if let Some(waiter) = waiter {
                let answer = Err(failure(ErrorCode::Timeout, message).with_hint(hint));
                self.teller.tell(News::Answer(waiter.asker, answer));
            }
        }
    }
}
