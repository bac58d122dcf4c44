//! The time-stamp counter.

/// Reads the host's time-stamp counter.
pub fn read_tsc() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 CPU and has no preconditions.
    unsafe { core::arch::x86_64::_rdtsc() }
}
