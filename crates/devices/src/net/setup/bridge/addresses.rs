//! Addresses and routes of a device, kept as the kernel gave them.

use super::super::netlink::{Message, Netlink, add, flag};
use serde::{Deserialize, Serialize};
use std::io;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

/// Length of `struct ifaddrmsg`; its scope and index.
const ADDRESS_FIXED: usize = 8;
const ADDRESS_SCOPE: usize = 3;
const ADDRESS_INDEX: usize = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_FLAGS: u16 = 8;
/// `IFA_F_NODAD`: the address was in use here a moment ago.
const NO_DETECTION: u32 = 2;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;

/// Length of `struct rtmsg`; its fields.
const ROUTE_FIXED: usize = 12;
const ROUTE_PREFIX: usize = 1;
const ROUTE_PROTOCOL: usize = 5;
const ROUTE_TYPE: usize = 7;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTN_UNICAST: u8 = 1;
/// `RTPROT_KERNEL`: comes and goes with an address.
const KERNEL: u8 = 2;

/// An address, as the kernel gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address(Vec<u8>);

/// A route, as the kernel gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route(Vec<u8>);

fn body(kind: u16, bytes: &[u8]) -> Message {
    Message { kind, body: bytes.to_vec() }
}

/// An IP address as text.
fn ip(bytes: &[u8]) -> String {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(four).to_string();
    }
    <[u8; 16]>::try_from(bytes)
        .map_or_else(|_| "?".to_owned(), |bytes| std::net::Ipv6Addr::from(bytes).to_string())
}

impl Address {
    /// Those of a device. IPv6 addresses of the link are left out: each device makes its own.
    ///
    /// # Errors
    /// As the system says.
    pub fn of(netlink: &mut Netlink, index: u32) -> io::Result<Vec<Self>> {
        let all = netlink.dump(RTM_GETADDR, &[0; ADDRESS_FIXED])?;
        let moves = |message: &Message| {
            let of_link = message.byte(ADDRESS_SCOPE) == Some(SCOPE_LINK);
            let is_v6 = message.byte(0) != Some(2);
            message.number(ADDRESS_INDEX) == Some(index) && !(is_v6 && of_link)
        };
        Ok(all.into_iter().filter(moves).map(|message| Self(message.body)).collect())
    }

    /// For a device: without a label that is another's, and found to be unique before.
    fn for_device(&self, index: u32) -> Vec<u8> {
        let message = body(RTM_NEWADDR, &self.0);
        let mut new = message.body.get(..ADDRESS_FIXED).unwrap_or_default().to_vec();
        if let Some(place) = new.get_mut(ADDRESS_INDEX..) {
            place.copy_from_slice(&index.to_ne_bytes());
        }
        let is_v6 = message.byte(0) != Some(2);
        for (kind, value) in message.attributes(ADDRESS_FIXED) {
            match (kind, value.first_chunk()) {
                (IFA_LABEL, _) => {}
                (IFA_FLAGS, Some(flags)) if is_v6 => {
                    let flags = u32::from_ne_bytes(*flags) | NO_DETECTION;
                    add(&mut new, kind, &flags.to_ne_bytes());
                }
                _ => add(&mut new, kind, value),
            }
        }
        new
    }

    /// Gives it to a device; it may have it already.
    ///
    /// # Errors
    /// As the system says.
    pub fn give(&self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        unless(
            io::ErrorKind::AlreadyExists,
            netlink.request(RTM_NEWADDR, flag::CREATE | flag::EXCLUSIVE, &self.for_device(index)),
        )
    }

    /// Takes it from a device; it may not have it any more.
    ///
    /// # Errors
    /// As the system says.
    pub fn take(&self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        let result = netlink.request(RTM_DELADDR, 0, &self.for_device(index));
        unless(io::ErrorKind::AddrNotAvailable, result)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = body(RTM_NEWADDR, &self.0);
        let get = |kind| message.attribute(ADDRESS_FIXED, kind);
        let address = get(IFA_LOCAL).or_else(|| get(IFA_ADDRESS)).unwrap_or_default();
        write!(f, "{}/{}", ip(address), message.byte(1).unwrap_or(0))
    }
}

impl Route {
    /// Those that lead through a device, apart from what comes with its addresses; the nearest ones
    /// first, as others need them. `Err(Ok(route))` if one could not be put back.
    ///
    /// # Errors
    /// As the system says.
    pub fn of(netlink: &mut Netlink, index: u32) -> Result<Vec<Self>, io::Result<Self>> {
        /// `RT_TABLE_LOCAL`.
        const LOCAL: u32 = 255;
        const CLONED: u32 = 0x200;
        let all = netlink.dump(RTM_GETROUTE, &[0; ROUTE_FIXED]).map_err(Err)?;
        let oif = index.to_ne_bytes();
        let mut routes = Vec::new();
        for message in all {
            let get = |kind| message.attribute(ROUTE_FIXED, kind);
            let table = get(RTA_TABLE).and_then(|table| table.first_chunk());
            let table = table.map(|table| u32::from_ne_bytes(*table));
            let is_cloned = message.number(8).is_some_and(|flags| flags & CLONED != 0);
            if table == Some(LOCAL) || message.byte(ROUTE_TYPE) != Some(RTN_UNICAST) || is_cloned {
                continue;
            }
            // Hops: a length, flags, and then the device each (struct rtnexthop).
            let is_shared =
                get(RTA_MULTIPATH).is_some_and(|hops| hops.as_chunks::<4>().0.contains(&oif));
            let is_here = get(RTA_OIF) == Some(oif.as_slice());
            if is_shared || is_here && get(RTA_NH_ID).is_some() {
                return Err(Ok(Self(message.body)));
            }
            if is_here && message.byte(ROUTE_PROTOCOL) != Some(KERNEL) {
                routes.push(Self(message.body));
            }
        }
        routes.sort_by_key(|route| {
            let message = body(RTM_NEWROUTE, &route.0);
            let get = |kind| message.attribute(ROUTE_FIXED, kind);
            get(RTA_GATEWAY).is_some() || get(RTA_VIA).is_some()
        });
        Ok(routes)
    }

    /// For a device.
    fn for_device(&self, index: u32) -> Vec<u8> {
        /// `RTNH_F_DEAD`, `RTNH_F_LINKDOWN` and others: what the kernel found, not what was asked for.
        /// `RTNH_F_PERVASIVE` and `RTNH_F_ONLINK` are left.
        const ASKED: u32 = 2 | 4;
        let message = body(RTM_NEWROUTE, &self.0);
        let mut new = message.body.get(..ROUTE_FIXED).unwrap_or_default().to_vec();
        if let Some(place) = new.get_mut(8..) {
            let flags = message.number(8).unwrap_or(0) & ASKED;
            place.copy_from_slice(&flags.to_ne_bytes());
        }
        for (kind, value) in message.attributes(ROUTE_FIXED) {
            match kind {
                RTA_OIF => add(&mut new, kind, &index.to_ne_bytes()),
                RTA_CACHEINFO => {}
                _ => add(&mut new, kind, value),
            }
        }
        new
    }

    /// Makes it lead through a device; it may do so already.
    ///
    /// # Errors
    /// As the system says.
    pub fn give(&self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        let flags = flag::CREATE | flag::EXCLUSIVE;
        let result = netlink.request(RTM_NEWROUTE, flags, &self.for_device(index));
        unless(io::ErrorKind::AlreadyExists, result)
    }

    /// Makes it lead through a device no more; it may not do so already.
    ///
    /// # Errors
    /// As the system says.
    pub fn take(&self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        match netlink.request(RTM_DELROUTE, 0, &self.for_device(index)) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = body(RTM_NEWROUTE, &self.0);
        match message.attribute(ROUTE_FIXED, RTA_DST) {
            Some(to) => write!(f, "{}/{}", ip(to), message.byte(ROUTE_PREFIX).unwrap_or(0))?,
            None => f.write_str("default")?,
        }
        match message.attribute(ROUTE_FIXED, RTA_GATEWAY) {
            Some(gateway) => write!(f, " via {}", ip(gateway)),
            None => Ok(()),
        }
    }
}

/// The device to which the first default route leads: of IPv4, else of IPv6.
///
/// # Errors
/// As the system says.
pub fn uplink(netlink: &mut Netlink) -> io::Result<Option<u32>> {
    let all = netlink.dump(RTM_GETROUTE, &[0; ROUTE_FIXED])?;
    let default = |message: &&Message| {
        message.byte(ROUTE_PREFIX) == Some(0) && message.byte(ROUTE_TYPE) == Some(RTN_UNICAST)
    };
    let metric = |message: &&Message| {
        let metric = message.attribute(ROUTE_FIXED, 6).and_then(|metric| metric.first_chunk());
        (message.byte(0), metric.map_or(0, |metric| u32::from_ne_bytes(*metric)))
    };
    let best = all.iter().filter(default).min_by_key(metric);
    let device = best.and_then(|best| best.attribute(ROUTE_FIXED, RTA_OIF)?.first_chunk());
    Ok(device.map(|device| u32::from_ne_bytes(*device)))
}

/// Takes an error of this kind for success.
fn unless(kind: io::ErrorKind, result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}
