//! Which device an event of the store is about, and how often one is looked at.

use super::opened::{Class, Key};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What an event is about.
pub(super) enum Concerned {
    /// All devices.
    All,
    /// This one.
    One(Key),
    /// None.
    None,
}

/// Only states matter, and directories that come or go.
pub(super) fn concerned(path: &str) -> Concerned {
    let mut parts = path.trim_start_matches('/').split('/').skip(3);
    if parts.next() != Some("device") {
        return Concerned::None;
    }
    let (class, number, rest) = (parts.next(), parts.next(), parts.next());
    let Some(class) = class else { return Concerned::All };
    let (Some(class), Some(number)) = (Class::from_word(class), number) else {
        return Concerned::All;
    };
    match (number.parse(), rest) {
        (Ok(number), None | Some("state")) => Concerned::One((class, number)),
        _ => Concerned::None,
    }
}

/// Devices to be looked at. A look costs the store many times what the guest pays for the event that
/// asks for it, so a guest that changes states without end is looked at less often.
#[derive(Debug)]
pub(super) struct Looks {
    waiting: BTreeSet<Key>,
    left: u32,
    since: Instant,
}

impl Looks {
    /// Looks at once, as many as all handshakes of a guest with many devices need.
    const MOST: u32 = 256;
    /// Time for one more.
    const EACH: Duration = Duration::from_millis(10);

    /// None asked for.
    pub fn new(now: Instant) -> Self {
        Self { waiting: BTreeSet::new(), left: Self::MOST, since: now }
    }

    /// A device is to be looked at.
    pub fn ask(&mut self, key: Key) {
        self.waiting.insert(key);
    }

    /// The next device whose turn it is.
    pub fn next(&mut self, now: Instant) -> Option<Key> {
        let earned = now.saturating_duration_since(self.since).as_millis() / Self::EACH.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(Self::MOST);
            self.since = now;
        }
        if self.left == 0 {
            return None;
        }
        let key = self.waiting.pop_first()?;
        self.left -= 1;
        Some(key)
    }

    /// How long to wait for the next one, if any waits.
    pub fn wait(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(Self::EACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_changes_states_without_end_is_looked_at_less_often() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        let key = (Class::Vbd, 51712);
        for _ in 0..Looks::MOST {
            looks.ask(key);
            looks.ask(key);
            assert_eq!((looks.next(start), looks.next(start)), (Some(key), None));
        }
        looks.ask(key);
        assert_eq!((looks.next(start), looks.wait()), (None, Some(Looks::EACH)));
        assert_eq!(looks.next(start + Looks::EACH), Some(key));
        assert_eq!(looks.wait(), None);
    }

    #[test]
    fn events_name_their_device() {
        let one = |path| match concerned(path) {
            Concerned::One(key) => Some(key),
            Concerned::All | Concerned::None => None,
        };
        assert_eq!(one("/local/domain/7/device/vbd/51712/state"), Some((Class::Vbd, 51712)));
        assert_eq!(one("/local/domain/7/device/vif/0"), Some((Class::Vif, 0)));
        assert_eq!(one("/local/domain/7/device/vbd/51712/ring-ref"), None);
        assert_eq!(one("/local/domain/7/device/vbd/many/state"), None);
        assert!(matches!(concerned("/local/domain/7/device"), Concerned::All));
        assert!(matches!(concerned("/local/domain/7/device/vbd"), Concerned::All));
        assert!(matches!(concerned("/local/domain/7/control/shutdown"), Concerned::None));
    }
}
