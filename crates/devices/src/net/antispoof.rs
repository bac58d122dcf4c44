//! Frames that a guest may not send: those that claim to come from another station.
//!
//! Every frame must have the interface's Ethernet address as its source. If the interface has a list
//! of addresses, only what can be checked against it passes: IPv4 from one of them, or a DHCP client's
//! that has none yet; ARP about one of them (or none: RFC 5227's probes); IPv6 from one of them, from a
//! link-local or the unspecified address, and no claim to another's (RFC 4861). What is more than a
//! station's own traffic, such as router advertisements, does not pass either.
//!
//! Only the copied start of a frame is looked at, and that copy is what is sent.

use super::headers::ETHERNET;
use super::subnet::Subnet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod kind {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
    /// Tags of IEEE 802.1Q.
    pub const TAGS: [u16; 2] = [0x8100, 0x88a8];
}

mod protocol {
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const DESTINATION: u8 = 60;
}

/// Types of ICMPv6 (RFC 4861).
mod icmp {
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub const REDIRECT: u8 = 137;
}

/// Why a frame does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spoof {
    /// Another Ethernet address, as source or in ARP.
    #[error("the Ethernet address {}", text(*.0))]
    Mac([u8; 6]),
    /// Another IP address, as source, or as what ARP or NDP says it has.
    #[error("the address {0}")]
    Address(IpAddr),
    /// A router's message.
    #[error("a router's ICMPv6 type {0}")]
    Router(u8),
    /// What cannot be checked.
    #[error("the type {0:#06x}, which cannot be checked")]
    Kind(u16),
    /// What ends too early, or is no packet of its type.
    #[error("a broken header")]
    Broken,
}

fn text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Which frames may pass.
#[derive(Clone, Debug)]
pub struct Filter {
    mac: [u8; 6],
    /// Of any address if empty.
    addresses: Vec<Subnet>,
}

fn array<const N: usize>(head: &[u8], at: usize) -> Result<[u8; N], Spoof> {
    head.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Spoof::Broken)
}

fn byte(head: &[u8], at: usize) -> Result<u8, Spoof> {
    head.get(at).copied().ok_or(Spoof::Broken)
}

fn word(head: &[u8], at: usize) -> Result<u16, Spoof> {
    array(head, at).map(u16::from_be_bytes)
}

impl Filter {
    /// Lets pass what comes from this station and these addresses (any, if there are none).
    pub fn new(mac: [u8; 6], addresses: Vec<Subnet>) -> Self {
        Self { mac, addresses }
    }

    /// Checks the start of a frame.
    ///
    /// # Errors
    /// Whose frame it claims to be.
    pub fn check(&self, head: &[u8]) -> Result<(), Spoof> {
        self.check_mac(array(head, 6)?)?;
        if self.addresses.is_empty() {
            return Ok(());
        }
        let mut network = ETHERNET;
        let mut kind = word(head, network - 2)?;
        for _ in 0..2 {
            if kind::TAGS.contains(&kind) {
                network += 4;
                kind = word(head, network - 2)?;
            }
        }
        match kind {
            kind::IPV4 => self.check_ipv4(head, network),
            kind::ARP => self.check_arp(head, network),
            kind::IPV6 => self.check_ipv6(head, network),
            other => Err(Spoof::Kind(other)),
        }
    }

    fn check_mac(&self, mac: [u8; 6]) -> Result<(), Spoof> {
        if mac == self.mac { Ok(()) } else { Err(Spoof::Mac(mac)) }
    }

    fn check_address(&self, address: IpAddr) -> Result<(), Spoof> {
        if self.addresses.iter().any(|subnet| subnet.contains(address)) {
            Ok(())
        } else {
            Err(Spoof::Address(address))
        }
    }

    fn check_ipv4(&self, head: &[u8], at: usize) -> Result<(), Spoof> {
        let first = byte(head, at)?;
        let length = usize::from(first & 15) * 4;
        let source = Ipv4Addr::from(array::<4>(head, at + 12)?);
        if first >> 4 != 4 || length < 20 {
            return Err(Spoof::Broken);
        }
        if source.is_unspecified() && is_dhcp(head, at, length)? {
            return Ok(());
        }
        self.check_address(source.into())
    }

    fn check_arp(&self, head: &[u8], at: usize) -> Result<(), Spoof> {
        // Of Ethernet and IPv4, with their lengths of addresses.
        if array(head, at)? != [0, 1, 8, 0, 6, 4] {
            return Err(Spoof::Broken);
        }
        self.check_mac(array(head, at + 8)?)?;
        let sender = Ipv4Addr::from(array::<4>(head, at + 14)?);
        if sender.is_unspecified() { Ok(()) } else { self.check_address(sender.into()) }
    }

    fn check_ipv6(&self, head: &[u8], at: usize) -> Result<(), Spoof> {
        if byte(head, at)? >> 4 != 6 {
            return Err(Spoof::Broken);
        }
        self.check_ipv6_address(Ipv6Addr::from(array::<16>(head, at + 8)?))?;
        let Some(message) = icmp_message(head, at)? else { return Ok(()) };
        match byte(head, message)? {
            router @ (icmp::ROUTER_ADVERTISEMENT | icmp::REDIRECT) => Err(Spoof::Router(router)),
            icmp::NEIGHBOUR_ADVERTISEMENT => {
                self.check_ipv6_address(Ipv6Addr::from(array::<16>(head, message + 8)?))
            }
            _ => Ok(()),
        }
    }

    /// Any station has a link-local address, which nobody can list beforehand, and none at first.
    fn check_ipv6_address(&self, address: Ipv6Addr) -> Result<(), Spoof> {
        if address.is_unspecified() || address.is_unicast_link_local() {
            return Ok(());
        }
        self.check_address(address.into())
    }
}

/// Whether a packet is a DHCP client's (RFC 2131): whole, and from port 68 to port 67.
fn is_dhcp(head: &[u8], at: usize, length: usize) -> Result<bool, Spoof> {
    let whole = word(head, at + 6)? & 0x3fff == 0;
    let is_udp = byte(head, at + 9)? == protocol::UDP;
    Ok(whole && is_udp && array(head, at + length)? == [0, 68, 0, 67])
}

/// Where the ICMPv6 message of a packet starts, if it is one. A fragment counts as none: nobody
/// believes what it says of neighbours or routers (RFC 6980).
fn icmp_message(head: &[u8], at: usize) -> Result<Option<usize>, Spoof> {
    /// More headers in a row than any packet has.
    const MOST: usize = 8;
    let mut next = byte(head, at + 6)?;
    let mut start = at + 40;
    for _ in 0..MOST {
        match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                next = byte(head, start)?;
                start += 8 + usize::from(byte(head, start + 1)?) * 8;
            }
            protocol::ICMPV6 => return Ok(Some(start)),
            _ => return Ok(None),
        }
    }
    Err(Spoof::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [0, 0x16, 0x3e, 1, 2, 3];
    const OTHER: [u8; 6] = [0, 0x16, 0x3e, 9, 9, 9];

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    fn filter(list: &[&str]) -> Filter {
        Filter::new(MAC, list.iter().map(|text| subnet(text)).collect())
    }

    fn frame(mac: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
        [&[0xff; 6], &mac[..], &kind.to_be_bytes(), payload].concat()
    }

    fn ipv4(source: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(source.iter().chain(&[10, 0, 0, 1]).chain(payload));
        frame(MAC, 0x0800, &packet)
    }

    fn arp(mac: [u8; 6], sender: [u8; 4]) -> Vec<u8> {
        let parts: [&[u8]; 5] = [&[0, 1, 8, 0, 6, 4, 0, 2], &mac, &sender, &OTHER, &[10, 0, 0, 1]];
        frame(MAC, 0x0806, &parts.concat())
    }

    fn ipv6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 255];
        packet.extend(source.parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([0; 16].iter().chain(payload));
        frame(MAC, 0x86dd, &packet)
    }

    fn icmp(kind: u8, target: &str) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
        message
    }

    #[test]
    fn without_addresses_only_the_ethernet_address_counts() {
        let filter = filter(&[]);
        for kind in [0x0800, 0x0806, 0x86dd, 0x88cc, 5] {
            assert_eq!(filter.check(&frame(MAC, kind, &[])), Ok(()));
            assert_eq!(filter.check(&frame(OTHER, kind, &[])), Err(Spoof::Mac(OTHER)));
        }
        assert_eq!(filter.check(&arp(MAC, [7; 4])), Ok(()));
    }

    #[test]
    fn ipv4_comes_from_a_listed_address() {
        let filter = filter(&["10.0.0.2", "10.1.0.0/16"]);
        for good in [[10, 0, 0, 2], [10, 1, 0, 0], [10, 1, 255, 255]] {
            assert_eq!(filter.check(&ipv4(good, 6, &[0; 20])), Ok(()));
            assert_eq!(filter.check(&arp(MAC, good)), Ok(()));
        }
        for bad in [[10, 0, 0, 3], [10, 2, 0, 0], [0, 0, 0, 0], [255, 255, 255, 255]] {
            let spoof = Err(Spoof::Address(Ipv4Addr::from(bad).into()));
            assert_eq!(filter.check(&ipv4(bad, 6, &[0; 20])), spoof);
            if bad != [0; 4] {
                assert_eq!(filter.check(&arp(MAC, bad)), spoof);
            }
        }
        assert_eq!(filter.check(&arp(MAC, [0; 4])), Ok(()), "a probe");
        assert_eq!(filter.check(&arp(OTHER, [10, 0, 0, 2])), Err(Spoof::Mac(OTHER)));
    }

    #[test]
    fn a_dhcp_client_has_no_address_yet() {
        let filter = filter(&["10.0.0.2"]);
        let ports =
            |from: u16, to: u16| [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat();
        assert_eq!(filter.check(&ipv4([0; 4], 17, &ports(68, 67))), Ok(()));
        for (protocol, from, to) in [(17, 67, 68), (17, 68, 53), (6, 68, 67)] {
            assert!(filter.check(&ipv4([0; 4], protocol, &ports(from, to))).is_err());
        }
        // A server's, a fragment's.
        assert!(filter.check(&ipv4([10, 0, 0, 9], 17, &ports(67, 68))).is_err());
        let mut fragment = ipv4([0; 4], 17, &ports(68, 67));
        fragment[20] = 0x20;
        assert!(filter.check(&fragment).is_err());
    }

    #[test]
    fn ipv6_comes_from_a_listed_or_local_address_and_claims_no_other() {
        let filter = filter(&["2001:db8::2", "10.0.0.2"]);
        for good in ["2001:db8::2", "fe80::1234", "::"] {
            assert_eq!(filter.check(&ipv6(good, 6, &[])), Ok(()), "{good}");
            assert_eq!(filter.check(&ipv6(good, 58, &icmp(135, "2001:db8::9"))), Ok(()), "it asks");
            assert_eq!(filter.check(&ipv6("fe80::1", 58, &icmp(136, good))), Ok(()));
        }
        let other: IpAddr = "2001:db8::9".parse().unwrap();
        assert_eq!(filter.check(&ipv6("2001:db8::9", 6, &[])), Err(Spoof::Address(other)));
        let claim = icmp(136, "2001:db8::9");
        assert_eq!(filter.check(&ipv6("fe80::1", 58, &claim)), Err(Spoof::Address(other)));
        // Behind an extension header too.
        let behind = [&[58, 0, 1, 4, 0, 0, 0, 0], &claim[..]].concat();
        assert_eq!(filter.check(&ipv6("fe80::1", 60, &behind)), Err(Spoof::Address(other)));
        for router in [134, 137] {
            let message = icmp(router, "::");
            assert_eq!(filter.check(&ipv6("fe80::1", 58, &message)), Err(Spoof::Router(router)));
        }
        assert_eq!(filter.check(&ipv6("fe80::1", 0, &[0; 400])), Err(Spoof::Broken), "no end");
    }

    #[test]
    fn what_cannot_be_checked_does_not_pass() {
        let filter = filter(&["10.0.0.2"]);
        for kind in [5, 0x0801, 0x8035, 0x88cc] {
            assert_eq!(filter.check(&frame(MAC, kind, &[0; 60])), Err(Spoof::Kind(kind)));
        }
        // Tags are looked behind, but not without end.
        let inner = &ipv4([10, 0, 0, 2], 6, &[])[12..];
        let tagged = |tags: usize| {
            [&frame(MAC, 0, &[])[..12], &[0x81, 0, 0, 5].repeat(tags), inner].concat()
        };
        assert_eq!((filter.check(&tagged(1)), filter.check(&tagged(2))), (Ok(()), Ok(())));
        assert_eq!(filter.check(&tagged(3)), Err(Spoof::Kind(0x8100)));
        let mut spoofed = tagged(2);
        spoofed[14 + 8 + 15] = 3;
        assert!(filter.check(&spoofed).is_err());
    }

    proptest! {
        /// Any bytes are judged; what is cut off passes only if it passed before, and nothing passes
        /// with another's Ethernet address.
        #[test]
        fn any_start_is_judged(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..256),
            own in any::<bool>(),
            kind in proptest::sample::select(vec![0x0800u16, 0x0806, 0x86dd, 0x8100]),
            first in proptest::sample::select(vec![0x45u8, 0x4f, 0x60, 0]),
        ) {
            if own && bytes.len() > 14 {
                bytes[6..12].copy_from_slice(&MAC);
                bytes[12..14].copy_from_slice(&kind.to_be_bytes());
                bytes[14] = first;
            }
            let filter = filter(&["0.0.0.0/1", "8000::/1"]);
            let verdict = filter.check(&bytes);
            if bytes.get(6..12) != Some(&MAC) {
                prop_assert!(verdict.is_err());
            }
            for length in 0..bytes.len() {
                if filter.check(&bytes[..length]).is_ok() {
                    prop_assert_eq!(verdict, Ok(()));
                }
            }
        }

        /// Of well-formed IPv4 and ARP, exactly the listed senders pass.
        #[test]
        fn exactly_the_listed_pass(source in any::<[u8; 4]>(), near in any::<bool>(), length in 1u8..=32) {
            let mut source = source;
            if near {
                source[..3].copy_from_slice(&[192, 0, 2]);
            }
            let filter = filter(&[&format!("192.0.2.77/{length}")]);
            let mask = u32::MAX << (32 - length);
            let inside = u32::from_be_bytes(source) & mask == u32::from_be_bytes([192, 0, 2, 77]) & mask;
            prop_assert_eq!(filter.check(&ipv4(source, 6, &[])).is_ok(), inside);
            prop_assert_eq!(filter.check(&arp(MAC, source)).is_ok(), inside || source == [0; 4]);
        }
    }
}
