//! A backend's place, and when it is filled again after a death.

use super::backend::Process;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A backend is started again at once, unless it died more often than this in that time: then after
/// a pause that doubles with each death. The guest waits for its requests meanwhile.
const EASY_DEATHS: usize = 3;
const DEATHS_WITHIN: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A backend, and when it died.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The process.
    pub process: Option<Process>,
    deaths: VecDeque<Instant>,
    /// When it is to be started again.
    pub revival: Option<Instant>,
}

impl Slot {
    /// Notes a death; the pause before the next start.
    pub fn died(&mut self, now: Instant) -> Duration {
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|first| now - *first > DEATHS_WITHIN) {
            self.deaths.pop_front();
        }
        let pause = match u32::try_from(self.deaths.len().saturating_sub(EASY_DEATHS)) {
            Ok(0) => Duration::ZERO,
            many => SHORTEST_PAUSE.saturating_mul(1 << many.unwrap_or(u32::MAX).min(16)),
        };
        let pause = pause.min(LONGEST_PAUSE);
        self.revival = Some(now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_dies_all_the_time_is_started_less_often() {
        let mut slot = Slot::default();
        let start = Instant::now();
        let pauses: Vec<Duration> = (0..12).map(|_| slot.died(start)).collect();
        assert_eq!(pauses[..4], [0, 0, 0, 100].map(Duration::from_millis));
        assert_eq!(pauses[11], LONGEST_PAUSE);
        assert_eq!(slot.died(start + 2 * DEATHS_WITHIN), Duration::ZERO, "forgotten");
    }
}
