//! Ending a domain: by the guest's own shutdown, or by the monitor with a reason.

use core::{fmt, sync::atomic::Ordering};

use boundary::{CrashRecord, bell, vcpu_state};

use crate::{
    event,
    gate::context,
    layout::at,
    log,
    proven::Masked,
    state::{Monitor, page},
    sys,
    trap::in_user_mode,
};

/// Ends the domain with a reason.
pub fn end(m: &mut Monitor, reason: &str) {
    end_with(m, |w| {
        use fmt::Write;
        let _ = w.write_str(reason);
    });
}

/// Text that ends at the buffer's end.
pub struct Text<'a> {
    to: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for b in s.bytes() {
            // The last byte stays zero.
            if self.len + 1 < self.to.len()
                && let Some(to) = self.to.get_mut(self.len)
            {
                *to = b;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// The record in the domain page; only the space that ends the domain writes it.
fn record() -> &'static mut CrashRecord {
    let at = at::ARENA + core::mem::offset_of!(boundary::DomainPage, crash) as u64;
    // SAFETY: within the domain page; spaces run one at a time.
    unsafe { &mut *(at as *mut CrashRecord) }
}

/// Ends the domain with a reason that `write` writes.
pub fn end_with(m: &mut Monitor, write: impl FnOnce(&mut Text)) {
    if m.ended {
        return;
    }
    m.ended = true;
    let r = record();
    r.reason.fill(0);
    write(&mut Text { to: &mut r.reason, len: 0 });
    fill(m, r);
    log::ring(bell::CRASH);
}

/// The domain process wants to see the registers of a guest that runs.
pub fn snapshot(m: &mut Monitor) {
    if m.ended {
        return;
    }
    fill(m, record());
    page().snapshots.fetch_add(1, Ordering::Release);
}

/// Where the guest is.
fn fill(m: &mut Monitor, r: &mut CrashRecord) {
    let c = context();
    r.regs = c.regs;
    r.regs[4] = m.guest_rsp();
    r.rip = m.vcpu.rip;
    r.rflags = c.rflags;
    r.kernel = u64::from(!in_user_mode());
    r.cr2 = event::cr2();
    r.cr3_mfn = m.vcpu.kernel_root.into();
    let rsp = if in_user_mode() { m.vcpu.kernel_stack } else { r.regs[4] };
    for (i, word) in r.stack.iter_mut().enumerate() {
        *word = m.read_value(rsp.wrapping_add(8 * i as u64)).unwrap_or(0);
    }
    for (i, block) in r.blocks.iter_mut().enumerate() {
        *block = *m.code.recent.at(m.code.recent_next + i);
    }
}

/// The guest shut down by `SCHEDOP_shutdown`.
pub fn shut_down(m: &mut Monitor, reason: u32) {
    if m.ended {
        return;
    }
    page().shutdown_reason.store(reason, Ordering::Release);
    if reason == abi::sched::SHUTDOWN_CRASH {
        // The record tells where it crashed.
        end(m, "the guest kernel reported a crash (panic)");
    } else {
        m.ended = true;
    }
    log::ring(bell::SHUTDOWN);
}

/// Writes the counters into the log.
pub fn log_statistics(m: &Monitor) {
    log::line(format_args!("{:#?}", m.stats));
    log::line(format_args!(
        "heap {} KiB, code {} KiB, fast system calls {}",
        crate::heap::used() >> 10,
        m.code.next_code >> 10,
        crate::gate::gate().fast_syscalls
    ));
}

/// The domain ended: this space waits to be killed.
pub fn stop(m: &mut Monitor) -> ! {
    if m.setup.flags & boundary::setup_flag::STATISTICS != 0 {
        log_statistics(m);
    }
    page().vcpu_state.store(vcpu_state::ENDED, Ordering::Release);
    log::ring(0);
    loop {
        sys::futex_wait(&page().wake, page().wake.load(Ordering::Relaxed), None);
    }
}

/// The monitor panicked: a bug, or memory ran out.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    let r = record();
    r.reason.fill(0);
    {
        use fmt::Write;
        let mut w = Text { to: &mut r.reason, len: 0 };
        let _ = write!(w, "monitor: {}", info.message());
        if let Some(l) = info.location() {
            let _ = write!(w, " at {}:{}", l.file(), l.line());
        }
    }
    log::ring(bell::CRASH);
    sys::exit(98)
}
