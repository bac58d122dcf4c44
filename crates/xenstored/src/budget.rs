//! A domain's share of the store's time: a bucket of CPU time that fills steadily.

use std::time::{Duration, Instant};

/// CPU time that a domain may use for long: so many parts of a thousand of one CPU. With one domain
/// that asks without end, others have to be at most a tenth slower; most of that is left for what
/// is not counted (waking up, the caches, the domain's own process).
const SHARE: u32 = 30;
/// CPU time that it may use at once, as when it starts.
const BURST: Duration = Duration::from_millis(30);
/// What a domain that has used everything waits for, so that it is not woken for every request.
const LEAST: Duration = Duration::from_micros(500);

/// What a domain has left.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: Duration,
    /// Used beyond what was left.
    debt: Duration,
    at: Instant,
    is_waiting: bool,
}

impl Budget {
    /// A full one.
    pub const fn new(now: Instant) -> Self {
        Self { left: BURST, debt: Duration::ZERO, at: now, is_waiting: false }
    }

    fn fill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at) * SHARE / 1000;
        self.at = now;
        let paid = earned.min(self.debt);
        self.debt -= paid;
        self.left = BURST.min(self.left + (earned - paid));
    }

    /// How long the domain has to wait; zero if it may ask now.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        let wanted = if self.is_waiting { LEAST } else { Duration::from_nanos(1) };
        self.is_waiting = self.left < wanted;
        if !self.is_waiting {
            return Duration::ZERO;
        }
        // Rounded up: what is earned in a moment too short may be nothing.
        (self.debt + LEAST - self.left) * 1000 / SHARE + Duration::from_micros(1)
    }

    /// Notes that the domain used `time`.
    pub fn spend(&mut self, time: Duration) {
        let paid = time.min(self.left);
        self.left -= paid;
        self.debt += time - paid;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A domain that always has something to ask, each request for `cost`, over `time`.
    fn flood(cost: Duration, time: Duration) -> Duration {
        let start = Instant::now();
        let (mut now, mut used) = (start, Duration::ZERO);
        let mut budget = Budget::new(start);
        while now < start + time {
            let wait = budget.wait(now);
            if wait.is_zero() {
                budget.spend(cost);
                used += cost;
                now += cost;
            } else {
                now += wait;
            }
        }
        used
    }

    #[test]
    fn a_flood_gets_its_burst_and_its_share() {
        for cost in [3, 40, 2000, 90_000].map(Duration::from_micros) {
            let time = Duration::from_secs(20);
            let used = flood(cost, time);
            let most = BURST + time * SHARE / 1000 + 2 * cost.max(LEAST);
            assert!(used <= most, "{used:?} of at most {most:?} in pieces of {cost:?}");
            assert!(used + 2 * cost >= time * SHARE / 1000, "{used:?} is less than its share");
        }
    }

    #[test]
    fn who_asks_little_never_waits() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for round in 0..100_000_u32 {
            // 20 microseconds each millisecond are 2 %.
            assert!(budget.wait(start + Duration::from_millis(1) * round).is_zero());
            budget.spend(Duration::from_micros(20));
        }
    }
}
