//! The guest's clock: the host's TSC measured against its raw monotonic clock.

use crate::sys::read_tsc;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Shortest time that gives a rate precise to a few parts per million.
const WINDOW: Duration = Duration::from_millis(12);
/// Readings of which the quickest is kept.
const READINGS: u32 = 16;

/// TSC and raw monotonic clock at one moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    tsc: u64,
    nanoseconds: u64,
}

impl Moment {
    /// Takes several readings and keeps the one that took the fewest ticks.
    fn now() -> Self {
        let mut best = (u64::MAX, Self { tsc: 0, nanoseconds: 0 });
        for _ in 0..READINGS {
            let before = read_tsc();
            let time = clock_gettime(ClockId::MonotonicRaw);
            let ticks = read_tsc().wrapping_sub(before);
            if ticks < best.0 {
                let nanoseconds = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
                best = (ticks, Self { tsc: before.wrapping_add(ticks / 2), nanoseconds });
            }
        }
        best.1
    }
}

/// The start of a measurement; other work can go on meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct ClockStart(Moment);

/// How guests turn TSC ticks into nanoseconds (xen.h, `vcpu_time_info`):
/// `((ticks << shift) * mul) >> 32`, with a right shift if `shift` is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeScale {
    /// `tsc_to_system_mul`.
    pub mul: u32,
    /// `tsc_shift`.
    pub shift: i32,
}

impl ClockStart {
    /// Starts to measure.
    pub fn now() -> Self {
        Self(Moment::now())
    }

    /// Ends the measurement, after waiting for what is missing to a good one.
    pub fn finish(self) -> TimeScale {
        let gone = clock_gettime(ClockId::MonotonicRaw);
        let now = gone.tv_sec as u64 * 1_000_000_000 + gone.tv_nsec as u64;
        let passed = Duration::from_nanos(now.saturating_sub(self.0.nanoseconds));
        if let Some(rest) = WINDOW.checked_sub(passed) {
            std::thread::sleep(rest);
        }
        let end = Moment::now();
        TimeScale::from_ticks(
            end.tsc.wrapping_sub(self.0.tsc),
            end.nanoseconds.saturating_sub(self.0.nanoseconds),
        )
    }
}

impl TimeScale {
    /// The scale at which `ticks` take `nanoseconds`.
    fn from_ticks(ticks: u64, nanoseconds: u64) -> Self {
        let ticks = u128::from(ticks.max(1));
        let mut shift = 0;
        loop {
            let mul = (u128::from(nanoseconds) << 32) / (ticks << shift);
            match u32::try_from(mul) {
                Ok(mul) => return Self { mul, shift },
                // Slower than 1 GHz.
                Err(_) => shift += 1,
            }
        }
    }
}

/// TSC and wall clock (seconds, nanoseconds since the epoch) now: system time 0.
pub(crate) fn time_zero() -> (u64, u64, u32) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (read_tsc(), wall.as_secs(), wall.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(scale: TimeScale, ticks: u64) -> u64 {
        (((u128::from(ticks) << scale.shift) * u128::from(scale.mul)) >> 32) as u64
    }

    #[test]
    fn scales_give_the_time_back() {
        for (hz, seconds) in [(2_500_000_000u64, 3), (900_000_000, 2), (19_200_000, 5)] {
            let scale = TimeScale::from_ticks(hz, 1_000_000_000);
            let time = scaled(scale, hz * seconds);
            assert!(time.abs_diff(seconds * 1_000_000_000) < 10, "{hz}: {time} {scale:?}");
        }
    }

    #[test]
    fn two_measurements_agree_within_a_few_parts_per_million() {
        let first = ClockStart::now().finish();
        let second = ClockStart::now().finish();
        let off = f64::from(first.mul.abs_diff(second.mul)) / f64::from(first.mul);
        assert!(off < 30e-6, "{first:?} {second:?}: {} ppm apart", off * 1e6);
    }
}
