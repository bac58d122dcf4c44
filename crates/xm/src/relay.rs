//! The console relay: bytes between the user's side and a domain, in both directions.
//!
//! One `poll` loop without threads. Input is cut off for back-pressure only when it does not
//! come from a terminal: on a terminal the escape must work even if the guest does not read.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::SIGTSTP;

use crate::signals::{ENDING, Signals};
use crate::terminal::RawTerminal;

/// Ctrl+], which most terminals also send for Ctrl+5.
pub const ESCAPE: u8 = 0x1d;

/// Largest read from either side, in bytes.
const CHUNK: usize = 4096;

/// Largest write to the user's side, in bytes. POSIX lets a pipe that polls as writable take
/// this much without blocking (`PIPE_BUF` on Linux).
const SAFE_WRITE: usize = 4096;

/// Input that waits for the guest is bounded by this many bytes.
const MOST_INPUT: usize = 64 * 1024;

/// The user's side of a console.
#[derive(Debug)]
pub struct User<'a> {
    /// Where input comes from.
    pub input: BorrowedFd<'a>,
    /// Where output goes.
    pub output: BorrowedFd<'a>,
    /// Held when the input is a terminal, which is in raw mode then.
    pub terminal: Option<&'a RawTerminal>,
}

/// Why the relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The domain closed its console: it ended.
    DomainEnded,
    /// The user typed the escape.
    Left,
    /// The user's terminal went away.
    TerminalGone,
    /// Nobody reads the output any more.
    OutputClosed,
    /// A signal asked this program to end.
    Signal(i32),
}

/// Relays until one side ends.
///
/// `received` is output that came before `domain` is read. With `writable` false what the user
/// types is dropped, but the escape still works.
///
/// # Errors
///
/// When polling, reading or writing fails in an unexpected way.
pub fn relay(
    user: &User<'_>,
    domain: UnixStream,
    received: Vec<u8>,
    writable: bool,
    signals: &mut Signals,
) -> std::io::Result<End> {
    domain.set_nonblocking(true)?;
    let relay = Relay {
        user,
        domain,
        writable,
        to_user: received,
        to_domain: Vec::new(),
        input_open: true,
        domain_open: true,
    };
    relay.run(signals)
}

struct Relay<'a> {
    user: &'a User<'a>,
    domain: UnixStream,
    writable: bool,
    to_user: Vec<u8>,
    to_domain: Vec<u8>,
    input_open: bool,
    domain_open: bool,
}

/// Which descriptors are ready.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    signal: bool,
    input: bool,
    output: bool,
    domain_read: bool,
    domain_write: bool,
}

impl Relay<'_> {
    fn run(mut self, signals: &mut Signals) -> std::io::Result<End> {
        loop {
            if !self.domain_open && self.to_user.is_empty() {
                return Ok(End::DomainEnded);
            }
            let ready = self.wait(signals)?;
            let end = if ready.signal { self.on_signals(signals)? } else { None };
            let end = match end {
                None if ready.input => self.read_input()?,
                other => other,
            };
            let end = match end {
                None if ready.output => self.write_output()?,
                other => other,
            };
            if let Some(end) = end {
                return Ok(end);
            }
            if ready.domain_write {
                self.write_domain()?;
            }
            if ready.domain_read {
                self.read_domain()?;
            }
        }
    }

    fn wants_input(&self) -> bool {
        self.input_open && (self.user.terminal.is_some() || self.to_domain.len() < MOST_INPUT)
    }

    fn wait(&self, signals: &Signals) -> std::io::Result<Ready> {
        let when = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        let reads_domain = self.domain_open && self.to_user.is_empty();
        let writes_domain = self.domain_open && !self.to_domain.is_empty();
        let domain_flags = when(reads_domain, PollFlags::IN) | when(writes_domain, PollFlags::OUT);
        let signal = signals.fd();
        let mut fds = vec![PollFd::from_borrowed_fd(signal, PollFlags::IN)];
        // A descriptor that is not wanted is left out: poll would report its hang-up for ever.
        let mut place = |wanted: bool, fd, flags| {
            wanted.then(|| {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                fds.len() - 1
            })
        };
        let domain_fd = std::os::fd::AsFd::as_fd(&self.domain);
        let input = place(self.wants_input(), self.user.input, PollFlags::IN);
        let output = place(!self.to_user.is_empty(), self.user.output, PollFlags::OUT);
        let domain = place(!domain_flags.is_empty(), domain_fd, domain_flags);
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let seen = |index: Option<usize>| {
            index.and_then(|index| fds.get(index)).map_or(PollFlags::empty(), PollFd::revents)
        };
        let broken = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        Ok(Ready {
            signal: !seen(Some(0)).is_empty(),
            input: !seen(input).is_empty(),
            output: !seen(output).is_empty(),
            domain_read: reads_domain && seen(domain).intersects(PollFlags::IN | broken),
            domain_write: writes_domain && seen(domain).intersects(PollFlags::OUT | broken),
        })
    }

    fn on_signals(&self, signals: &mut Signals) -> std::io::Result<Option<End>> {
        for signal in signals.take() {
            if ENDING.contains(&signal) {
                return Ok(Some(End::Signal(signal)));
            }
            if signal == SIGTSTP {
                self.stop()?;
            }
        }
        Ok(None)
    }

    /// Stops as job control asks, with the terminal as it was.
    fn stop(&self) -> std::io::Result<()> {
        if let Some(terminal) = self.user.terminal {
            terminal.suspend();
        }
        crate::signals::obey(SIGTSTP);
        match self.user.terminal {
            Some(terminal) => terminal.make_raw().map_err(std::io::Error::other),
            None => Ok(()),
        }
    }

    fn read_input(&mut self) -> std::io::Result<Option<End>> {
        let on_terminal = self.user.terminal.is_some();
        let mut chunk = [0; CHUNK];
        let count = match rustix::io::read(self.user.input, &mut chunk) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(None),
            Err(Errno::IO) if on_terminal => return Ok(Some(End::TerminalGone)),
            Err(errno) => return Err(errno.into()),
        };
        let typed = chunk.get(..count).unwrap_or_default();
        match typed {
            [] if on_terminal => return Ok(Some(End::TerminalGone)),
            [] => self.input_open = false,
            // Alone in a read: inside pasted or piped data it is just a byte.
            [ESCAPE] => return Ok(Some(End::Left)),
            _ if self.writable && self.to_domain.len() < MOST_INPUT => {
                self.to_domain.extend_from_slice(typed);
            }
            _ => {}
        }
        Ok(None)
    }

    fn write_output(&mut self) -> std::io::Result<Option<End>> {
        let part = self.to_user.get(..SAFE_WRITE).unwrap_or(&self.to_user);
        match rustix::io::write(self.user.output, part) {
            Ok(count) => {
                self.to_user.drain(..count.min(self.to_user.len()));
                Ok(None)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(None),
            Err(Errno::PIPE) => Ok(Some(End::OutputClosed)),
            Err(Errno::IO) if self.user.terminal.is_some() => Ok(Some(End::TerminalGone)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_domain(&mut self) -> std::io::Result<()> {
        match self.domain.write(&self.to_domain) {
            Ok(count) => {
                self.to_domain.drain(..count.min(self.to_domain.len()));
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                // What it still wanted to say is read first; that end is the one that counts.
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                    self.to_domain.clear();
                    self.writable = false;
                }
                _ => return Err(error),
            },
        }
        Ok(())
    }

    fn read_domain(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; CHUNK];
        match self.domain.read(&mut chunk) {
            Ok(0) => self.domain_open = false,
            Ok(count) => self.to_user.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => self.domain_open = false,
                _ => return Err(error),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::thread;

    /// Runs a relay with socket pairs as the user's input and output.
    fn rig(
        writable: bool,
        received: &[u8],
        play: impl FnOnce(UnixStream, UnixStream, UnixStream) + Send + 'static,
    ) -> End {
        let (input, typing) = UnixStream::pair().unwrap();
        let (output, screen) = UnixStream::pair().unwrap();
        let (domain, guest) = UnixStream::pair().unwrap();
        let player = thread::spawn(move || play(typing, screen, guest));
        let user = User { input: input.as_fd(), output: output.as_fd(), terminal: None };
        let mut signals = Signals::catch().unwrap();
        let end = relay(&user, domain, received.to_vec(), writable, &mut signals).unwrap();
        drop(output);
        player.join().unwrap();
        end
    }

    #[test]
    fn both_directions_and_the_history_first() {
        let end = rig(true, b"boot\n", |mut typing, mut screen, mut guest| {
            typing.write_all(b"ls\n").unwrap();
            let mut line = [0; 3];
            guest.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"ls\n");
            guest.write_all(b"files\n").unwrap();
            drop(guest);
            let mut text = String::new();
            screen.read_to_string(&mut text).unwrap();
            assert_eq!(text, "boot\nfiles\n");
        });
        assert_eq!(end, End::DomainEnded);
    }

    #[test]
    fn a_long_output_is_whole() {
        let end = rig(true, b"", |typing, mut screen, mut guest| {
            let writer = thread::spawn(move || {
                for number in 0..20_000u32 {
                    guest.write_all(&number.to_le_bytes()).unwrap();
                }
            });
            let mut all = vec![0; 80_000];
            screen.read_exact(&mut all).unwrap();
            let numbers =
                all.chunks_exact(4).map(|part| u32::from_le_bytes(part.try_into().unwrap()));
            assert!(numbers.eq(0..20_000));
            writer.join().unwrap();
            drop(typing);
        });
        assert_eq!(end, End::DomainEnded);
    }

    #[test]
    fn the_escape_counts_only_alone() {
        let end = rig(true, b"", |mut typing, _screen, mut guest| {
            typing.write_all(&[b'a', ESCAPE]).unwrap();
            let mut got = [0; 2];
            guest.read_exact(&mut got).unwrap();
            assert_eq!(got, [b'a', ESCAPE]);
            typing.write_all(&[ESCAPE]).unwrap();
            assert_eq!(guest.read(&mut got).unwrap(), 0);
        });
        assert_eq!(end, End::Left);
    }

    #[test]
    fn a_reader_does_not_type_but_can_leave() {
        let end = rig(false, b"", |mut typing, mut screen, mut guest| {
            typing.write_all(b"rm -rf /\n").unwrap();
            guest.write_all(b"x").unwrap();
            screen.read_exact(&mut [0]).unwrap();
            typing.write_all(&[ESCAPE]).unwrap();
            let mut rest = Vec::new();
            guest.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"");
        });
        assert_eq!(end, End::Left);
    }

    #[test]
    fn the_end_of_a_file_on_input_is_not_the_end() {
        let end = rig(true, b"", |typing, mut screen, mut guest| {
            drop(typing);
            guest.write_all(b"later").unwrap();
            drop(guest);
            let mut text = String::new();
            screen.read_to_string(&mut text).unwrap();
            assert_eq!(text, "later");
        });
        assert_eq!(end, End::DomainEnded);
    }

    #[test]
    fn a_closed_output_ends_it() {
        let end = rig(true, b"", |typing, screen, mut guest| {
            drop(screen);
            guest.write_all(b"x").unwrap();
            assert_eq!(guest.read(&mut [0]).unwrap(), 0);
            drop(typing);
        });
        assert_eq!(end, End::OutputClosed);
    }

    #[test]
    fn input_that_nobody_reads_is_held_back_not_hoarded() {
        let end = rig(true, b"", |typing, _screen, guest| {
            typing.set_nonblocking(true).unwrap();
            let mut sent = 0;
            let mut stalls = 0;
            while stalls < 20 {
                match (&typing).write(&[b'x'; 4096]) {
                    Ok(count) => sent += count,
                    Err(_) => {
                        stalls += 1;
                        thread::sleep(std::time::Duration::from_millis(10));
                    }
                }
            }
            assert!(sent < 4 << 20, "{sent} bytes were taken");
            drop(guest);
        });
        assert_eq!(end, End::DomainEnded);
    }
}
