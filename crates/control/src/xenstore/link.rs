//! A domain's connection to the store, which outlives the store's process.

use super::{Door, ReachError, reach};
use crate::dirs::Dirs;
use kill_point::kill_point;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use store::{Peer, Relay, RelayError};

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause before the next attempt: after a break, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The connection of one domain. It is served by [`StoreLink::turn`] whenever the descriptor of
/// [`StoreLink::poll_fd`] is ready; when it breaks, a thread connects anew and starts the store if
/// need be.
pub struct StoreLink {
    dirs: Dirs,
    relay: Relay,
    stream: Option<UnixStream>,
    attempt: Option<Attempt>,
    /// Becomes readable when the attempt is over.
    wake: Arc<OwnedFd>,
    pause: Duration,
}

struct Attempt {
    result: Receiver<Result<UnixStream, ReachError>>,
    is_off: Arc<AtomicBool>,
}

/// What happened to a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkNews {
    /// Lines for the log.
    pub lines: Vec<String>,
}

impl StoreLink {
    /// Connects a domain and returns when the store has let it in.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses the domain.
    pub fn connect(dirs: &Dirs, peer: Peer) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let mut link = Self {
            dirs: dirs.clone(),
            relay: Relay::new(peer),
            stream: None,
            attempt: None,
            wake: Arc::new(eventfd(0, flags)?),
            pause: SHORTEST_PAUSE,
        };
        let end = Instant::now() + PATIENCE;
        while !link.relay.is_online() {
            if Instant::now() >= end {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "xenstored does not answer"));
            }
            if link.stream.is_none() {
                let stream = reach(dirs, Door::Domains).map_err(io::Error::other)?;
                link.adopt(stream)?;
                kill_point("store-link.connected");
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let _looked_at_again = poll(&mut [link.poll_fd()], Some(&wait));
            if let Err(Broken::Refused(error)) = link.exchange() {
                return Err(io::Error::other(error));
            } else if link.stream.is_none() {
                link.relay.disconnected();
            }
        }
        Ok(link)
    }

    fn adopt(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.relay.connected();
        self.stream = Some(stream);
        Ok(())
    }

    /// The guest's end.
    pub fn relay(&mut self) -> &mut Relay {
        &mut self.relay
    }

    /// What to poll for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        let Some(stream) = &self.stream else { return PollFd::new(&*self.wake, PollFlags::IN) };
        let mut flags = PollFlags::empty();
        if self.relay.takes_store_input() {
            flags |= PollFlags::IN;
        }
        if !self.relay.store_output().is_empty() {
            flags |= PollFlags::OUT;
        }
        PollFd::new(stream, flags)
    }

    /// Sends and receives what can be without waiting.
    pub fn turn(&mut self) -> LinkNews {
        let mut news = LinkNews::default();
        self.take_attempt(&mut news);
        if self.stream.is_some() {
            match self.exchange() {
                Ok(()) => {
                    if self.relay.is_online() {
                        self.pause = SHORTEST_PAUSE;
                    }
                }
                Err(Broken::Refused(error)) => {
                    news.lines.push(format!("the connection to xenstored failed: {error}"));
                    self.pause = LONGEST_PAUSE;
                }
                Err(Broken::Gone) => {
                    kill_point("store-link.broken");
                    news.lines.push("xenstored is gone; connecting anew".into());
                }
            }
        }
        if self.stream.is_none() && self.attempt.is_none() {
            self.relay.disconnected();
            self.start_attempt(&mut news);
        }
        news
    }

    fn take_attempt(&mut self, news: &mut LinkNews) {
        let Some(attempt) = &self.attempt else { return };
        let Ok(result) = attempt.result.try_recv() else { return };
        self.attempt = None;
        let mut count = [0; 8];
        let _was_clear = rustix::io::read(&*self.wake, &mut count);
        match result.map(|stream| self.adopt(stream)) {
            Ok(Ok(())) => {
                kill_point("store-link.anew");
                news.lines.push("connected to xenstored anew".into());
            }
            Ok(Err(error)) => news.lines.push(format!("cannot use xenstored's socket: {error}")),
            Err(error) => {
                news.lines.push(format!("cannot connect to xenstored: {error}"));
                self.pause = LONGEST_PAUSE;
            }
        }
    }

    /// Connects in a thread, since that may take a while.
    fn start_attempt(&mut self, news: &mut LinkNews) {
        let (sender, result) = channel();
        let is_off = Arc::new(AtomicBool::new(false));
        let (dirs, wake, off) = (self.dirs.clone(), Arc::clone(&self.wake), Arc::clone(&is_off));
        let pause = self.pause;
        self.pause = LONGEST_PAUSE.min(pause * 2);
        let connect = move || {
            std::thread::sleep(pause);
            if off.load(Ordering::SeqCst) {
                return;
            }
            let _nobody_waits = sender.send(reach(&dirs, Door::Domains));
            let _woken = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
        };
        match std::thread::Builder::new().name("store".into()).spawn(connect) {
            Ok(_) => self.attempt = Some(Attempt { result, is_off }),
            Err(error) => news.lines.push(format!("no thread to connect to xenstored: {error}")),
        }
    }

    /// Moves bytes both ways; forgets the stream if it broke.
    fn exchange(&mut self) -> Result<(), Broken> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let result = Self::exchange_with(&mut self.relay, &mut stream);
        if result.is_ok() {
            self.stream = Some(stream);
        }
        result
    }

    fn exchange_with(relay: &mut Relay, stream: &mut UnixStream) -> Result<(), Broken> {
        let mut buffer = [0; CHUNK];
        while relay.takes_store_input() {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(Broken::Gone),
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    relay.store_input(bytes).map_err(Broken::Refused)?;
                    if count < CHUNK {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken::Gone),
            }
        }
        Self::flush(relay, stream)
    }

    fn flush(relay: &mut Relay, stream: &mut UnixStream) -> Result<(), Broken> {
        while !relay.store_output().is_empty() {
            match stream.write(relay.store_output()) {
                Ok(count) => relay.store_consume(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken::Gone),
            }
        }
        Ok(())
    }

    /// Sends what waits for the store, if that is possible without waiting.
    pub fn flush_now(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        // A break is found again, and told, at the next turn.
        let _broken_or_sent = Self::flush(&mut self.relay, &mut stream);
        self.stream = Some(stream);
    }
}

impl Drop for StoreLink {
    fn drop(&mut self) {
        if let Some(attempt) = &self.attempt {
            attempt.is_off.store(true, Ordering::SeqCst);
        }
    }
}

enum Broken {
    Gone,
    Refused(RelayError),
}
