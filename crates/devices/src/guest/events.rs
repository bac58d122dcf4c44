//! Event channels of devices (see `boundary::Channels`).

use super::Guest;
use boundary::{DomainPage, inbox, vcpu_state};
use rustix::thread::futex;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// A port of the guest's that this backend serves, until it is dropped.
#[derive(Debug)]
pub struct Port {
    guest: Arc<Guest>,
    word: usize,
    bit: u64,
}

impl Port {
    pub(super) fn bind(guest: Arc<Guest>, port: u32) -> Option<Self> {
        let (word, bit) = (port as usize / 64, 1u64 << (port % 64));
        if port == 0 || word >= boundary::CHANNEL_WORDS {
            return None;
        }
        let port = Self { guest, word, bit };
        port.bound()?.fetch_or(bit, Ordering::AcqRel);
        Some(port)
    }

    fn bound(&self) -> Option<&AtomicU64> {
        let bound = &self.guest.memory().channels().bound;
        bound.get(self.guest.backend as usize)?.get(self.word)
    }

    /// Notifies the guest.
    pub fn notify(&self) {
        if let Some(raised) = self.guest.memory().channels().raised.get(self.word) {
            raised.fetch_or(self.bit, Ordering::AcqRel);
            self.guest.post();
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(bound) = self.bound() {
            bound.fetch_and(!self.bit, Ordering::AcqRel);
        }
    }
}

impl Guest {
    /// Has the monitor look at the channels: wakes an idle vCPU. One that runs looks by itself when its
    /// program makes a system call, or is interrupted later ([`Self::pay`]): that costs it and us some
    /// ten microseconds.
    fn post(&self) {
        if self.inbox().fetch_or(inbox::CHANNELS, Ordering::SeqCst) & inbox::CHANNELS != 0 {
            // Whoever set it does the rest, and the monitor takes the bit before it looks.
            return;
        }
        let wake = self.memory.page_word(offset_of!(DomainPage, wake));
        wake.fetch_add(1, Ordering::SeqCst);
        if self.is_running() {
            let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
            owed.get_or_insert_with(Instant::now);
        } else {
            let _nobody_waits = futex::wake(wake, futex::Flags::empty(), u32::MAX >> 1);
        }
    }

    /// Interrupts the guest for what was posted longer than `patience` ago, unless it has looked: to
    /// be called with no patience before anything is waited for.
    pub fn pay(&self, patience: Duration) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.is_some_and(|since| patience.is_zero() || since.elapsed() >= patience) {
            *owed = None;
            if self.inbox().load(Ordering::SeqCst) & inbox::CHANNELS != 0 {
                self.interrupt();
            }
        }
    }

    /// It may have gone to sleep since it was seen running: then its count of wakes has changed before,
    /// and it does not stay asleep.
    fn interrupt(&self) {
        let _full_is_enough = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    fn inbox(&self) -> &AtomicU32 {
        self.memory.page_word(offset_of!(DomainPage, inbox))
    }

    fn is_running(&self) -> bool {
        let state = self.memory.page_word(offset_of!(DomainPage, vcpu_state));
        state.load(Ordering::SeqCst) == vcpu_state::RUNNING
    }

    /// Whether the guest waits for something to happen.
    pub fn is_idle(&self) -> bool {
        let state = self.memory.page_word(offset_of!(DomainPage, vcpu_state));
        state.load(Ordering::Relaxed) == vcpu_state::BLOCKED
    }

    /// Tells the monitor that frames of the guest's were written: to be called after the write and
    /// before the guest is told of it. Waits until it knows.
    pub fn wrote(&self, frames: impl IntoIterator<Item = u64>) {
        self.memory.wrote(frames, || self.notify_monitor());
    }

    fn notify_monitor(&self) {
        self.post();
        self.pay(Duration::ZERO);
    }
}
