//! Headers of a frame, as far as checksums and queues need them: Ethernet (with one VLAN tag), IPv4
//! or IPv6, TCP or UDP.

use super::checksum::Sum;

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes at the start of a frame in which its headers are looked for: Ethernet with a tag, IPv6, a
/// few extension headers, TCP with all options.
pub const LOOKED_AT: usize = 256;

/// Version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What IP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where its checksum is in its header.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Where the headers of a whole TCP or UDP packet are (fragments are none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Version of IP.
    pub version: Version,
    /// What it carries.
    pub transport: Transport,
    /// Start of the IP header.
    pub network: usize,
    /// Start of the TCP or UDP header.
    pub start: usize,
    /// Start of what TCP or UDP carries.
    pub payload: usize,
    /// End of the packet as IP says it: a short frame has padding behind it.
    pub end: usize,
}

fn byte(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

impl Headers {
    /// Finds them in the start of a frame. `None` if the frame is something else, or if a header
    /// does not lie in `head`.
    pub fn parse(head: &[u8]) -> Option<Self> {
        const VLAN: u16 = 0x8100;
        let mut network = ETHERNET;
        let mut kind = word(head, 12)?;
        if kind == VLAN {
            (network, kind) = (network + 4, word(head, 16)?);
        }
        let (version, protocol, start, end) = match kind {
            0x0800 => ipv4(head, network)?,
            0x86dd => ipv6(head, network)?,
            _ => return None,
        };
        let (transport, length) = match protocol {
            6 => (Transport::Tcp, usize::from(byte(head, start + 12)? >> 4) * 4),
            17 => (Transport::Udp, 8),
            _ => return None,
        };
        let least = if transport == Transport::Tcp { 20 } else { 8 };
        let payload = start + length;
        (length >= least && payload <= end && payload <= head.len()).then_some(Self {
            version,
            transport,
            network,
            start,
            payload,
            end,
        })
    }

    /// Where the checksum is.
    pub fn checksum(&self) -> usize {
        self.start + self.transport.checksum_offset()
    }

    /// The addresses of the packet.
    fn addresses<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let range = match self.version {
            Version::V4 => self.network + 12..self.network + 20,
            Version::V6 => self.network + 8..self.network + 40,
        };
        head.get(range).unwrap_or_default()
    }

    /// The sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1), which a blank checksum holds.
    pub fn pseudo_sum(&self, head: &[u8]) -> Sum {
        let mut sum = Sum::default();
        sum.add(self.addresses(head));
        let length = u32::try_from(self.end - self.start).unwrap_or(u32::MAX);
        sum.add(&length.to_be_bytes());
        sum.add(&[0, self.transport.number()]);
        sum
    }

    /// A number that is the same for all packets of a connection in one direction.
    pub fn flow(&self, head: &[u8]) -> u32 {
        // FNV-1a: some bytes, no hostile choice to fear (queues are the guest's own).
        let ports = head.get(self.start..self.start + 4).unwrap_or_default();
        let bytes = self.addresses(head).iter().chain(ports);
        let hash = bytes
            .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        hash ^ hash >> 16
    }
}

type Network = (Version, u8, usize, usize);

fn ipv4(head: &[u8], at: usize) -> Option<Network> {
    let first = byte(head, at)?;
    let length = usize::from(first & 15) * 4;
    let total = usize::from(word(head, at + 2)?);
    // Neither more fragments nor an offset.
    let fragment = word(head, at + 6)? & 0x3fff != 0;
    (first >> 4 == 4 && length >= 20 && total >= length && !fragment).then_some((
        Version::V4,
        byte(head, at + 9)?,
        at + length,
        at + total,
    ))
}

fn ipv6(head: &[u8], at: usize) -> Option<Network> {
    /// Extension headers before we lose patience.
    const MOST: usize = 8;
    let first = byte(head, at)?;
    let end = at + 40 + usize::from(word(head, at + 4)?);
    let mut next = byte(head, at + 6)?;
    let mut start = at + 40;
    for _ in 0..MOST {
        match next {
            // Hop-by-hop, destination options: both keep addresses as they are. A routing header
            // changes the address that is summed.
            0 | 60 => {
                next = byte(head, start)?;
                start += 8 + usize::from(byte(head, start + 1)?) * 8;
            }
            _ => break,
        }
    }
    (first >> 4 == 6 && start <= end).then_some((Version::V6, next, start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET + 40];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        (frame[14], frame[20]) = (0x60, next);
        let length = u16::try_from(payload.len()).unwrap();
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn extension_headers_and_tags_are_passed() {
        let mut udp = [17, 0, 0, 0, 0, 0, 0, 0].to_vec();
        udp.extend_from_slice(&[0, 1, 0, 2, 0, 8, 0, 0]);
        let frame = ipv6(0, &udp);
        let found = Headers::parse(&frame).unwrap();
        assert_eq!((found.start, found.payload, found.end), (62, 70, 70));
        let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
        let found = Headers::parse(&tagged).unwrap();
        assert_eq!((found.network, found.start), (18, 66));
        // A routing header changes what is summed; endless headers are no packet.
        assert_eq!(Headers::parse(&ipv6(43, &udp)), None);
        assert_eq!(Headers::parse(&ipv6(0, &[0; 200])), None);
    }

    #[test]
    fn any_bytes_are_taken_or_refused() {
        let mut state = 7u64;
        for round in 0..200_000 {
            let length = round % 120;
            let mut bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            if bytes.len() > 24 {
                bytes[12..15].copy_from_slice(if round % 2 == 0 {
                    &[8, 0, 0x45]
                } else {
                    &[0x86, 0xdd, 0x60]
                });
                (bytes[20], bytes[21], bytes[23]) = ([0, 6, 17, 60][round % 4], 0, 6);
            }
            if let Some(found) = Headers::parse(&bytes) {
                assert!(found.start < found.payload && found.payload <= bytes.len());
                assert!(found.payload <= found.end);
                let _ = (found.pseudo_sum(&bytes), found.flow(&bytes));
            }
        }
    }
}
