//! Version and features (version.h, features.h).

/// `XENVER_version`.
pub const VERSION: u64 = 0;
/// `XENVER_extraversion`.
pub const EXTRAVERSION: u64 = 1;
/// `XENVER_compile_info`.
pub const COMPILE_INFO: u64 = 2;
/// `XENVER_capabilities`.
pub const CAPABILITIES: u64 = 3;
/// `XENVER_changeset`.
pub const CHANGESET: u64 = 4;
/// `XENVER_platform_parameters`.
pub const PLATFORM_PARAMETERS: u64 = 5;
/// `XENVER_get_features`.
pub const GET_FEATURES: u64 = 6;
/// `XENVER_pagesize`.
pub const PAGESIZE: u64 = 7;
/// `XENVER_guest_handle`.
pub const GUEST_HANDLE: u64 = 8;
/// `XENVER_commandline`.
pub const COMMANDLINE: u64 = 9;

/// `XENFEAT_writable_page_tables`.
pub const FEAT_WRITABLE_PAGE_TABLES: u32 = 0;
/// `XENFEAT_writable_descriptor_tables`.
pub const FEAT_WRITABLE_DESCRIPTOR_TABLES: u32 = 1;
/// `XENFEAT_auto_translated_physmap`.
pub const FEAT_AUTO_TRANSLATED_PHYSMAP: u32 = 2;
/// `XENFEAT_supervisor_mode_kernel`.
pub const FEAT_SUPERVISOR_MODE_KERNEL: u32 = 3;
/// `XENFEAT_pae_pgdir_above_4gb`.
pub const FEAT_PAE_PGDIR_ABOVE_4GB: u32 = 4;
/// `XENFEAT_mmu_pt_update_preserve_ad`.
pub const FEAT_MMU_PT_UPDATE_PRESERVE_AD: u32 = 5;
/// `XENFEAT_gnttab_map_avail_bits`.
pub const FEAT_GNTTAB_MAP_AVAIL_BITS: u32 = 7;
/// The features offered to guests (sub-map 0).
pub const FEATURES: u32 = 1 << FEAT_WRITABLE_DESCRIPTOR_TABLES
    | 1 << FEAT_PAE_PGDIR_ABOVE_4GB
    | 1 << FEAT_MMU_PT_UPDATE_PRESERVE_AD
    | 1 << FEAT_GNTTAB_MAP_AVAIL_BITS;
/// The version told to guests: major << 16 | minor.
pub const XEN_VERSION: u32 = 4 << 16 | 17;
