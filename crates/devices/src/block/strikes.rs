//! Images that make their backend die.
//!
//! A qcow2 image is a structure that somebody else made, and the crate that follows it is not ours:
//! one that lies about its own clusters can exhaust its stack. The next backend would do the same
//! request again, and so on. So it is noted beside the requests under way, in memory that outlives the
//! process, when such an image is at work; a process that begins and finds this has seen a *strike*.
//! After one, requests of such images are done one at a time, so that the next death has one cause. An
//! image with too many strikes is not touched any more: all its requests are errors.

use super::in_flight::{InFlight, device};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Strikes that an image may have. Who kills backends all the time (or the host, for want of memory)
/// is not to turn an image bad.
const MOST: u32 = 5;

/// The strikes of an image.
#[derive(Clone, Debug)]
pub struct Strikes(Arc<InFlight>);

impl Strikes {
    /// Looks what the process before this one was doing when it ended.
    pub fn open(file: &Arc<InFlight>) -> Self {
        let strikes = Self(file.clone());
        let was_at_work =
            strikes.0.device_word(device::AT_WORK, |word| word.swap(0, Ordering::AcqRel) != 0);
        if was_at_work == Some(true) {
            let _known =
                strikes.0.device_word(device::STRIKES, |word| word.fetch_add(1, Ordering::AcqRel));
        }
        strikes
    }

    fn count(&self) -> u32 {
        self.0.device_word(device::STRIKES, |word| word.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// The image is not to be touched.
    pub fn are_too_many(&self) -> bool {
        self.count() >= MOST
    }

    /// What was under way when the last process ended is done: it was not the cause.
    pub fn forgive(&self) {
        if !self.are_too_many() {
            let _done =
                self.0.device_word(device::STRIKES, |word| word.store(0, Ordering::Release));
        }
    }

    /// Does something with the image.
    pub fn at_work<T>(&self, work: impl FnOnce() -> T) -> T {
        static ALONE: Mutex<()> = Mutex::new(());
        let is_suspect = self.count() > 0;
        let _turn = is_suspect.then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
        let count = |by: u32| {
            self.0.device_word(device::AT_WORK, |word| word.fetch_add(by, Ordering::AcqRel))
        };
        let _began = count(1);
        let result = work();
        // One less.
        let _ended = count(u32::MAX);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::in_flight_file;

    #[test]
    fn deaths_at_work_count_until_the_rest_is_done() {
        let file = in_flight_file().unwrap();
        let open = || Strikes::open(&InFlight::open(&file).unwrap());
        let dies_at_work = |strikes: &Strikes| {
            strikes.0.device_word(device::AT_WORK, |word| word.store(3, Ordering::Relaxed));
        };
        let strikes = open();
        assert_eq!(strikes.at_work(|| 7), 7);
        // One that ends at rest is no strike.
        assert_eq!(open().count(), 0);
        for count in 1..MOST {
            dies_at_work(&strikes);
            let next = open();
            assert_eq!((next.count(), next.are_too_many()), (count, false));
            assert_eq!(open().count(), count, "counted once");
        }
        strikes.forgive();
        assert_eq!(open().count(), 0);
        for _ in 0..MOST {
            dies_at_work(&strikes);
            open();
        }
        assert!(open().are_too_many());
        strikes.forgive();
        assert!(open().are_too_many(), "for good");
    }
}
