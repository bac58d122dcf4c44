//! Network devices of the host.

use super::netlink::{Attributes, Message, Netlink, add, flag};
use std::io;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// Length of `struct ifinfomsg`.
const FIXED: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFF_UP: u32 = 1;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Vec<u8>,
    /// Its MTU.
    pub mtu: u32,
    /// The bridge whose port it is.
    pub master: Option<u32>,
    /// What it is: `bridge`, `tun`, `veth`; empty for hardware.
    pub kind: String,
    /// It is up.
    pub is_up: bool,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

impl Link {
    fn read(message: &Message) -> Option<Self> {
        let get = |kind| message.attribute(FIXED, kind);
        let info = Attributes(get(IFLA_LINKINFO).unwrap_or_default());
        let kind = info.clone().find(|(kind, _)| *kind == IFLA_INFO_KIND);
        Some(Self {
            index: message.number(4)?,
            name: text(get(IFLA_IFNAME)?),
            mac: get(IFLA_ADDRESS).unwrap_or_default().to_vec(),
            mtu: get(IFLA_MTU).and_then(word).unwrap_or(0),
            master: get(IFLA_MASTER).and_then(word),
            kind: kind.map(|(_, kind)| text(kind)).unwrap_or_default(),
            is_up: message.number(8)? & IFF_UP != 0,
        })
    }

    /// It is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind == "bridge"
    }
}

/// A change of a device.
#[derive(Clone, Debug)]
pub struct Change {
    body: Vec<u8>,
}

impl Change {
    /// Of this one.
    pub fn of(index: u32) -> Self {
        Self { body: header(index, 0, 0) }
    }

    /// It gets this Ethernet address.
    #[must_use]
    pub fn mac(mut self, mac: &[u8]) -> Self {
        add(&mut self.body, IFLA_ADDRESS, mac);
        self
    }

    /// Its largest packet.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        add(&mut self.body, IFLA_MTU, &mtu.to_ne_bytes());
        self
    }

    /// It becomes a port of this bridge, or of none (0).
    #[must_use]
    pub fn master(mut self, index: u32) -> Self {
        add(&mut self.body, IFLA_MASTER, &index.to_ne_bytes());
        self
    }

    /// It has no IPv6 address of its own.
    #[must_use]
    pub fn without_addresses(mut self) -> Self {
        const AF_INET6: u16 = 10;
        /// `IN6_ADDR_GEN_MODE_NONE`.
        const NONE: u8 = 1;
        let (mut mode, mut family) = (Vec::new(), Vec::new());
        add(&mut mode, IFLA_INET6_ADDR_GEN_MODE, &[NONE]);
        add(&mut family, AF_INET6, &mode);
        add(&mut self.body, IFLA_AF_SPEC, &family);
        self
    }

    /// It goes up.
    #[must_use]
    pub fn up(mut self) -> Self {
        for at in [8, 12] {
            if let Some(place) = self.body.get_mut(at..at + 4) {
                place.copy_from_slice(&IFF_UP.to_ne_bytes());
            }
        }
        self
    }

    /// Makes the change.
    ///
    /// # Errors
    /// As the system says.
    pub fn make(self, netlink: &mut Netlink) -> io::Result<()> {
        netlink.request(RTM_NEWLINK, 0, &self.body)
    }
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// All devices.
///
/// # Errors
/// As the system says.
pub fn all(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let messages = netlink.dump(RTM_GETLINK, &header(0, 0, 0))?;
    Ok(messages.iter().filter_map(Link::read).collect())
}

/// The device of this name.
///
/// # Errors
/// As the system says.
pub fn named(netlink: &mut Netlink, name: &str) -> io::Result<Option<Link>> {
    Ok(all(netlink)?.into_iter().find(|link| link.name == name))
}

/// Makes a bridge that forwards from the start (no spanning tree, no delay), with an Ethernet
/// address that stays.
///
/// # Errors
/// As the system says.
pub fn add_bridge(netlink: &mut Netlink, name: &str, mac: &[u8]) -> io::Result<()> {
    let mut body = header(0, 0, 0);
    add(&mut body, IFLA_IFNAME, format!("{name}\0").as_bytes());
    add(&mut body, IFLA_ADDRESS, mac);
    let (mut info, mut data) = (Vec::new(), Vec::new());
    add(&mut info, IFLA_INFO_KIND, b"bridge");
    add(&mut data, IFLA_BR_FORWARD_DELAY, &0u32.to_ne_bytes());
    add(&mut data, IFLA_BR_STP_STATE, &0u32.to_ne_bytes());
    add(&mut info, IFLA_INFO_DATA, &data);
    add(&mut body, IFLA_LINKINFO, &info);
    netlink.request(RTM_NEWLINK, flag::CREATE | flag::EXCLUSIVE, &body)
}

/// Removes a device.
///
/// # Errors
/// As the system says.
pub fn remove(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    netlink.request(RTM_DELLINK, 0, &header(index, 0, 0))
}
