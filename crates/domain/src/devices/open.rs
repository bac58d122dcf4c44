//! From a configuration's entry to a device whose files are open.

use super::opened::{Class, Opened, Support};
use control::{DeviceSpec, Dirs, Entry, ErrorCode, Failure};
use devices::block;
use devices::block::lock::Record;
use devices::block::open::Problem;
use devices::net::setup::{self, Interface, SetupError};
use devices::wire::{DeviceConfig, Nodes};
use std::io;
use std::os::fd::OwnedFd;

/// Opens what a device needs. `place` is what it is called in errors: `disk[0]`; an interface
/// without a number gets `index`.
///
/// # Errors
/// When it cannot be had; nothing of it is left.
pub fn open(
    place: &str,
    index: u32,
    spec: &DeviceSpec,
    domain: &Entry,
    dirs: &Dirs,
) -> Result<Opened, Failure> {
    match spec {
        DeviceSpec::Disk(disk) => open_disk(place, disk, domain, dirs),
        DeviceSpec::Vif(vif) => {
            let number = vif.link.devid.map_or(index, u32::from);
            set_up_interface(place, number, vif, domain, dirs)
        }
    }
}

/// Says who has the disk.
impl Support for Option<Record> {}

fn open_disk(
    place: &str,
    disk: &config::Disk,
    domain: &Entry,
    dirs: &Dirs,
) -> Result<Opened, Failure> {
    let opened = block::open(place, disk, &domain.name, &dirs.runtime).map_err(|error| {
        let busy = matches!(error.problem, Problem::Locked { .. } | Problem::Busy(_));
        let code = if busy { ErrorCode::Busy } else { ErrorCode::Config };
        Failure::new(code, error.to_string()).with_hint(error.hint())
    })?;
    let number = disk.vdev.number();
    let device_type = if opened.config.cdrom { "cdrom" } else { "disk" };
    let flag = |set: bool| u8::from(set).to_string();
    let mut backend = nodes([
        ("dev", disk.vdev.name().to_owned()),
        ("type", opened.kind.to_owned()),
        ("params", opened.params),
        ("mode", if opened.config.writable { "w" } else { "r" }.to_owned()),
        ("device-type", device_type.to_owned()),
        ("removable", flag(opened.config.cdrom)),
        ("bootable", flag(true)),
        ("discard-enable", flag(opened.config.discard)),
    ]);
    if let Some((major, minor)) = opened.physical_device {
        backend.insert("physical-device".into(), format!("{major:x}:{minor:x}"));
    }
    Ok(Opened {
        class: Class::Vbd,
        number,
        name: disk.vdev.name().to_owned(),
        config: DeviceConfig::Block(opened.config),
        files: opened.files,
        frontend: nodes([
            ("virtual-device", number.to_string()),
            ("device-type", device_type.to_owned()),
        ]),
        backend,
        warnings: opened.warnings,
        support: Box::new(opened.record),
    })
}

impl Support for Interface {
    fn renew(&mut self) -> io::Result<Option<Vec<OwnedFd>>> {
        match Interface::renew(self) {
            Ok(link) => Ok(link.map(|link| vec![link])),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

fn set_up_interface(
    place: &str,
    number: u32,
    vif: &config::Vif,
    domain: &Entry,
    dirs: &Dirs,
) -> Result<Opened, Failure> {
    let uuid = domain.uuid.to_string();
    let (name, domid, runtime) = (&domain.name, domain.domid, &dirs.runtime);
    let owner = setup::Owner { name, uuid: &uuid, domid, runtime };
    let (interface, link) = Interface::set_up(owner, number, vif).map_err(|error| {
        let busy = matches!(error, SetupError::MacInUse { .. } | SetupError::Port { .. });
        let code = if busy { ErrorCode::Busy } else { ErrorCode::Config };
        let failure = Failure::new(code, format!("{place}: {error}"));
        match error.help() {
            Some(help) => failure.with_hint(help),
            None => failure,
        }
    })?;
    let config = &interface.config;
    let [a, b, c, d, e, f] = config.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let common = [("handle", number.to_string()), ("mac", mac)];
    let bridge = vif.bridge.clone().unwrap_or_default();
    let mut frontend = nodes(common.clone());
    frontend.insert("mtu".into(), config.mtu.to_string());
    let mut backend = nodes(common);
    backend.extend(nodes([
        ("bridge", bridge),
        ("script", vif.script.clone().unwrap_or_default()),
        ("ip", vif.ip.join(" ")),
        ("type", "vif".to_owned()),
        ("hotplug-status", "connected".to_owned()),
    ]));
    let mut warnings = Vec::new();
    if vif.bridge.is_some() && !vif.ip.is_empty() && vif.link.antispoof.is_none() {
        let text = "the guest is not held to the addresses of ip=; antispoof=yes does that";
        warnings.push(text.to_owned());
    }
    Ok(Opened {
        class: Class::Vif,
        number,
        name: format!("vif {number}"),
        config: DeviceConfig::Net(config.clone()),
        files: vec![link],
        frontend,
        backend,
        warnings,
        support: Box::new(interface),
    })
}

fn nodes<const N: usize>(nodes: [(&str, String); N]) -> Nodes {
    nodes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
