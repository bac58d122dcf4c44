//! The typed configuration of a domain: a tree of small sections.

mod boot;
mod channel;
mod cpu;
mod cpuid;
mod disk;
mod disk_parse;
mod events;
mod general;
mod pci;
mod security;
mod spec;
mod vdev;
mod vif;
mod vif_parse;

use serde::{Deserialize, Serialize};

pub use self::cpuid::CpuidMask;
pub use boot::{Boot, BootNetwork, Bootloader, MAX_COMMAND_LINE};
pub use channel::{Channel, Connection};
pub use cpu::{Affinity, CpuItem, CpuList, Cpus, Scheduling};
pub use disk::{Disk, DiskAccess, DiskBacking, DiskDevice, DiskFormat, DiskOptions, DiskTransport};
pub use events::{Action, Events};
pub use general::{General, MAX_NAME, Uuid, check_name};
pub use pci::PciDevice;
pub use security::AccessControl;
pub use vdev::{Vdev, VdevError, vbd_number};
pub use vif::{Mac, PortForward, Protocol, Rate, Vif, VifKind, VifLink};

/// Memory of a domain in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// RAM at start (`memory`), [`Memory::LEAST`] to [`Memory::MOST`].
    pub initial: u64,
    /// Ceiling (`maxmem`), not below `initial`.
    pub maximum: u64,
}

impl Memory {
    /// Smallest domain, in MiB: a kernel with its initial ramdisk does not
    /// come up in less.
    pub const LEAST: u64 = 16;
    /// Largest domain, in MiB (500 GiB): the monitor tells frames apart by 27 bits.
    pub const MOST: u64 = 500 << 10;
    /// What xm gives a domain whose file does not say, in MiB.
    pub const DEFAULT: u64 = 128;
}

/// Devices of a domain, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// `disk`.
    pub disks: Vec<Disk>,
    /// `vif`.
    pub vifs: Vec<Vif>,
    /// `channel`. (A configuration stored by a version before has none.)
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// `pci`.
    pub pci: Vec<PciDevice>,
    /// `vfb`, as written.
    pub vfb: Vec<String>,
    /// `vtpm`, as written.
    pub vtpm: Vec<String>,
}

/// The configuration of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainConfig {
    /// Name and identity.
    pub general: General,
    /// How much memory.
    pub memory: Memory,
    /// Virtual CPUs and where they run.
    pub cpus: Cpus,
    /// What happens when the domain stops.
    pub events: Events,
    /// What the domain boots.
    pub boot: Boot,
    /// What it is connected to.
    pub devices: Devices,
    /// Its security label.
    pub access_control: Option<AccessControl>,
}

impl DomainConfig {
    /// Names files by paths that are the same from every directory.
    pub fn make_absolute(&mut self) {
        let boot = &mut self.boot;
        for path in [&mut boot.kernel, &mut boot.ramdisk].into_iter().flatten() {
            if let Ok(absolute) = std::path::absolute(&path) {
                *path = absolute.to_string_lossy().into_owned();
            }
        }
        for disk in &mut self.devices.disks {
            disk.make_absolute();
        }
        self.devices.channels.iter_mut().for_each(Channel::make_absolute);
    }
}
