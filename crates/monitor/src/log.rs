//! The monitor's log: lines in a ring that the domain process empties.

use core::{fmt, sync::atomic::Ordering};

use boundary::{ByteRing, RING, bell};

use crate::{
    state::{Monitor, page},
    sys,
};

/// Appends bytes to a ring of the domain page; what does not fit is lost.
pub fn append(ring: &ByteRing, bytes: &[u8]) {
    let read = ring.read.load(Ordering::Acquire);
    let mut written = ring.written.load(Ordering::Relaxed);
    for b in bytes {
        if written.wrapping_sub(read) >= RING as u32 {
            break;
        }
        let data = ring.data.as_ptr().cast_mut();
        // SAFETY: the index is below RING; the domain process reads only
        // between `read` and `written`.
        unsafe { data.add(written as usize % RING).write_volatile(*b) };
        written = written.wrapping_add(1);
    }
    ring.written.store(written, Ordering::Release);
}

/// Rings the domain process's doorbell.
pub fn ring(bells: u32) {
    let p = page();
    p.bells.fetch_or(bells, Ordering::Release);
    p.doorbell.fetch_add(1, Ordering::Release);
    sys::futex_wake(&p.doorbell);
}

/// Writes to the log ring.
pub struct Log;

impl fmt::Write for Log {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        append(&page().log, s.as_bytes());
        Ok(())
    }
}

/// Logs a line.
pub fn line(args: fmt::Arguments) {
    use fmt::Write;
    let _ = Log.write_fmt(args);
    let _ = Log.write_str("\n");
    ring(bell::LOG);
}

impl Monitor {
    /// Logs something the guest does that is not provided, once per `what`.
    pub fn complain_once(&mut self, what: u64, args: fmt::Arguments) {
        /// A hostile guest must not fill the set.
        const MOST: usize = 4096;
        if self.complaints.len() < MOST && self.complaints.insert(what) {
            line(args);
        }
    }
}
