//! The control socket: connections, their requests, and console streams.

mod connection;

use crate::console::History;
use connection::{Connection, Mode};
use control::{Ended, ErrorCode, Failure, Request, Response, WaitUntil, peer_allowed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// Most connections at a time.
const MOST: usize = 256;

/// How long readers may take to accept what is left when the domain is gone.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for one of them to accept more.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A connection's name; never used again.
pub type Id = u64;

/// What the domain answers to a request.
#[derive(Debug)]
pub enum Answer {
    /// This line.
    Line(Response),
    /// These bytes.
    Bytes(Vec<u8>),
    /// This line, and a descriptor with it.
    Descriptor(Response, OwnedFd),
    /// The console.
    Console,
    /// When this happens.
    Later(WaitUntil),
    /// When it is known.
    Pending,
}

impl From<Result<(), Failure>> for Answer {
    fn from(result: Result<(), Failure>) -> Self {
        Self::Line(result.map_or_else(Response::Error, |()| Response::Ok))
    }
}

/// The control socket of a domain and everybody connected to it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    connections: Vec<(Id, Connection)>,
    next: Id,
    writer: Option<Id>,
}

/// What a round of input brought.
#[derive(Debug, Default)]
pub struct Input {
    /// Requests.
    pub requests: Vec<(Id, Request)>,
    /// What the console's writer typed.
    pub typed: Vec<u8>,
}

impl Server {
    /// Serves `listener`.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn new(listener: UnixListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new(), next: 0, writer: None })
    }

    /// What to poll: the listener, then every connection.
    pub fn poll_fds(&self, history: &History, room: usize) -> Vec<PollFd<'_>> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for (id, connection) in &self.connections {
            let reads = self.writer != Some(*id) || room > 0;
            fds.push(PollFd::new(connection.stream(), connection.interest(history, reads)));
        }
        fds
    }

    /// Takes new connections and input, as `ready` (in the order of
    /// [`Server::poll_fds`]) says.
    pub fn take_input(&mut self, ready: &[PollFlags], room: usize) -> Input {
        let mut input = Input::default();
        let flags = ready.get(1..).unwrap_or_default();
        for ((id, connection), flags) in self.connections.iter_mut().zip(flags) {
            if flags.is_empty() {
                continue;
            }
            if flags.intersects(PollFlags::HUP | PollFlags::ERR) && !flags.contains(PollFlags::IN) {
                connection.close();
            }
            match connection.mode() {
                Mode::Requests => input.requests.extend(connection.request().map(|r| (*id, r))),
                Mode::Console { .. } => {
                    let writer = self.writer == Some(*id);
                    let most = if writer { room.saturating_sub(input.typed.len()) } else { 4096 };
                    let bytes = connection.read(most);
                    if writer {
                        input.typed.extend(bytes);
                    }
                }
                Mode::Waiting(_) if flags.intersects(PollFlags::HUP | PollFlags::ERR) => {
                    connection.close();
                }
                Mode::Waiting(_) | Mode::Closed => {}
            }
        }
        // Those that are over leave their room to new ones.
        self.sweep();
        if ready.first().is_some_and(|flags| !flags.is_empty()) {
            let known = self.connections.len();
            self.accept();
            // Who connects has something to say: mostly it is there already.
            for (id, connection) in self.connections.iter_mut().skip(known) {
                input.requests.extend(connection.request().map(|request| (*id, request)));
            }
            self.sweep();
        }
        input
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let mut connection = match Connection::new(stream) {
                Ok(connection) => connection,
                Err(_) => continue,
            };
            if !peer_allowed(connection.stream()) {
                let text = "Only the domain's owner and root may command it";
                refuse(&mut connection, ErrorCode::NotPermitted, text);
            } else if self.connections.len() >= MOST {
                refuse(&mut connection, ErrorCode::Busy, "The domain has too many connections");
            } else {
                self.connections.push((self.next, connection));
                self.next += 1;
            }
        }
    }

    /// Forgets closed connections.
    fn sweep(&mut self) {
        self.connections.retain(|(_, connection)| !matches!(connection.mode(), Mode::Closed));
        let gone = |id: &Id| !self.connections.iter().any(|(known, _)| known == id);
        if self.writer.as_ref().is_some_and(gone) {
            self.writer = None;
        }
    }

    /// Whether a connection is still there.
    pub fn is_connected(&self, id: Id) -> bool {
        self.connections.iter().any(|(known, _)| *known == id)
    }

    /// Answers a request.
    pub fn answer(&mut self, id: Id, answer: Answer, history: &History) -> Vec<u8> {
        let writable = self.writer.is_none();
        let Some((_, connection)) = self.connections.iter_mut().find(|(known, _)| *known == id)
        else {
            return Vec::new();
        };
        match answer {
            Answer::Line(response) => connection.send(&response),
            Answer::Descriptor(response, file) => connection.send_with(&response, &file),
            Answer::Bytes(bytes) => connection.send_bytes(&bytes),
            Answer::Later(until) => connection.wait(Some(until)),
            Answer::Pending => connection.wait(None),
            Answer::Console => {
                let typed = connection.start_console(history, writable);
                if writable {
                    self.writer = Some(id);
                    return typed;
                }
            }
        }
        Vec::new()
    }

    /// Answers everybody who waits for `until`.
    pub fn ended(&mut self, until: WaitUntil, ended: Ended) {
        for (_, connection) in &mut self.connections {
            if matches!(connection.mode(), Mode::Waiting(Some(what)) if *what == until) {
                connection.send(&Response::Ended(ended));
            }
        }
    }

    /// Answers everybody who waits for the domain's end, those too whose question came while it ended.
    pub fn gone(&mut self, ended: Ended) {
        self.accept();
        for (_, connection) in &mut self.connections {
            if matches!(connection.mode(), Mode::Requests)
                && let Some(Request::Wait { until }) = connection.request()
            {
                connection.wait(Some(until));
            }
            if matches!(connection.mode(), Mode::Waiting(Some(_))) {
                connection.send(&Response::Ended(ended));
            }
        }
    }

    /// Sends what can be sent without waiting.
    pub fn flush(&mut self, history: &History) {
        for (_, connection) in &mut self.connections {
            connection.flush(history);
        }
        self.sweep();
    }

    /// Sends everything that is left, with a little patience, and closes.
    pub fn close(mut self, history: &History) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.flush(history);
            self.connections.retain(|(_, connection)| connection.is_behind(history));
            if self.connections.is_empty() || Instant::now() >= end {
                return;
            }
            let streams = self.connections.iter().map(|(_, connection)| connection.stream());
            let mut fds: Vec<_> =
                streams.map(|stream| PollFd::new(stream, PollFlags::OUT)).collect();
            let _looked_at_again = poll(&mut fds, Some(&LOOK));
        }
    }
}

fn refuse(connection: &mut Connection, code: ErrorCode, text: &str) {
    connection.send(&Response::Error(Failure::new(code, text)));
    connection.flush(&History::default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{ClientError, EndedAs, Entry, ShutdownReason, Uuid};

    #[test]
    fn who_asks_while_the_domain_ends_is_told() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().to_path_buf();
        let (uuid, name) = (Uuid([1; 16]), "one".to_owned());
        let entry = Entry { domid: 1, name, uuid, pid: 1, started: 0, directory };
        let mut server = Server::new(control::bind(&entry.socket()).unwrap()).unwrap();
        let known = control::Client::open(&entry).unwrap();
        server.accept();
        let ended = Ended { reason: ShutdownReason::Reboot, outcome: EndedAs::Destroyed };
        let answers: Vec<Result<Option<Ended>, ClientError>> = std::thread::scope(|scope| {
            let unknown = control::Client::open(&entry).unwrap();
            let patience = Some(Duration::from_secs(10));
            let asked = [(known, WaitUntil::Gone), (unknown, WaitUntil::Shutdown)]
                .map(|(client, until)| scope.spawn(move || client.wait(until, patience)));
            // Their questions are there, and nobody reads them.
            std::thread::sleep(Duration::from_millis(200));
            server.gone(ended);
            server.close(&History::default());
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        for answer in answers {
            assert_eq!(answer.unwrap(), Some(ended));
        }
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        use std::io::Read;
        let (mut reader, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours).unwrap();
        let mut history = History::default();
        connection.start_console(&history, false);
        // What the socket takes is not lost; nobody reads meanwhile.
        let piece: Vec<u8> = (b'a'..=b'z').cycle().take(64 << 10).collect();
        let mut printed = Vec::new();
        for _ in 0..64 {
            history.push(&piece);
            printed.extend(&piece);
            connection.flush(&history);
        }
        let reading = std::thread::spawn(move || {
            let mut came = Vec::new();
            reader.read_to_end(&mut came).map(|_| came)
        });
        while connection.is_behind(&history) {
            connection.flush(&history);
        }
        drop(connection);
        let came = String::from_utf8(reading.join().unwrap().unwrap()).unwrap();
        let (_, came) = came.split_once('\n').unwrap();
        let (before, rest) = came.split_once("\r\n[xenolith: ").unwrap();
        let (missed, rest) = rest.split_once(' ').unwrap();
        let (_, after) = rest.split_once("lost]\r\n").unwrap();
        assert!(printed.starts_with(before.as_bytes()) && printed.ends_with(after.as_bytes()));
        let missed: usize = missed.parse().unwrap();
        assert_eq!(before.len() + missed + after.len(), printed.len());
        assert!(!after.contains("xenolith") && missed > 1 << 20, "{missed}");
    }
}
