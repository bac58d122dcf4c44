//! Scheduler operations (sched.h).

/// `SCHEDOP_yield`.
pub const YIELD: u64 = 0;
/// `SCHEDOP_block`.
pub const BLOCK: u64 = 1;
/// `SCHEDOP_shutdown`.
pub const SHUTDOWN: u64 = 2;
/// `SCHEDOP_poll`.
pub const POLL: u64 = 3;
/// `SCHEDOP_watchdog`.
pub const WATCHDOG: u64 = 6;

/// `SHUTDOWN_poweroff`.
pub const SHUTDOWN_POWEROFF: u32 = 0;
/// `SHUTDOWN_reboot`.
pub const SHUTDOWN_REBOOT: u32 = 1;
/// `SHUTDOWN_suspend`.
pub const SHUTDOWN_SUSPEND: u32 = 2;
/// `SHUTDOWN_crash`.
pub const SHUTDOWN_CRASH: u32 = 3;
/// `SHUTDOWN_watchdog`.
pub const SHUTDOWN_WATCHDOG: u32 = 4;

/// `struct sched_poll`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Poll {
    /// Guest address of port numbers (u32).
    pub ports: u64,
    /// How many.
    pub nr_ports: u32,
    /// Padding.
    pub pad: u32,
    /// Absolute system time in ns, 0 = none.
    pub timeout: u64,
}
const _: () = assert!(size_of::<Poll>() == 24);
