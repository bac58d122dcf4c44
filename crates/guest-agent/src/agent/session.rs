//! Sessions as the reader of the channel sees them, and their way to the host.

use super::{command, copy};
use crate::message::{Kind, Outcome, credit, total};
use crate::request::{Request, Size};
use crate::{CHUNK, WINDOW, exit, frame};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Sessions at a time.
const MOST: usize = 32;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to the host.
#[derive(Debug)]
pub(super) struct Channel(Mutex<File>);

impl Channel {
    pub(super) fn new(terminal: File) -> Self {
        Self(Mutex::new(terminal))
    }

    /// Ends whatever was sent before.
    pub(super) fn resynchronise(&self) -> io::Result<()> {
        lock(&self.0).write_all(&[0])
    }

    /// Sends a frame.
    pub(super) fn send(&self, session: u16, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 64);
        frame::encode(session, kind as u8, payload, &mut bytes);
        lock(&self.0).write_all(&bytes)
    }
}

/// What the host lets a session send.
#[derive(Debug)]
struct Allowance {
    bytes: u32,
    closed: bool,
}

/// A session's way to the host.
#[derive(Debug)]
pub(super) struct Link {
    id: u16,
    channel: Arc<Channel>,
    allowance: Mutex<Allowance>,
    changed: Condvar,
    /// Input that the host was not told is taken.
    unread: AtomicU32,
    /// Bytes of output and of standard error that were sent.
    sent: [AtomicU64; 2],
    /// The command's process group, once it runs and until it has ended.
    group: Mutex<Option<Pid>>,
    terminal: Mutex<Option<OwnedFd>>,
}

impl Link {
    fn new(id: u16, channel: Arc<Channel>) -> Self {
        Self {
            id,
            channel,
            allowance: Mutex::new(Allowance { bytes: WINDOW, closed: false }),
            changed: Condvar::new(),
            unread: AtomicU32::new(0),
            sent: [AtomicU64::new(0), AtomicU64::new(0)],
            group: Mutex::new(None),
            terminal: Mutex::new(None),
        }
    }

    /// Sends data, when the host takes it. Fails once the session is closed.
    pub(super) fn send_data(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            let wanted = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let mut allowance = lock(&self.allowance);
            while allowance.bytes < wanted && !allowance.closed {
                allowance = self.changed.wait(allowance).unwrap_or_else(PoisonError::into_inner);
            }
            if allowance.closed {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            allowance.bytes -= wanted;
            drop(allowance);
            self.channel.send(self.id, kind, chunk)?;
            let [out, err] = &self.sent;
            let sent = if kind == Kind::ErrorData { err } else { out };
            sent.fetch_add(wanted.into(), Ordering::AcqRel);
        }
        Ok(())
    }

    /// Sends something else, if the session is open.
    pub(super) fn send(&self, kind: Kind, payload: &[u8]) {
        if !lock(&self.allowance).closed {
            // A channel that broke is noticed by its reader.
            let _noticed_elsewhere = self.channel.send(self.id, kind, payload);
        }
    }

    /// The session's work is done, and all output is sent.
    pub(super) fn done(&self, outcome: Outcome) {
        let totals = self.sent.iter().flat_map(|sent| sent.load(Ordering::Acquire).to_le_bytes());
        self.send(Kind::Sent, &totals.collect::<Vec<u8>>());
        self.send(Kind::Done, &outcome.encode());
    }

    /// The session's work cannot be done.
    pub(super) fn refuse(&self, code: u8, text: &str) {
        let text: String = text.chars().take(1000).collect();
        let payload: Vec<u8> = [code].iter().chain(text.as_bytes()).copied().collect();
        self.send(Kind::Refused, &payload);
    }

    fn allow(&self, bytes: u32) {
        let mut allowance = lock(&self.allowance);
        allowance.bytes = allowance.bytes.saturating_add(bytes).min(WINDOW);
        self.changed.notify_all();
    }

    fn close(&self) {
        lock(&self.allowance).closed = true;
        self.changed.notify_all();
        self.signal(Signal::HUP);
    }

    /// The command runs.
    pub(super) fn started(&self, group: Pid, terminal: Option<OwnedFd>) {
        *lock(&self.terminal) = terminal;
        *lock(&self.group) = Some(group);
        if lock(&self.allowance).closed {
            self.signal(Signal::HUP);
        }
    }

    /// It has ended: its number may be another's soon.
    pub(super) fn ended(&self) {
        *lock(&self.group) = None;
        *lock(&self.terminal) = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = *lock(&self.group) {
            let _gone_already = kill_process_group(group, signal);
        }
    }

    fn resize(&self, size: Size) {
        if let Some(terminal) = &*lock(&self.terminal) {
            command::resize(terminal, size);
        }
    }
}

/// Input of a session.
enum Piece {
    Data(Vec<u8>),
    /// With the number of bytes there were, if the host says it.
    End(Option<u64>),
}

/// A session's input as a stream; the host may send more as it is read.
pub(super) struct Input {
    link: Arc<Link>,
    pieces: Receiver<Piece>,
    rest: Vec<u8>,
    /// Read, and the host not yet told.
    read: u32,
    /// All that came.
    received: u64,
    over: bool,
}

impl Input {
    /// The next bytes; `None` at the end. Fails when the session was closed before, and with
    /// [`io::ErrorKind::InvalidData`] when less came than was sent.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.over {
            return Ok(None);
        }
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            return Ok(Some(rest));
        }
        match self.pieces.recv() {
            Ok(Piece::Data(bytes)) => {
                self.received = self.received.saturating_add(bytes.len() as u64);
                self.taken(bytes.len());
                Ok(Some(bytes))
            }
            Ok(Piece::End(sent)) => {
                self.over = true;
                let received = self.received;
                match sent.filter(|sent| *sent != received) {
                    None => Ok(None),
                    Some(sent) => {
                        let text =
                            format!("of {sent} bytes that were sent {received} reached the guest");
                        Err(io::Error::new(io::ErrorKind::InvalidData, text))
                    }
                }
            }
            Err(_) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
        }
    }

    fn taken(&mut self, count: usize) {
        self.read = self.read.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if self.read >= WINDOW / 4 {
            let read = std::mem::take(&mut self.read);
            self.link.unread.fetch_sub(read, Ordering::AcqRel);
            self.link.send(Kind::Credit, &read.to_le_bytes());
        }
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(mut bytes) = self.next()? else { return Ok(0) };
        let count = bytes.len().min(into.len());
        self.rest = bytes.split_off(count);
        if let Some(into) = into.get_mut(..count) {
            into.copy_from_slice(&bytes);
        }
        Ok(count)
    }
}

/// A session as the reader of the channel has it.
struct Session {
    link: Arc<Link>,
    pieces: Sender<Piece>,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<u16, Session>>);

impl Sessions {
    /// Begins a session; false when there are too many.
    pub(super) fn open(self: &Arc<Self>, id: u16, payload: &[u8], channel: &Arc<Channel>) -> bool {
        let link = Arc::new(Link::new(id, channel.clone()));
        let (pieces, receiver) = channel_of_pieces();
        let mut sessions = lock(&self.0);
        if sessions.len() >= MOST || sessions.contains_key(&id) {
            return false;
        }
        let input = Input {
            link: link.clone(),
            pieces: receiver,
            rest: Vec::new(),
            read: 0,
            received: 0,
            over: false,
        };
        let (request, all) = (Request::decode(payload), self.clone());
        let work = {
            let link = link.clone();
            move || {
                match request {
                    Some(Request::Run(command)) => command::run(&link, input, &command),
                    Some(Request::Put { path, name }) => copy::put(&link, input, &path, &name),
                    Some(Request::Get { path }) => copy::get(&link, &path),
                    None => link.refuse(exit::FAULT, "The guest does not understand the request"),
                }
                lock(&all.0).remove(&id);
            }
        };
        if std::thread::Builder::new().spawn(work).is_err() {
            return false;
        }
        sessions.insert(id, Session { link, pieces });
        true
    }

    /// Takes what the host says about a session.
    pub(super) fn take(&self, id: u16, kind: Kind, payload: Vec<u8>) {
        let mut sessions = lock(&self.0);
        let Some(session) = sessions.get(&id) else { return };
        let link = session.link.clone();
        let is_fine = match (kind, payload.as_slice()) {
            (Kind::Data, _) => {
                let count = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                let before = link.unread.fetch_add(count, Ordering::AcqRel);
                let fits = before.saturating_add(count) <= WINDOW;
                if fits {
                    let _nobody_reads_it = session.pieces.send(Piece::Data(payload));
                }
                fits
            }
            (Kind::End, bytes) => {
                let _nobody_reads_it = session.pieces.send(Piece::End(total(bytes)));
                true
            }
            (Kind::Credit, bytes) => {
                link.allow(credit(bytes).unwrap_or(0));
                true
            }
            (Kind::Signal, [number]) => {
                if let Some(signal) = Signal::from_named_raw(i32::from(*number)) {
                    link.signal(signal);
                }
                true
            }
            (Kind::Resize, bytes) => {
                if let Some(size) = Size::decode(bytes) {
                    link.resize(size);
                }
                true
            }
            (Kind::Close, _) => false,
            _ => true,
        };
        if !is_fine {
            sessions.remove(&id);
            drop(sessions);
            if kind != Kind::Close {
                link.refuse(exit::FAULT, "The host sent more than the guest allowed");
            }
            link.close();
        }
    }

    /// Ends all.
    pub(super) fn close_all(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        all.values().for_each(|session| session.link.close());
    }
}

fn channel_of_pieces() -> (Sender<Piece>, Receiver<Piece>) {
    channel()
}
