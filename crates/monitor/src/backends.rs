//! The guest's devices: notifications to and from the processes that serve them.
//!
//! What they say in the domain page is believed no more than what the guest says: a port that is not
//! theirs is not raised, a frame that does not exist is not looked at.

use core::sync::atomic::{AtomicU8, Ordering};

use boundary::{Backend, at, fd, holds};

use crate::{
    event::Port,
    state::{Monitor, page},
    sys,
};

/// Rings the bell of the backend that the guest's port belongs to.
pub fn notify(port: u32) {
    let (word, bit) = (port as usize / 64, 1u64 << (port % 64));
    for backend in Backend::ALL {
        let bound = page().channels.bound.get(backend as usize).and_then(|b| b.get(word));
        if bound.is_some_and(|bound| bound.load(Ordering::Acquire) & bit != 0) {
            sys::count_up(fd::BELLS + backend as i32);
        }
    }
}

/// Does a device write to the frame just now, or may it at any moment?
pub fn is_held(frame: u32) -> bool {
    Backend::ALL.iter().any(|backend| {
        let count = at::ARENA + holds::of(*backend) + u64::from(frame);
        // SAFETY: a byte of the arena for each frame that there can be, accessed atomically only.
        unsafe { &*(count as *const AtomicU8) }.load(Ordering::SeqCst) != 0
    })
}

impl Monitor {
    /// Forgets what was made of frames that backends wrote, then raises the ports that they notified.
    pub fn attend_backends(&mut self) {
        let channels = &page().channels;
        for slot in &channels.written {
            if let Some(frame) = slot.load(Ordering::Acquire).checked_sub(1) {
                self.before_write(frame);
                slot.store(0, Ordering::Release);
                sys::futex_wake(slot);
            }
        }
        for (word, raised) in (0u32..).zip(&channels.raised) {
            let mut bits = raised.swap(0, Ordering::Acquire);
            while bits != 0 {
                let port = word * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                if matches!(self.events.get(port), Port::Unbound { .. }) {
                    self.raise(port);
                }
            }
        }
    }
}
