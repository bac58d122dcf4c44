//! The process `xenblock`: one loop over orders, the guest's bell, and jobs that are done.

use super::{Means, Server, rules};
use crate::guest::Guest;
use crate::wire::{self, Report};
use boundary::Backend;
use config::LogLevel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long more work is waited for before the guest is asked to ring. Ringing costs both sides a
/// few microseconds; this is about as much, so that it at most doubles what an idle moment costs.
const SPIN: Duration = Duration::from_micros(20);
/// How often orders are looked at while the guest keeps us busy.
const LOOK: Duration = Duration::from_millis(2);

/// Serves the disks of a domain, with descriptors as `boundary::backend_fd` says, until the domain
/// process goes away.
///
/// # Errors
/// When the descriptors or the first order are not what they should be, or the host does not let the
/// process be confined.
pub fn serve(means: Means) -> io::Result<()> {
    let Some((orders, guest)) = crate::start::begin(Backend::Block)? else { return Ok(()) };
    // Asked now: the answer is in files.
    let can_spin = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    crate::jail::forsake_files()?;
    let mut server = Server::new(guest.clone(), means)?;
    crate::jail::close(rules::calls())?;
    let line = format!("disks are served by {}", server.means());
    wire::send(&orders, &Report::Log { level: LogLevel::Info, line }, &[])?;
    run(&mut server, &guest, &orders, can_spin)
}

fn run(server: &mut Server, guest: &Guest, orders: &OwnedFd, can_spin: bool) -> io::Result<()> {
    let mut spinner = Spinner::new(can_spin);
    let mut busy = false;
    loop {
        // Only when there is nothing to do is anything waited for.
        let (has_order, has_bell) = look(server, guest, orders, busy)?;
        if has_order {
            let Some((order, files)) = wire::receive(orders)? else { return Ok(()) };
            server.order(order, files);
        }
        if has_bell {
            guest.clear_bell();
        }
        busy = work(server, guest, &mut spinner);
        for report in server.take_reports() {
            wire::send(orders, &report, &[])?;
        }
    }
}

/// Works as long as there is work and it is not time to look at orders. True if there is more.
fn work(server: &mut Server, guest: &Guest, spinner: &mut Spinner) -> bool {
    let end = Instant::now() + LOOK;
    loop {
        let mut any = false;
        while server.turn() {
            any = true;
            guest.pay(SPIN);
            if Instant::now() > end {
                return true;
            }
        }
        // A guest that had requests just now may have more.
        if any && spinner.spin(server) {
            continue;
        }
        guest.pay(Duration::ZERO);
        return server.rest();
    }
}

/// Decides whether it pays to wait for more work without sleeping.
#[derive(Debug)]
struct Spinner {
    /// With one processor, the guest would wait for the end of our waiting.
    is_allowed: bool,
    /// How often it may be in vain before it is left alone.
    credit: u32,
    /// Times it was left alone since.
    skipped: u32,
}

/// Vain waits until it is left alone, and how often it is left alone until it is tried again.
const CREDIT: u32 = 4;
const SKIP: u32 = 32;

impl Spinner {
    fn new(is_allowed: bool) -> Self {
        Self { is_allowed, credit: CREDIT, skipped: 0 }
    }

    /// Waits for work; false if none comes soon.
    fn spin(&mut self, server: &mut Server) -> bool {
        if !self.is_allowed {
            return false;
        }
        if self.credit == 0 {
            self.skipped += 1;
            if self.skipped < SKIP {
                return false;
            }
            self.skipped = 0;
        }
        let end = Instant::now() + SPIN;
        while Instant::now() < end {
            for _ in 0..8 {
                if server.has_work() {
                    self.credit = CREDIT;
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        self.credit = self.credit.saturating_sub(1);
        false
    }
}

/// What there is: orders, the guest's bell.
fn look(
    server: &Server,
    guest: &Guest,
    orders: &OwnedFd,
    is_busy: bool,
) -> io::Result<(bool, bool)> {
    let mut fds = vec![
        PollFd::new(orders, PollFlags::IN),
        PollFd::from_borrowed_fd(guest.bell(), PollFlags::IN),
    ];
    fds.extend(server.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut fds, is_busy.then_some(&now)) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
    Ok((is_ready(fds.first()), is_ready(fds.get(1))))
}
