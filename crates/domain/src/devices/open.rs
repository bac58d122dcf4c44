//! From a configuration's entry to a device whose files are open.

use super::opened::{Class, Opened, Support};
use control::{DeviceSpec, Dirs, Entry, ErrorCode, Failure};
use devices::block;
use devices::block::lock::Record;
use devices::block::open::Problem;
use devices::wire::{DeviceConfig, Nodes};

/// Opens what a device needs. `place` is what it is called in errors: `disk[0]`.
///
/// # Errors
/// When it cannot be had; nothing of it is left.
pub fn open(
    place: &str,
    spec: &DeviceSpec,
    domain: &Entry,
    dirs: &Dirs,
) -> Result<Opened, Failure> {
    match spec {
        DeviceSpec::Disk(disk) => open_disk(place, disk, domain, dirs),
        DeviceSpec::Vif(_) => {
            Err(Failure::new(ErrorCode::NotSupported, "There are no network interfaces yet"))
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

fn nodes<const N: usize>(nodes: [(&str, String); N]) -> Nodes {
    nodes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
