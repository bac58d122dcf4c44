//! Event channels (event_channel.h).

/// `EVTCHNOP_bind_interdomain`.
pub const BIND_INTERDOMAIN: u64 = 0;
/// `EVTCHNOP_bind_virq`.
pub const BIND_VIRQ: u64 = 1;
/// `EVTCHNOP_bind_pirq`.
pub const BIND_PIRQ: u64 = 2;
/// `EVTCHNOP_close`.
pub const CLOSE: u64 = 3;
/// `EVTCHNOP_send`.
pub const SEND: u64 = 4;
/// `EVTCHNOP_status`.
pub const STATUS: u64 = 5;
/// `EVTCHNOP_alloc_unbound`.
pub const ALLOC_UNBOUND: u64 = 6;
/// `EVTCHNOP_bind_ipi`.
pub const BIND_IPI: u64 = 7;
/// `EVTCHNOP_bind_vcpu`.
pub const BIND_VCPU: u64 = 8;
/// `EVTCHNOP_unmask`.
pub const UNMASK: u64 = 9;
/// `EVTCHNOP_reset`.
pub const RESET: u64 = 10;
/// `EVTCHNOP_init_control` (FIFO ABI).
pub const INIT_CONTROL: u64 = 11;
/// `EVTCHNOP_expand_array` (FIFO ABI).
pub const EXPAND_ARRAY: u64 = 12;
/// `EVTCHNOP_set_priority` (FIFO ABI).
pub const SET_PRIORITY: u64 = 13;

/// `EVTCHNSTAT_closed`.
pub const STATUS_CLOSED: u32 = 0;
/// `EVTCHNSTAT_unbound`.
pub const STATUS_UNBOUND: u32 = 1;
/// `EVTCHNSTAT_interdomain`.
pub const STATUS_INTERDOMAIN: u32 = 2;
/// `EVTCHNSTAT_virq`.
pub const STATUS_VIRQ: u32 = 4;
/// `EVTCHNSTAT_ipi`.
pub const STATUS_IPI: u32 = 5;

/// `VIRQ_TIMER` (xen.h).
pub const VIRQ_TIMER: u32 = 0;
/// `VIRQ_DEBUG` (xen.h).
pub const VIRQ_DEBUG: u32 = 1;
/// Number of virtual interrupts (xen.h `NR_VIRQS`).
pub const NR_VIRQS: u32 = 24;

/// Channels of the two-level ABI on x86-64 (event_channel.h `EVTCHN_2L_NR_CHANNELS`).
pub const TWO_LEVEL_CHANNELS: u32 = 4096;
