//! Memory operations (memory.h).

/// `XENMEM_increase_reservation`.
pub const INCREASE_RESERVATION: u64 = 0;
/// `XENMEM_decrease_reservation`.
pub const DECREASE_RESERVATION: u64 = 1;
/// `XENMEM_maximum_ram_page`.
pub const MAXIMUM_RAM_PAGE: u64 = 2;
/// `XENMEM_current_reservation`.
pub const CURRENT_RESERVATION: u64 = 3;
/// `XENMEM_maximum_reservation`.
pub const MAXIMUM_RESERVATION: u64 = 4;
/// `XENMEM_machphys_mfn_list`.
pub const MACHPHYS_MFN_LIST: u64 = 5;
/// `XENMEM_populate_physmap`.
pub const POPULATE_PHYSMAP: u64 = 6;
/// `XENMEM_memory_map`.
pub const MEMORY_MAP: u64 = 9;
/// `XENMEM_exchange`.
pub const EXCHANGE: u64 = 11;
/// `XENMEM_machphys_mapping`.
pub const MACHPHYS_MAPPING: u64 = 12;
/// Low bits of the command that hold the operation (`MEMOP_CMD_MASK`).
pub const CMD_MASK: u64 = (1 << 6) - 1;

/// `struct xen_memory_reservation`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reservation {
    /// Guest address of the list of frame numbers.
    pub extent_start: u64,
    /// Extents.
    pub nr_extents: u64,
    /// log2 of frames per extent.
    pub extent_order: u32,
    /// Flags.
    pub mem_flags: u32,
    /// Domain.
    pub domid: u16,
    /// Padding.
    pub pad: [u16; 3],
}
const _: () = assert!(size_of::<Reservation>() == 32);

/// `struct xen_memory_exchange`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Exchange {
    /// Frames given.
    pub input: Reservation,
    /// Frames wanted.
    pub output: Reservation,
    /// Extents done (out).
    pub nr_exchanged: u64,
}
const _: () = assert!(size_of::<Exchange>() == 72);

/// An entry of the E820 map that `XENMEM_memory_map` gives (20 bytes, packed in memory).
#[derive(Clone, Copy, Debug, Default)]
pub struct E820 {
    /// Start in bytes.
    pub addr: u64,
    /// Size in bytes.
    pub size: u64,
    /// 1 = RAM.
    pub kind: u32,
}
