//! Virtual network interfaces.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::disk::words;
use crate::error::SpecError;

/// A virtual network interface, from a list of `key=value` pieces. Nothing
/// is filled in: a field that was not written is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vif {
    /// Ethernet address; drawn at random if absent.
    pub mac: Option<Mac>,
    /// Bridge the backend interface joins.
    pub bridge: Option<String>,
    /// Hotplug script with its arguments.
    pub script: Option<String>,
    /// Addresses the guest may use.
    pub ip: Vec<String>,
    /// Paravirtual or emulated.
    pub kind: Option<VifKind>,
    /// Emulated card.
    pub model: Option<String>,
    /// Name of the backend interface; `vif<domid>.<devid>` if absent.
    pub vifname: Option<String>,
    /// Driver domain that serves it.
    pub backend: Option<String>,
    /// Limit of the guest's sending.
    pub rate: Option<Rate>,
    /// Host ports led to the guest (`ports=2222:22 8080:80`).
    pub ports: Vec<PortForward>,
    /// Less common properties.
    pub link: VifLink,
}

/// Less common properties of a vif.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VifLink {
    /// Accelerator plug-in (`accel`).
    pub accel: Option<String>,
    /// Security policy of the interface.
    pub policy: Option<String>,
    /// Security label of the interface.
    pub label: Option<String>,
    /// Routing device (`gatewaydev`, once `netdev`).
    pub gatewaydev: Option<String>,
    /// Forwarding device.
    pub forwarddev: Option<String>,
    /// Number in the guest, in place of the position in the list.
    pub devid: Option<u16>,
    /// Largest packet in bytes, 68 to 65535.
    pub mtu: Option<u16>,
    /// VLAN of the port, as written.
    pub vlan: Option<String>,
    /// Whether the guest trusts the backend.
    pub trusted: Option<bool>,
    /// Whether the guest is held to its Ethernet address and those of `ip`.
    pub antispoof: Option<bool>,
}

words! {
    /// Whether an interface is paravirtual.
    VifKind {
        /// Paravirtual.
        Netfront = "netfront",
        /// Emulated beside paravirtual (`type=ioemu`), for assisted guests.
        Ioemu = "ioemu",
    }
}

words! {
    /// Transport protocol of a forwarded port.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

/// A host port led to a port of the guest, `[address:]host:guest[/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForward {
    /// Host address to listen on; `None` is the loopback address.
    pub address: Option<std::net::Ipv4Addr>,
    /// Host port.
    pub host: u16,
    /// Guest port.
    pub guest: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// An Ethernet address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A limit on sending: so many bytes per second, refilled at an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Interval in microseconds.
    pub interval_us: u32,
}

impl Mac {
    /// Reads six hexadecimal pairs with colons between.
    ///
    /// # Errors
    /// Other forms, group (multicast) addresses and the zero address.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let wrong = |why: &str| {
            SpecError::new(0..text.len(), format!("`{text}` is not a MAC address{why}"))
                .help("write six hexadecimal pairs such as 00:16:3e:01:02:03")
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().unwrap_or_default();
            let plain = part.len() <= 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| plain).ok_or_else(|| wrong(""))?;
        }
        if parts.next().is_some() {
            return Err(wrong(""));
        }
        if bytes == [0; 6] {
            return Err(wrong(" of a card"));
        }
        if bytes.first().is_some_and(|first| first & 1 != 0) {
            return Err(wrong(" of one card (its first byte is odd, which means a group)"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Rate {
    /// Interval when none is written, in microseconds.
    pub const DEFAULT_INTERVAL_US: u32 = 50_000;

    /// Reads `N[KMG](B|b)/s[@N(s|ms|us)]`; `b` is bits, K is 1000.
    ///
    /// # Errors
    /// Other forms, zero, and what does not fit.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let wrong = || {
            SpecError::new(0..text.len(), format!("`{text}` is not a rate"))
                .help("write 10Mb/s, 250KB/s or 1MB/s@20ms")
        };
        let (amount, interval) = match text.split_once('@') {
            Some((amount, interval)) => (amount, Some(interval)),
            None => (text, None),
        };
        let bytes_per_second = amount_per_second(amount.trim()).filter(|n| *n > 0);
        let interval_us = match interval {
            Some(interval) => microseconds(interval.trim()).filter(|n| *n > 0),
            None => Some(Self::DEFAULT_INTERVAL_US),
        };
        match (bytes_per_second, interval_us) {
            (Some(bytes_per_second), Some(interval_us)) => {
                Ok(Self { bytes_per_second, interval_us })
            }
            _ => Err(wrong()),
        }
    }

    /// The value of the `rate` node in xenstore: `bytes,microseconds`.
    pub fn store_value(self) -> String {
        let bytes = u128::from(self.bytes_per_second) * u128::from(self.interval_us) / 1_000_000;
        format!("{bytes},{}", self.interval_us)
    }
}

fn amount_per_second(text: &str) -> Option<u64> {
    let text = text.strip_suffix("/s")?;
    let (text, bits) = match text.strip_suffix('b') {
        Some(text) => (text, true),
        None => (text.strip_suffix('B')?, false),
    };
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' | b'k' => (text.get(..text.len() - 1)?, 1_000),
        b'M' => (text.get(..text.len() - 1)?, 1_000_000),
        b'G' => (text.get(..text.len() - 1)?, 1_000_000_000),
        _ => (text, 1),
    };
    let amount = number::<u64>(digits)?.checked_mul(factor)?;
    Some(if bits { amount / 8 } else { amount })
}

fn microseconds(text: &str) -> Option<u32> {
    let (digits, factor) = if let Some(digits) = text.strip_suffix("us") {
        (digits, 1)
    } else if let Some(digits) = text.strip_suffix("ms") {
        (digits, 1_000)
    } else {
        (text.strip_suffix('s')?, 1_000_000)
    };
    number::<u32>(digits)?.checked_mul(factor)
}

pub(super) fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B/s@{}us", self.bytes_per_second, self.interval_us)
    }
}

impl fmt::Display for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}:{}", self.host, self.guest)?;
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

/// Text forms for serde.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = SpecError;

            fn try_from(text: String) -> Result<Self, SpecError> {
                Self::parse(&text)
            }
        }
    )*};
}
as_text!(Mac, Rate);

impl Vif {
    /// Every property that is set, as key and value, in a fixed order.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let link = &self.link;
        let joined = |list: Vec<String>| (!list.is_empty()).then(|| list.join(" "));
        let switch = |is: Option<bool>| is.map(|yes| if yes { "1" } else { "0" }.to_owned());
        let all = [
            ("type", self.kind.map(|kind| kind.as_str().to_owned())),
            ("mac", self.mac.map(|mac| mac.to_string())),
            ("bridge", self.bridge.clone()),
            ("script", self.script.clone()),
            ("ip", joined(self.ip.clone())),
            ("model", self.model.clone()),
            ("vifname", self.vifname.clone()),
            ("backend", self.backend.clone()),
            ("rate", self.rate.map(|rate| rate.to_string())),
            ("ports", joined(self.ports.iter().map(PortForward::to_string).collect())),
            ("accel", link.accel.clone()),
            ("policy", link.policy.clone()),
            ("label", link.label.clone()),
            ("gatewaydev", link.gatewaydev.clone()),
            ("forwarddev", link.forwarddev.clone()),
            ("devid", link.devid.map(|n| n.to_string())),
            ("mtu", link.mtu.map(|n| n.to_string())),
            ("vlan", link.vlan.clone()),
            ("trusted", switch(link.trusted)),
            ("antispoof", switch(link.antispoof)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl fmt::Display for Vif {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self.properties().iter().map(|(k, v)| format!("{k}={v}")).collect();
        f.write_str(&pairs.join(","))
    }
}
