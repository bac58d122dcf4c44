//! Conversations with domains' processes, in their own protocol.

use control::{
    ClientError, Entry, ErrorCode, Failure, Hint, LineError, MAX_REPLY, RegistryError, Request,
    Response, connect_now,
};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// How long a domain may take to answer an order.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often a process is tried that has no room for another connection.
const RETRY: Duration = Duration::from_millis(50);

async fn connect(entry: &Entry) -> Result<std::os::unix::net::UnixStream, ClientError> {
    let domid = entry.domid;
    loop {
        match connect_now(&entry.socket()) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY).await,
            Err(source) => return Err(ClientError::Connect { domid, source }),
        }
    }
}

/// A connection to its process, on which nothing was said yet, and which blocks.
///
/// # Errors
/// When nobody listens, or the process has no room for another connection for [`PATIENCE`].
pub async fn connection(entry: &Entry) -> Result<OwnedFd, ClientError> {
    let late = |_| ClientError::Timeout { domid: entry.domid, after: PATIENCE };
    let stream = timeout(PATIENCE, connect(entry)).await.map_err(late)??;
    let broken = |source| ClientError::Connect { domid: entry.domid, source };
    stream.set_nonblocking(false).map_err(broken)?;
    Ok(stream.into())
}

/// A connection to a domain's process.
#[derive(Debug)]
pub struct Talk {
    stream: BufReader<UnixStream>,
    domid: u32,
}

impl Talk {
    /// Connects, however long the process has no room for another connection.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(entry: &Entry) -> Result<Self, ClientError> {
        Self::over(connect(entry).await?, entry.domid)
    }

    fn over(stream: std::os::unix::net::UnixStream, domid: u32) -> Result<Self, ClientError> {
        let stream = UnixStream::from_std(stream);
        let stream = stream.map_err(|source| ClientError::Connect { domid, source })?;
        Ok(Self { stream: BufReader::new(stream), domid })
    }

    /// Sends a request and waits for its reply; a refusal is an error.
    ///
    /// # Errors
    /// As [`control::Client::request`], but it does not give up.
    pub async fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let line = line(request).map_err(|error| self.broken(error))?;
        self.exchange(&line).await
    }

    /// Sends `line`, or the rest of it, and waits for the reply.
    async fn exchange(&mut self, line: &[u8]) -> Result<Response, ClientError> {
        match self.reply_to(line).await {
            Ok(Response::Error(failure)) => Err(ClientError::Refused(failure)),
            Ok(response) => Ok(response),
            Err(error) => Err(self.broken(error)),
        }
    }

    async fn reply_to(&mut self, line: &[u8]) -> Result<Response, LineError> {
        self.stream.write_all(line).await?;
        let mut line = Vec::new();
        let limited = &mut (&mut self.stream).take(MAX_REPLY as u64);
        limited.read_until(b'\n', &mut line).await?;
        if line.last() == Some(&b'\n') {
            return Ok(serde_json::from_slice(&line)?);
        }
        Err(if line.len() < MAX_REPLY {
            LineError::Torn
        } else {
            LineError::TooLong { limit: MAX_REPLY }
        })
    }

    /// As [`Talk::ask`], for a request whose reply is raw bytes.
    ///
    /// # Errors
    /// As [`Talk::ask`].
    pub async fn fetch(&mut self, request: &Request) -> Result<Vec<u8>, ClientError> {
        let Response::Bytes { length } = self.ask(request).await? else {
            return Err(ClientError::Unexpected { domid: self.domid });
        };
        let mut bytes = Vec::new();
        let limit = length.min(MAX_REPLY as u64);
        let read = (&mut self.stream).take(limit).read_to_end(&mut bytes).await;
        read.map_err(|error| self.broken(error.into()))?;
        if (bytes.len() as u64) < limit {
            return Err(ClientError::Ended { domid: self.domid });
        }
        Ok(bytes)
    }

    fn broken(&self, error: LineError) -> ClientError {
        let domid = self.domid;
        let is_end = match &error {
            LineError::Torn => true,
            LineError::Io(error) => {
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            }
            _ => false,
        };
        if is_end {
            ClientError::Ended { domid }
        } else {
            ClientError::Broken { domid, source: error }
        }
    }
}

fn line(request: &Request) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(line)
}

/// Connects and asks one thing. The request follows the connection so closely that the process finds both
/// when it wakes up.
async fn ask_once(entry: &Entry, request: &Request) -> Result<Response, ClientError> {
    let domid = entry.domid;
    let line = line(request).map_err(|source| ClientError::Broken { domid, source })?;
    let stream = connect(entry).await?;
    // An error comes again with the rest.
    let sent = (&stream).write(&line).unwrap_or(0);
    let mut talk = Talk::over(stream, domid)?;
    talk.exchange(line.get(sent..).unwrap_or_default()).await
}

/// Asks one thing and waits at most `patience`.
///
/// # Errors
/// As [`control::Client::request`].
pub async fn ask(
    entry: &Entry,
    request: &Request,
    patience: Duration,
) -> Result<Response, ClientError> {
    let late = |_| ClientError::Timeout { domid: entry.domid, after: patience };
    timeout(patience, ask_once(entry, request)).await.map_err(late)?
}

/// Gives an order whose reply is [`Response::Ok`].
///
/// # Errors
/// As [`ask`].
pub async fn order(
    entry: &Entry,
    request: &Request,
    patience: Duration,
) -> Result<(), ClientError> {
    match ask(entry, request, patience).await? {
        Response::Ok => Ok(()),
        _ => Err(ClientError::Unexpected { domid: entry.domid }),
    }
}

/// An error as it travels.
pub fn failure(error: &ClientError) -> Failure {
    let code = match error {
        ClientError::Refused(failure) => return failure.clone(),
        ClientError::Registry(error) => return registry_failure(error),
        ClientError::Timeout { .. } => ErrorCode::Timeout,
        ClientError::Ended { .. } => ErrorCode::Ended,
        ClientError::Connect { .. } | ClientError::Broken { .. } => ErrorCode::Host,
        ClientError::Unexpected { .. } => ErrorCode::NotSupported,
    };
    hinted(Failure::new(code, error.to_string()), error.hint())
}

/// An error of the registry as it travels.
pub fn registry_failure(error: &RegistryError) -> Failure {
    let code = match error {
        RegistryError::NameTaken { .. } | RegistryError::UuidTaken { .. } => ErrorCode::Busy,
        RegistryError::Unknown(_) => ErrorCode::NotFound,
        RegistryError::BadName { .. } => ErrorCode::Config,
        RegistryError::Path(_) | RegistryError::NoNumber => ErrorCode::Host,
    };
    hinted(Failure::new(code, error.to_string()), error.hint())
}

/// A failure with a hint, if there is one.
pub fn hinted(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
