//! The header of frames of a tap with `IFF_VNET_HDR` (linux/virtio_net.h).

use super::Offload;
use crate::net::headers::Headers;
use crate::net::netif::{Gso, GsoKind};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct virtio_net_hdr`, in the host's byte order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VnetHeader {
    flags: u8,
    gso_type: u8,
    header_length: u16,
    gso_size: u16,
    start: u16,
    offset: u16,
}

/// Its length.
pub const LENGTH: usize = size_of::<VnetHeader>();

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// A TCP segment with congestion notice: cut like any other.
const GSO_ECN: u8 = 0x80;

fn short(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

impl VnetHeader {
    /// For a packet that goes out.
    pub fn outgoing(headers: Option<&Headers>, offload: &Offload) -> Self {
        let Some(headers) = headers.filter(|_| offload.blank) else { return Self::default() };
        let gso_type = match offload.gso.map(|gso| gso.kind) {
            None => GSO_NONE,
            Some(GsoKind::Tcp4) => GSO_TCPV4,
            Some(GsoKind::Tcp6) => GSO_TCPV6,
        };
        Self {
            flags: NEEDS_CSUM,
            gso_type,
            header_length: short(headers.payload),
            gso_size: offload.gso.map_or(0, |gso| gso.size),
            start: short(headers.start),
            offset: short(headers.transport.checksum_offset()),
        }
    }

    /// What is left to do with a packet that came; where its checksum starts and belongs, if that is
    /// to be computed. `None` for what nobody allowed.
    pub fn incoming(&self) -> Option<(Offload, Option<(usize, usize)>)> {
        let kind = match self.gso_type & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(GsoKind::Tcp4),
            GSO_TCPV6 => Some(GsoKind::Tcp6),
            _ => return None,
        };
        let gso = match kind {
            Some(_) if self.gso_size == 0 => return None,
            Some(kind) => Some(Gso { kind, size: self.gso_size }),
            None => None,
        };
        let start = usize::from(self.start);
        let blank = self.flags & NEEDS_CSUM != 0;
        let checksum = blank.then(|| (start, start + usize::from(self.offset)));
        let validated = blank || self.flags & DATA_VALID != 0;
        Some((Offload { blank, validated, gso }, checksum))
    }
}
