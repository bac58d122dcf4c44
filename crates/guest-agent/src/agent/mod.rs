//! The agent: serves sessions on the guest's channel, and the next channel when that one is gone.
//!
//! One thread reads the channel and never waits for anything else; each session has threads of its
//! own, which wait for commands, files, and for the host to take what they send.

mod command;
mod copy;
mod device;
mod inbox;
mod session;
mod store;
mod terminal;

pub use terminal::{OPTION as TERMINAL_OPTION, run as run_on_terminal};

use crate::frame::{self, Decoder, Frame};
use crate::message::Kind;
use crate::{VERSION, exit};
use inbox::{Inbox, Word};
use session::{Channel, Sessions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Pause before a channel that broke is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves for ever.
pub fn run(device: Option<&Path>) -> ExitCode {
    if let Err(error) = heed_signals() {
        eprintln!("xenguest: signals cannot be caught: {error}");
        return ExitCode::FAILURE;
    }
    loop {
        let served = device::open(device).and_then(serve);
        if let Err(error) = served {
            eprintln!("xenguest: the channel broke: {error}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Commands inherit what is ignored here, as a shell ignores some signals for what it starts in the
/// background; what is caught is theirs again (execve(2)).
fn heed_signals() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}

/// Serves a channel until it is gone.
fn serve(terminal: File) -> io::Result<()> {
    let mut input = terminal.try_clone()?;
    let channel = Arc::new(Channel::new(terminal));
    // What an agent before this one sent may have broken off.
    channel.resynchronise()?;
    channel.send(0, Kind::Started, &[])?;
    let mut agent = Agent {
        sessions: Arc::new(Sessions::default()),
        channel,
        host: None,
        inbox: Inbox::default(),
    };
    let outcome = agent.read(&mut input);
    agent.sessions.close_all();
    outcome
}

struct Agent {
    sessions: Arc<Sessions>,
    channel: Arc<Channel>,
    /// What the host calls itself.
    host: Option<Vec<u8>>,
    inbox: Inbox,
}

impl Agent {
    fn read(&mut self, input: &mut File) -> io::Result<()> {
        let mut decoder = Decoder::default();
        let mut nonsense = 0;
        let mut bytes = [0; 4096];
        loop {
            match input.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => decoder.push(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(frame) = decoder.next_frame() {
                self.take(&frame)?;
            }
            if self.host.is_some() {
                let torn = decoder.nonsense() > nonsense;
                let missing = if torn { self.inbox.miss() } else { None };
                let word = missing.or_else(|| self.inbox.tell(decoder.is_between_frames()));
                self.say(word)?;
            }
            nonsense = decoder.nonsense();
        }
    }

    fn say(&self, word: Option<Word>) -> io::Result<()> {
        let (kind, number) = match word {
            Some(Word::Came(number)) => (Kind::Came, number),
            Some(Word::Again(number)) => (Kind::Again, number),
            None => return Ok(()),
        };
        self.channel.send(0, kind, &number.to_le_bytes())
    }

    fn take(&mut self, frame: &Frame) -> io::Result<()> {
        let session = frame.session;
        match Kind::from_number(frame.kind) {
            Some(Kind::Hello) if session == 0 => return self.greet(&frame.payload),
            _ if session == 0 || self.host.is_none() => return Ok(()),
            _ => {}
        }
        let Some((number, payload)) = frame::number(&frame.payload) else { return Ok(()) };
        if !self.inbox.take(number) {
            let word = if self.inbox.is_beyond(number) { self.inbox.miss() } else { None };
            return self.say(word);
        }
        match Kind::from_number(frame.kind) {
            Some(Kind::Open) => {
                if !self.sessions.open(session, payload, &self.channel) {
                    let text = b"The guest has too many commands and copies under way";
                    let payload: Vec<u8> = [exit::FAULT].iter().chain(text).copied().collect();
                    self.channel.send(session, Kind::Refused, &payload)?;
                }
                Ok(())
            }
            Some(kind) => {
                self.sessions.take(session, kind, payload.to_vec());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn greet(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some((_, name)) = payload.split_first() else { return Ok(()) };
        if self.host.as_deref() != Some(name) {
            // Another one than before knows nothing of these.
            self.sessions.close_all();
            self.host = Some(name.to_vec());
            self.inbox = Inbox::default();
        }
        let answer: Vec<u8> = [VERSION].iter().chain(name).copied().collect();
        self.channel.send(0, Kind::Ready, &answer)
    }
}

#[cfg(test)]
mod tests;
