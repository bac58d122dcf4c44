//! `serve`: the daemon's programming interface on standard input and output, for `ssh HOST xm serve`.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::daemon::daemon;
use crate::error::Error;

/// How often it is looked whether somebody still reads: that wakes no poll.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Bytes that are passed on at a time.
const CHUNK: usize = 64 << 10;

/// What became of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Ended,
}

/// `serve`: passes bytes between standard input and output and the daemon, until that closes the
/// connection, or nobody reads any more.
///
/// # Errors
///
/// When the daemon cannot be reached, or a stream breaks.
pub fn serve() -> Result<(), Error> {
    let daemon = daemon().connect()?;
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let mut asking = Flow::On;
    loop {
        // An end of the input is not passed on: to the daemon it is a client that gives up.
        let wanted = if asking == Flow::On { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(&daemon, PollFlags::IN),
            PollFd::new(&output, PollFlags::empty()),
            PollFd::new(&input, wanted),
        ];
        let _interrupted_is_looked_at = poll(&mut fds, Some(&LOOK));
        let [answers, reader, questions] = fds.each_ref().map(PollFd::revents);
        if !answers.is_empty() && pass(&daemon, output.lock())? == Flow::Ended {
            return Ok(());
        }
        if reader.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            let _closed_anyway = daemon.shutdown(Shutdown::Both);
            return Err(Error::OutputClosed);
        }
        if asking == Flow::On && !questions.is_empty() {
            asking = pass(input.as_fd(), &daemon)?;
        }
    }
}

/// Passes on what is there to be read.
fn pass(from: impl AsFd, mut to: impl Write) -> Result<Flow, Error> {
    let mut chunk = vec![0; CHUNK];
    let count = match rustix::io::read(from, &mut chunk) {
        Ok(0) => return Ok(Flow::Ended),
        Ok(count) => count,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(Flow::On),
        Err(rustix::io::Errno::CONNRESET) => return Ok(Flow::Ended),
        Err(errno) => return Err(Error::Output(errno.into())),
    };
    let bytes = chunk.get(..count).unwrap_or_default();
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Ok(()) => Ok(Flow::On),
        // The daemon refused and closed: its answer is still to be read.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Flow::Ended),
        Err(error) => Err(Error::Output(error)),
    }
}
