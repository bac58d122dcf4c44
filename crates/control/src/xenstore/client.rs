//! A client of the store that waits for each reply: for tools and backends, as domain 0.

use super::{Door, ReachError, reach};
use crate::dirs::Dirs;
use kill_point::kill_point;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use store::Errno;
use store::wire::{HEADER_SIZE, Header, MAX_PAYLOAD, MessageType};

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an order is given to a store that dies meanwhile.
const MOST_TRIES: u32 = 10;
/// How often a transaction is tried that others disturb.
const MOST_CONFLICTS: u32 = 100;

/// Errors of a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The connection broke, or the store did not answer in time.
    #[error("The connection to xenstored failed: {0}")]
    Io(#[from] io::Error),
    /// The store refused a request.
    #[error("xenstored refused to {what} {path}: {}", errno.name())]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Of which node.
        path: String,
        /// Its answer.
        errno: Errno,
    },
    /// The reply is nonsense.
    #[error("xenstored gave no proper answer")]
    Nonsense,
    /// Others changed the same nodes again and again.
    #[error("Others disturb each transaction")]
    Disturbed,
}

/// A connection to the store.
#[derive(Debug)]
pub struct StoreClient {
    stream: UnixStream,
    last: u32,
    /// Events that came while something else was waited for.
    events: VecDeque<WatchEvent>,
}

/// Something changed below a watched node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed.
    pub path: String,
    /// What the watch was registered with.
    pub token: String,
}

/// An open transaction; without [`Transaction::commit`] nothing is changed.
#[derive(Debug)]
pub struct Transaction<'a> {
    client: &'a mut StoreClient,
    id: u32,
}

impl StoreClient {
    /// Connects to the store of these directories, which is started if it does not run.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn connect(dirs: &Dirs) -> Result<Self, StoreError> {
        let stream = reach(dirs, Door::Clients)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, last: 0, events: VecDeque::new() })
    }

    /// Gives an order to the store: again if the store ends before it is done, so it must be one
    /// that may be given twice.
    ///
    /// # Errors
    /// When the store cannot be reached, or the order fails.
    pub fn order<T>(
        dirs: &Dirs,
        mut order: impl FnMut(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 1;
        loop {
            match Self::connect(dirs).and_then(|mut client| order(&mut client)) {
                Err(StoreError::Io(error)) if tries < MOST_TRIES && is_break(&error) => tries += 1,
                other => return other,
            }
        }
    }

    /// Gives an order in one transaction: all of it is done, or nothing.
    ///
    /// # Errors
    /// As [`StoreClient::order`].
    pub fn at_once(
        dirs: &Dirs,
        mut order: impl FnMut(&mut Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        Self::order(dirs, |client| {
            for _ in 0..MOST_CONFLICTS {
                let mut transaction = client.begin()?;
                kill_point("store-transaction.begun");
                order(&mut transaction)?;
                kill_point("store-transaction.filled");
                if transaction.commit()? {
                    return Ok(());
                }
            }
            Err(StoreError::Disturbed)
        })
    }

    /// Sends a request and gives the payload of its reply, or the error's name.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn call(
        &mut self,
        kind: MessageType,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Result<Vec<u8>, Errno>, StoreError> {
        self.last = self.last.wrapping_add(1);
        let header = Header { kind: kind as u32, request: self.last, transaction, length: 0 };
        self.stream.write_all(&header.encode(payload))?;
        loop {
            let (header, payload) = self.message()?;
            if header.kind == MessageType::WatchEvent as u32 {
                self.note(&payload)?;
                continue;
            }
            if header.request != self.last {
                return Err(StoreError::Nonsense);
            }
            if header.kind != MessageType::Error as u32 {
                return Ok(Ok(payload));
            }
            let name = payload.strip_suffix(b"\0").and_then(|name| std::str::from_utf8(name).ok());
            return Ok(Err(name.and_then(Errno::from_name).ok_or(StoreError::Nonsense)?));
        }
    }

    fn note(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let text = std::str::from_utf8(payload).map_err(|_| StoreError::Nonsense)?;
        let mut words = text.split('\0').map(str::to_owned);
        let (Some(path), Some(token)) = (words.next(), words.next()) else {
            return Err(StoreError::Nonsense);
        };
        self.events.push_back(WatchEvent { path, token });
        Ok(())
    }

    /// Asks for events of a node and all below it; there is one at once.
    ///
    /// # Errors
    /// When the connection fails or the store refuses.
    pub fn watch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        let payload = format!("{path}\0{token}\0");
        self.ask("watch", MessageType::Watch, 0, path, payload.as_bytes()).map(drop)
    }

    /// Events so far, without waiting. The client's descriptor is readable when there are more,
    /// except for those that came with a reply: so this is called before each wait.
    ///
    /// # Errors
    /// When the connection fails: watches are gone with it.
    pub fn take_events(&mut self) -> Result<Vec<WatchEvent>, StoreError> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        while poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&at_once)) == Ok(1) {
            let (header, payload) = self.message()?;
            if header.kind != MessageType::WatchEvent as u32 {
                return Err(StoreError::Nonsense);
            }
            self.note(&payload)?;
        }
        Ok(self.events.drain(..).collect())
    }

    fn message(&mut self) -> Result<(Header, Vec<u8>), StoreError> {
        let mut head = [0; HEADER_SIZE];
        self.stream.read_exact(&mut head)?;
        let header = Header::decode(&head);
        let length = header.length as usize;
        if length > MAX_PAYLOAD {
            return Err(StoreError::Nonsense);
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok((header, payload))
    }

    /// Starts a transaction.
    ///
    /// # Errors
    /// When the connection fails, or the store has no room.
    pub fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        let kind = MessageType::TransactionStart;
        let reply = self.ask("start a transaction", kind, 0, "", b"\0")?;
        let id = std::str::from_utf8(&reply).ok().and_then(|text| text.strip_suffix('\0'));
        let id = id.and_then(|text| text.parse().ok()).ok_or(StoreError::Nonsense)?;
        Ok(Transaction { client: self, id })
    }

    /// Requests outside of transactions.
    pub fn direct(&mut self) -> Transaction<'_> {
        Transaction { client: self, id: 0 }
    }

    fn ask(
        &mut self,
        what: &'static str,
        kind: MessageType,
        transaction: u32,
        path: &str,
        payload: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        self.call(kind, transaction, payload)?.map_err(|errno| StoreError::Refused {
            what,
            path: path.into(),
            errno,
        })
    }
}

impl AsFd for StoreClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Transaction<'_> {
    fn ask(
        &mut self,
        what: &'static str,
        kind: MessageType,
        path: &str,
        rest: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let payload = [path.as_bytes(), b"\0", rest].concat();
        self.client.ask(what, kind, self.id, path, &payload)
    }

    /// The value of a node; `None` if there is no such node.
    ///
    /// # Errors
    /// When the connection fails or the store refuses; so for all methods below.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.ask("read", MessageType::Read, path, b"") {
            Err(StoreError::Refused { errno: Errno::Enoent, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Names of the nodes below a node; none if there is no such node.
    #[expect(clippy::missing_errors_doc, reason = "see read")]
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError> {
        let names = match self.ask("list", MessageType::Directory, path, b"") {
            Err(StoreError::Refused { errno: Errno::Enoent, .. }) => return Ok(Vec::new()),
            other => other?,
        };
        let text = String::from_utf8(names).map_err(|_| StoreError::Nonsense)?;
        Ok(text.split_terminator('\0').map(str::to_owned).collect())
    }

    /// Sets the value of a node, which is created if need be.
    #[expect(clippy::missing_errors_doc, reason = "see read")]
    pub fn write(&mut self, path: &str, value: impl AsRef<[u8]>) -> Result<(), StoreError> {
        self.ask("write", MessageType::Write, path, value.as_ref()).map(drop)
    }

    /// Removes a node with all below it, if it exists.
    #[expect(clippy::missing_errors_doc, reason = "see read")]
    pub fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        match self.ask("remove", MessageType::Rm, path, b"") {
            Err(StoreError::Refused { errno: Errno::Enoent, .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sets the permissions of a node, such as `["n0", "r5"]`.
    #[expect(clippy::missing_errors_doc, reason = "see read")]
    pub fn permit(&mut self, path: &str, permissions: &[&str]) -> Result<(), StoreError> {
        let list: String = permissions.iter().map(|entry| format!("{entry}\0")).collect();
        self.ask("set the permissions of", MessageType::SetPerms, path, list.as_bytes()).map(drop)
    }

    /// Brings the changes in; whether that went without a conflict.
    #[expect(clippy::missing_errors_doc, reason = "see read")]
    pub fn commit(self) -> Result<bool, StoreError> {
        let kind = MessageType::TransactionEnd;
        match self.client.call(kind, self.id, b"T\0")? {
            Ok(_) => Ok(true),
            Err(Errno::Eagain) => Ok(false),
            Err(errno) => {
                Err(StoreError::Refused { what: "end a transaction", path: String::new(), errno })
            }
        }
    }
}

/// Whether the error means that the store's process is gone.
fn is_break(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    )
}
