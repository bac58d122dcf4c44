//! The tools' side of a control socket.

mod inside;

use crate::entry::Entry;
use crate::error::Hint;
use crate::line::{LineError, LineReader, write_line};
use crate::protocol::{
    DomainInfo, Ended, Failure, MAX_REPLY, Request, Response, ShutdownKind, WaitUntil,
};
use crate::registry::{Registry, RegistryError};
use crate::socket;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a domain process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Errors of a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The domain is not there.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The domain process could not be reached.
    #[error("Cannot reach the process of domain {domid}: {source}")]
    Connect {
        /// Domain number.
        domid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The domain process did not answer in time.
    #[error("Domain {domid} gave no answer within {} s", after.as_secs())]
    Timeout {
        /// Domain number.
        domid: u32,
        /// How long was waited.
        after: Duration,
    },
    /// The domain process ended.
    #[error("Domain {domid} ended before it answered")]
    Ended {
        /// Domain number.
        domid: u32,
    },
    /// The connection broke or carried nonsense.
    #[error("The connection to domain {domid} failed: {source}")]
    Broken {
        /// Domain number.
        domid: u32,
        /// Why.
        #[source]
        source: LineError,
    },
    /// The domain process refused.
    #[error(transparent)]
    Refused(Failure),
    /// The answer does not belong to the request: the tools are of different versions.
    #[error("Domain {domid} gave an answer that does not fit the request")]
    Unexpected {
        /// Domain number.
        domid: u32,
    },
}

impl Hint for ClientError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Refused(failure) => failure.hint.clone(),
            Self::Timeout { domid, .. } => {
                Some(format!("'xm destroy {domid}' ends it if it stays like this."))
            }
            Self::Unexpected { .. } => {
                Some("Restart the domain with the present version of the tools.".into())
            }
            Self::Connect { .. } | Self::Ended { .. } | Self::Broken { .. } => None,
        }
    }
}

/// A connection to a domain process.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    lines: LineReader,
    domid: u32,
    patience: Duration,
}

/// A connection that carries console bytes.
#[derive(Debug)]
pub struct Console {
    /// The connection: output of the guest to read, input for it to write.
    pub stream: UnixStream,
    /// Output that was received with the header; comes before what `stream` gives.
    pub received: Vec<u8>,
    /// Bytes of history at the start of the output.
    pub history: u64,
    /// Whether input reaches the guest.
    pub writable: bool,
}

impl Client {
    /// Connects to a domain by number.
    ///
    /// # Errors
    /// When there is no such domain or its process does not listen.
    pub fn connect(registry: &Registry, domid: u32) -> Result<Self, ClientError> {
        let entry = registry.list()?.into_iter().find(|entry| entry.domid == domid);
        let unknown = || RegistryError::Unknown(domid.to_string());
        Self::open(&entry.ok_or_else(unknown)?)
    }

    /// Connects to a domain that was found in the registry.
    ///
    /// # Errors
    /// When its process does not listen.
    pub fn open(entry: &Entry) -> Result<Self, ClientError> {
        let domid = entry.domid;
        let connected = socket::connect(&entry.socket());
        let stream = connected.map_err(|source| ClientError::Connect { domid, source })?;
        Self::over(stream, domid, PATIENCE)
    }

    /// Over a connection to the process of domain `domid` on which nothing was said yet.
    ///
    /// # Errors
    /// When it is none.
    pub fn over(stream: UnixStream, domid: u32, patience: Duration) -> Result<Self, ClientError> {
        let set = stream.set_read_timeout(Some(patience));
        let set = set.and_then(|()| stream.set_write_timeout(Some(patience)));
        set.map_err(|source| ClientError::Connect { domid, source })?;
        Ok(Self { stream, lines: LineReader::new(MAX_REPLY), domid, patience })
    }

    /// The domain's number.
    pub fn domid(&self) -> u32 {
        self.domid
    }

    /// Sends a request and reads the reply line; a refusal becomes an error.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn request(&mut self, request: &Request) -> Result<Response, ClientError> {
        write_line(&mut self.stream, request).map_err(|error| self.broken(error.into()))?;
        self.reply()
    }

    /// Reads one reply.
    fn reply(&mut self) -> Result<Response, ClientError> {
        match self.lines.read(&mut self.stream) {
            Ok(Some(Response::Error(failure))) => Err(ClientError::Refused(failure)),
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(ClientError::Ended { domid: self.domid }),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: LineError) -> ClientError {
        let (domid, after) = (self.domid, self.patience);
        match error {
            LineError::Io(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    ClientError::Timeout { domid, after }
                }
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    ClientError::Ended { domid }
                }
                _ => ClientError::Broken { domid, source: error.into() },
            },
            LineError::Torn => ClientError::Ended { domid },
            source => ClientError::Broken { domid, source },
        }
    }

    /// Sends a request whose reply is [`Response::Ok`].
    ///
    /// # Errors
    /// When the domain cannot be reached, or refuses.
    pub fn order(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.request(request)? {
            Response::Ok => Ok(()),
            _ => Err(ClientError::Unexpected { domid: self.domid }),
        }
    }

    /// Sends a request whose reply is raw bytes.
    fn fetch(mut self, request: &Request) -> Result<Vec<u8>, ClientError> {
        let Response::Bytes { length } = self.request(request)? else {
            return Err(ClientError::Unexpected { domid: self.domid });
        };
        let length = length.min(MAX_REPLY as u64);
        let mut bytes = std::mem::replace(&mut self.lines, LineReader::new(0)).into_rest();
        let missing = length.saturating_sub(bytes.len() as u64);
        let read = (&self.stream).take(missing).read_to_end(&mut bytes);
        read.map_err(|error| self.broken(error.into()))?;
        if (bytes.len() as u64) < length {
            return Err(ClientError::Ended { domid: self.domid });
        }
        Ok(bytes)
    }

    /// [`Request::Info`], in brief.
    ///
    /// # Errors
    /// As [`Client::request`]; so for all methods below.
    pub fn info(&mut self) -> Result<DomainInfo, ClientError> {
        match self.request(&Request::Info { brief: true })? {
            Response::Info(info) => Ok(*info),
            _ => Err(ClientError::Unexpected { domid: self.domid }),
        }
    }

    /// [`Request::Pause`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn pause(&mut self) -> Result<(), ClientError> {
        self.order(&Request::Pause)
    }

    /// [`Request::Unpause`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn unpause(&mut self) -> Result<(), ClientError> {
        self.order(&Request::Unpause)
    }

    /// [`Request::Hold`]; the domain goes on when this client is dropped.
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn hold(&mut self) -> Result<(), ClientError> {
        self.order(&Request::Hold)
    }

    /// [`Request::Shutdown`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn shutdown(&mut self, reason: ShutdownKind) -> Result<(), ClientError> {
        self.order(&Request::Shutdown { reason })
    }

    /// [`Request::Destroy`]; returns when the domain is gone.
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn destroy(&mut self) -> Result<(), ClientError> {
        self.order(&Request::Destroy)
    }

    /// [`Request::Sysrq`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn sysrq(&mut self, key: char) -> Result<(), ClientError> {
        self.order(&Request::Sysrq { key })
    }

    /// [`Request::MemorySet`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn set_memory(&mut self, mib: u64) -> Result<(), ClientError> {
        self.order(&Request::MemorySet { mib })
    }

    /// [`Request::Rename`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn rename(&mut self, name: &str) -> Result<(), ClientError> {
        self.order(&Request::Rename { name: name.into() })
    }

    /// [`Request::Wait`]; `None` when `patience` ran out first. Without `patience`
    /// it waits for as long as it takes.
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn wait(
        mut self,
        until: WaitUntil,
        patience: Option<Duration>,
    ) -> Result<Option<Ended>, ClientError> {
        let domid = self.domid;
        let patience = patience.map(|p| p.max(Duration::from_millis(1)));
        let set = self.stream.set_read_timeout(patience);
        set.map_err(|source| ClientError::Connect { domid, source })?;
        match self.request(&Request::Wait { until }) {
            Ok(Response::Ended(ended)) => Ok(Some(ended)),
            Ok(_) => Err(ClientError::Unexpected { domid }),
            Err(ClientError::Timeout { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// [`Request::ConsoleHistory`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn console_history(self) -> Result<Vec<u8>, ClientError> {
        self.fetch(&Request::ConsoleHistory)
    }

    /// [`Request::Log`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn log(self) -> Result<Vec<u8>, ClientError> {
        self.fetch(&Request::Log)
    }

    /// [`Request::CrashReport`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn crash_report(self) -> Result<Vec<u8>, ClientError> {
        self.fetch(&Request::CrashReport)
    }

    /// [`Request::Console`].
    #[expect(clippy::missing_errors_doc, reason = "see info")]
    pub fn console(mut self) -> Result<Console, ClientError> {
        let domid = self.domid;
        let Response::Console { history, writable } = self.request(&Request::Console)? else {
            return Err(ClientError::Unexpected { domid });
        };
        let open = self.stream.set_read_timeout(None);
        open.and_then(|()| self.stream.set_write_timeout(None))
            .map_err(|source| ClientError::Connect { domid, source })?;
        Ok(Console { stream: self.stream, received: self.lines.into_rest(), history, writable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dirs, ErrorCode, Uuid, bind};
    use std::io::{BufRead, BufReader, Write};
    use std::thread::JoinHandle;

    struct Rig {
        _base: tempfile::TempDir,
        registry: Registry,
        _registration: crate::Registration,
        server: JoinHandle<Vec<String>>,
    }

    /// A registered domain whose process answers each line with the next of `replies`.
    fn serve(replies: Vec<Vec<u8>>) -> Rig {
        let base = tempfile::tempdir().unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        let registry = Registry::with_dirs(dirs).unwrap();
        let registration = registry.register("one", Uuid::random().unwrap()).unwrap();
        let listener = bind(&registration.entry().socket()).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            let mut seen = Vec::new();
            for reply in replies {
                seen.extend(lines.next().and_then(Result::ok));
                (&stream).write_all(&reply).unwrap();
            }
            seen
        });
        Rig { _base: base, registry, _registration: registration, server }
    }

    #[test]
    fn orders_and_refusals() {
        let failure = Failure::new(ErrorCode::WrongState, "it is paused").with_hint("unpause it");
        let mut refusal = serde_json::to_vec(&Response::Error(failure.clone())).unwrap();
        refusal.push(b'\n');
        let rig = serve(vec![b"{\"response\":\"ok\"}\n".to_vec(), refusal]);
        let mut client = Client::connect(&rig.registry, 1).unwrap();
        client.pause().unwrap();
        let error = client.sysrq('h').unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("unpause it"));
        assert!(matches!(error, ClientError::Refused(f) if f == failure));
        let seen = rig.server.join().unwrap();
        assert_eq!(seen, [r#"{"request":"pause"}"#, r#"{"request":"sysrq","key":"h"}"#]);
    }

    #[test]
    fn bytes_follow_their_header() {
        let rig = serve(vec![b"{\"response\":\"bytes\",\"length\":5}\na\nb\nc".to_vec()]);
        let client = Client::connect(&rig.registry, 1).unwrap();
        assert_eq!(client.console_history().unwrap(), b"a\nb\nc");
    }

    #[test]
    fn a_process_that_ends_is_told_from_one_that_is_silent() {
        let rig = serve(vec![b"{\"respon".to_vec()]);
        let mut client = Client::connect(&rig.registry, 1).unwrap();
        assert!(matches!(client.info(), Err(ClientError::Ended { domid: 1 })));

        let rig = serve(vec![Vec::new(), Vec::new()]);
        let client = Client::connect(&rig.registry, 1).unwrap();
        let ended = client.wait(WaitUntil::Gone, Some(Duration::from_millis(20))).unwrap();
        assert_eq!(ended, None);
        assert!(matches!(Client::connect(&rig.registry, 2), Err(ClientError::Registry(_))));
    }
}
