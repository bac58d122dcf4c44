//! The lists of devices.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::fields::{Fields, Word};
use crate::model::{Channel, Connection, Devices, Disk, PciDevice, Vif};
use crate::source::Fault;

/// Most interfaces of a domain.
const MAX_VIFS: i64 = 64;

/// Most channels: Linux registers eight terminals (`HVC_ALLOC_TTY_ADAPTERS`), of which the first is the
/// console, and one is left for the guest's agent.
const MAX_CHANNELS: usize = 6;

pub(super) fn devices(fields: &mut Fields<'_>) -> Devices {
    let strings = |words: Vec<Word>| words.iter().map(|word| word.as_str().to_owned()).collect();
    Devices {
        disks: disks(fields),
        vifs: vifs(fields),
        channels: channels(fields),
        pci: pci(fields),
        vfb: strings(fields.words("vfb")),
        vtpm: strings(fields.words("vtpm")),
    }
}

fn disks(fields: &mut Fields<'_>) -> Vec<Disk> {
    let mut list = Vec::new();
    let mut numbers = BTreeMap::new();
    for word in fields.words("disk") {
        let Some(disk) = fields.keep(word.parse(Disk::parse)) else { continue };
        unique(fields, &mut numbers, disk.vdev.number(), &word, &disk.vdev);
        list.push(disk);
    }
    list
}

fn vifs(fields: &mut Fields<'_>) -> Vec<Vif> {
    let mut list = Vec::new();
    let mut addresses = BTreeMap::new();
    for word in fields.words("vif") {
        let Some(vif) = fields.keep(word.parse(Vif::parse)) else { continue };
        if let Some(mac) = vif.mac {
            unique(fields, &mut addresses, mac.0, &word, &mac);
        }
        list.push(vif);
    }
    // The deprecated `nics` pads the list with default interfaces.
    let nics = fields.number("nics", -1..=MAX_VIFS, "a number of interfaces").unwrap_or(-1);
    let wanted = usize::try_from(nics).unwrap_or(0);
    while list.len() < wanted {
        list.push(Vif::default());
    }
    if i64::try_from(list.len()).unwrap_or(i64::MAX) > MAX_VIFS {
        let (span, message) = (fields.place("vif"), format!("More than {MAX_VIFS} interfaces"));
        fields.refuse(Fault { span, message, help: None });
    }
    list
}

fn channels(fields: &mut Fields<'_>) -> Vec<Channel> {
    let mut list = Vec::new();
    let (mut names, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for word in fields.words("channel") {
        let Some(channel) = fields.keep(word.parse(Channel::parse)) else { continue };
        unique(fields, &mut names, channel.name.clone(), &word, &channel.name);
        if let Connection::Socket(path) = &channel.connection {
            unique(fields, &mut paths, path.clone(), &word, path);
        }
        list.push(channel);
    }
    if list.len() > MAX_CHANNELS {
        let (span, message) =
            (fields.place("channel"), format!("More than {MAX_CHANNELS} channels"));
        let help = Some("Linux has eight consoles: the first, and one for `xm exec`".to_owned());
        fields.refuse(Fault { span, message, help });
    }
    list
}

fn pci(fields: &mut Fields<'_>) -> Vec<PciDevice> {
    let mut list = Vec::new();
    let mut addresses = BTreeMap::new();
    for word in fields.words("pci") {
        let Some(device) = fields.keep(word.parse(PciDevice::parse)) else { continue };
        let address = (device.segment, device.bus, device.slot, device.function);
        unique(fields, &mut addresses, address, &word, &device);
        list.push(device);
    }
    list
}

/// Refuses a second device with the same identity.
fn unique<K: Ord>(
    fields: &mut Fields<'_>,
    seen: &mut BTreeMap<K, ()>,
    key: K,
    word: &Word,
    shown: &dyn Display,
) {
    if seen.insert(key, ()).is_some() {
        fields.refuse(word.fault(format!("`{shown}` is used twice")));
    }
}
