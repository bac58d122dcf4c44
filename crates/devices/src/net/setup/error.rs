//! Why an interface cannot be set up, and what to do.

use std::io;
use std::path::PathBuf;

/// Why an interface cannot be set up. Messages go behind the name of the `vif` entry.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No bridge of the name.
    #[error("there is no bridge `{name}` on this host{}", listed(bridges))]
    NoBridge {
        /// The name.
        name: String,
        /// Bridges that are there.
        bridges: Vec<String>,
    },
    /// The name is something else's.
    #[error("`{name}` is no bridge, but another network device")]
    NotABridge {
        /// The name.
        name: String,
    },
    /// No rights.
    #[error("no permission to make the tap `{name}`: {source}")]
    Permission {
        /// The tap.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// No taps on this host.
    #[error("this host has no /dev/net/tun: {0}")]
    NoTun(io::Error),
    /// Something else.
    #[error("the tap `{name}` cannot be made: {source}")]
    Tap {
        /// The tap.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The name is taken.
    #[error("this host has a network device `{name}` already")]
    NameInUse {
        /// The name.
        name: String,
    },
    /// The name cannot be.
    #[error("`{name}` cannot be the name of a network device: 1 to 15 characters, no `/` or `%`")]
    Name {
        /// The name.
        name: String,
    },
    /// The kernel's network configuration does not answer.
    #[error("the host's network devices cannot be looked at: {0}")]
    Netlink(io::Error),
    /// The address is another's.
    #[error("mac={mac} is in use on this host by the domain `{user}`")]
    MacInUse {
        /// The address.
        mac: String,
        /// Who has it.
        user: String,
    },
    /// All addresses that were tried are in use.
    #[error("no free MAC address was found")]
    NoMac,
    /// The addresses in use cannot be seen.
    #[error("the addresses in use cannot be recorded in {}: {source}", path.display())]
    Registry {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A port cannot be had.
    #[error("the host's port in ports={port} cannot be had: {source}")]
    Port {
        /// As in the configuration.
        port: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is not an address.
    #[error("`{0}` in ip= is neither an IP address nor a network")]
    Address(String),
    /// `passt` is not installed.
    #[error("the user-mode network needs the program `passt`, which is not installed")]
    NoEngine,
    /// `passt` does not run.
    #[error("the user-mode network (passt) does not start: {why}")]
    Engine {
        /// Why.
        why: String,
    },
    /// A script does not work.
    #[error("the script {}: {why}", path.display())]
    Script {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It contradicts itself.
    #[error(
        "`{0}` has no meaning without `bridge`: the user-mode network has no device on the host"
    )]
    WithoutBridge(&'static str),
    /// It contradicts itself.
    #[error("`ports` has no meaning with `bridge`: the guest has an address of its own there")]
    PortsWithBridge,
}

fn listed(bridges: &[String]) -> String {
    if bridges.is_empty() {
        "; there are none at all".to_owned()
    } else {
        format!("; there are: {}", bridges.join(", "))
    }
}

impl SetupError {
    /// Sorts what the system says of a tap.
    pub(super) fn of_tap(name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { name, source },
            io::ErrorKind::NotFound => Self::NoTun(source),
            io::ErrorKind::ResourceBusy => Self::NameInUse { name },
            _ => Self::Tap { name, source },
        }
    }

    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoBridge { .. } | Self::NotABridge { .. } => {
                "make one (`xm network-bridge start` makes xenbr0), or leave out `bridge` for a \
                 user-mode network"
            }
            Self::Permission { .. } => {
                "start the domain as root (CAP_NET_ADMIN is needed), or leave out `bridge` for a \
                 user-mode network"
            }
            Self::NoTun(_) => "load the kernel's module `tun`",
            Self::NameInUse { .. } => "choose another `vifname`, or remove the device",
            Self::MacInUse { .. } => "choose another `mac`, or leave it out",
            Self::Port { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "take a host port from 1024 on (net.ipv4.ip_unprivileged_port_start)"
            }
            Self::Port { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another program listens there: choose another host port"
            }
            Self::Port { .. } => "use an address of this host",
            Self::Engine { why } if why.contains("interface not usable") => {
                "it needs a default route of the host"
            }
            Self::NoEngine => "install the package `passt`, or use `bridge`",
            Self::Script { .. } => "name an executable file, or leave out `script`",
            _ => return None,
        })
    }
}
