//! Grant tables (grant_table.h).

/// `GNTTABOP_map_grant_ref`.
pub const MAP_GRANT_REF: u64 = 0;
/// `GNTTABOP_unmap_grant_ref`.
pub const UNMAP_GRANT_REF: u64 = 1;
/// `GNTTABOP_setup_table`.
pub const SETUP_TABLE: u64 = 2;
/// `GNTTABOP_query_size`.
pub const QUERY_SIZE: u64 = 6;
/// `GNTTABOP_set_version`.
pub const SET_VERSION: u64 = 8;
/// `GNTTABOP_get_version`.
pub const GET_VERSION: u64 = 10;
/// `GNTST_okay`.
pub const STATUS_OKAY: i16 = 0;
/// `GNTST_general_error`.
pub const STATUS_GENERAL_ERROR: i16 = -1;

/// `struct gnttab_setup_table`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SetupTable {
    /// Domain.
    pub dom: u16,
    /// Padding.
    pub pad: u16,
    /// Frames wanted.
    pub nr_frames: u32,
    /// `GNTST_*` (out).
    pub status: i16,
    /// Padding.
    pub pad2: [u16; 3],
    /// Guest address of a list of frame numbers (out).
    pub frame_list: u64,
}
const _: () = assert!(size_of::<SetupTable>() == 24);

/// `struct gnttab_query_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct QuerySize {
    /// Domain.
    pub dom: u16,
    /// Padding.
    pub pad: u16,
    /// Frames now (out).
    pub nr_frames: u32,
    /// Frames at most (out).
    pub max_nr_frames: u32,
    /// `GNTST_*` (out).
    pub status: i16,
    /// Padding.
    pub pad2: u16,
}
const _: () = assert!(size_of::<QuerySize>() == 16);
