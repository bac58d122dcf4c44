//! Counters of all devices: asked of each backend, gathered, told in one piece.

use super::opened::Class;
use control::DeviceStats;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long backends may take to answer. One that is late is told of without its counters.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most questions at a time.
const MOST: usize = 64;

/// Counters of the devices of a domain.
#[derive(Clone, Debug, Default)]
pub struct DeviceCounters {
    /// Of disks.
    pub disks: Vec<DeviceStats>,
    /// Of network interfaces.
    pub interfaces: Vec<DeviceStats>,
}

/// Somebody who asked.
#[derive(Debug)]
struct Question<A> {
    asker: A,
    until: Instant,
    missing: Vec<Class>,
    counters: DeviceCounters,
}

/// Everybody who asked.
#[derive(Debug)]
pub(super) struct Questions<A>(Vec<Question<A>>);

impl<A> Questions<A> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes a question; `devices` are there, and the backends of `missing` will answer.
    pub(super) fn ask(
        &mut self,
        asker: A,
        devices: impl Iterator<Item = (Class, u32)>,
        missing: Vec<Class>,
    ) {
        let mut counters = DeviceCounters::default();
        for (class, number) in devices {
            let device = DeviceStats { number, counters: BTreeMap::new() };
            if let Some(list) = counters.of(class) {
                list.push(device);
            }
        }
        let missing = if self.0.len() < MOST { missing } else { Vec::new() };
        self.0.push(Question { asker, until: Instant::now() + PATIENCE, missing, counters });
    }

    /// A backend answered.
    pub(super) fn answer(&mut self, class: Class, devices: &BTreeMap<u32, BTreeMap<String, u64>>) {
        for question in &mut self.0 {
            question.missing.retain(|missing| *missing != class);
            for device in question.counters.of(class).into_iter().flatten() {
                if let Some(counters) = devices.get(&device.number) {
                    device.counters.clone_from(counters);
                }
            }
        }
    }

    /// When the next is to be answered in any case.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|question| question.until).min()
    }

    /// Questions that are answered, or have waited for too long.
    pub(super) fn done(&mut self, now: Instant) -> Vec<(A, DeviceCounters)> {
        let is_over = |q: &mut Question<A>| q.missing.is_empty() || q.until <= now;
        self.0.extract_if(.., is_over).map(|q| (q.asker, q.counters)).collect()
    }
}

impl DeviceCounters {
    /// Those of a class, if it has any.
    fn of(&mut self, class: Class) -> Option<&mut Vec<DeviceStats>> {
        match class {
            Class::Vbd => Some(&mut self.disks),
            Class::Vif => Some(&mut self.interfaces),
            Class::Channel => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_when_all_have_spoken_or_time_is_up() {
        let mut questions = Questions::new();
        let devices = [(Class::Vbd, 51712), (Class::Vbd, 51713), (Class::Vif, 0)];
        questions.ask('a', devices.into_iter(), vec![Class::Vbd, Class::Vif]);
        let now = Instant::now();
        assert!(questions.done(now).is_empty());
        let reads = BTreeMap::from([("reads".to_owned(), 7)]);
        questions.answer(Class::Vbd, &BTreeMap::from([(51713, reads), (1, BTreeMap::new())]));
        assert!(questions.done(now).is_empty());
        let done = questions.done(now + PATIENCE * 2);
        let [('a', counters)] = done.as_slice() else { panic!("{done:?}") };
        let reads: Vec<u64> = counters.disks.iter().map(|disk| disk.count("reads")).collect();
        assert_eq!((reads, counters.interfaces.len()), (vec![0, 7], 1));
        questions.ask('b', [].into_iter(), Vec::new());
        assert_eq!(questions.done(now).len(), 1, "nobody is to be asked");
        assert!(questions.next().is_none());
    }
}
