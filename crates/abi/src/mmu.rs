//! Page tables (xen.h `MMU_*`, `MMUEXT_*`, `UVMF_*`; arch-x86).

/// `MMU_NORMAL_PT_UPDATE`.
pub const NORMAL_PT_UPDATE: u64 = 0;
/// `MMU_MACHPHYS_UPDATE`.
pub const MACHPHYS_UPDATE: u64 = 1;
/// `MMU_PT_UPDATE_PRESERVE_AD`.
pub const PT_UPDATE_PRESERVE_AD: u64 = 2;

/// `MMUEXT_PIN_L1_TABLE`.
pub const PIN_L1_TABLE: u32 = 0;
/// `MMUEXT_PIN_L4_TABLE`.
pub const PIN_L4_TABLE: u32 = 3;
/// `MMUEXT_UNPIN_TABLE`.
pub const UNPIN_TABLE: u32 = 4;
/// `MMUEXT_NEW_BASEPTR`.
pub const NEW_BASEPTR: u32 = 5;
/// `MMUEXT_TLB_FLUSH_LOCAL`.
pub const TLB_FLUSH_LOCAL: u32 = 6;
/// `MMUEXT_INVLPG_LOCAL`.
pub const INVLPG_LOCAL: u32 = 7;
/// `MMUEXT_TLB_FLUSH_MULTI`.
pub const TLB_FLUSH_MULTI: u32 = 8;
/// `MMUEXT_INVLPG_MULTI`.
pub const INVLPG_MULTI: u32 = 9;
/// `MMUEXT_TLB_FLUSH_ALL`.
pub const TLB_FLUSH_ALL: u32 = 10;
/// `MMUEXT_INVLPG_ALL`.
pub const INVLPG_ALL: u32 = 11;
/// `MMUEXT_FLUSH_CACHE`.
pub const FLUSH_CACHE: u32 = 12;
/// `MMUEXT_SET_LDT`.
pub const SET_LDT: u32 = 13;
/// `MMUEXT_NEW_USER_BASEPTR`.
pub const NEW_USER_BASEPTR: u32 = 15;
/// `MMUEXT_CLEAR_PAGE`.
pub const CLEAR_PAGE: u32 = 16;
/// `MMUEXT_COPY_PAGE`.
pub const COPY_PAGE: u32 = 17;
/// `MMUEXT_FLUSH_CACHE_GLOBAL`.
pub const FLUSH_CACHE_GLOBAL: u32 = 18;

/// `UVMF_FLUSHTYPE_MASK`.
pub const UVMF_MASK: u64 = 3;
/// `UVMF_TLB_FLUSH`.
pub const UVMF_TLB_FLUSH: u64 = 1;
/// `UVMF_INVLPG`.
pub const UVMF_INVLPG: u64 = 2;

/// `struct mmu_update`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Update {
    /// Machine address of the entry, kind in the two low bits.
    pub ptr: u64,
    /// New value.
    pub val: u64,
}
const _: () = assert!(size_of::<Update>() == 16);

/// `struct mmuext_op`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtOp {
    /// `MMUEXT_*`.
    pub cmd: u32,
    /// Padding.
    pub pad: u32,
    /// MFN or linear address.
    pub arg1: u64,
    /// Number of entries, vCPU mask or source MFN.
    pub arg2: u64,
}
const _: () = assert!(size_of::<ExtOp>() == 24);

/// Entry is present (architecture).
pub const PTE_PRESENT: u64 = 1 << 0;
/// Entry is writable.
pub const PTE_WRITE: u64 = 1 << 1;
/// User mode may use it.
pub const PTE_USER: u64 = 1 << 2;
/// Accessed.
pub const PTE_ACCESSED: u64 = 1 << 5;
/// Dirty.
pub const PTE_DIRTY: u64 = 1 << 6;
/// Large page.
pub const PTE_PSE: u64 = 1 << 7;
/// Not executable.
pub const PTE_NX: u64 = 1 << 63;
/// Address bits.
pub const PTE_ADDR: u64 = 0x000f_ffff_ffff_f000;
