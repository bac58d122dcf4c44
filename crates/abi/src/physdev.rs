//! Physical devices (physdev.h).

/// `PHYSDEVOP_set_iopl`.
pub const SET_IOPL: u64 = 6;
/// `PHYSDEVOP_set_iobitmap`.
pub const SET_IOBITMAP: u64 = 7;
