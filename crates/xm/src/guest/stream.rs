//! A session as a stream to read or to write, which waits, and is interrupted by signals.

use super::GuestError;
use super::session::{Event, Session, Source};
use crate::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// A session as a stream.
pub(super) struct Stream<'a> {
    session: Session,
    signals: &'a mut Signals,
    received: Vec<u8>,
    is_done: bool,
    /// Why it cannot go on.
    pub(super) error: Option<GuestError>,
    /// The signal that interrupted it.
    pub(super) signal: Option<i32>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(session: Session, signals: &'a mut Signals) -> Self {
        Self { session, signals, received: Vec::new(), is_done: false, error: None, signal: None }
    }

    fn fail<T>(&mut self, error: GuestError) -> io::Result<T> {
        self.error.get_or_insert(error);
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Waits for something to happen and does it.
    fn turn(&mut self) -> io::Result<()> {
        if self.error.is_some() || self.signal.is_some() {
            // Buffers try once more what has failed.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        let was_full = !self.session.is_flushed();
        let step = self.session.flush().and_then(|()| self.session.check_patience());
        if let Err(error) = step {
            return self.fail(error);
        }
        if was_full && self.session.is_flushed() {
            // There is room again, and perhaps nothing else will happen.
            return Ok(());
        }
        let mut fds = [
            PollFd::from_borrowed_fd(self.signals.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.session.as_fd(), self.session.interest()),
        ];
        let left = self.session.patience_left();
        let timeout =
            left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(signal) = self.signals.ending() {
            self.signal = Some(signal);
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        }
        match self.session.hear() {
            Ok(Some(Event::Data(Source::Out, bytes))) => self.received = bytes,
            Ok(Some(Event::Data(Source::Err, _)) | None) => {}
            Ok(Some(Event::Done(_))) => self.is_done = true,
            Err(error) => return self.fail(error),
        }
        Ok(())
    }

    /// Tells that there is no more input, and waits until the agent is done.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.session.say_end();
        while !self.is_done {
            self.turn()?;
            self.received.clear();
        }
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.received.is_empty() {
            if self.is_done {
                return Ok(0);
            }
            self.turn()?;
        }
        let count = self.received.len().min(into.len());
        let rest = self.received.split_off(count);
        let bytes = std::mem::replace(&mut self.received, rest);
        if let Some(into) = into.get_mut(..count) {
            into.copy_from_slice(&bytes);
        }
        self.session.took(count);
        Ok(count)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        while self.session.room() == 0 {
            if self.is_done {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            self.turn()?;
        }
        let count = bytes.len().min(self.session.room());
        self.session.say_data(bytes.get(..count).unwrap_or_default());
        if let Err(error) = self.session.flush() {
            return self.fail(error);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
