//! The channel to the guest's agent: a device that a domain gets when a tool first asks for it, so
//! that a guest without an agent costs nothing.

use super::opened::{Class, Key, Opened, Support};
use devices::wire::{DeviceConfig, Nodes};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::OwnedFd;

/// Its name among a domain's devices.
pub(super) const KEY: Key = (Class::Channel, guest_agent::DEVICE);

/// A channel has nothing on the host.
#[derive(Debug)]
struct Nothing;

impl Support for Nothing {}

/// The device, as Xen's tools describe a channel to the guest (`docs/misc/channel.txt`).
pub(super) fn device() -> Opened {
    let nodes = |nodes: &[(&str, &str)]| -> Nodes {
        nodes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let name = ("name", guest_agent::CHANNEL);
    Opened {
        class: KEY.0,
        number: KEY.1,
        name: format!("channel {}", guest_agent::CHANNEL),
        config: DeviceConfig::Channel,
        files: Vec::new(),
        frontend: nodes(&[name, ("type", "xenconsoled"), ("output", "chan")]),
        backend: nodes(&[name, ("connection", "agent"), ("protocol", "vt100")]),
        warnings: Vec::new(),
        support: Box::new(Nothing),
    }
}

/// A tool's socket of packets, and its other end for the backend.
pub(super) fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}
