//! What a running domain can be told.

use config::{Connection, Disk, DomainConfig};
use control::{DeviceSpec, DiskSize, Request};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that a running domain is to do; `order` says what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Bring in a device. The answer comes when it waits for the guest's driver.
    DeviceAttach {
        /// `{"disk": {...}}` or `{"vif": {...}}`, with the members that they have in configurations.
        #[schema(value_type = Object)]
        device: Box<DeviceSpec>,
    },
    /// Take a device away. The answer comes when the guest has let go of it.
    DeviceDetach {
        /// `vbd` or `vif`.
        class: String,
        /// Its number in xenstore.
        number: u32,
        /// Whatever the guest says.
        #[serde(default)]
        force: bool,
    },
    /// Put another medium into a drive, or none. The answer comes when the guest has it.
    MediumChange {
        /// The drive and its medium, as in configurations.
        #[schema(value_type = Object)]
        disk: Box<Disk>,
    },
    /// Look at the size of a disk again.
    DeviceRefresh {
        /// Its number in xenstore.
        number: u32,
    },
    /// Make a disk's image longer. The answer comes when the guest can see it.
    DeviceResize {
        /// Its number in xenstore.
        number: u32,
        /// How long.
        size: DiskSize,
    },
    /// Set the balloon's target.
    MemorySet {
        /// Memory in MiB, at most `maxmem`.
        mib: u64,
    },
    /// Limit the memory that the guest may have from now on.
    MemoryLimit {
        /// Memory in MiB, at most `maxmem`.
        mib: u64,
    },
    /// Start with another configuration next time.
    Configure {
        /// All of it, as `xl create -n` prints it.
        #[schema(value_type = Object)]
        config: Box<DomainConfig>,
    },
    /// Send the guest a magic SysRq key.
    Sysrq {
        /// A letter or digit.
        #[schema(value_type = String, min_length = 1, max_length = 1)]
        key: char,
    },
    /// Write something about the domain's inside into its log.
    DebugKey {
        /// What: see `xm help debug-keys`.
        #[schema(value_type = String, min_length = 1, max_length = 1)]
        key: char,
    },
}

impl Order {
    /// A path that would be seen from another directory than the client's, if there is one.
    pub fn relative_path(&self) -> Option<&str> {
        let all: Vec<&str> = match self {
            Self::DeviceAttach { device } => match &**device {
                DeviceSpec::Disk(disk) => paths(disk).collect(),
                DeviceSpec::Vif(_) => Vec::new(),
            },
            Self::MediumChange { disk } => paths(disk).collect(),
            Self::Configure { config } => {
                let boot = [&config.boot.kernel, &config.boot.ramdisk];
                let boot = boot.into_iter().flatten().map(String::as_str);
                let sockets = config.devices.channels.iter().filter_map(|channel| {
                    match &channel.connection {
                        Connection::Socket(path) => Some(path.as_str()),
                        Connection::Pty => None,
                    }
                });
                boot.chain(config.devices.disks.iter().flat_map(paths)).chain(sockets).collect()
            }
            _ => Vec::new(),
        };
        all.into_iter().find(|path| !path.starts_with('/'))
    }
}

/// The files of a disk.
fn paths(disk: &Disk) -> impl Iterator<Item = &str> {
    disk.target.iter().chain(&disk.options.backing_files).map(String::as_str)
}

impl From<Order> for Request {
    fn from(order: Order) -> Self {
        match order {
            Order::DeviceAttach { device } => Self::DeviceAttach { device },
            Order::DeviceDetach { class, number, force } => {
                Self::DeviceDetach { class, number, force }
            }
            Order::MediumChange { disk } => Self::MediumChange { disk },
            Order::DeviceRefresh { number } => Self::DeviceRefresh { number },
            Order::DeviceResize { number, size } => Self::DeviceResize { number, size },
            Order::MemorySet { mib } => Self::MemorySet { mib },
            Order::MemoryLimit { mib } => Self::MemoryLimit { mib },
            Order::Configure { config } => Self::Configure { config },
            Order::Sysrq { key } => Self::Sysrq { key },
            Order::DebugKey { key } => Self::DebugKey { key },
        }
    }
}
