//! The network protocol's entries (netif.h). "Transmit" is what the guest sends.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of an entry of the transmit ring.
pub const TX_ENTRY: usize = 12;
/// Size of an entry of the receive ring.
pub const RX_ENTRY: usize = 8;
/// Most slots of a packet. 18 must be taken (`XEN_NETIF_NR_SLOTS_MIN`); a few more cost nothing.
pub const MOST_SLOTS: usize = 20;

/// Flags of a transmit request.
pub mod tx_flag {
    /// The checksum of TCP or UDP is yet to be computed (`NETTXF_csum_blank`).
    pub const BLANK: u16 = 1;
    /// The packet goes on in the next slot (`NETTXF_more_data`).
    pub const MORE: u16 = 4;
    /// The next slot is an [`super::Extra`] (`NETTXF_extra_info`).
    pub const EXTRA: u16 = 8;
}

/// Flags of a receive response. Beware: 1 and 2 mean the reverse of what they mean in requests.
pub mod rx_flag {
    /// The checksum is known to be right (`NETRXF_data_validated`).
    pub const VALIDATED: u16 = 1;
    /// The checksum is yet to be computed (`NETRXF_csum_blank`).
    pub const BLANK: u16 = 2;
    /// The packet goes on in the next slot (`NETRXF_more_data`).
    pub const MORE: u16 = 4;
    /// The next slot is an [`super::Extra`] (`NETRXF_extra_info`).
    pub const EXTRA: u16 = 8;
}

/// Statuses of responses.
pub mod status {
    /// Done (`NETIF_RSP_OKAY`).
    pub const OKAY: i16 = 0;
    /// Refused (`NETIF_RSP_ERROR`).
    pub const ERROR: i16 = -1;
    /// Answers the slot of an extra (`NETIF_RSP_NULL`).
    pub const NULL: i16 = 1;
}

/// A part of a packet that the guest sends (`netif_tx_request`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxRequest {
    /// The page.
    pub gref: u32,
    /// Where in it.
    pub offset: u16,
    /// [`tx_flag`].
    pub flags: u16,
    /// Comes back in the response.
    pub id: u16,
    /// Bytes; in the first slot, those of the whole packet.
    pub size: u16,
}

/// `netif_tx_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxResponse {
    /// As in the request.
    pub id: u16,
    /// [`status`].
    pub status: i16,
}

/// A page for what the guest receives (`netif_rx_request`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxRequest {
    /// Comes back in the response.
    pub id: u16,
    /// Nothing.
    pub pad: u16,
    /// The page.
    pub gref: u32,
}

/// `netif_rx_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxResponse {
    /// As in the request.
    pub id: u16,
    /// Where in the page.
    pub offset: u16,
    /// [`rx_flag`].
    pub flags: u16,
    /// Bytes, or a [`status`] below 0.
    pub status: i16,
}

/// What else is to be said of a packet (`netif_extra_info`), here: how it is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Extra {
    /// [`Self::GSO`], or what we do not know.
    pub kind: u8,
    /// [`Self::ANOTHER`].
    pub flags: u8,
    /// Bytes of payload of a segment.
    pub size: u16,
    /// [`GsoKind`] as a number.
    pub gso: u8,
    /// Nothing.
    pub pad: u8,
    /// None exist.
    pub features: u16,
}

impl Extra {
    /// `XEN_NETIF_EXTRA_TYPE_GSO`.
    pub const GSO: u8 = 1;
    /// `XEN_NETIF_EXTRA_FLAG_MORE`: an extra follows.
    pub const ANOTHER: u8 = 1;
}

/// A transmit slot with an [`Extra`] in it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtraSlot {
    /// It.
    pub extra: Extra,
    /// The rest of the slot.
    pub unused: [u8; 4],
}

/// What kind of packet is to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoKind {
    /// TCP over IPv4 (`XEN_NETIF_GSO_TYPE_TCPV4`).
    Tcp4 = 1,
    /// TCP over IPv6 (`XEN_NETIF_GSO_TYPE_TCPV6`).
    Tcp6 = 2,
}

/// How a packet is to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What it is.
    pub kind: GsoKind,
    /// Bytes of payload of a segment, not 0.
    pub size: u16,
}

const _: () = assert!(
    size_of::<TxRequest>() == TX_ENTRY
        && size_of::<ExtraSlot>() == TX_ENTRY
        && size_of::<TxResponse>() == 4
        && size_of::<RxRequest>() == RX_ENTRY
        && size_of::<RxResponse>() == RX_ENTRY
        && size_of::<Extra>() == RX_ENTRY
);
