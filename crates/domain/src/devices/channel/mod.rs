//! Channels: those of the configuration, and the one to the guest's agent, which a domain gets when a
//! tool first asks for it, so that a guest without an agent costs nothing.

mod host;

use super::opened::{Class, Key, Opened, Support};
use config::{Channel, Connection};
use control::{ErrorCode, Failure};
use devices::wire::{ChannelEnd, DeviceConfig, Nodes};
use host::{HostEnd, SetupError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::OwnedFd;

/// The name of the agent's channel among a domain's devices.
pub(super) const AGENT: Key = (Class::Channel, guest_agent::DEVICE);

/// The agent's channel has nothing on the host.
#[derive(Debug)]
struct Nothing;

impl Support for Nothing {}

/// The agent's channel.
pub(super) fn agent() -> Opened {
    let nothing = Box::new(Nothing);
    let behind = nodes(&[("connection", "agent")]);
    describe(AGENT.1, guest_agent::CHANNEL, ChannelEnd::Agent, Vec::new(), behind, nothing)
}

/// Makes the host's end of a channel of the configuration. `place` is what it is called in errors:
/// `channel[0]`; `index` is its place in the list.
///
/// # Errors
/// When it cannot be had; nothing of it is left.
pub fn open_channel(place: &str, index: u32, channel: &Channel) -> Result<Opened, Failure> {
    // 0 is the domain's console, and the agent's number is not for others. Files with more are refused
    // before; programs write configurations, too.
    let number = index.saturating_add(1);
    if number >= AGENT.1 || channel.name.starts_with(Channel::OWN_NAMES) {
        let message = format!("{place}: a domain has at most {} channels", AGENT.1 - 1);
        return Err(Failure::new(ErrorCode::Config, message)
            .with_hint("Their names do not begin with org.xenolith., which is the agent's."));
    }
    let host = HostEnd::make(&channel.connection).map_err(|error| {
        let code = match error {
            SetupError::Used(_) => ErrorCode::Busy,
            SetupError::NoSocket(_) | SetupError::Long(_) => ErrorCode::Config,
            SetupError::Socket { .. } | SetupError::Terminal(_) => ErrorCode::Host,
        };
        let failure = Failure::new(code, format!("{place}: {error}"));
        match error.help() {
            Some(help) => failure.with_hint(help),
            None => failure,
        }
    })?;
    let path = host.path.to_string_lossy();
    let key = match channel.connection {
        Connection::Pty => "tty",
        Connection::Socket(_) => "path",
    };
    // Of the backend only: the guest could change its own directory.
    let behind = nodes(&[("connection", channel.connection.word()), (key, &path)]);
    Ok(describe(number, &channel.name, host.end, vec![host.file], behind, host.kept))
}

/// The device, as Xen's tools describe a channel to the guest (`docs/misc/channel.txt`).
fn describe(
    number: u32,
    name: &str,
    end: ChannelEnd,
    files: Vec<OwnedFd>,
    behind: Nodes,
    support: Box<dyn Support>,
) -> Opened {
    let mut backend = nodes(&[("name", name), ("protocol", "vt100")]);
    backend.extend(behind);
    Opened {
        class: Class::Channel,
        number,
        name: format!("channel {name}"),
        config: DeviceConfig::Channel(end),
        files,
        frontend: nodes(&[("name", name), ("type", "xenconsoled"), ("output", "chan")]),
        backend,
        warnings: Vec::new(),
        support,
    }
}

fn nodes(nodes: &[(&str, &str)]) -> Nodes {
    nodes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A tool's socket of packets, and its other end for the backend.
pub(super) fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_channel_is_nobody_elses() {
        let channel = |name: &str| Channel { name: name.into(), connection: Connection::Pty };
        let refused = |index, name| open_channel("channel[9]", index, &channel(name)).unwrap_err();
        assert_eq!(refused(AGENT.1 - 1, "a").code, ErrorCode::Config);
        assert_eq!(refused(u32::MAX, "a").code, ErrorCode::Config);
        assert_eq!(refused(0, guest_agent::CHANNEL).code, ErrorCode::Config);
        assert_eq!(open_channel("channel[5]", 5, &channel("a")).unwrap().number, 6);
    }
}
