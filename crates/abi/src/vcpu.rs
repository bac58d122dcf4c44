//! vCPU state shared with the guest (xen.h) and vCPU operations (vcpu.h).

/// `VCPUOP_initialise`.
pub const INITIALISE: u64 = 0;
/// `VCPUOP_up`.
pub const UP: u64 = 1;
/// `VCPUOP_down`.
pub const DOWN: u64 = 2;
/// `VCPUOP_is_up`.
pub const IS_UP: u64 = 3;
/// `VCPUOP_get_runstate_info`.
pub const GET_RUNSTATE_INFO: u64 = 4;
/// `VCPUOP_register_runstate_memory_area`.
pub const REGISTER_RUNSTATE: u64 = 5;
/// `VCPUOP_set_periodic_timer`.
pub const SET_PERIODIC_TIMER: u64 = 6;
/// `VCPUOP_stop_periodic_timer`.
pub const STOP_PERIODIC_TIMER: u64 = 7;
/// `VCPUOP_set_singleshot_timer`.
pub const SET_SINGLESHOT_TIMER: u64 = 8;
/// `VCPUOP_stop_singleshot_timer`.
pub const STOP_SINGLESHOT_TIMER: u64 = 9;
/// `VCPUOP_register_vcpu_info`.
pub const REGISTER_VCPU_INFO: u64 = 10;
/// `VCPUOP_register_vcpu_time_memory_area`.
pub const REGISTER_TIME: u64 = 13;
/// `VCPU_SSHOTTMR_future`: refuse times in the past.
pub const SINGLESHOT_FUTURE: u32 = 1;

/// `struct vcpu_time_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeInfo {
    /// Odd while being written.
    pub version: u32,
    /// Padding.
    pub pad0: u32,
    /// TSC at `system_time`.
    pub tsc_timestamp: u64,
    /// ns since the domain's start of time.
    pub system_time: u64,
    /// Multiplier.
    pub tsc_to_system_mul: u32,
    /// Shift.
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
    /// Padding.
    pub pad1: [u8; 2],
}
const _: () = assert!(size_of::<TimeInfo>() == 32);
/// `XEN_PVCLOCK_TSC_STABLE_BIT`.
pub const TSC_STABLE: u8 = 1;

/// `struct vcpu_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VcpuInfo {
    /// Events wait.
    pub evtchn_upcall_pending: u8,
    /// Events are masked.
    pub evtchn_upcall_mask: u8,
    /// Padding.
    pub pad: [u8; 6],
    /// Words of the pending bitmap with bits set.
    pub evtchn_pending_sel: u64,
    /// CR2 of the last page fault.
    pub cr2: u64,
    /// Padding.
    pub arch_pad: u64,
    /// Time.
    pub time: TimeInfo,
}
const _: () = assert!(size_of::<VcpuInfo>() == 64);
const _: () = assert!(core::mem::offset_of!(VcpuInfo, time) == 32);

/// `struct vcpu_runstate_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RunstateInfo {
    /// `RUNSTATE_*`: 0 running, 1 runnable, 2 blocked, 3 offline.
    pub state: u32,
    /// Padding.
    pub pad: u32,
    /// System time of entry into `state`.
    pub entry_time: u64,
    /// ns in each state.
    pub time: [u64; 4],
}
const _: () = assert!(size_of::<RunstateInfo>() == 48);

/// Offsets in `struct shared_info` (xen.h, arch-x86/xen.h).
pub mod shared {
    /// `vcpu_info[0]`.
    pub const VCPU_INFO: u64 = 0;
    /// Legacy vCPUs that have their info here (`XEN_LEGACY_MAX_VCPUS`).
    pub const LEGACY_VCPUS: u64 = 32;
    /// `evtchn_pending[64]`.
    pub const PENDING: u64 = 2048;
    /// `evtchn_mask[64]`.
    pub const MASK: u64 = 2560;
    /// `wc_version`.
    pub const WC_VERSION: u64 = 3072;
    /// `wc_sec`.
    pub const WC_SEC: u64 = 3076;
    /// `wc_nsec`.
    pub const WC_NSEC: u64 = 3080;
    /// `wc_sec_hi`.
    pub const WC_SEC_HI: u64 = 3084;
}
