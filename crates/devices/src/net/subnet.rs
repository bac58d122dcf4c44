//! Networks of IP addresses.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A network, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    address: IpAddr,
    /// Bits of the address that count.
    length: u8,
}

impl Subnet {
    /// Reads `10.0.0.2`, `10.0.0.0/24`, `2001:db8::/64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(most), |length| length.parse().ok())?;
        (length <= most).then_some(Self { address, length })
    }

    /// Whether an address is in it.
    pub fn contains(&self, other: IpAddr) -> bool {
        let differ = match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                u128::from(own.to_bits() ^ other.to_bits()) << 96
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= self.length.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_networks() {
        let contains = |network: &str, address: &str| {
            Subnet::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.2", "10.0.0.2") && !contains("10.0.0.2", "10.0.0.3"));
        assert!(contains("10.0.0.77/24", "10.0.0.0") && !contains("10.0.0.0/24", "10.0.1.0"));
        assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::1"));
        assert!(
            contains("2001:db8::/64", "2001:db8::f") && !contains("2001:db8::/64", "2001:db9::")
        );
        assert!(!contains("::/0", "10.0.0.1") && !contains("::ffff:10.0.0.1", "10.0.0.1"));
        for bad in ["", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.1/", "10.0.0.1/-1", "a/8"] {
            assert_eq!(Subnet::parse(bad), None, "{bad}");
        }
    }
}
