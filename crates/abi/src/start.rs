//! Start of day (xen.h `struct start_info`).

/// `MAX_GUEST_CMDLINE`.
pub const MAX_COMMAND_LINE: usize = 1024;
/// `SIF_MOD_START_PFN`: `mod_start` is a frame number.
pub const SIF_MOD_START_PFN: u32 = 1 << 3;

/// `struct start_info` (x86-64).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StartInfo {
    /// "xen-3.0-x86_64".
    pub magic: [u8; 32],
    /// Frames of the domain.
    pub nr_pages: u64,
    /// Machine address of `shared_info`.
    pub shared_info: u64,
    /// `SIF_*`.
    pub flags: u32,
    /// Padding.
    pub pad0: u32,
    /// Frame of the xenstore ring.
    pub store_mfn: u64,
    /// Event channel of xenstore.
    pub store_evtchn: u32,
    /// Padding.
    pub pad1: u32,
    /// Frame of the console ring.
    pub console_mfn: u64,
    /// Event channel of the console.
    pub console_evtchn: u32,
    /// Padding.
    pub pad2: u32,
    /// Address of the top-level page table.
    pub pt_base: u64,
    /// Frames of initial page tables.
    pub nr_pt_frames: u64,
    /// Address of the P2M list.
    pub mfn_list: u64,
    /// Address (or frame) of the ramdisk.
    pub mod_start: u64,
    /// Its size in bytes.
    pub mod_len: u64,
    /// Command line, zero-terminated.
    pub cmd_line: [u8; MAX_COMMAND_LINE],
    /// First frame of the P2M list (when `INIT_P2M` is used).
    pub first_p2m_pfn: u64,
    /// Frames of the P2M list.
    pub nr_p2m_frames: u64,
}
const _: () = assert!(size_of::<StartInfo>() == 1168);
const _: () = assert!(core::mem::offset_of!(StartInfo, cmd_line) == 128);
