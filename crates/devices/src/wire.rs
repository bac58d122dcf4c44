//! What the domain process and a backend tell each other: one JSON value a packet, descriptors with
//! it where the message says so.

use crate::guest::Layout;
use crate::net::Subnet;
use config::LogLevel;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message in bytes.
const LONGEST: usize = 64 << 10;
/// Most descriptors with one message.
pub const MOST_FDS: usize = 16;

/// Values of xenstore nodes by their path below the device's directory.
pub type Nodes = BTreeMap<String, String>;

/// What the domain process wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The first message: the guest.
    Guest(Layout),
    /// There is a new device; its files come along. Answer: `Attached` or `Refused`.
    Attach {
        /// Number of the device, as in xenstore.
        device: u32,
        /// What it is.
        config: DeviceConfig,
    },
    /// The guest's frontend is ready; these are the nodes of its directory. Answer: `Connected` or
    /// `Refused`.
    Connect {
        /// Which device.
        device: u32,
        /// The frontend's nodes, hostile.
        frontend: Nodes,
    },
    /// The frontend is gone: forget its rings. Answer: `Disconnected`.
    Disconnect {
        /// Which device.
        device: u32,
    },
    /// The device is gone, with all it had open. Answer: `Detached`.
    Detach {
        /// Which device.
        device: u32,
    },
    /// Look at the device's files again: their size may have changed. Answer: `Changed`, if it has.
    Refresh {
        /// Which device.
        device: u32,
    },
    /// Make a disk's image longer. It is as it was if that fails. Answer: `Resized`.
    Resize {
        /// Which device.
        device: u32,
        /// Its new size.
        bytes: u64,
    },
    /// A new link for a network interface whose link is gone (see [`Report::Unlinked`]); its
    /// descriptors come along. The frontend notices nothing. No answer.
    Relink {
        /// Which device.
        device: u32,
    },
    /// Somebody wants to speak with the guest's agent; a socket of packets comes along. No answer.
    Client {
        /// Which device.
        device: u32,
    },
    /// Try again what failed for want of room (see [`Report::Full`]).
    Retry,
    /// Answer: `Statistics`.
    Statistics,
}

/// A device's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceConfig {
    /// A disk. Descriptors: the image, its backing files in order, and a memfd in which the backend
    /// keeps requests under way, so that the next one can go on with them.
    Block(BlockConfig),
    /// A network interface. Descriptors: as [`NetLink`] says.
    Net(NetConfig),
    /// A channel. Descriptors: as [`ChannelEnd`] says.
    Channel(ChannelEnd),
}

/// What is at the host's end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelEnd {
    /// Tools that speak with the guest's agent ([`Order::Client`]). No descriptors.
    Agent,
    /// Whoever connects. Descriptor: a stream socket that listens and does not block.
    Socket,
    /// A terminal. Descriptor: its master side, which does not block.
    Terminal,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockConfig {
    /// How the image is laid out.
    pub format: BlockFormat,
    /// The guest may write.
    pub writable: bool,
    /// Others may use the image too (mode `w!`).
    pub shared: bool,
    /// Shown as a CD.
    pub cdrom: bool,
    /// Discard requests are passed on.
    pub discard: bool,
    /// Persistent grants are offered. They spare the back end the mapping of each frame, which costs
    /// it a compare-and-swap, and cost the guest a copy of all data.
    pub persistent: bool,
    /// How its backing files are laid out, the nearest first.
    pub backing: Vec<BlockFormat>,
}

/// The layout of a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockFormat {
    /// Bytes as they are: an image file or a block device.
    Raw,
    /// qcow2.
    Qcow2,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConfig {
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// Where it leads.
    pub link: NetLink,
    /// Largest packet in bytes, without the Ethernet header.
    pub mtu: u16,
    /// Limit of what the guest sends: bytes, in this many microseconds.
    pub rate: Option<(u64, u64)>,
    /// Only frames from its own Ethernet address pass, and if there are any here, from these addresses.
    pub antispoof: Option<Vec<Subnet>>,
}

/// Where a network interface leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetLink {
    /// Descriptor: a tap with `IFF_VNET_HDR`.
    Tap,
    /// Descriptor: a stream socket of `passt`, each frame preceded by its length (32 bits, big-endian).
    Stream,
}

/// What a backend tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The device is there; nodes for the backend's directory, before the frontend looks.
    Attached {
        /// Which device.
        device: u32,
        /// Features.
        nodes: Nodes,
    },
    /// It serves the frontend; nodes to be written before the state changes.
    Connected {
        /// Which device.
        device: u32,
        /// `sectors` and the like.
        nodes: Nodes,
    },
    /// It cannot do what it was asked to.
    Refused {
        /// Which device.
        device: u32,
        /// Why, in a sentence.
        why: String,
    },
    /// The frontend broke a rule: its rings were forgotten.
    Broken {
        /// Which device.
        device: u32,
        /// Which rule.
        why: String,
    },
    /// The link of a network interface is gone: the user-mode network ended, or the tap was removed.
    /// What the guest sends is lost until [`Order::Relink`].
    Unlinked {
        /// Which device.
        device: u32,
        /// Why.
        why: String,
    },
    /// The rings were forgotten.
    Disconnected {
        /// Which device.
        device: u32,
    },
    /// The device is gone.
    Detached {
        /// Which device.
        device: u32,
    },
    /// Nodes changed (a disk was resized).
    Changed {
        /// Which device.
        device: u32,
        /// The nodes.
        nodes: Nodes,
    },
    /// A disk's image was made longer, or why it was not.
    Resized {
        /// Which device.
        device: u32,
        /// Nodes that changed, or why none did.
        result: Result<Nodes, String>,
    },
    /// The host has no room left for what the guest writes. The requests wait for [`Order::Retry`].
    Full {
        /// Which device.
        device: u32,
        /// Why.
        why: String,
    },
    /// Something for the domain's log.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// A line.
        line: String,
    },
    /// Counters by device and name.
    Statistics {
        /// The counters.
        devices: BTreeMap<u32, BTreeMap<String, u64>>,
    },
}

/// Sends a message.
///
/// # Errors
/// When the other side is gone, or the message is too long or has too many descriptors.
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > LONGEST || fds.len() > MOST_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !with.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent =
        rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut with, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives a message with its descriptors; `None` when the other side is gone.
///
/// # Errors
/// When the message is none, or nothing is there (`WouldBlock`, on a socket that does not block).
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut with, flags)?;
    let mut fds = Vec::new();
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok(Some((message, fds)))
}
