//! What an interface does about frames that are not its guest's to send.

use super::antispoof::{Filter, Spoof};
use crate::wire::NetConfig;
use std::time::{Duration, Instant};

/// Drops such frames, if that is wanted.
#[derive(Debug)]
pub struct Guard {
    filter: Option<Filter>,
    spoofs: Spoofs,
}

impl Guard {
    /// As the configuration wants it.
    pub fn new(config: &NetConfig) -> Self {
        let filter = config.antispoof.clone().map(|list| Filter::new(config.mac, list));
        Self { filter, spoofs: Spoofs::default() }
    }

    /// Whether a frame that starts like this may be sent; notes it otherwise.
    pub fn passes(&mut self, head: &[u8]) -> bool {
        let verdict = self.filter.as_ref().map_or(Ok(()), |filter| filter.check(head));
        verdict.map_err(|spoof| self.spoofs.note(spoof)).is_ok()
    }

    /// How many did not pass.
    pub fn refused(&self) -> u64 {
        self.spoofs.count
    }

    /// A line for the log, if there is something new and it is time for it.
    pub fn line(&mut self) -> Option<String> {
        if self.spoofs.count == 0 { None } else { self.spoofs.line(Instant::now()) }
    }
}

/// Frames that did not pass, of one interface. A guest that sends them without end fills no log.
#[derive(Debug, Default)]
struct Spoofs {
    count: u64,
    last: Option<Spoof>,
    told: Option<(u64, Instant)>,
}

impl Spoofs {
    /// Time between two lines.
    const PAUSE: Duration = Duration::from_secs(60);

    /// A frame did not pass.
    fn note(&mut self, spoof: Spoof) {
        self.count += 1;
        self.last = Some(spoof);
    }

    fn line(&mut self, now: Instant) -> Option<String> {
        let last = self.last?;
        let is_time =
            self.told.is_none_or(|(told, at)| self.count > told && now >= at + Self::PAUSE);
        if !is_time {
            return None;
        }
        self.told = Some((self.count, now));
        let frames = if self.count == 1 { "frame was" } else { "frames were" };
        let count = self.count;
        Some(format!("{count} {frames} dropped as not the guest's to send; the last had {last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_minute() {
        let start = Instant::now();
        let mut spoofs = Spoofs::default();
        assert_eq!(spoofs.line(start), None);
        let mut lines = Vec::new();
        for second in 0..180 {
            for _ in 0..1000 {
                spoofs.note(Spoof::Mac([0, 1, 2, 3, 4, 0xab]));
                lines.extend(spoofs.line(start + Duration::from_secs(second)));
            }
        }
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("1 frame was") && lines[0].ends_with("00:01:02:03:04:ab"));
        assert!(lines[2].starts_with("120001 frames were"));
        assert!(spoofs.line(start + Duration::from_secs(9999)).is_some());
        assert_eq!(spoofs.line(start + Duration::from_secs(99999)), None, "nothing new");
    }
}
