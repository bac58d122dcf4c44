//! From a configuration's entry to a device whose files are open.

use super::opened::{Class, NoSupport, Opened};
use control::{DeviceSpec, Dirs, Entry, ErrorCode, Failure};
use devices::wire::{BlockConfig, BlockFormat, DeviceConfig, Nodes};
use std::fs::OpenOptions;

/// Opens what a device needs.
///
/// # Errors
/// When it cannot be had; nothing of it is left.
pub fn open(spec: &DeviceSpec, _entry: &Entry, _dirs: &Dirs) -> Result<Opened, Failure> {
    match spec {
        DeviceSpec::Disk(disk) => open_disk(disk),
        DeviceSpec::Vif(_) => {
            Err(Failure::new(ErrorCode::NotSupported, "There are no network interfaces yet"))
        }
    }
}

fn open_disk(disk: &config::Disk) -> Result<Opened, Failure> {
    let target = disk.target.clone().unwrap_or_default();
    let writable = disk.access != config::DiskAccess::ReadOnly;
    let image = OpenOptions::new().read(true).write(writable).open(&target).map_err(|error| {
        Failure::new(ErrorCode::Config, format!("Cannot open {target}: {error}"))
    })?;
    let journal = devices::block::in_flight_file()
        .map_err(|error| Failure::new(ErrorCode::Host, error.to_string()))?;
    let number = disk.vdev.number();
    let node = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Ok(Opened {
        class: Class::Vbd,
        number,
        name: disk.vdev.name().to_owned(),
        config: DeviceConfig::Block(BlockConfig {
            format: BlockFormat::Raw,
            writable,
            cdrom: false,
            discard: true,
            persistent: true,
            backing: Vec::new(),
        }),
        files: vec![image.into(), journal],
        frontend: Nodes::from([
            node("virtual-device", &number.to_string()),
            node("device-type", "disk"),
        ]),
        backend: Nodes::from([
            node("dev", disk.vdev.name()),
            node("mode", if writable { "w" } else { "r" }),
            node("params", &target),
            node("device-type", "disk"),
            node("removable", "0"),
            node("bootable", "1"),
        ]),
        support: Box::new(NoSupport),
    })
}
