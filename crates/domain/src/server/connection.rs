//! One connection to the control socket.

use crate::console::History;
use control::{
    ErrorCode, Failure, LineError, LineReader, MAX_REQUEST, Request, Response, WaitUntil,
    send_with, write_line,
};
use rustix::event::PollFlags;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Console bytes sent at a time.
const CHUNK: usize = 16 << 10;

/// What a reader finds in the place of output that is not kept any more. The guest does not wait for slow
/// readers, but what they have must not look as if it were whole.
fn gap(missed: u64) -> String {
    format!("\r\n[xenolith: {missed} bytes of output came too fast to be read and are lost]\r\n")
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// Requests and replies.
    Requests,
    /// Waiting for an answer: when this happens, or when it is given.
    Waiting(Option<WaitUntil>),
    /// Console bytes; the position in the history that is sent next.
    Console {
        /// Position.
        position: u64,
    },
    /// Over.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    lines: LineReader,
    output: VecDeque<u8>,
    mode: Mode,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let lines = LineReader::new(MAX_REQUEST);
        Ok(Self { stream, lines, output: VecDeque::new(), mode: Mode::Requests })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn mode(&self) -> &Mode {
        &self.mode
    }

    pub(super) fn close(&mut self) {
        self.mode = Mode::Closed;
    }

    /// What to poll for; `reads` says whether there is room for input.
    pub(super) fn interest(&self, history: &History, reads: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.is_behind(history) {
            flags |= PollFlags::OUT;
        }
        // The next request is taken once the last reply is out.
        let takes = match self.mode {
            Mode::Requests => self.output.is_empty(),
            Mode::Console { .. } => reads,
            Mode::Waiting(_) | Mode::Closed => false,
        };
        if takes {
            flags |= PollFlags::IN;
        }
        flags
    }

    /// The next request, if it is complete. A bad one is answered and ends the connection.
    pub(super) fn request(&mut self) -> Option<Request> {
        match self.lines.read(&mut &self.stream) {
            Ok(Some(request)) => Some(request),
            Err(LineError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error @ (LineError::Json(_) | LineError::TooLong { .. })) => {
                let failure = Failure::new(ErrorCode::BadRequest, error.to_string())
                    .with_hint("Use tools of the same version as the domain's process.");
                self.send(&Response::Error(failure));
                self.flush(&History::default());
                self.close();
                None
            }
            Ok(None) | Err(_) => {
                self.close();
                None
            }
        }
    }

    /// Reads at most `most` console bytes.
    pub(super) fn read(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most.min(CHUNK)];
        if bytes.is_empty() {
            return bytes;
        }
        match (&self.stream).read(&mut bytes) {
            Ok(0) => self.close(),
            Ok(count) => {
                bytes.truncate(count);
                return bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.close(),
        }
        Vec::new()
    }

    /// Queues a reply line.
    pub(super) fn send(&mut self, response: &Response) {
        if matches!(self.mode, Mode::Waiting(_)) {
            self.mode = Mode::Requests;
        }
        let _memory_takes_all = write_line(&mut self.output, response);
    }

    /// Queues raw bytes with their header.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.send(&Response::Bytes { length: bytes.len() as u64 });
        self.output.extend(bytes);
    }

    /// Sends a reply line with a descriptor. The last reply is out, so that the line fits.
    pub(super) fn send_with(&mut self, response: &Response, file: &OwnedFd) {
        if matches!(self.mode, Mode::Waiting(_)) {
            self.mode = Mode::Requests;
        }
        let mut line = Vec::new();
        let _memory_takes_all = write_line(&mut line, response);
        let sent = send_with(&self.stream, &line, file);
        match sent {
            Ok(count) => self.output.extend(line.get(count..).unwrap_or_default()),
            Err(_) => self.close(),
        }
    }

    pub(super) fn wait(&mut self, until: Option<WaitUntil>) {
        self.mode = Mode::Waiting(until);
    }

    /// Switches to console bytes; returns what was typed ahead.
    pub(super) fn start_console(&mut self, history: &History, writable: bool) -> Vec<u8> {
        let position = history.start();
        self.send(&Response::Console { history: history.end() - position, writable });
        self.mode = Mode::Console { position };
        std::mem::replace(&mut self.lines, LineReader::new(0)).into_rest()
    }

    /// Sends until the other side is full.
    pub(super) fn flush(&mut self, history: &History) {
        loop {
            if self.output.is_empty()
                && let Mode::Console { position } = self.mode
            {
                let (from, bytes) = history.read(position, CHUNK);
                let missed = from.saturating_sub(position);
                if missed > 0 {
                    self.output.extend(gap(missed).as_bytes());
                }
                self.mode = Mode::Console { position: from.saturating_add(bytes.len() as u64) };
                self.output.extend(bytes);
            }
            if self.output.is_empty() || matches!(self.mode, Mode::Closed) {
                return;
            }
            let (front, _) = self.output.as_slices();
            let sent = (&self.stream).write(front);
            match sent {
                Ok(0) => return,
                Ok(count) => drop(self.output.drain(..count.min(self.output.len()))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.close(),
            }
        }
    }

    /// Whether there is something left to send.
    pub(super) fn is_behind(&self, history: &History) -> bool {
        let unsent = matches!(self.mode, Mode::Console { position } if position < history.end());
        unsent || !self.output.is_empty()
    }
}
