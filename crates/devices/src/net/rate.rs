//! A limit of what a guest sends: so many bytes in an interval.

use std::time::{Duration, Instant};

/// What may be saved up at least: a large packet must get through a small limit.
const BURST: u64 = 128 << 10;

/// The credit that is left.
#[derive(Debug)]
pub struct Limit {
    bytes: u64,
    interval: Duration,
    credit: u64,
    refilled: Instant,
}

impl Limit {
    /// `bytes` in each of `microseconds`; `None` if that is no limit.
    pub fn new(bytes: u64, microseconds: u64, now: Instant) -> Option<Self> {
        let interval = Duration::from_micros(microseconds);
        (bytes > 0 && microseconds > 0).then_some(Self {
            bytes,
            interval,
            credit: bytes,
            refilled: now,
        })
    }

    /// Takes the credit for a packet.
    ///
    /// # Errors
    /// The time of the next credit, if there is too little.
    pub fn take(&mut self, size: usize, now: Instant) -> Result<(), Instant> {
        self.refill(now);
        match self.credit.checked_sub(size as u64) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => Err(self.refilled + self.interval),
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let intervals = passed.as_nanos() / self.interval.as_nanos().max(1);
        let Ok(intervals) = u32::try_from(intervals) else {
            (self.credit, self.refilled) = (self.bytes.max(BURST), now);
            return;
        };
        if intervals == 0 {
            return;
        }
        let more = self.bytes.saturating_mul(u64::from(intervals));
        self.credit = self.credit.saturating_add(more).min(self.bytes.max(BURST));
        self.refilled += self.interval.saturating_mul(intervals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_over_time_and_lets_large_packets_through() {
        let start = Instant::now();
        let mut limit = Limit::new(10_000, 50_000, start).unwrap();
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match limit.take(60_000, now) {
                Ok(()) => sent += 60_000,
                Err(next) => {
                    assert!(next > now && next <= now + Duration::from_millis(50));
                    now = next;
                }
            }
        }
        // 200 intervals.
        assert!((1_940_000..=2_010_000).contains(&sent), "{sent}");
        // An idle guest saves up a burst, no more.
        now += Duration::from_secs(3600);
        assert_eq!(limit.take(BURST as usize, now), Ok(()));
        assert!(limit.take(1, now).is_err());
        assert!(Limit::new(0, 1, now).is_none() && Limit::new(1, 0, now).is_none());
    }
}
