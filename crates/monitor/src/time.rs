//! System time and the vCPU's single-shot timer.

use abi::vcpu::{TSC_STABLE, TimeInfo, shared};
use core::arch::x86_64::_rdtsc;

use crate::{space::local, state::Monitor, sys};

/// The single-shot timer.
#[derive(Default, Clone, Copy, Debug)]
pub struct Timer {
    /// System time at which it fires, 0 = off.
    pub deadline: u64,
    /// System time for which this space's host timer is armed, 0 = not.
    pub armed: u64,
}

/// Shortest time a host timer is armed for, in ns.
const SHORTEST: u64 = 2_000;

impl Monitor {
    /// ns since the domain's start of time.
    pub fn now(&self) -> u64 {
        // SAFETY: reads a counter.
        self.time_at(unsafe { _rdtsc() })
    }

    /// System time at a value of the TSC.
    pub fn time_at(&self, tsc: u64) -> u64 {
        let ticks = tsc.wrapping_sub(self.setup.tsc_start);
        let shifted = if self.setup.tsc_shift >= 0 {
            ticks << (self.setup.tsc_shift & 63)
        } else {
            ticks >> (self.setup.tsc_shift.unsigned_abs() & 63)
        };
        ((u128::from(shifted) * u128::from(self.setup.tsc_mul)) >> 32) as u64
    }

    /// The vCPU's time record: it never changes, as the TSC is stable.
    pub fn time_info(&self) -> TimeInfo {
        TimeInfo {
            version: 2,
            tsc_timestamp: self.setup.tsc_start,
            tsc_to_system_mul: self.setup.tsc_mul,
            tsc_shift: self.setup.tsc_shift as i8,
            flags: TSC_STABLE,
            ..TimeInfo::default()
        }
    }

    /// Writes the wall clock to shared_info.
    pub fn write_wall_clock(&mut self) {
        let frame = u32::try_from(self.setup.shared_info_mfn).unwrap_or(0);
        let base = self.frame_ptr(frame);
        let put = |offset: u64, value: u32| {
            // SAFETY: fixed offsets within the shared_info page.
            unsafe { base.add(offset as usize).cast::<u32>().write_volatile(value) };
        };
        put(shared::WC_SEC, self.setup.wall_sec as u32);
        put(shared::WC_NSEC, self.setup.wall_nsec);
        put(shared::WC_SEC_HI, (self.setup.wall_sec >> 32) as u32);
        put(shared::WC_VERSION, 2);
    }

    /// Sets the single-shot timer; the host timer is only touched if it would fire too late.
    pub fn set_deadline(&mut self, deadline: u64) {
        self.timer.deadline = deadline;
        if deadline != 0 && (self.timer.armed == 0 || self.timer.armed > deadline) {
            self.arm_timer(deadline);
        }
    }

    fn arm_timer(&mut self, deadline: u64) {
        let wait = deadline.saturating_sub(self.now()).max(SHORTEST);
        self.timer.armed = deadline;
        sys::set_timer(wait.div_ceil(1000));
    }

    /// This space took over the vCPU; its host timer was armed for `armed` when it was parked.
    pub fn take_over_timer(&mut self, armed: u64) {
        self.timer.armed = if armed > self.now() { armed } else { 0 };
        let deadline = self.timer.deadline;
        self.set_deadline(deadline);
    }

    /// Asks for attention again soon: a signal came where it could not be served.
    pub fn retry_soon(&mut self) {
        self.retry_in(20);
    }

    /// The same in so many microseconds.
    pub fn retry_in(&mut self, us: u64) {
        self.timer.armed = self.now() + us * 1000;
        sys::set_timer(us);
    }

    /// Raises VIRQ_TIMER if its time has come.
    pub fn poll_timer(&mut self) {
        // By this clock it can fire a little too early, which must not be taken for a timer to come.
        let fired = local().timer_fired.take();
        if fired || self.now() >= self.timer.armed {
            self.timer.armed = 0;
        }
        if self.timer.deadline == 0 {
            return;
        }
        if self.now() >= self.timer.deadline {
            self.timer.deadline = 0;
            if let Some(port) = self.events.virq(abi::event::VIRQ_TIMER) {
                self.raise(port);
            }
        } else {
            let deadline = self.timer.deadline;
            self.set_deadline(deadline);
        }
    }
}
